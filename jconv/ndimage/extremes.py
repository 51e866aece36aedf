"""The greatest or the least entry around every entry: along axes, or under a footprint."""

import warnings
from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv import adjoint, checks
from jconv.geometry import Window
from jconv.ndimage.arguments import (
    Axes,
    Modes,
    Output,
    constant,
    low_ends,
    one_mode,
    result_dtype,
    unfit,
)
from jconv.ndimage.passes import Run, windows_along
from jconv.ndimage.sums import cast, outside, stored, unfiltered, working
from jconv.operands import array, is_within
from jconv.padding import padded
from jconv.placement import placed
from jconv.pooling.extremes import best_of, extremes, opposite, picked
from jconv.windows import place, view


@placed("input")
def maximum_filter(
    input: ArrayLike,
    size=None,
    footprint: ArrayLike | None = None,
    output: Output = None,
    mode: Modes = "reflect",
    cval: ArrayLike = 0.0,
    origin=0,
    *,
    axes: Axes = None,
) -> Array:
    """The greatest entry of a window around every entry.

    `y[i] = max_t x[i + t - size // 2 - origin]` over the `t` of a box, or of a footprint. Its
    gradient goes to the winner, the first of equals. A NaN wins (SciPy's result depends on order).

    Args:
      size: a number, or one for each axis; its fraction is cut off, and 1 or less leaves an axis
        alone. Ignored, with a warning, beside a `footprint`.
      footprint: bool, as many axes as `axes`: which entries of its box count.
      others: as in `jconv.ndimage`; one `mode` for all axes if the footprint has gaps.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says; a TypeError for complex numbers.

    >>> maximum_filter(jnp.array([4, 1, 2, 7]), footprint=[1, 0, 1])
    Array([4, 4, 7, 7], dtype=int32)
    """
    return _filter(input, size, footprint, output, mode, cval, origin, axes, least=False)


@placed("input")
def minimum_filter(
    input: ArrayLike,
    size=None,
    footprint: ArrayLike | None = None,
    output: Output = None,
    mode: Modes = "reflect",
    cval: ArrayLike = 0.0,
    origin=0,
    *,
    axes: Axes = None,
) -> Array:
    """The least entry of a window around every entry.

    `y[i] = min_t x[i + t - size // 2 - origin]` over the `t` of a box, or of a footprint; the rest
    as in `maximum_filter`.

    >>> minimum_filter(jnp.array([4, 1, 2, 7]), size=3)
    Array([1, 1, 1, 2], dtype=int32)
    """
    return _filter(input, size, footprint, output, mode, cval, origin, axes, least=True)


def _filter(input, size, footprint, output, mode, cval, origin, axes, least: bool) -> Array:
    x = array(input, real=True, name="input", booleans=True)
    dtype, cval = result_dtype(output, x.dtype), constant(cval, x.dtype)
    taken = checks.distinct_axes("axes", axes, x.ndim)
    marks = _footprint(footprint)
    if marks is None and size is None:
        raise unfit("size", "be given, or `footprint`", size)
    if marks is not None and size is not None:
        # Of the line that called the filter, past `placed`.
        warnings.warn("`size` is ignored beside `footprint`.", UserWarning, stacklevel=4)
    if marks is not None and not marks.all():
        return _under(x, marks, taken, mode, cval, origin, dtype, least)
    runs = windows_along(size if marks is None else marks.shape, mode, origin, taken)
    if not runs:
        return unfiltered(x, dtype)
    for run in runs:
        x = _boxed(x, run, cval, stored(dtype), least)
    return cast(x, dtype)


def _footprint(footprint: object) -> np.ndarray | None:
    if footprint is None:
        return None
    try:
        marks = np.asarray(footprint, bool)
    except (TypeError, ValueError):
        raise checks.mistyped("footprint", "be an array of bool, not traced", footprint) from None
    if not marks.any():
        raise checks.wrong("footprint", "mark an entry", footprint)
    return marks


def _padded(x: Array, windows: Sequence[Window], mode: str, cval: ArrayLike, dtype) -> Array:
    kind = x.dtype if _holds(x.dtype, mode, cval) else working(x, dtype, mode, cval)
    return padded(x.astype(kind)[..., None], windows, mode, outside(mode, cval, kind))


def _holds(dtype, mode: str, cval: ArrayLike) -> bool:
    """Whether these are integers, among which all that lies outside is one, too."""
    if not jnp.issubdtype(dtype, jnp.integer):
        return False
    if mode != "constant":
        return True
    is_known = isinstance(cval, int | float)
    return is_known and float(cval).is_integer() and is_within(cval, dtype)


def _boxed(x: Array, run: Run, cval: ArrayLike, dtype, least: bool) -> Array:
    """The extreme along one axis."""
    if x.size == 0:
        return cast(x, dtype)
    xp = _padded(x, run.windows(x.shape), run.mode, cval, dtype)
    windows = tuple(w.padded() for w in run.windows(x.shape))
    return cast(extremes(xp, windows, least)[..., 0], dtype)


# ---------------------------------------------------------------- footprints with gaps


def _under(x, marks: np.ndarray, taken, mode, cval, origin, dtype, least: bool) -> Array:
    if marks.ndim != len(taken):
        raise unfit("footprint", f"have {len(taken)} axes", f"shape {marks.shape}")
    marks = np.expand_dims(marks, [a for a in range(x.ndim) if a not in taken])
    low = low_ends(origin, marks.shape, taken)
    mode = one_mode(mode)
    if x.size == 0:
        return cast(x, dtype)
    windows = tuple(
        Window(n, taps, low=at, high=taps - 1 - at)
        for n, taps, at in zip(x.shape, marks.shape, low, strict=True)
    )
    xp = _padded(x, windows, mode, cval, dtype)
    taps = tuple(map(tuple, np.argwhere(marks).tolist()))
    static = (tuple(w.padded() for w in windows), taps, least)
    y, _ = adjoint.selection(_choose, _gather, _scatter, static, xp)
    return cast(y[..., 0], dtype)


# values[o] = x[o + taps[winners[o]]];  <values, c> == <x, scatter(winners, c)>


def _choose(static, xp: Array) -> tuple[Array, Array]:
    """The extreme under the footprint, and which of its taps was the first to reach it."""
    windows, taps, least = static
    seen = [view(opposite(xp) if least else xp, windows, tap) for tap in taps]
    best, winners = best_of(seen)
    return opposite(best) if least else best, winners


def _gather(static, winners: Array, xp: Array) -> Array:
    windows, taps, _ = static
    return picked(winners, [view(xp, windows, tap) for tap in taps])


def _scatter(static, winners: Array, y: Array) -> Array:
    windows, taps, _ = static
    zero = jnp.zeros((), y.dtype)
    parts = (
        place(jnp.where(winners == number, y, zero), windows, tap)
        for number, tap in enumerate(taps)
    )
    return reduce(jnp.add, parts)
