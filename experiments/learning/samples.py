"""Real data of one to four dimensions, each with a question of classes.

Signals of MNIST-1D (Greydanus and Kobak 2024; generated here), digits (2D), and a magnetic
resonance scan that ships with nibabel: patches of a head in space (3D) and time (4D). In 1D and 2D
the classes are the digits; in 3D and 4D the question is whether a patch's slices are in order.
"""

from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from mnist1d.data import get_dataset_args, make_dataset
from sklearn.datasets import load_digits

_SCAN = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
_PATCH, _STEP = (12, 12, 6), (6, 6, 3)
_SHUFFLED = [2, 0, 4, 1, 5, 3]
_HELD_OUT = 4  # of the scan, every fourth block of the first axis is for testing


class Samples(NamedTuple):
    """`[count, *size, 1]` of mean 0 and variance 1, and their classes, in training and test."""

    source: str
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load(dimensions: int) -> Samples:
    """The data of so many dimensions."""
    return (_signals, _digits, _volumes, _films)[dimensions - 1]()


def _signals() -> Samples:
    made = make_dataset(get_dataset_args())
    return _samples("MNIST-1D, generated", made["x"], made["y"], made["x_test"], made["y_test"])


def _digits() -> Samples:
    images, labels = load_digits().images, load_digits().target  # type: ignore[attr-defined]
    test = np.arange(len(images)) % 5 == 0
    return _samples("handwritten digits", images[~test], labels[~test], images[test], labels[test])


def _volumes() -> Samples:
    return _patches("scan of a head", _scan()[..., :1], squeeze=True)


def _films() -> Samples:
    return _patches("the scan in time", _scan(), squeeze=False)


def _scan() -> np.ndarray:
    return np.asarray(nibabel.load(_SCAN).dataobj, np.float32)  # type: ignore[attr-defined]


def _patches(source: str, scan: np.ndarray, squeeze: bool) -> Samples:
    """Patches of the head, as they are and with slices in disorder; whole blocks are held out."""
    starts = [range(0, n - p + 1, s) for n, p, s in zip(scan.shape, _PATCH, _STEP, strict=False)]
    threshold = np.median(scan[scan > 0])
    parts: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for i, j, k in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3):
        patch = scan[i : i + _PATCH[0], j : j + _PATCH[1], k : k + _PATCH[2]]
        block, last = (at // _PATCH[0] % _HELD_OUT == 0 for at in (i, i + _PATCH[0] - 1))
        if block == last and patch.mean() > threshold / 2:  # no voxel is in both sets
            parts[block].append(patch[..., 0] if squeeze else patch)

    def with_disorder(patches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        stacked = np.stack(patches)
        disorder = stacked[:, :, :, _SHUFFLED]
        return np.concatenate([stacked, disorder]), np.repeat([0, 1], len(stacked))

    return _samples(source, *with_disorder(parts[False]), *with_disorder(parts[True]))


def _samples(source: str, train, train_labels, test, test_labels) -> Samples:
    mean, deviation = np.mean(train), np.std(train)

    def scaled(x: np.ndarray) -> np.ndarray:
        return ((x - mean) / deviation).astype(np.float32)[..., None]

    labels = (np.asarray(each, np.int32) for each in (train_labels, test_labels))
    first, second = labels
    return Samples(source, scaled(train), first, scaled(test), second)
