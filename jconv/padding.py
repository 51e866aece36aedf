"""Padding and cropping of spatial axes, in every mode, each with its adjoint.

An axis of the result is a row of *runs*: stretches of the input read forwards, backwards, or one
entry repeated. Padding concatenates the runs; its adjoint adds each run back where it was read. So
both are slices, and no scatter is needed but where there are very many.
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import adjoint, checks, geometry
from jconv.geometry import Window
from jconv.operands import is_zero
from jconv.placement import zeros


def padded(
    x: Array,
    windows: Sequence[Window],
    mode: str = "constant",
    value: ArrayLike = 0,
    custom_vjp: bool = True,
) -> Array:
    """What the windows slide over: `x` dilated, then padded or cropped."""
    static = (tuple(windows), mode)
    y = adjoint.linear(_pad, _unpad, static, x, ruled=custom_vjp)
    if mode != "constant" or is_zero(value):
        return y
    return jnp.where(outside(windows), jnp.asarray(value, y.dtype), y)


def unpadded(
    y: Array, windows: Sequence[Window], mode: str = "constant", custom_vjp: bool = True
) -> Array:
    """Adjoint of `padded`'s linear part: what was read from outside is added where it came from."""
    static = (tuple(windows), mode)
    return adjoint.linear(_unpad, _pad, static, y, ruled=custom_vjp)


def outside(windows: Sequence[Window]) -> Array:
    """True at the positions that padding added, `[*extent, 1]`: a constant for each axis alone."""
    beyond = []
    for axis, w in enumerate(windows):
        position = np.arange(w.extent) - w.low
        others = [a for a in range(len(windows) + 1) if a != axis]
        added = (position < 0) | (position >= w.spread)
        beyond.append(jnp.asarray(np.expand_dims(added, others)))
    return reduce(jnp.logical_or, beyond)


def _pad(static, x: Array) -> Array:
    windows, mode = static
    return embed(x, windows) if mode == "constant" else _fold_in(x, windows, mode)


def _unpad(static, y: Array) -> Array:
    windows, mode = static
    return extract(y, windows) if mode == "constant" else _fold_back(y, windows, mode)


# ---------------------------------------------------------------- zeros


def embed(x: Array, windows: Sequence[Window], fill: ArrayLike = 0) -> Array:
    """Dilates, pads with `fill` or crops: `[*batch, *size, c]` to `[*batch, *extent, c]`."""
    lead = x.ndim - len(windows) - 1
    x = grow(
        x, lead, [(max(w.low, 0), max(w.high, 0), w.input_dilation - 1) for w in windows], fill
    )
    return crop(x, lead, [(max(-w.low, 0), max(-w.low, 0) + w.extent) for w in windows])


def extract(y: Array, windows: Sequence[Window]) -> Array:
    """Adjoint of `embed`: `[*batch, *extent, c]` to `[*batch, *size, c]`."""
    lead = y.ndim - len(windows) - 1
    y = grow(y, lead, [(max(-w.low, 0), max(-w.high, 0), 0) for w in windows])
    bounds = [(max(w.low, 0), max(w.low, 0) + w.spread) for w in windows]
    return crop(y, lead, bounds, [w.input_dilation for w in windows])


def grow(x: Array, lead: int, config: Sequence[tuple[int, int, int]], fill: ArrayLike = 0) -> Array:
    """`low` and `high` entries of `fill` around, and zeros between, on the axes from `lead` on.

    The ends are concatenated, not padded: the transpose of a pad is a pad by negative amounts,
    which XLA folds into a convolution that takes it, and XLA:CPU then reads out of bounds. Of a
    concatenation it is a slice. Both compile to the same loop.
    """
    between = [(0, 0, 0)] * x.ndim
    for axis, (_, _, interior) in enumerate(config, lead):
        between[axis] = (0, 0, interior)
    if any(map(any, between)):
        x = lax.pad(x, jnp.zeros((), x.dtype), between)
    for axis, (low, high, _) in enumerate(config, lead):
        ends = [
            jnp.full((*x.shape[:axis], count, *x.shape[axis + 1 :]), fill, x.dtype)
            for count in (low, high)
        ]
        if low or high:
            x = lax.concatenate([ends[0], x, ends[1]], axis)
    return x


def crop(
    x: Array,
    lead: int,
    bounds: Sequence[tuple[int, int]],
    strides: Sequence[int] | None = None,
) -> Array:
    """`x[start:stop:stride]` on the axes from `lead` on, one pair of bounds each."""
    starts, limits, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    for axis, (start, stop) in enumerate(bounds, lead):
        starts[axis], limits[axis] = start, stop
    if strides is not None:
        steps[lead : lead + len(bounds)] = strides
    if all(s == 0 for s in starts) and tuple(limits) == x.shape and max(steps, default=1) == 1:
        return x
    return lax.slice(x, starts, limits, steps)


