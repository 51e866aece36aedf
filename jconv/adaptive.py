"""Pooling to a given output size: bins in place of a stride.

An axis of bins is brought side by side, `x[at]` for a table `at` of `[out, window]` positions; what
is left is a pooling of windows that do not overlap.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv import adjoint, folds, geometry
from jconv.extremes import extremes, winners
from jconv.geometry import Ints, Window
from jconv.operands import array, inexact, require_key, wide
from jconv.placement import placed
from jconv.stages import laid


@placed("x")
def adaptive_avg_pool(x: ArrayLike, output_size: Ints) -> Array:
    """The mean of every bin.

    `y[o] = mean x[floor(o*size / out) : ceil((o + 1)*size / out)]` along every axis: torch's bins,
    which overlap where `out` does not divide `size`, and repeat entries where `out > size`. The
    dtype is kept; bfloat16 and float16 are summed in float32, and integers give the default float
    dtype.

    Args:
      x: `[*batch, *size, channels]`.
      output_size: one int per spatial axis, or an int for all axes of `x` but the first and the
        last.

    Returns:
      `[*batch, *output_size, channels]`.

    Raises:
      ValueError: a wrong value, TypeError: a wrong type, before anything is computed.

    Source: He, Zhang, Ren, Sun (2014), section 2.2, one level of the pyramid.

    >>> adaptive_avg_pool(jnp.array([[0.0], [2.0], [4.0], [6.0], [8.0]]), (2,)).ravel()
    Array([2., 6.], dtype=float32)
    """
    x = inexact(array(x))
    y, bins = _side_by_side(x.astype(wide(x.dtype)), output_size)
    for axis, b in enumerate(bins):
        if not b.whole:
            y = jnp.where(
                laid(b.counted.ravel(), axis, len(bins), y.ndim), y, jnp.zeros((), y.dtype)
            )
    y = folds.folded(folds.SUM, y, [b.window for b in bins])
    for axis, b in enumerate(bins):
        counts = b.counted.sum(1)
        counts = counts[:1] if (counts == counts[0]).all() else counts
        y = y / jnp.asarray(laid(counts, axis, len(bins), y.ndim), y.dtype)
    return y.astype(x.dtype)


@placed("x")
def adaptive_max_pool(
    x: ArrayLike, output_size: Ints, *, return_indices: bool = False
) -> Array | tuple[Array, Array]:
    """The greatest entry of every bin.

    The bins are those of `adaptive_avg_pool`; winners, ties, NaN and gradient are as in `max_pool`.

    Args:
      x: `[*batch, *size, channels]`, real.
      output_size: as in `adaptive_avg_pool`.
      return_indices: also where the winners are.

    Returns:
      `[*batch, *output_size, channels]`; with `return_indices` also the winners, as in `max_pool`.

    Raises:
      ValueError, TypeError: as `adaptive_avg_pool`.

    Source: He, Zhang, Ren, Sun (2014), section 2.2, one level of the pyramid.

    >>> adaptive_max_pool(jnp.array([[1], [5], [2], [4], [3]]), (2,)).ravel()
    Array([5, 4], dtype=int32)
    """
    x = array(x, real=True)
    wanted = geometry.flag("return_indices", return_indices)
    y, bins = _side_by_side(x, output_size)
    windows = [b.window for b in bins]
    return winners(y, windows, _places([b.at for b in bins], x)) if wanted else extremes(y, windows)


@placed("x")
def fractional_max_pool(
    key: ArrayLike,
    x: ArrayLike,
    window: Ints,
    output_size: Ints,
    *,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """Max pooling by a factor that is no integer, at random places.

    `y[o] = max_t x[start[o] + t]` along every axis, with `start[o] = floor((o + u)*a) - floor(u*a)`
    but for the last, `start[out - 1] = size - window`, where `a = (size - window) / (out - 1)` and
    `u` is uniform in [0, 1): torch's pseudo-random sequence, whose steps are `floor(a)` and
    `ceil(a)`. One `u` is drawn per spatial axis, and serves all batch entries and channels.
    Winners, ties, NaN and gradient are as in `max_pool`.

    Args:
      key: a JAX key.
      x: `[*batch, *size, channels]`, real.
      window: one int per spatial axis, or an int for all axes of `x` but the first and the last.
      output_size: an int, or one int per spatial axis; at most `size - window + 1`.
      return_indices: also where the winners are.

    Returns:
      `[*batch, *output_size, channels]`; with `return_indices` also the winners, as in `max_pool`.

    Raises:
      ValueError: a wrong value, TypeError: a wrong type, before anything is computed.

    Source: Graham (2014), section 2.1, pseudorandom and overlapping.

    >>> fractional_max_pool(jax.random.key(0), jnp.arange(8).reshape(8, 1), (2,), (7,)).ravel()
    Array([1, 2, 3, 4, 5, 6, 7], dtype=int32)
    """
    require_key(key)
    x = array(x, real=True)
    taps = geometry.window_taps("window", window, x.ndim)
    size, _ = geometry.split_shape("x", x.shape, len(taps))
    out = geometry.per_axis("output_size", output_size, len(taps), least=1)
    wanted = geometry.flag("return_indices", return_indices)
    for axis, (n, k, o) in enumerate(zip(size, taps, out, strict=True)):
        if k > n:
            raise geometry.wrong("window", f"be at most size {n} on spatial axis {axis}", k)
        if o + k - 1 > n:
            raise geometry.wrong(
                "output_size",
                f"be at most size - window + 1 = {n - k + 1} on spatial axis {axis}",
                o,
            )
    shifts = jax.random.uniform(key, (len(taps),), jnp.float32)
    starts = [_starts(*axis) for axis in zip(size, taps, out, shifts, strict=True)]
    at = [
        s[:, None] + np.arange(k, dtype=np.int32)[None] for s, k in zip(starts, taps, strict=True)
    ]
    y = x
    for axis, positions in enumerate(at):
        y = jnp.take(y, positions.ravel(), x.ndim - len(taps) - 1 + axis, mode="clip")
    windows = [Window(k * o, k, k) for k, o in zip(taps, out, strict=True)]
    return winners(y, windows, _places(at, x)) if wanted else extremes(y, windows)


def _starts(size: int, window: int, out: int, shift: Array) -> Array:
    """Where each window starts."""
    last = size - window
    step = np.float32(last / max(out - 1, 1))
    starts = jnp.floor((np.arange(out, dtype=np.float32) + shift) * step) - jnp.floor(shift * step)
    starts = jnp.clip(starts.astype(jnp.int32), 0, last)
    return jnp.where(np.arange(out) == out - 1, np.int32(last), starts)


# ---------------------------------------------------------------- bins


class Bins(NamedTuple):
    """The bins of one axis: which positions each holds, its last one repeated where it is short."""

    at: np.ndarray  # [out, window]
    counted: np.ndarray  # [out, window], False where a position repeats
    size: int

    @property
    def whole(self) -> bool:
        """Whether the bins are the axis itself, cut into equal parts."""
        return self.at.size == self.size

    @property
    def window(self) -> Window:
        """The window over the bins side by side."""
        out, window = self.at.shape
        return Window(out * window, window, window)


def _bins(size: int, out: int) -> Bins:
    start = np.arange(out) * size // out
    stop = -(-np.arange(1, out + 1) * size // out)
    at = start[:, None] + np.arange((stop - start).max())
    return Bins(np.minimum(at, stop[:, None] - 1), at < stop[:, None], size)


def _side_by_side(x: Array, output_size: Ints) -> tuple[Array, list[Bins]]:
    """`x` with the bins of every axis side by side, and the bins."""
    out = geometry.window_taps("output_size", output_size, x.ndim)
    size, _ = geometry.split_shape("x", x.shape, len(out))
    for axis, n in enumerate(size):
        if n < 1:
            raise geometry.wrong("x", f"have entries on spatial axis {axis}", f"shape {x.shape}")
    bins = [_bins(n, o) for n, o in zip(size, out, strict=True)]
    for axis, b in enumerate(bins, x.ndim - len(out) - 1):
        if b.whole:
            continue
        static = (b, axis)
        if jnp.issubdtype(x.dtype, jnp.inexact):
            x = adjoint.linear(_take, _untake, static, x)
        else:
            x = _take(static, x)
    return x, bins


def _take(static, x: Array) -> Array:
    bins, axis = static
    return jnp.take(x, bins.at.ravel(), axis, mode="clip")


def _untake(static, y: Array) -> Array:
    """Adjoint of `_take`, by reading: each position adds up the places that it was taken to."""
    bins, axis = static
    zero = jnp.zeros((), y.dtype)
    parts = [
        jnp.where(
            laid(places >= 0, axis, y.ndim - 1, y.ndim),
            jnp.take(y, np.maximum(places, 0), axis, mode="clip"),
            zero,
        )
        for places in _places_of(bins)
    ]
    return reduce(jnp.add, parts)


def _places_of(bins: Bins) -> np.ndarray:
    """`[repeat, size]`: where each position stands side by side, -1 beyond its last repeat."""
    taken = bins.at.ravel()
    order = np.argsort(taken, kind="stable")
    start = np.searchsorted(taken[order], np.arange(bins.size + 1))
    repeat = np.arange(np.diff(start).max())[:, None]
    place = order[np.minimum(start[:-1] + repeat, len(order) - 1)]
    return np.where(repeat < np.diff(start), place, -1)


def _places(at: Sequence[ArrayLike], x: Array) -> Array:
    """The row-major number in `x` of every position of the windows side by side."""
    rank = len(at)
    size = x.shape[-rank - 1 : -1]
    places = jnp.zeros((1,) * x.ndim, jnp.int32)
    for axis, positions in enumerate(at):
        along = laid(jnp.asarray(positions, jnp.int32).ravel(), axis, rank, x.ndim)
        places = places * np.int32(size[axis]) + along
    return places
