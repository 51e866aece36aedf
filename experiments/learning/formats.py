"""Readers of the files in which image sets are published, strict about damaged ones.

`idx` reads the four files of MNIST, Fashion-MNIST and their kin; `cifar10` the binary batches.
Both return uint8 images `[count, height, width, channels]` with their labels `[count]`, first the
training set, then the test set. A file that is missing raises `FileNotFoundError`, one that
does not hold what it should a `ValueError`; either names the file.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

Labelled = tuple[np.ndarray, np.ndarray]

_UNSIGNED_BYTE = 8
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_CLASSES = 10


def idx(directory: Path) -> tuple[Labelled, Labelled]:
    """The training and the test set of four IDX files, each of them gzipped or not."""
    return _idx_pair(directory, "train"), _idx_pair(directory, "t10k")


def _idx_pair(directory: Path, part: str) -> Labelled:
    images = _read_idx(_find(directory, f"{part}-images-idx3-ubyte"), rank=3)
    labels = _read_idx(_find(directory, f"{part}-labels-idx1-ubyte"), rank=1)
    if not 0 < len(images) == len(labels):
        raise ValueError(
            f"{directory}: the `{part}` files must hold images, and a label for each; "
            f"got {len(images)} images and {len(labels)} labels."
        )
    return images[..., None], labels


def _find(directory: Path, name: str) -> Path:
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{directory} must hold {name} or {name}.gz; it holds neither.")


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """An IDX file: two zeros, the type, the rank, big-endian int32 sizes, then the bytes."""
    content = _read_bytes(path)
    magic = bytes([0, 0, _UNSIGNED_BYTE, rank])
    header = len(magic) + 4 * rank
    if not content.startswith(magic) or len(content) < header:
        raise ValueError(
            f"{path} must begin like an IDX file of unsigned bytes with {rank} axes; "
            f"got {len(content)} bytes that begin with {content[:4].hex(' ') or 'nothing'}."
        )
    shape = tuple(np.frombuffer(content, ">u4", rank, len(magic)).tolist())
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"{path} must have {expected} bytes, for its header announces shape {shape}; "
            f"got {len(content)}: it is truncated or damaged."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} must be a whole gzip file; it is damaged: {error}.") from error


def cifar10(directory: Path) -> tuple[Labelled, Labelled]:
    """The training and the test set of CIFAR-10's binary version."""
    batches = [_read_cifar10(directory / f"data_batch_{number}.bin") for number in range(1, 6)]
    images, labels = zip(*batches, strict=True)
    train = np.concatenate(images), np.concatenate(labels)
    return train, _read_cifar10(directory / "test_batch.bin")


def _read_cifar10(path: Path) -> Labelled:
    """A batch: per image a byte for its class, then red, green and blue, row by row."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} must hold {path.name}; it does not.")
    content = path.read_bytes()
    record = 1 + math.prod(_CIFAR_SHAPE)
    if not content or len(content) % record:
        raise ValueError(
            f"{path} must hold a multiple of {record} bytes, one image each; "
            f"got {len(content)}: it is truncated or damaged."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels, pixels = records[:, 0], records[:, 1:]
    if labels.max() >= _CIFAR_CLASSES:
        raise ValueError(
            f"{path} must hold classes below {_CIFAR_CLASSES}; got {labels.max()}: it is damaged."
        )
    return pixels.reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1), labels
