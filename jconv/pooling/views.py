"""What the taps of windows read: views of an input, of which as little is copied as can be.

Negative padding crops it. Padded, it is an array of its own, as bounds tests at every entry cost
more; or the windows at its ends, which alone see padding, go apart from those inside.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jconv.fusion import in_vectors
from jconv.geometry import Window
from jconv.padding import crop, grow
from jconv.placement import zeros
from jconv.windows import offsets, view

Windows = tuple[Window, ...]

# As many taps as one fused loop reads.
FEW = 9


def cropped(x: Array, windows: Sequence[Window]) -> tuple[Array, Windows]:
    """What negative padding leaves of `x`, and the same windows over it, padded by 0 or more."""
    kept = [left(w) for w in windows]
    x = crop(x, x.ndim - len(windows) - 1, kept)
    return x, tuple(map(over, windows, kept))


def left(w: Window) -> tuple[int, int]:
    """The bounds of what negative padding leaves of an axis."""
    start = min(max(-w.low, 0), w.size)
    return start, max(w.size + min(w.high, 0), start)


def over(w: Window, bounds: tuple[int, int]) -> Window:
    """The same window over that part of its input."""
    start, stop = bounds
    n = stop - start
    low = w.low + start if n else min(max(w.low + start, 0), w.extent)
    return dataclasses.replace(w, size=n, low=low, high=w.extent - low - n)


def several_axes(windows: Sequence[Window]) -> bool:
    """Whether a window has taps along more than one axis."""
    return sum(w.taps > 1 for w in windows) > 1


def taps_in(windows: Sequence[Window]) -> int:
    return math.prod(w.taps for w in windows)


# ---------------------------------------------------------------- padded


def enclosed(x: Array, windows: Sequence[Window], fill: float = 0) -> Array:
    """`x` with `fill` around, as an array that views read without bounds tests."""
    around = [(w.low, w.high) for w in windows]
    return written(x, around, fill, read_at_once(windows)) if any(map(any, around)) else x


def read_at_once(windows: Sequence[Window]) -> bool:
    """Whether a loop reads entries through taps of several axes, at every position."""
    return several_axes(windows) and all(w.stride == 1 for w in windows)


def written(
    x: Array, around: Sequence[tuple[int, int]], fill: float = 0, at_once: bool = False
) -> Array:
    """`x` with `fill` around its spatial axes, as an array of its own.

    XLA:CPU computes an array again for every entry that is read of it, whatever barrier stands
    behind it, but for a concatenation of three. So each padded axis gets both ends, if only one
    entry, and they are cropped behind the barrier, which keeps the slice from moving into the
    concatenation. Others pad where they read, but for what taps of several axes read `at_once`: on
    an H200 the gradient of 3x3 maxima over 64x56x56x128 takes 0.61 ms so, and would take 0.74.
    """
    return lax.platform_dependent(
        x,
        cpu=partial(_joined_of_three, around, fill),
        default=partial(_padded, around, fill, at_once),
    )


def _padded(around: Sequence[tuple[int, int]], fill: float, at_once: bool, x: Array) -> Array:
    ends = [(low, high, 0) for low, high in around]
    y = grow(x, x.ndim - len(around) - 1, ends, jnp.asarray(fill, x.dtype))
    return lax.optimization_barrier(y) if at_once else y


def _joined_of_three(around: Sequence[tuple[int, int]], fill: float, x: Array) -> Array:
    lead = x.ndim - len(around) - 1
    ends = [(max(low, 1), max(high, 1), 0) if low or high else (0, 0, 0) for low, high in around]
    ends = ends if any(map(any, ends)) else [(1, 1, 0), *ends[1:]]
    x = in_vectors(x)
    y = lax.optimization_barrier(grow(x, lead, ends, jnp.asarray(fill, x.dtype)))
    starts = [end - low for (end, _, _), (low, _) in zip(ends, around, strict=True)]
    sizes = [low + n + high for (low, high), n in zip(around, x.shape[lead:-1], strict=True)]
    return crop(y, lead, [(start, start + size) for start, size in zip(starts, sizes, strict=True)])


def views(x: Array, windows: Sequence[Window], fill: float = 0) -> list[Array]:
    """What each tap reads of `x` with `fill` around, row-major."""
    x = enclosed(x, windows, fill)
    inner = [w.padded() for w in windows]
    return [view(x, inner, tap) for tap in offsets(inner)]


# ---------------------------------------------------------------- windows apart


class Part(NamedTuple):
    """Some of the windows, side by side: from which on, what they read, and they over that."""

    starts: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]
    windows: Windows

    def read(self, x: Array) -> Array:
        return crop(x, x.ndim - len(self.bounds) - 1, self.bounds)

    def of(self, y: Array) -> Array:
        """What stands in `y`, an entry a window, for these windows."""
        ends = [(s, s + w.out) for s, w in zip(self.starts, self.windows, strict=True)]
        return crop(y, y.ndim - len(ends) - 1, ends)


def parts(windows: Sequence[Window]) -> list[Part]:
    """Those windows that see no padding, and those at each end of each axis that do.

    Windows of few taps at a stride read the input so few times that a padded copy of it is what
    costs most: apart, 3x3 windows of stride 2 over 8x112x112x64 took 1.0 ms and not 1.9.
    """
    whole = [(0, w.out) for w in windows]
    inner = [_inside(w) for w in windows]
    if not ends_apart(windows) or any(start >= stop for start, stop in inner):
        return [_part(windows, whole)]
    made = [_part(windows, inner)]
    for axis, ((start, stop), (_, out)) in enumerate(zip(inner, whole, strict=True)):
        ends = [end for end in ((0, start), (stop, out)) if end[0] < end[1]]
        made += [_part(windows, [*inner[:axis], end, *whole[axis + 1 :]]) for end in ends]
    return made


def ends_apart(windows: Sequence[Window]) -> bool:
    """Whether a padded copy of the input is worth avoiding."""
    return taps_in(windows) <= FEW and any(w.stride > 1 for w in windows)


def _inside(w: Window) -> tuple[int, int]:
    """The bounds of the windows that see no padding."""
    start = -(-w.low // w.stride)
    stop = (w.size - 1 - w.reach + w.low) // w.stride + 1
    return max(start, 0), min(stop, w.out)


def _part(windows: Sequence[Window], ranges: Sequence[tuple[int, int]]) -> Part:
    starts = tuple(start for start, _ in ranges)
    bounds, made = zip(*map(_restricted, windows, ranges), strict=True)
    return Part(starts, bounds, made)


def _restricted(w: Window, outputs: tuple[int, int]) -> tuple[tuple[int, int], Window]:
    """What these outputs of a window read, and the window over that."""
    start, stop = outputs
    first, last = w.stride * start - w.low, w.stride * (stop - 1) + w.reach - w.low
    begin = min(max(first, 0), w.size)
    end = min(max(last + 1, begin), w.size)
    extent, n = last + 1 - first, end - begin
    low = min(max(begin - first, 0), extent - n)
    return (begin, end), dataclasses.replace(w, size=n, low=low, high=extent - n - low)


def swept(f: Callable[..., Any], windows: Sequence[Window], *arrays: tuple[Array, float]) -> Any:
    """`f(part, views, ...)` of every part, put together; each array comes with its padding.

    So what is read twice is padded at its ends alone, and never copied as a whole.
    """
    first, _ = arrays[0]
    lead = first.ndim - len(windows) - 1
    made = parts(windows)
    results = [
        f(part, *(views(part.read(x), part.windows, fill) for x, fill in arrays)) for part in made
    ]
    if len(made) == 1:
        return jax.tree.map(partial(in_vectors, terms=taps_in(windows)), results[0])
    return jax.tree.map(partial(_joined, lead, windows, made), *results)


def _joined(lead: int, windows: Sequence[Window], made: Sequence[Part], *results: Array) -> Array:
    shape = list(results[0].shape)
    shape[lead:-1] = [w.out for w in windows]
    y = zeros(shape, results[0].dtype, *results)
    for part, result in zip(made, results, strict=True):
        starts = [0] * y.ndim
        starts[lead:-1] = part.starts
        y = lax.dynamic_update_slice(y, result, starts)
    return y


def laid(values, axis: int, rank: int, ndim: int):
    """`values` along one of `rank` spatial axes of an array of `ndim` axes."""
    shape = [1] * ndim
    shape[ndim - 1 - rank + axis] = len(values)
    return values.reshape(shape)
