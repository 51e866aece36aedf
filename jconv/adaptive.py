"""Pooling to a given output size: bins in place of a stride.

Axis by axis, from the last to the first. A few taps of a bin are as many arrays, `x[start + tap]`
for a table of starts, combined in one fused loop; back, each position reads the few bins that hold
it. Longer bins are brought side by side, `x[at]` for a table `at` of `[out, window]` positions, and
pooled as windows that do not overlap.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import adjoint, folds, geometry
from jconv.extremes import extremes, first_best, picked, positions, winners
from jconv.geometry import Ints, Window
from jconv.operands import array, inexact, require_key, wide
from jconv.placement import placed
from jconv.stages import FEW, few, finished, kept, laid


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
    bins = _checked(x, output_size)

    def by_taps(axis: int, b: Bins, y: Array) -> list[Array]:
        return [adjoint.linear(_sum, _sum_adjoint, b.along(axis), y, *b.tables)]

    def by_windows(windows: Sequence[Window], y: Array) -> list[Array]:
        return [folds.folded(folds.SUM, y, windows)]

    (y,) = _pooled(bins, by_taps, by_windows, x.astype(wide(x.dtype)), fill=0)
    for axis, b in enumerate(bins):
        counts = b.counts[:1] if (b.counts == b.counts[0]).all() else b.counts
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
    bins = _checked(x, output_size)
    places = [positions(x.shape[-len(bins) - 1 : -1], x.ndim)] if wanted else []

    def by_windows(windows: Sequence[Window], y: Array, *places: Array) -> Sequence[Array]:
        return winners(y, windows, places[0]) if places else [extremes(y, windows)]

    y, *places = _pooled(bins, _greatest, by_windows, x, *places)
    return (y, places[0]) if wanted else y


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
    pooled = [x, *([positions(size, x.ndim)] if wanted else [])]
    if max(taps) > FEW:
        windows = [Window(n, k) for n, k in zip(size, taps, strict=True)]
        pooled = winners(x, windows, pooled[1]) if wanted else [extremes(x, windows)]
        size, taps = [w.out for w in windows], (1,) * len(taps)
    for axis in reversed(range(len(taps))):
        b = _drawn(size[axis], taps[axis], starts[axis])
        pooled = _greatest(x.ndim - len(taps) - 1 + axis, b, *pooled)
    return (pooled[0], pooled[1]) if wanted else pooled[0]


def _drawn(size: int, taps: int, starts: Array) -> "Bins":
    last = jnp.searchsorted(starts, np.arange(size, dtype=np.int32), side="right") - 1
    # Starts are apart, but for rounding.
    return Bins(starts, starts + taps, last.astype(jnp.int32), taps, min(taps + 1, len(starts)))


def _starts(size: int, window: int, out: int, shift: Array) -> Array:
    """Where each window starts."""
    last = size - window
    step = np.float32(last / max(out - 1, 1))
    starts = jnp.floor((np.arange(out, dtype=np.float32) + shift) * step) - jnp.floor(shift * step)
    starts = jnp.clip(starts.astype(jnp.int32), 0, last)
    return jnp.where(np.arange(out) == out - 1, np.int32(last), starts)


# ---------------------------------------------------------------- bins


class Bins(NamedTuple):
    """The bins of one axis, from `start` to `stop`, which rise."""

    start: ArrayLike  # [out]
    stop: ArrayLike  # [out]
    last: ArrayLike  # [size], the last bin that starts up to there
    taps: int  # of the longest bin
    shared: int  # how many bins may hold one position

    @property
    def tables(self) -> tuple[Array, Array, Array]:
        start, stop, last = (jnp.asarray(table, jnp.int32) for table in self[:3])
        return start, stop, last

    def along(self, axis: int) -> "_Axis":
        return _Axis(axis, self.taps, self.shared)

    @property
    def counts(self) -> np.ndarray:
        return np.asarray(self.stop) - np.asarray(self.start)

    @property
    def whole(self) -> bool:
        """Whether the bins are the axis itself, cut into equal parts."""
        return len(self.counts) * self.taps == len(np.asarray(self.last))

    @property
    def window(self) -> Window:
        """The window over the bins side by side."""
        return Window(len(self.counts) * self.taps, self.taps, self.taps)


def _bins(size: int, out: int) -> Bins:
    start = np.arange(out) * size // out
    stop = -(-np.arange(1, out + 1) * size // out)
    i = np.arange(size)
    last = np.searchsorted(start, i, side="right") - 1
    shared = last - np.searchsorted(stop, i, side="right") + 1
    return Bins(start, stop, last, int((stop - start).max()), int(shared.max()))


def _checked(x: Array, output_size: Ints) -> list[Bins]:
    """The bins of every spatial axis."""
    out = geometry.window_taps("output_size", output_size, x.ndim)
    size, _ = geometry.split_shape("x", x.shape, len(out))
    for axis, n in enumerate(size):
        if n < 1:
            raise geometry.wrong("x", f"have entries on spatial axis {axis}", f"shape {x.shape}")
    return [_bins(n, o) for n, o in zip(size, out, strict=True)]


def _pooled(
    bins: Sequence[Bins],
    by_taps: Callable[..., Sequence[Array]],
    by_windows: Callable[..., Sequence[Array]],
    *arrays: Array,
    fill: int | None = None,
) -> Sequence[Array]:
    """`arrays` pooled axis by axis, or at once where equal parts are so few, or so long."""
    windows = [b.window for b in bins]
    if all(b.whole for b in bins) and (few(windows) or max(b.taps for b in bins) > FEW):
        return by_windows(windows, *arrays)
    lead = arrays[0].ndim - len(bins) - 1
    for axis in reversed(range(len(bins))):
        b = bins[axis]
        if b.taps <= FEW:
            arrays = tuple(by_taps(lead + axis, b, *arrays))
            continue
        arrays = tuple(_side_by_side(a, lead + axis, b, fill) for a in arrays)
        windows = [Window(n, 1) for n in arrays[0].shape[lead:-1]]
        windows[axis] = b.window
        arrays = tuple(by_windows(windows, *arrays))
    return arrays


# ---------------------------------------------------------------- bins of a few taps


class _Axis(NamedTuple):
    """What is static of the bins of an axis."""

    axis: int
    taps: int
    shared: int

    def at(self, start: Array, stop: Array) -> list[Array]:
        """What each tap of the bins reads; the last entry of a short bin stands for more."""
        return [jnp.minimum(start + tap, stop - 1) for tap in range(self.taps)]

    def readers(self, start: Array, stop: Array, last: Array) -> Iterator[tuple[Array, Array]]:
        """The bins that hold each position, with its tap in them, which is -2 if none does."""
        i = jnp.arange(last.size, dtype=np.int32)
        for back in range(self.shared):
            o = jnp.maximum(last - back, 0)
            holds = (last >= back) & (i < stop[o])
            yield o, jnp.where(holds, i - start[o], -2)

    def take(self, x: Array, at: Array) -> Array:
        return jnp.take(x, at, self.axis, mode="clip")

    def laid(self, values, x: Array):
        return laid(values, self.axis, x.ndim - 1, x.ndim)


def _sum(along: _Axis, x: Array, start: Array, stop: Array, last: Array) -> Array:
    zero = jnp.zeros((), x.dtype)
    parts = [
        jnp.where(along.laid(start + tap < stop, x), along.take(x, at), zero)
        for tap, at in enumerate(along.at(start, stop))
    ]
    return finished(reduce(jnp.add, parts))


def _sum_adjoint(along: _Axis, y: Array, *tables: Array) -> Array:
    zero = jnp.zeros((), y.dtype)
    parts = [
        jnp.where(along.laid(tap >= 0, y), along.take(y, o), zero)
        for o, tap in along.readers(*tables)
    ]
    return finished(reduce(jnp.add, parts))


def _greatest(axis: int, bins: Bins, x: Array, *places: Array) -> list[Array]:
    """The greatest entry of every bin, and its entry of `places`."""
    along, tables = bins.along(axis), bins.tables
    if jnp.issubdtype(x.dtype, jnp.inexact):
        y, won = adjoint.selection(_choose, _gather, _scatter, along, x, *tables)
    else:
        y, won = _choose(along, x, *tables)
    return [y, *(_gather(along, won, a, *tables) for a in places)]


def _choose(along: _Axis, x: Array, start: Array, stop: Array, last: Array) -> tuple[Array, Array]:
    def seen(x: Array) -> list[Array]:
        return [along.take(x, at) for at in along.at(start, stop)]

    # XLA:CPU writes out what two loops take from one array: 2.9 ms, and not 1.0, for 112 to 40.
    return kept(reduce(lax.max, seen(x))), first_best(seen(lax.optimization_barrier(x)))


def _gather(
    along: _Axis, won: Array, x: Array, start: Array, stop: Array, last: Array
) -> Array:  # fmt: skip
    return picked(won, [along.take(x, at) for at in along.at(start, stop)])


def _scatter(along: _Axis, won: Array, y: Array, *tables: Array) -> Array:
    """Adjoint of `_gather`."""
    dtype = wide(y.dtype)
    parts = [
        jnp.where(
            along.take(won, o) == along.laid(tap.astype(won.dtype), y),
            along.take(y, o).astype(dtype),
            jnp.zeros((), dtype),
        )
        for o, tap in along.readers(*tables)
    ]
    return finished(reduce(jnp.add, parts)).astype(y.dtype)


# ---------------------------------------------------------------- long bins


def _side_by_side(x: Array, axis: int, bins: Bins, fill: int | None) -> Array:
    """The bins of an axis one after the other, with `fill`, if any, where one is short."""
    along = bins.along(axis)
    if jnp.issubdtype(x.dtype, jnp.inexact):
        x = adjoint.linear(_take, _untake, along, x, *bins.tables)
    else:
        x = _take(along, x, *bins.tables)
    inside = (np.arange(bins.taps) < bins.counts[:, None]).ravel()
    if fill is None or inside.all():
        return x
    return jnp.where(along.laid(inside, x), x, jnp.full((), fill, x.dtype))


def _take(along: _Axis, x: Array, start: Array, stop: Array, last: Array) -> Array:
    return along.take(x, jnp.stack(along.at(start, stop), 1).ravel())


def _untake(along: _Axis, y: Array, *tables: Array) -> Array:
    """Adjoint of `_take`, but for what stands for more: nobody reads that."""
    zero = jnp.zeros((), y.dtype)
    parts = [
        jnp.where(along.laid(tap >= 0, y), along.take(y, o * along.taps + tap), zero)
        for o, tap in along.readers(*tables)
    ]
    return finished(reduce(jnp.add, parts))
