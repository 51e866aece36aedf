"""What each device needs of its neighbours where a spatial axis is cut: halos, sent and sent back.

Device `d` holds entries `[d*shard, (d + 1)*shard)` of an axis and computes outputs
`[d*out, (d + 1)*out)`. What its windows read is gathered from its own entries and two halos,

    exchange   h[d] = (the last `low` of those before, x[d], the first `high` of those after)
    select     xp[d, j] = h[d, at[d, j]],  0 where a window reads no entry

Both are linear; the adjoint of an exchange sends the halos back and adds them.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv import adjoint
from jconv.geometry import Window
from jconv.padding import grow, sources


class Cut(NamedTuple):
    """One spatial axis over the `devices` of the mesh axis `name`; tables have a row a device."""

    name: str
    devices: int
    shard: int  # entries a device
    out: int  # outputs a device
    low: int
    high: int
    circular: bool
    at: np.ndarray  # which entry between the halos each position reads, -1 for none
    outside: np.ndarray  # whether it is beyond the ends of the input

    @property
    def starts(self) -> np.ndarray | None:
        """Where each device's positions start if they follow each other everywhere."""
        steps = self.at - np.arange(self.at.shape[1])
        starts = steps.max(1, initial=0)
        length = self.low + self.shard + self.high
        follow = ((steps == starts[:, None]) | (self.at < 0)).all()
        fit = ((starts >= 0) & (starts + self.at.shape[1] <= length)).all()
        return starts if follow and fit else None


def cut(w: Window, name: str, devices: int, mode: str) -> Cut:
    """How an axis and its window are cut."""
    shard, out = -(-w.size // devices), -(-w.out // devices)
    first = np.arange(devices)[:, None]
    position = w.stride * out * first + np.arange((out - 1) * w.stride + w.reach + 1) - w.low
    period = devices * shard
    source, reads = _sources(w, position, period, mode)
    at = source - shard * first
    is_line = mode == "constant" or (mode == "wrap" and w.size == period)
    if is_line and w.input_dilation == 1:
        # Positions that follow each other are one slice, also where some of them read nothing.
        spans = position - shard * first
        low, high = max(0, -spans.min()), max(0, spans.max() + 1 - shard)
    else:
        low = max(0, -at.min(initial=0, where=reads))
        high = max(0, at.max(initial=0, where=reads) + 1 - shard)
    outside = (position < 0) | (position >= w.spread)
    at = np.where(reads, at + low, -1)
    return Cut(name, devices, shard, out, int(low), int(high), mode == "wrap", at, outside)


def _sources(
    w: Window, position: np.ndarray, period: int, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Which entry stands at each position, and whether one does and a window reads it."""
    needed = position < (w.out - 1) * w.stride + w.reach + 1 - w.low
    if mode == "constant":
        turn, at = 0, position
        needed = needed & (position >= 0) & (position < w.spread)
    elif mode == "wrap":
        turn, at = position // w.spread, position % w.spread
    else:
        low, high = max(0, -position.min()), max(0, position.max() + 1 - w.spread)
        turn, at = 0, sources(w.spread, low, high, mode)[position + low]
    return turn * period + at // w.input_dilation, needed & (at % w.input_dilation == 0)


def gathered(x: Array, axis: int, cut: Cut) -> Array:
    """What this device's windows read along an axis: of its shard and the halos, zeros outside."""
    static = (axis, cut)
    x = adjoint.linear(exchange, send_back, static, x)
    return adjoint.linear(_select, _unselect, static, x)


def outside(x: Array, axis: int, cut: Cut) -> Array:
    """Which positions along an axis are beyond the ends of the whole input, against `x`."""
    return _row(cut.outside, x, axis, cut)


# ---------------------------------------------------------------- halos


def _hops(cut: Cut) -> list[tuple[int, int]]:
    """`(distance, count)` of every piece of the halos, in their order; 0 is the shard itself."""

    def side(halo: int) -> list[tuple[int, int]]:
        counts = [min(cut.shard, halo - at) for at in range(0, halo, cut.shard)]
        return list(enumerate(counts, 1))

    below = [(-distance, count) for distance, count in reversed(side(cut.low))]
    return [*below, (0, cut.shard), *side(cut.high)]


def _sent(x: Array, cut: Cut, distance: int) -> Array:
    """`x` of the device at that distance, zeros where there is none."""
    if distance == 0:
        return x
    places = range(cut.devices)
    pairs = [((d + distance) % cut.devices, d) for d in places]
    if not cut.circular:
        pairs = [(source, d) for source, d in pairs if source == d + distance]
    return lax.ppermute(x, cut.name, pairs) if pairs else jnp.zeros_like(x)


def exchange(static, x: Array) -> Array:
    """The shard between its halos."""
    axis, cut = static
    parts = []
    for distance, count in _hops(cut):
        start = cut.shard - count if distance < 0 else 0
        part = lax.slice_in_dim(x, start, start + count, axis=axis)
        parts.append(_sent(part, cut, distance))
    return lax.concatenate(parts, axis)


def send_back(static, y: Array) -> Array:
    """Adjoint of `exchange`: the halos go back, and are added where they came from."""
    axis, cut = static
    total, at = None, 0
    for distance, count in _hops(cut):
        part = _sent(lax.slice_in_dim(y, at, at + count, axis=axis), cut, -distance)
        start = cut.shard - count if distance < 0 else 0
        part = grow(part, axis, [(start, cut.shard - start - count, 0)])
        total = part if total is None else total + part
        at += count
    assert total is not None
    return total


# ---------------------------------------------------------------- what windows read


def _row(table: np.ndarray, x: Array, axis: int, cut: Cut) -> Array:
    """This device's row of a table, against `x`."""
    shape = [-1 if a == axis else 1 for a in range(x.ndim)]
    return jnp.asarray(table)[lax.axis_index(cut.name)].reshape(shape)


def _start(cut: Cut, starts: np.ndarray) -> Array:
    return jnp.asarray(starts, jnp.int32)[lax.axis_index(cut.name)]


def _indices(cut: Cut) -> Array:
    return jnp.asarray(np.maximum(cut.at, 0), jnp.int32)[lax.axis_index(cut.name)]


def _select(static, h: Array) -> Array:
    axis, cut = static
    if cut.starts is not None:
        y = lax.dynamic_slice_in_dim(h, _start(cut, cut.starts), cut.at.shape[1], axis)
    else:
        y = jnp.take(h, _indices(cut), axis, mode="clip")
    return _where_read(y, axis, cut)


def _unselect(static, y: Array) -> Array:
    """Adjoint of `_select`."""
    axis, cut = static
    y = _where_read(y, axis, cut)
    shape = (*y.shape[:axis], cut.low + cut.shard + cut.high, *y.shape[axis + 1 :])
    nothing = jnp.zeros(shape, y.dtype)
    if cut.starts is not None:
        return lax.dynamic_update_slice_in_dim(nothing, y, _start(cut, cut.starts), axis)
    return nothing.at[(slice(None),) * axis + (_indices(cut),)].add(y, mode="clip")


def _where_read(y: Array, axis: int, cut: Cut) -> Array:
    if (cut.at >= 0).all():
        return y
    return jnp.where(_row(cut.at >= 0, y, axis, cut), y, jnp.zeros((), y.dtype))
