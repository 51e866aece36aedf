"""Shifted views times taps, added in one fused loop over all channels: no matrix product.

    forward         x[n, i, g, c] k[t, c, g, m] -> y[n, o, g, m]
                    x[n, i, c, g] k[t, c, m, g] -> y[n, o, g, m], a sum for each of a few m
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  x[n, i, c, g] y[n, o, m, g] -> k[t, c, m, g], accumulated over rows of positions

Few channels a group (depthwise, ResNeXt) leave a matrix product nothing to do. `x` is padded once
and kept from being fused (the barrier): the bounds tests of a fused pad cost more than the
arithmetic.
"""

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.channels import accumulator, transposed_kernel
from jconv.fusion import finished
from jconv.geometry import Spec, transposed
from jconv.padding import crop, cut, embed, grow
from jconv.placement import zeros

# How many numbers an accumulator of the kernel's adjoint holds, so that a few stay in the first
# cache.
ACCUMULATOR = 8192
# Sums side by side in one loop, as one alone waits at every term for the one before: 15x15 taps on
# 512x512 take 2.6 ms with 2 and 1.2 with 4.
SUMS = 4


def forward(spec: Spec, x: Array, k: Array, backwards: bool = False) -> Array:
    """`backwards` reads the taps last to first, where a reversed copy would only be another array.

    Longer than the first cache, what the same program wrote is slow to read again and again: 7x7
    taps of 384 channels on 8x14x14 take 1.2 ms instead of 0.85.
    """
    turned = _has_groups_last(spec, k)
    arranged = _lanes(spec, x) if turned else _groups(spec, x)
    xp = lax.optimization_barrier(embed(arranged.reshape(x.shape), spec.windows))
    xp = xp.reshape(*xp.shape[:-1], *arranged.shape[-2:])
    if turned:
        channels = [xp[..., c, :] for c in range(xp.shape[-2])]
        ks = _row_major(_lanes(spec, k))
        sums = [_sum(spec, channels, ks[..., o, :], backwards) for o in range(ks.shape[-2])]
        y = jnp.stack(sums, -1)
    else:
        channels = [xp[..., c : c + 1] for c in range(xp.shape[-1])]
        y = finished(_sum(spec, channels, _groups(spec, k), backwards))
    return y.reshape(*y.shape[:-2], -1)


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    spec = transposed(spec)
    if k.shape[-2] == 1 and k.shape[-1] == spec.groups:
        return forward(spec, y, k, backwards=True)
    return forward(spec, y, _row_major(transposed_kernel(k, spec.groups)))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    if _is_depthwise(spec, x, y):
        return _depthwise(spec, x, y)
    last = spec.windows[-1]
    count = last.taps * (x.shape[-1] // spec.groups)
    rows = _rows(spec, x.shape[0], y.shape[-1], count)
    xp, y = _lanes(spec, embed(x, spec.windows)), _lanes(spec, y)
    xp = grow(xp, len(spec.taps), [(0, max(rows.reach - last.extent, 0), 0)])
    y = grow(y, len(spec.taps), [(0, rows.blocks * rows.length - last.out, 0)])
    xp, y = _row_major(xp), _row_major(y)
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


def _has_groups_last(spec: Spec, k: Array) -> bool:
    """Whether vectors run over the groups, as the outputs of one would not fill them.

    It took grouped3x3 from 2.2 to 1.8 ms, and 2 to 2 channels of 64 groups from 1.1 to 0.5.
    """
    c, m = k.shape[-2], k.shape[-1] // spec.groups
    return spec.groups >= 4 and 1 < m < 8 and math.prod(spec.taps) * c * m <= 256


def _sum(spec: Spec, channels: Sequence[Array], ks: Array, backwards: bool) -> Array:
    """All taps of all channels `[n, *extent, ...]` times `ks[tap][channel]`, added up."""
    taps = list(product(*map(range, spec.taps)))
    terms = [
        _view(spec, x, t) * lax.expand_dims(ks[u][c], range(len(t) + 1))
        for t, u in zip(taps, reversed(taps) if backwards else taps, strict=True)
        for c, x in enumerate(channels)
    ]
    return _added(terms)


def _added(terms: Sequence[Array]) -> Array:
    return reduce(jnp.add, [reduce(jnp.add, terms[i::SUMS]) for i in range(min(SUMS, len(terms)))])


def _is_depthwise(spec: Spec, x: Array, y: Array) -> bool:
    """One channel a group and taps so few that one loop is worth unrolling for all of them.

    It took 3x3 taps on 8x56x56x96 from 2.6 to 1.9 ms, but 5x5 on 8x28x28x192 from 2.3 to 4.0.
    """
    return (
        8 <= spec.groups == x.shape[-1] == y.shape[-1]
        and len(spec.taps) > 1
        and math.prod(spec.taps) <= 9
    )


def _depthwise(spec: Spec, x: Array, y: Array) -> Array:
    """One loop adds up `side` neighbouring outputs at every tap, on every thread; then the rest."""
    last = spec.windows[-1]
    side = _side_by_side(last.out)
    axis, blocks = len(spec.taps), -(-last.out // side)
    more = blocks * side - last.out
    xp, y = (a.astype(accumulator(spec, a.dtype)) for a in (embed(x, spec.windows), y))
    high = max(more * last.stride + last.covered - last.extent, 0)
    xp = lax.optimization_barrier(grow(xp, axis, [(0, high, 0)]))
    y = grow(y, axis, [(0, more, 0)]).reshape(*y.shape[:axis], blocks, side, -1)
    strides = [*(w.stride for w in spec.windows[:-1]), last.stride * side]
    counts = (*spec.out[:-1], blocks)

    def products(tap):
        for at in range(side):
            starts = [w.dilation * t for w, t in zip(spec.windows, tap, strict=True)]
            starts[-1] += at * last.stride
            yield _strided(xp, starts, counts, strides) * y[..., at, :]

    def sums(*tap):
        if len(tap) == axis:
            return _added(list(products(tap)))
        return jnp.stack([sums(*tap, t) for t in range(spec.taps[len(tap)])], len(tap) - axis - 1)

    k = lax.optimization_barrier(sums())
    return k.sum(range(axis + 1)).reshape(*spec.taps, 1, -1)


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


def _row(a: Array, at, length: int) -> Array:
    """`[length, c, g]` from position `at` of `[n, *size, c, g]`."""
    ones = (1,) * (len(at) - 1)
    row = cut(a, (*at, 0, 0), (*ones, length, *a.shape[-2:]))
    return row.reshape(length, *a.shape[-2:])


def _view(spec: Spec, xp: Array, tap) -> Array:
    starts = [w.dilation * t for w, t in zip(spec.windows, tap, strict=True)]
    return _strided(xp, starts, spec.out, [w.stride for w in spec.windows])


def _strided(xp: Array, starts: Sequence[int], counts: Sequence[int], strides: Sequence[int]):
    """`counts` entries of each spatial axis from `starts` on, `strides` apart."""
    bounds = [(s, s + (n - 1) * d + 1) for s, n, d in zip(starts, counts, strides, strict=True)]
    return crop(xp, 1, bounds, strides)


def _lanes(spec: Spec, a: Array) -> Array:
    """`[..., groups * c]` to `[..., c, groups]`."""
    return jnp.swapaxes(_groups(spec, a), -1, -2)


def _groups(spec: Spec, a: Array) -> Array:
    """`[..., groups * c]` to `[..., groups, c]`, of the dtype that sums are kept in."""
    a = a.astype(accumulator(spec, a.dtype))
    return a.reshape(*a.shape[:-1], spec.groups, -1)


def _channels(a: Array) -> Array:
    """`[..., m, groups]` to `[..., groups * m]`."""
    return jnp.swapaxes(a, -1, -2).reshape(*a.shape[:-2], -1)


def _row_major(a: Array) -> Array:
    """`a` with its last axis next to itself in memory: XLA would leave a transpose undone.

    All entries in a row have one layout only. (A layout constraint is nothing `jax.export` saves.)
    """
    return lax.optimization_barrier(a.reshape(-1)).reshape(a.shape)