def strided(
    x: Array, lead: int, starts: Sequence[int], counts: Sequence[int], strides: Sequence[int]
) -> Array:
    """`counts` entries of each axis from `lead` on, `strides` apart, the first at `starts`."""
    bounds = [(s, s + (n - 1) * d + 1) for s, n, d in zip(starts, counts, strides, strict=True)]
    return crop(x, lead, bounds, strides)


def cut(x: Array, starts: Sequence[Array | int], sizes: Sequence[int]) -> Array:
    """`sizes` entries of each axis from traced `starts`, whatever integers these are."""
    return lax.dynamic_slice(x, [jnp.asarray(s, jnp.int32) for s in starts], sizes)


# ---------------------------------------------------------------- the other modes, as runs


# Runs of an axis up to which each is a slice; of more, all are one table: to pad 6 entries by 1500
# on each side took 5 s to compile.
MOST_RUNS = 64


class Run(NamedTuple):
    """`length` entries read from `start` on in steps of +1, -1 or 0."""

    start: int
    step: int
    length: int

    @property
    def span(self) -> tuple[int, int]:
        """The bounds of what is read."""
        if self.step == 0:
            return self.start, self.start + 1
        last = self.start + self.step * (self.length - 1)
        return min(self.start, last), max(self.start, last) + 1


def sources(size: int, low: int, high: int, mode: str) -> np.ndarray:
    """The index that each position of a padded axis reads: `fold(i - low)`."""
    i = np.arange(-low, size + high)
    match mode:
        case "edge":
            return np.clip(i, 0, size - 1)
        case "wrap":
            return i % size
        case "symmetric":
            i = i % (2 * size)
            return np.minimum(i, 2 * size - 1 - i)
        case "reflect":
            period = max(2 * (size - 1), 1)
            i = i % period
            return np.minimum(i, period - i) if size > 1 else i * 0
    raise checks.wrong("mode", f"be one of {geometry.MODES}", repr(mode))


def _runs(indices: np.ndarray) -> list[Run]:
    """`indices` split greedily into stretches of one step each."""
    steps = np.diff(indices)
    ends = [*(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)]  # of equal steps
    runs: list[Run] = []
    at = 0
    while at < len(indices):
        step, count = 1, 1
        if at < len(steps) and abs(steps[at]) <= 1:
            step, count = int(steps[at]), ends[bisect_right(ends, at)] - at + 1
        runs.append(Run(int(indices[at]), step, count))
        at += count
    return runs


def _axes(x: Array, windows: Sequence[Window], mode: str):
    """Each spatial axis of `x` that is not kept as it is, with what it reads, as runs if few."""
    for axis, w in enumerate(windows, x.ndim - len(windows) - 1):
        if (w.low, w.high, w.input_dilation) != (0, 0, 1):
            indices = sources(w.spread, w.low, w.high, mode)
            runs = _runs(indices)
            yield axis, w, indices, runs if 0 < len(runs) <= MOST_RUNS else None


def _fold_in(x: Array, windows: Sequence[Window], mode: str) -> Array:
    for axis, w, indices, runs in _axes(x, windows, mode):
        x = grow(x, axis, [(0, 0, w.input_dilation - 1)])
        if runs is None:
            x = jnp.take(x, indices, axis, mode="clip")
        else:
            x = lax.concatenate([_read(x, axis, run) for run in runs], axis)
    return x


def _fold_back(y: Array, windows: Sequence[Window], mode: str) -> Array:
    for axis, w, indices, runs in _axes(y, windows, mode):
        if runs is None:
            sums = zeros((*y.shape[:axis], w.spread, *y.shape[axis + 1 :]), y.dtype, y)
            y = sums.at[(slice(None),) * axis + (indices,)].add(y)
        else:
            stops = list(accumulate(run.length for run in runs))
            parts = [
                lax.slice_in_dim(y, stop - run.length, stop, axis=axis)
                for run, stop in zip(runs, stops, strict=True)
            ]
            written = (
                _write(part, axis, run, w.spread) for part, run in zip(parts, runs, strict=True)
            )
            y = reduce(jnp.add, written)
        y = lax.slice_in_dim(y, 0, w.spread, w.input_dilation, axis)
    return y


def _read(x: Array, axis: int, run: Run) -> Array:
    part = lax.slice_in_dim(x, *run.span, axis=axis)
    if run.step == 0:
        return jnp.repeat(part, run.length, axis)
    return lax.rev(part, (axis,)) if run.step < 0 else part


def _write(part: Array, axis: int, run: Run, size: int) -> Array:
    """Adjoint of `_read`, into an axis of `size` zeros."""
    if run.step == 0:
        part = part.sum(axis, part.dtype, keepdims=True)
    elif run.step < 0:
        part = lax.rev(part, (axis,))
    start, stop = run.span
    return grow(part, axis, [(start, size - stop, 0)])
