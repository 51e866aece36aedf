"""The three faces of a layer's convolution in float64 NumPy: what they mean, a tap at a time."""

import itertools
from collections.abc import Iterator

import numpy as np

from experiments.speed.tables import Ints, Layer

_FORWARD, _TO_INPUT, _TO_KERNEL = "...gc,cgm->...gm", "...gm,cgm->...gc", "ngc,ngm->cgm"


def faces(layer: Layer, x: np.ndarray, kernel: np.ndarray, y_bar: np.ndarray) -> dict:
    """Of `x [batch, *size, in]`, `kernel` and `y_bar`: the output and both gradients."""
    x, kernel, y_bar = (array.astype(np.float64) for array in (x, kernel, y_bar))
    padded = _grouped(layer, np.pad(x, [(0, 0), *((p, p) for p in layer.padding), (0, 0)]))
    kernel, y_bar = _grouped(layer, kernel), _grouped(layer, y_bar)
    y, padded_bar, kernel_bar = map(np.zeros_like, (y_bar, padded, kernel))
    for tap, seen in _views(layer):
        y += np.einsum(_FORWARD, padded[seen], kernel[tap])
        padded_bar[seen] += np.einsum(_TO_INPUT, y_bar, kernel[tap])
        kernel_bar[tap] = np.einsum(_TO_KERNEL, *map(_flat, (padded[seen], y_bar)))
    inside = (slice(p, p + n) for p, n in zip(layer.padding, layer.size, strict=True))
    return {
        "forward": _joined(y),
        "input gradient": _joined(padded_bar[:, *inside]),
        "kernel gradient": _joined(kernel_bar),
    }


def _views(layer: Layer) -> Iterator[tuple[Ints, tuple[slice, ...]]]:
    """Each tap, and what all outputs see through it of the padded input."""
    for tap in itertools.product(*map(range, layer.taps)):
        first = [d * t for d, t in zip(layer.dilation, tap, strict=True)]
        axes = zip(first, layer.stride, layer.out, strict=True)
        yield tap, (slice(None), *(slice(f, f + s * (n - 1) + 1, s) for f, s, n in axes))


def _grouped(layer: Layer, array: np.ndarray) -> np.ndarray:
    """The channels as groups and channels of a group; a kernel's `in` axis holds one group's."""
    return array.reshape(*array.shape[:-1], layer.groups, -1)


def _flat(array: np.ndarray) -> np.ndarray:
    """All examples and positions as one axis."""
    return array.reshape(-1, *array.shape[-2:])


def _joined(array: np.ndarray) -> np.ndarray:
    return array.reshape(*array.shape[:-2], -1)
