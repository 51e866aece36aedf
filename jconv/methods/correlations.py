"""The kernel's adjoint of few channels a group: products of `x` and `y`, and no matrix product.

    k[t, c, m, g] = sum x[n, stride*o + dilation*t, c, g] y[n, o, m, g]    over examples and outputs

Accumulators hold the sums of many positions next to each other, whose own sum comes last: neither
a loop nor a vector waits for one number. One loop adds up all taps where they are few, else a loop
over rows of outputs the taps of one row.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.channels import accumulator, groups_last
from jconv.fusion import added, row_major
from jconv.geometry import Spec
from jconv.padding import cut, embed, grow, strided
from jconv.placement import zeros

# How many numbers an accumulator of the kernel's adjoint holds, so that a few stay in the first
# cache.
ACCUMULATOR = 8192


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    if _is_depthwise(spec, x, y):
        return _depthwise(spec, x, y)
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
    k = jnp.swapaxes(k.reshape(*spec.taps, -1, *k.shape[-2:]), -1, -2)
    return k.reshape(*k.shape[:-2], -1)


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
            yield strided(xp, 1, starts, counts, strides) * y[..., at, :]

    def sums(*tap):
        if len(tap) == axis:
            return added(list(products(tap)))
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
