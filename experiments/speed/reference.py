"""A layer's convolution and pooling in float64 NumPy: what their faces mean, a tap at a time."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from experiments.speed.tables import Ints, Layer, Pool

_FORWARD, _TO_INPUT, _TO_KERNEL = "...gc,cgm->...gm", "...gm,cgm->...gc", "ngc,ngm->cgm"


def faces(layer: Layer, x: np.ndarray, kernel: np.ndarray, y_bar: np.ndarray) -> dict:
    """Of `x [batch, *size, in]`, `kernel` and `y_bar`: the output and both gradients."""
    x, kernel, y_bar = (array.astype(np.float64) for array in (x, kernel, y_bar))
    padded = _grouped(layer, np.pad(x, [(0, 0), *((p, p) for p in layer.padding), (0, 0)]))
    kernel, y_bar = _grouped(layer, kernel), _grouped(layer, y_bar)
    y, padded_bar, kernel_bar = map(np.zeros_like, (y_bar, padded, kernel))
    for tap, seen in _views(layer.taps, layer.dilation, layer.stride, layer.out):
        y += np.einsum(_FORWARD, padded[seen], kernel[tap])
        padded_bar[seen] += np.einsum(_TO_INPUT, y_bar, kernel[tap])
        kernel_bar[tap] = np.einsum(_TO_KERNEL, *map(_flat, (padded[seen], y_bar)))
    inside = (slice(p, p + n) for p, n in zip(layer.padding, layer.size, strict=True))
    return {
        "forward": _joined(y),
        "input gradient": _joined(padded_bar[:, *inside]),
        "kernel gradient": _joined(kernel_bar),
    }


class _Fold(NamedTuple):
    """What stands outside, what `[taps, ...]` come to, and the derivative in each."""

    outside: float
    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _won(seen: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The first of the greatest."""
    return np.stack([seen.argmax(0) == tap for tap in range(len(seen))])


def _others(seen: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([np.delete(seen, tap, 0).prod(0) for tap in range(len(seen))])


def _cubes(seen: np.ndarray) -> np.ndarray:
    return np.cbrt((np.abs(seen) ** 3).sum(0))


def _exponents(seen: np.ndarray) -> np.ndarray:
    return np.log(np.exp(seen).sum(0))


_FOLDS = {
    "max": _Fold(-np.inf, lambda seen: seen.max(0), _won),
    "avg": _Fold(0, lambda seen: seen.mean(0), lambda seen, y: np.full(seen.shape, 1 / len(seen))),
    "prod": _Fold(1, lambda seen: seen.prod(0), _others),
    "logsumexp": _Fold(-np.inf, _exponents, lambda seen, y: np.exp(seen - y)),
    "cubes": _Fold(0, _cubes, lambda seen, y: seen * np.abs(seen) / y**2),
}


def pooled(pool: Pool, kind: str, x: np.ndarray, y_bar: np.ndarray) -> dict:
    """Of `x [batch, *size, channels]` and `y_bar`: the output and the gradient."""
    fold = _FOLDS[kind]
    around = [(0, 0), *((p, p) for p in pool.padding), (0, 0)]
    padded = np.pad(x.astype(np.float64), around, constant_values=fold.outside)
    out, dense = pool.shapes[1][1:-1], (1,) * len(pool.window)
    views = [seen for _, seen in _views(pool.window, dense, pool.stride, out)]
    seen = np.stack([padded[view] for view in views])
    y, padded_bar = fold.value(seen), np.zeros_like(padded)
    for view, slope in zip(views, fold.slope(seen, y), strict=True):
        padded_bar[view] += slope * y_bar
    inside = (slice(p, p + n) for p, n in zip(pool.padding, pool.size, strict=True))
    return {"forward": y, "backward": padded_bar[:, *inside]}


def _views(
    taps: Ints, dilation: Ints, stride: Ints, out: Ints
) -> Iterator[tuple[Ints, tuple[slice, ...]]]:
    """Each tap, and what all outputs see through it of the padded input."""
    for tap in itertools.product(*map(range, taps)):
        first = [d * t for d, t in zip(dilation, tap, strict=True)]
        axes = zip(first, stride, out, strict=True)
        yield tap, (slice(None), *(slice(f, f + s * (n - 1) + 1, s) for f, s, n in axes))


def _grouped(layer: Layer, array: np.ndarray) -> np.ndarray:
    """The channels as groups and channels of a group; a kernel's `in` axis holds one group's."""
    return array.reshape(*array.shape[:-1], layer.groups, -1)


def _flat(array: np.ndarray) -> np.ndarray:
    """All examples and positions as one axis."""
    return array.reshape(-1, *array.shape[-2:])


def _joined(array: np.ndarray) -> np.ndarray:
    return array.reshape(*array.shape[:-2], -1)
