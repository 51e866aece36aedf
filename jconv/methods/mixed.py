"""Winograd's tiles along the first axes, patches along the others, and one product of both.

    forward         y = a' [sum_t (b x)[t] . (g k)[t]]        `t`: the taps of the other axes
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  k[t] = g' [(b x)[t] . (a y)]              summed over all tiles

A tiled axis takes half of the products, F(4, 3), and its transforms add whole rows. The patches of
the other axes make the product's rows long. Forward, one of them is summed late instead: all its
taps are outputs of the product (as in `kn2row`), and shifted into place when these are transformed,
which spares copying patches of it.
Source: Lavin and Gray (2016), section 4.1.
"""

import math
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.blocks import Blocks, Reader, known, map_blocks, reader, split, sum_blocks
from jconv.channels import accumulator, matmul, transposed_kernel
from jconv.fusion import in_vectors
from jconv.geometry import Spec, Window, transposed
from jconv.methods.patches import kernel_adjoint_by_rows
from jconv.methods.tiles import Tile, applied, combined, entries, tile, views
from jconv.padding import crop, grow

# Bytes of the patches and their products in one block.
BUDGET = 12 * 2**20
# Pairs of channels from which two axes of F(2, 3), of small kernels, beat one of F(4, 3):
# 64 -> 64 on 16x16x16 takes 3.0 ms by one axis and 4.5 by two, 256 -> 256 on 8x8x8 11.5 and 6.8.
MANY = 2**14
# Input channels below which rows of them are too short: to be copied fast into patches of the
# kernel's adjoint, or to be all that a product sums.
FEW = 8
# Input channels from which a product needs no patches: 3x1x1 taps on 2x16x32x32x32 take 2.5 ms by
# patches and 1.2 by tiles, of 16 channels 0.9 and 1.2.
WIDE = 32


class Plan(NamedTuple):
    """Which axes are no patches; the blocks, and of one the tiles of each axis, or its outputs."""

    tiles: dict[int, Tile]
    late: tuple[int, ...]
    blocks: Blocks
    counts: tuple[int, ...]
    read: Reader

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(t.reach for t in self.tiles.values())

    def size(self, axis: int) -> int:
        """Outputs that one of `counts` stands for."""
        return self.tiles[axis].size if axis in self.tiles else 1


def forward(spec: Spec, x: Array, k: Array) -> Array:
    tiles = _tiles(spec, x, k.shape[-1])
    late = _late(spec, tiles) if x.shape[-1] >= FEW else ()
    plan = _plan(spec, x, k.shape[-1], tiles, late)
    flat = lax.optimization_barrier(_kernel_transform(spec, plan, k))

    def block(step):
        rows = _rows(plan, _patches(spec, plan, plan.read(step)))
        return _output_transform(spec, plan, _product(spec, rows, flat, (2, 2)))

    return map_blocks(plan.blocks, block, spec.out[0])


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    return forward(transposed(spec), y, transposed_kernel(k, 1))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    if x.shape[-1] < FEW:
        return kernel_adjoint_by_rows(spec, x, y)
    # Over few positions F(2, 5) rounds 4.5 times as much as XLA's sum, and other tiles do not.
    most = 5 if known(x.shape[0]) * math.prod(spec.out) >= 1024 else 4
    tiles = _tiles(spec, x, y.shape[-1], most)
    plan = _plan(spec, x, y.shape[-1], tiles, ())
    outputs = _outputs_reader(plan, _wide(spec, tiles, y))

    def block(step):
        rows = _rows(plan, _patches(spec, plan, plan.read(step)))
        return _product(spec, _rows(plan, _spread(plan, outputs(step))), rows, (1, 1))

    return _kernel_transform_adjoint(spec, plan, sum_blocks(plan.blocks, block))


