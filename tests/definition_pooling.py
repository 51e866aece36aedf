"""What the further poolings mean: NumPy loops in float64, beside `tests.definition`."""

import math

import numpy as np

from tests import definition
from tests.definition import at, per_axis, pooling_windows, spatial_split, wide


def over_windows(reduce, x, window, **options):
    """`reduce([entries, ...])` of the entries `[*batch, channels]` that each window sees."""
    x = wide(x)
    window, batch, size = spatial_split(x, window)
    out, windows = pooling_windows(size, window, **options)
    y = np.zeros((*batch, *out, x.shape[-1]))
    for o, candidates in windows.items():
        seen = [x[at(*position)] for position, real, _ in candidates if real]
        y[at(*o)] = reduce(np.array(seen).reshape(len(seen), *batch, x.shape[-1]))
    return y


def prod_pool(x, window, **options):
    return over_windows(lambda seen: np.prod(seen, axis=0), x, window, **options)


def logsumexp_pool(x, window, *, temperature=1.0, **options):
    def reduce(seen):
        with np.errstate(divide="ignore"):
            return temperature * np.log(np.sum(np.exp(seen / temperature), axis=0))

    return over_windows(reduce, x, window, **options)


def lp_pool(x, window, p, **options):
    def reduce(seen):
        if p == math.inf:
            return np.max(np.abs(seen), axis=0, initial=0)
        return np.sum(np.abs(seen) ** p, axis=0) ** (1 / p)

    return over_windows(reduce, x, window, **options)


def bins(n, out):
    """Torch's bins of an axis."""
    return [range(i * n // out, math.ceil((i + 1) * n / out)) for i in range(out)]


def boxes(x, ranges):
    """Every output of a pooling with one list of ranges per axis, and its box of `x`."""
    for o in np.ndindex(*map(len, ranges)):
        axes = [ranges[axis][i] for axis, i in enumerate(o)]
        yield o, x[(..., *(slice(r.start, r.stop) for r in axes), slice(None))], axes


def adaptive_ranges(x, output_size):
    output_size, _, size = spatial_split(x, output_size)
    return [bins(n, o) for n, o in zip(size, output_size, strict=True)]


def adaptive_avg_pool(x, output_size):
    x, ranges = wide(x), adaptive_ranges(x, output_size)
    rank = len(ranges)
    y = np.zeros((*x.shape[: -1 - rank], *map(len, ranges), x.shape[-1]))
    for o, box, _ in boxes(x, ranges):
        y[at(*o)] = box.mean(axis=tuple(range(-1 - rank, -1)))
    return y


def boxed_max_pool(x, ranges):
    """The maximum of every box, and its first row-major position."""
    rank, size = len(ranges), x.shape[-1 - len(ranges) : -1]
    shape = (*x.shape[: -1 - rank], *map(len, ranges), x.shape[-1])
    y, indices = np.zeros(shape, x.dtype), np.zeros(shape, np.int32)
    for o, box, axes in boxes(x, ranges):
        flat = box.reshape(*box.shape[: -1 - rank], -1, box.shape[-1])
        first = np.argmax(flat, axis=-2)
        y[at(*o)] = np.take_along_axis(flat, first[..., None, :], -2)[..., 0, :]
        local = np.unravel_index(first, [len(r) for r in axes])
        position = [r.start + i for r, i in zip(axes, local, strict=True)]
        indices[at(*o)] = np.ravel_multi_index(position, size)
    return y, indices


def adaptive_max_pool(x, output_size):
    return boxed_max_pool(np.asarray(x), adaptive_ranges(x, output_size))


def blur_pool(x, window, *, stride, taps=3, **options):
    y, _ = definition.max_pool(np.asarray(x), window, stride=1, **options)
    rank = len(per_axis(window, np.ndim(x) - 2))
    weights = [math.comb(taps - 1, t) / 2 ** (taps - 1) for t in range(taps)]
    y = definition.pad(y, [((taps - 1) // 2, taps // 2)] * rank, mode="reflect")
    for axis, step in zip(range(-1 - rank, -1), per_axis(stride, rank), strict=True):
        y = np.moveaxis(y, axis, 0)
        n = len(y) - taps + 1
        y = sum(weight * y[t : t + n] for t, weight in enumerate(weights))[::step]
        y = np.moveaxis(y, 0, axis)
    return y
