"""Bins of an axis, which may overlap and differ in length, pooled axis by axis, with their rules.

A few taps of a bin are as many arrays, `x[start + tap]` for a table of starts, combined in one
fused loop; back, each position reads the few bins that hold it. Longer bins are brought side by
side, `x[at]` for a table `at` of `[out, window]` positions, and pooled as windows that do not
overlap.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import adjoint
from jconv.fusion import barrier, in_vectors, kept, row_major
from jconv.geometry import Window
from jconv.operands import wide
from jconv.pooling.extremes import first_best, picked
from jconv.pooling.stages import few
from jconv.pooling.views import FEW, laid, written

# What stands for a bin, which holds a position as one of its taps.
Place = Callable[[Array, Array], Array]


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


def equal(size: int, out: int) -> Bins:
    """Torch's: as equal as may be, over all of the axis."""
    start = np.arange(out) * size // out
    stop = -(-np.arange(1, out + 1) * size // out)
    i = np.arange(size)
    last = np.searchsorted(start, i, side="right") - 1
    shared = last - np.searchsorted(stop, i, side="right") + 1
    return Bins(start, stop, last, int((stop - start).max()), int(shared.max()))


def axis_by_axis(
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

    def seen(self, x: Array, start: Array, stop: Array) -> list[Array]:
        return [self.take(x, at) for at in self.at(start, stop)]

    def laid(self, values, x: Array):
        return laid(values, self.axis, x.ndim - 1, x.ndim)


def summed(axis: int, bins: Bins, x: Array) -> list[Array]:
    """The sum of every bin."""
    return [adjoint.linear(_sum, _sum_adjoint, bins.along(axis), x, *bins.tables)]


def _sum(along: _Axis, x: Array, start: Array, stop: Array, last: Array) -> Array:
    zero = jnp.zeros((), x.dtype)
    parts = [
        jnp.where(along.laid(start + tap < stop, x), seen, zero)
        for tap, seen in enumerate(along.seen(x, start, stop))
    ]
    return in_vectors(reduce(jnp.add, parts))


def _sum_adjoint(along: _Axis, y: Array, *tables: Array) -> Array:
    return _read_back(along, y, tables, lambda o, tap: o)


def _read_back(
    along: _Axis, y: Array, tables: Sequence[Array], place: Place, taken: Place | None = None
) -> Array:
    """For each position the sum, over the bins that hold it, of what `y` has in its place."""
    y, zero = kept(y), jnp.zeros((), y.dtype)
    taken = taken or (lambda o, tap: along.laid(tap >= 0, y))
    parts = [
        jnp.where(taken(o, tap), along.take(y, place(o, tap)), zero)
        for o, tap in along.readers(*tables)
    ]
    # XLA:CPU would take entries along an axis by turning the array, and turn it back by a copy.
    return row_major(in_vectors(reduce(jnp.add, parts)), y.ndim - 1)


def greatest(axis: int, bins: Bins, x: Array, *places: Array) -> list[Array]:
    """The greatest entry of every bin, and its entry of `places`."""
    along, tables = bins.along(axis), bins.tables
    y, won = adjoint.selection(_choose, _gather, _scatter, along, x, *tables)
    return [y, *(_gather(along, won, a, *tables) for a in places)]


def _choose(along: _Axis, x: Array, start: Array, stop: Array, last: Array) -> tuple[Array, Array]:
    # XLA:CPU writes out what two loops take from one array: 2.9 ms, and not 1.0, for 112 to 40.
    again = barrier(x)
    greatest = kept(reduce(lax.max, along.seen(x, start, stop)))
    return greatest, first_best(along.seen(again, start, stop))


def _gather(along: _Axis, won: Array, x: Array, start: Array, stop: Array, last: Array) -> Array:
    return picked(won, along.seen(x, start, stop))


def _scatter(along: _Axis, won: Array, y: Array, *tables: Array) -> Array:
    """Adjoint of `_gather`."""
    # Else XLA:CPU would choose again for every position: 1261x1261 to 420x420 took 14 ms, not 1.4.
    won = written(won, [(0, 0)])

    def is_winner(o: Array, tap: Array) -> Array:
        return along.take(won, o) == along.laid(tap.astype(won.dtype), y)

    x = _read_back(along, y.astype(wide(y.dtype)), tables, lambda o, tap: o, is_winner)
    return x.astype(y.dtype)


# ---------------------------------------------------------------- long bins


def _side_by_side(x: Array, axis: int, bins: Bins, fill: int | None) -> Array:
    """The bins of an axis one after the other, with `fill`, if any, where one is short."""
    along = bins.along(axis)
    x = adjoint.linear(_take, _untake, along, x, *bins.tables)
    inside = (np.arange(bins.taps) < bins.counts[:, None]).ravel()
    if fill is None or inside.all():
        return x
    return jnp.where(along.laid(inside, x), x, jnp.full((), fill, x.dtype))


def _take(along: _Axis, x: Array, start: Array, stop: Array, last: Array) -> Array:
    return along.take(x, jnp.stack(along.at(start, stop), 1).ravel())


def _untake(along: _Axis, y: Array, *tables: Array) -> Array:
    """Adjoint of `_take`, but for what stands for more: nobody reads that."""
    return _read_back(along, y, tables, lambda o, tap: o * along.taps + tap)