def _plan(
    spec: Spec, x: Array, outputs: int, tiles: dict[int, Tile], late: tuple[int, ...]
) -> Plan:
    acc = accumulator(spec, x.dtype)
    axes = list(enumerate(spec.windows))
    # Outputs of each entry of an axis, what it reads but its last, and from where on.
    sizes = [tiles[i].size if i in tiles else 1 for i, _ in axes]
    reaches = [(s - 1) * w.stride + w.reach for s, w in zip(sizes, spec.windows, strict=True)]
    steps = [s * w.stride for s, w in zip(sizes, spec.windows, strict=True)]
    counts = [-(-w.out // s) for s, w in zip(sizes, spec.windows, strict=True)]
    copied = math.prod(w.taps for i, w in axes if i not in (*tiles, *late))
    columns = copied * x.shape[-1] + _late_taps(spec, late) * outputs
    columns *= math.prod(t.reach for t in tiles.values())
    blocks = split(x.shape[0], counts[0], math.prod(counts[1:]) * columns * acc.itemsize, BUDGET)
    counts[0] = blocks.padded_rows
    extents = [(n - 1) * s + r + 1 for n, s, r in zip(counts, steps, reaches, strict=True)]
    # Never a plain cut: XLA would fuse it, and add the block's offset anew at every read.
    extents[-1] += 1
    windows = [w.grown_to(n) for w, n in zip(spec.windows, extents, strict=True)]
    counts[0] = blocks.rows
    length = (blocks.rows - 1) * steps[0] + reaches[0] + 1
    read = reader(blocks, _wide(spec, tiles, x), windows, steps[0], length)
    return Plan(tiles, late, blocks, tuple(counts), read)


def _wide(spec: Spec, tiles: dict[int, Tile], a: Array) -> Array:
    """`a` as its sums are kept, where tiles transform it: those are sums, too."""
    return a.astype(accumulator(spec, a.dtype)) if tiles else a


def _tiles(spec: Spec, x: Array, outputs: int, most: int = 5) -> dict[int, Tile]:
    """Of the first axes of up to `most` taps, never of the last of several: patches take it."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return {}
    several = _several(spec)
    is_alone = len(several) == 1 and several[0] < len(spec.taps) - 1
    free = several if is_alone and x.shape[-1] >= WIDE else several[:-1]
    taps = {i: spec.taps[i] for i in free if _is_tileable(spec.windows[i], most)}
    many = x.shape[-1] * outputs >= MANY and max(taps.values(), default=0) < 4
    reaches = (4, 4) if many and len(taps) > 1 else (6,)
    return {i: tile(reach, taps[i]) for i, reach in zip(taps, reaches, strict=False)}


def _late(spec: Spec, tiles: dict[int, Tile]) -> tuple[int, ...]:
    """The axis before the last of several taps, where few outputs are no whole window's."""
    late = [i for i in _several(spec)[:-1] if i > 0 and i not in tiles][-1:]
    is_worth_it = all(
        w.stride == 1 and 4 * w.reach <= w.out for w in (spec.windows[i] for i in late)
    )
    return tuple(late) if is_worth_it else ()


def _late_taps(spec: Spec, late: tuple[int, ...]) -> int:
    return math.prod(spec.windows[i].taps for i in late)


def _several(spec: Spec) -> list[int]:
    return [i for i, w in enumerate(spec.windows) if w.taps > 1]


def _is_tileable(w: Window, most: int) -> bool:
    return 3 <= w.taps <= most and w.stride == w.dilation == 1


def _outputs_reader(plan: Plan, y: Array) -> Reader:
    """The reader of the outputs of a block, in whole tiles."""
    counts = (plan.blocks.padded_rows, *plan.counts[1:])
    sizes = [plan.size(i) * n for i, n in enumerate(counts)]
    windows = [Window(n, 1, high=m - n) for n, m in zip(y.shape[1:], sizes, strict=False)]
    read = reader(plan.blocks, y, windows, plan.size(0), plan.size(0) * plan.blocks.rows)
    if not plan.tiles:
        return read
    # One row more, never read: not a plain cut, as in `_plan`.
    return lambda step: grow(read(step), 1 + min(plan.tiles), [(0, 1, 0)])


def _patches(spec: Spec, plan: Plan, x: Array) -> Array:
    """`b x` of every tile, patches of the other axes: `[*reach, n, *counts, taps * c]`."""
    x = lax.optimization_barrier(x)
    for front, (axis, t) in enumerate(plan.tiles.items()):
        parts = views(x, front + 1 + axis, range(t.reach), plan.counts[axis], t.size)
        x = lax.optimization_barrier(combined(t.b, parts, front))
    for axis in reversed(range(len(spec.windows))):
        w, at = spec.windows[axis], len(plan.tiles) + 1 + axis
        if axis in (*plan.tiles, *plan.late) or x.shape[at] == plan.counts[axis]:
            continue
        lead = x.shape[:at]
        x = x.reshape(math.prod(lead), *x.shape[at:])  # fewer axes compile sooner
        starts = [t * w.dilation for t in range(w.taps)]
        taps = views(x, 1, starts, plan.counts[axis], w.stride)
        # The barrier: merging axes within the fusion would divide at every entry.
        x = lax.optimization_barrier(jnp.stack(taps, -2))
        x = x.reshape(*lead, *x.shape[1:-2], -1)
    return x


def _spread(plan: Plan, y: Array) -> Array:
    """`a y` of every tile: `[*reach, n, *counts, m]`."""
    y = lax.optimization_barrier(y)
    for front, (axis, t) in enumerate(plan.tiles.items()):
        parts = views(y, front + 1 + axis, range(t.size), plan.counts[axis], t.size)
        y = lax.optimization_barrier(combined(t.a, parts, front))
    return y


def _output_transform(spec: Spec, plan: Plan, products: Array) -> Array:
    """`a'` of every tile: `[positions, rows, late * m]` to `[n, *out, m]`, or rows of it."""
    held = [c + (spec.windows[i].reach if i in plan.late else 0) for i, c in enumerate(plan.counts)]
    m = products.reshape(*plan.positions, plan.blocks.images, *held, products.shape[-1])
    m = lax.optimization_barrier(m)
    m = _sum_late(spec, plan, m)
    for front, (axis, t) in reversed(list(enumerate(plan.tiles.items()))):
        at = front + 1 + axis
        m = combined(t.a.T, entries(m, front), at + 1)
        m = m.reshape(*m.shape[:at], -1, *m.shape[at + 2 :])
        m = lax.optimization_barrier(m) if front else m
    sizes = [plan.size(i) * c for i, c in enumerate(plan.counts)]
    return crop(m, 1, [(0, min(n, w.out)) for n, w in zip(sizes, spec.windows, strict=True)])


def _sum_late(spec: Spec, plan: Plan, products: Array) -> Array:
    """Every tap's part of the last axis, shifted into place on its own axis, and added."""
    for axis in plan.late:
        w, at = spec.windows[axis], len(plan.tiles) + 1 + axis
        parts = enumerate(jnp.split(products, w.taps, -1))
        shifted = (views(part, at, [t * w.dilation], w.out, 1)[0] for t, part in parts)
        # What LLVM unrolls compiles in 0.15 s (volume3x3x3), a loop of vectors in 0.04.
        products = in_vectors(reduce(jnp.add, shifted), w.taps)
    return products


def _kernel_transform(spec: Spec, plan: Plan, k: Array) -> Array:
    """`g k`, outputs first: `[*taps, c, m]` to `[positions, late * m, taps * c]`."""
    k = _wide(spec, plan.tiles, k)
    columns = _late_taps(spec, plan.late) * k.shape[-1]
    first = (*plan.tiles, *plan.late, -1)
    k = jnp.moveaxis(k, first, range(len(first)))
    taps = k.shape[: len(plan.tiles)]
    k = k.reshape(*taps, columns, k.size // columns // math.prod(taps))
    k = applied([t.g for t in plan.tiles.values()], k)
    return k.reshape(math.prod(plan.positions), *k.shape[-2:])


def _kernel_transform_adjoint(spec: Spec, plan: Plan, u: Array) -> Array:
    """`g' u`: `[positions, m, taps * c]` to `[*taps, c, m]`."""
    others = [w.taps for i, w in enumerate(spec.windows) if i not in plan.tiles]
    u = jnp.swapaxes(u, 1, 2)
    u = u.reshape(*plan.positions, *others, u.shape[1] // math.prod(others), u.shape[2])
    u = jnp.moveaxis(u, range(len(plan.tiles)), tuple(plan.tiles))
    for axis, t in plan.tiles.items():
        u = combined(t.g.T, entries(u, axis), axis)
    return u


def _rows(plan: Plan, a: Array) -> Array:
    """`[*reach, n, *counts, c]` to `[positions, rows, c]`."""
    positions = math.prod(plan.positions)
    return a.reshape(positions, math.prod(a.shape[:-1]) // positions, a.shape[-1])


def _product(spec: Spec, a: Array, b: Array, contract: tuple[int, int]) -> Array:
    return matmul(spec, a, b, tuple((axis,) for axis in contract), ((0,), (0,)))
