"""The kernel's adjoint of few channels a group: products of `x` and `y`, and no matrix product.

    k[t, c, m, g] = sum x[n, stride*o + dilation*t, c, g] y[n, o, m, g]    over examples and outputs

Accumulators hold the sums of many positions next to each other, whose own sum comes last: neither
a loop nor a vector waits for one number. Where taps are few, unrolled loops add up neighbouring
outputs for all of them; else a loop over rows of outputs adds up the taps of one row.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.channels import groups_last
from jconv.fusion import added, alone, row_major
from jconv.geometry import Spec
from jconv.padding import cut, embed, grow, strided
from jconv.placement import zeros

# How many numbers an accumulator of the kernel's adjoint holds, so that a few stay in the first
# cache.
ACCUMULATOR = 8192
# Sums that one loop takes, each alone; more go in pairs, of which a loop takes a few.
ONE_LOOP, AT_ONCE = 9, 10
# Sums up to which loops are unrolled, past which compiling costs too much.
MOST_SUMS = 27


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    if _is_short(spec, x, y):
        return _by_neighbours(spec, x, y)
    last = spec.windows[-1]
    count = last.taps * (x.shape[-1] // spec.groups)
    rows = _rows(spec, x.shape[0], y.shape[-1], count)
    xp, y = groups_last(spec, embed(x, spec.windows)), groups_last(spec, y)
    xp = grow(xp, len(spec.taps), [(0, max(rows.reach - last.extent, 0), 0)])
    y = grow(y, len(spec.taps), [(0, rows.blocks * rows.length - last.out, 0)])
    xp, y = row_major(xp), row_major(y)
    nothing = (zeros((rows.length, *y.shape[-2:]), y.dtype, xp, y),) * count

    def at_leading_taps(_, tap):
        def step(index, sums):
            for row in range(rows.unroll):
                at = jnp.unravel_index(index * rows.unroll + row, rows.positions)
                terms = _terms(spec, rows, xp, y, at, tap)
                sums = tuple(s + term for s, term in zip(sums, terms, strict=True))
            return sums

        sums = lax.fori_loop(0, rows.steps, step, nothing)
        return None, jnp.stack([s.sum(0) for s in sums])

    taps = list(product(*map(range, spec.taps[:-1])))
    taps = jnp.asarray(taps, jnp.int32).reshape(len(taps), len(spec.taps) - 1)
    _, k = lax.scan(at_leading_taps, None, taps)
    return _channels(k.reshape(*spec.taps, -1, *k.shape[-2:]))


def _is_short(spec: Spec, x: Array, y: Array) -> bool:
    """Taps and channels so few that loops are worth unrolling for all of them.

    5x5 taps on 8x28x28x120 take 1.1 ms and not 1.6, on 8x7x7x960 1.1 and not 0.9; 3x3 of 3 channels
    0.5 and not 0.7, but 0.8 s to compile.
    """
    c, m = x.shape[-1] // spec.groups, y.shape[-1] // spec.groups
    if spec.groups < 8 or len(spec.taps) == 1:
        return False
    is_long = spec.out[-1] >= 8 and jnp.issubdtype(x.dtype, jnp.floating)
    sums = c * math.prod(spec.taps)
    return sums <= (MOST_SUMS if is_long and c <= 2 else ONE_LOOP if c == m == 1 else 0)


def _by_neighbours(spec: Spec, x: Array, y: Array) -> Array:
    """Loops add up `side` neighbouring outputs at every tap, on every thread; then the rest."""
    last, axis = spec.windows[-1], len(spec.taps)
    side = _side_by_side(last.out)
    blocks = -(-last.out // side)
    more = blocks * side - last.out
    high = max(more * last.stride + last.covered - last.extent, 0)
    xp = row_major(grow(groups_last(spec, embed(x, spec.windows)), axis, [(0, high, 0)]))
    y = grow(groups_last(spec, y), axis, [(0, more, 0)])
    y = row_major(y) if y.shape[-2] > 1 else y  # else it is so already
    y = y.reshape(*y.shape[:axis], blocks, side, *y.shape[-2:])
    sums = partial(_sums, spec, (*spec.out[:-1], blocks))
    entries = list(product(range(xp.shape[-2]), *map(range, spec.taps)))
    if len(entries) <= ONE_LOOP:
        k = _in_one_loop(sums, spec.taps, xp, y)
    else:
        some = [entries[i : i + AT_ONCE] for i in range(0, len(entries), AT_ONCE)]
        k = lax.concatenate([_in_pairs(sums, each, xp, y) for each in some], 0)
    k = jnp.moveaxis(k.reshape(-1, *spec.taps, *y.shape[-2:]), 0, axis)
    return _channels(k)


def _sums(spec: Spec, counts: Sequence[int], xp: Array, y: Array, entry: Sequence[int]) -> Array:
    """Of one channel and tap, over neighbours: `[n, *counts, m, g]`."""
    channel, *tap = entry
    xp = lax.slice_in_dim(xp, channel, channel + 1, axis=xp.ndim - 2)
    side, stride = y.shape[-3], spec.windows[-1].stride
    starts = [w.dilation * t for w, t in zip(spec.windows, tap, strict=True)]
    strides = [*(w.stride for w in spec.windows[:-1]), stride * side]
    terms = []
    for at in range(side):
        view = strided(xp, 1, [*starts[:-1], starts[-1] + at * stride], counts, strides)
        terms.append(view * lax.index_in_dim(y, at, y.ndim - 3, keepdims=False))
    return added(terms)


def _in_one_loop(sums: Callable, taps: Sequence[int], xp: Array, y: Array) -> Array:
    """All taps of one channel."""

    def all_sums(*tap):
        if len(tap) == len(taps):
            return sums(xp, y, (0, *tap))
        parts = [all_sums(*tap, t) for t in range(taps[len(tap)])]
        return jnp.stack(parts, len(tap) - len(taps) - 2)

    return lax.optimization_barrier(all_sums()).sum(range(len(taps) + 1))


def _in_pairs(sums: Callable, entries: Sequence, xp: Array, y: Array) -> Array:
    """Two taps next to each other as real and imaginary part, which share what they read."""

    def pairs(xp, y):
        each = [[sums(xp, y, e) for e in entries[i : i + 2]] for i in range(0, len(entries), 2)]
        return jnp.stack([lax.complex(pair[0], pair[-1]) for pair in each], -3)

    z = alone(pairs)(xp, y)
    k = jnp.stack([a.sum(range(z.ndim - 3)) for a in (z.real, z.imag)], 1)
    return k.reshape(-1, *k.shape[2:])[: len(entries)]


def _side_by_side(size: int) -> int:
    """How many neighbouring outputs are added up at once: all, or those that fill up rows best."""
    return size if size <= 16 else min(range(8, 17), key=lambda n: (-size % n, -n))


class _Rows(NamedTuple):
    """The last axis in `blocks` rows of `length` outputs; `positions` counts all rows."""

    blocks: int
    length: int
    reach: int
    positions: tuple[int, ...]
    unroll: int

    @property
    def steps(self) -> int:
        return math.prod(self.positions) // self.unroll


def _rows(spec: Spec, n: int, lanes: int, sums: int) -> _Rows:
    last = spec.windows[-1]
    blocks = -(-last.out * lanes // ACCUMULATOR)
    length = -(-last.out // blocks)
    reach = (blocks * length - 1) * last.stride + last.reach + 1
    positions = (n, *spec.out[:-1], blocks)
    # A few rows a step hide what a step costs; more terms would only compile longer.
    total = math.prod(positions)
    unroll = max(u for u in (4, 3, 2, 1) if total % u == 0 and (u == 1 or u * sums <= 24))
    return _Rows(blocks, length, reach, positions, unroll)


def _terms(spec: Spec, rows: _Rows, xp: Array, y: Array, at, tap) -> Iterator[Array]:
    """A row of outputs times what each tap of the last axis reads, `[length, m, g]` each."""
    image, *leading, block = at
    last = spec.windows[-1]
    at_x = [
        o * w.stride + t * w.dilation for o, w, t in zip(leading, spec.windows, tap, strict=False)
    ]
    read = (rows.length - 1) * last.stride + 1
    x_row = _row(xp, (image, *at_x, block * rows.length * last.stride), read + last.reach)
    y_row = _row(y, (image, *leading, block * rows.length), rows.length)
    for t in range(last.taps):
        view = lax.slice_in_dim(x_row, t * last.dilation, t * last.dilation + read, last.stride, 0)
        for c in range(xp.shape[-2]):
            yield view[:, c : c + 1, :] * y_row


def _channels(k: Array) -> Array:
    """`[..., m, groups]` to `[..., groups * m]`."""
    return jnp.swapaxes(k, -1, -2).reshape(*k.shape[:-2], -1)


def _row(a: Array, at, length: int) -> Array:
    """`[length, c, g]` from position `at` of `[n, *size, c, g]`."""
    ones = (1,) * (len(at) - 1)
    row = cut(a, (*at, 0, 0), (*ones, length, *a.shape[-2:]))
    return row.reshape(length, *a.shape[-2:])
