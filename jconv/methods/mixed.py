"""Winograd's tiles along the first axes, patches along the others, and one product of both.

    forward         y = A' [sum_t (B' x)[t] . (G k)[t]]       `t`: the taps of the other axes
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  k[t] = G' [(B' x)[t] . (A y)]             summed over all tiles

A tiled axis, of three taps and stride 1, takes two products an output instead of three, and its
transforms add whole rows. The patches of the other axes make the product's rows long. Forward, one
of them is summed late instead: all its taps are outputs of the product (as in `kn2row`), and
shifted into place when these are transformed, which spares copying patches of it.
Source: Lavin and Gray (2016), section 4.1: F(2, 3).
"""

import dataclasses
import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.blocks import Blocks, map_blocks, reader, split, sum_blocks
from jconv.channels import accumulator, matmul, transposed_kernel
from jconv.geometry import Spec, Window, transposed
from jconv.methods.patches import kernel_adjoint_by_rows
from jconv.padding import crop, grow

TILE, REACH = 2, 4
# Bytes of the patches and their products in one block.
BUDGET = 9 * 2**20
# Pairs of channels from which a second tiled axis saves more than it costs: 64 -> 64 on 24x24x24
# takes 7.2 ms by one axis and 7.5 by two, its kernel 11.7 and 9.5; 128 -> 128 on 16x16x16 6.6 and
# 4.9.
MANY, MANY_FOR_KERNEL = 2**14, 2**10
# Input channels below which rows of them are too short: to be copied fast into patches of the
# kernel's adjoint, or to be all that a product sums.
FEW = 8


class Plan(NamedTuple):
    """Which axes are no patches; the blocks, and of one the tiles of each axis, or its outputs."""

    tiled: tuple[int, ...]
    late: tuple[int, ...]
    blocks: Blocks
    counts: tuple[int, ...]
    read: Callable[[Array | int], Array]

    @property
    def step(self) -> int:
        """Outputs of the first axis that one row of a block stands for."""
        return TILE if 0 in self.tiled else 1


def forward(spec: Spec, x: Array, k: Array) -> Array:
    tiled = _tiled(spec, x, k.shape[-1], MANY)
    late = _late(spec, tiled) if x.shape[-1] >= FEW else ()
    plan = _plan(spec, x, k.shape[-1], tiled, late)
    flat = lax.optimization_barrier(jnp.swapaxes(_kernel_transform(spec, plan, k), 1, 2))

    def block(step):
        rows = _rows(plan, _patches(spec, plan, plan.read(step)))
        return _output_transform(spec, plan, _product(spec, rows, flat, (2, 2)))

    return map_blocks(plan.blocks, block, spec.out[0])


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    return forward(transposed(spec), y, transposed_kernel(k, 1))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    if x.shape[-1] < FEW:
        return kernel_adjoint_by_rows(spec, x, y)
    tiled = _tiled(spec, x, y.shape[-1], MANY_FOR_KERNEL)
    plan = _plan(spec, x, y.shape[-1], tiled, ())
    read = _outputs_reader(plan, y)

    def block(step):
        rows = _rows(plan, _patches(spec, plan, plan.read(step)))
        return _product(spec, _rows(plan, _spread(plan, read(step))), rows, (1, 1))

    return _kernel_transform_adjoint(spec, plan, sum_blocks(plan.blocks, block))


def _plan(
    spec: Spec, x: Array, outputs: int, tiled: tuple[int, ...], late: tuple[int, ...]
) -> Plan:
    acc = accumulator(spec, x.dtype)
    counts = [-(-w.out // TILE) if i in tiled else w.out for i, w in enumerate(spec.windows)]
    copied = math.prod(w.taps for i, w in enumerate(spec.windows) if i not in tiled + late)
    columns = REACH ** len(tiled) * (copied * x.shape[-1] + _late_taps(spec, late) * outputs)
    row_bytes = math.prod(counts[1:]) * columns * acc.itemsize
    blocks = split(x.shape[0], counts[0], row_bytes, BUDGET)
    counts[0] = blocks.padded_rows
    # Never a plain cut: XLA would fuse it, and add the block's offset anew at every read.
    sizes = [
        _reach(w, n, i in tiled) + (i == len(counts) - 1)
        for i, (w, n) in enumerate(zip(spec.windows, counts, strict=True))
    ]
    windows = [
        dataclasses.replace(w, high=n - w.low - w.spread)
        for w, n in zip(spec.windows, sizes, strict=True)
    ]
    first = spec.windows[0]
    stride = TILE if 0 in tiled else first.stride
    size = _reach(first, blocks.rows, 0 in tiled)
    counts[0] = blocks.rows
    x = x.astype(acc) if tiled else x
    return Plan(tiled, late, blocks, tuple(counts), reader(blocks, x, windows, stride, size))


def _tiled(spec: Spec, x: Array, outputs: int, many: int) -> tuple[int, ...]:
    """The first axes of three taps, but never the last axis of several: it is left for patches."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return ()
    threes = [i for i in _several(spec)[:-1] if _is_tileable(spec.windows[i])]
    return tuple(threes[: 2 if x.shape[-1] * outputs >= many else 1])


def _late(spec: Spec, tiled: tuple[int, ...]) -> tuple[int, ...]:
    """The axis before the last of several taps, where few outputs are no whole window's."""
    late = [i for i in _several(spec)[:-1] if i > 0 and i not in tiled][-1:]
    is_worth_it = all(
        w.stride == 1 and 4 * w.reach <= w.out for w in (spec.windows[i] for i in late)
    )
    return tuple(late) if is_worth_it else ()


def _late_taps(spec: Spec, late: tuple[int, ...]) -> int:
    return math.prod(spec.windows[i].taps for i in late)


def _several(spec: Spec) -> list[int]:
    return [i for i, w in enumerate(spec.windows) if w.taps > 1]


def _is_tileable(w: Window) -> bool:
    return w.taps == 3 and w.stride == w.dilation == 1


def _reach(w: Window, count: int, tiled: bool) -> int:
    """What `count` tiles or outputs of an axis read."""
    return (TILE * count if tiled else (count - 1) * w.stride + 1) + w.reach


def _outputs_reader(plan: Plan, y: Array) -> Callable[[Array | int], Array]:
    """The reader of the outputs of a block, in whole tiles."""
    counts = (plan.blocks.padded_rows, *plan.counts[1:])
    sizes = [TILE * n if i in plan.tiled else n for i, n in enumerate(counts)]
    windows = [Window(n, 1, high=m - n) for n, m in zip(y.shape[1:], sizes, strict=False)]
    read = reader(plan.blocks, y, windows, plan.step, plan.step * plan.blocks.rows)
    if not plan.tiled:
        return read
    # One row more, never read: not a plain cut, as in `_plan`.
    return lambda step: grow(read(step), 1 + plan.tiled[0], [(0, 1, 0)])


def _patches(spec: Spec, plan: Plan, x: Array) -> Array:
    """`B' x` of every tile, patches of the other axes: `[4, ..., n, *counts, taps * c]`."""
    x = lax.optimization_barrier(x)
    for front, axis in enumerate(plan.tiled):
        x = _tiles(x, _inputs, REACH, front, axis, plan.counts[axis])
    for axis in reversed(range(len(spec.windows))):
        if axis in plan.tiled + plan.late:
            continue
        w, at = spec.windows[axis], len(plan.tiled) + 1 + axis
        last = (plan.counts[axis] - 1) * w.stride + 1
        starts = [t * w.dilation for t in range(w.taps)]
        lead = x.shape[:at]
        x = x.reshape(math.prod(lead), *x.shape[at:])  # fewer axes compile sooner
        taps = [lax.slice_in_dim(x, s, s + last, w.stride, 1) for s in starts]
        # The barrier: merging axes within the fusion would divide at every entry.
        x = lax.optimization_barrier(jnp.stack(taps, -2))
        x = x.reshape(*lead, *x.shape[1:-2], -1)
    return x


def _spread(plan: Plan, y: Array) -> Array:
    """`A y` of every tile: `[4, ..., n, *counts, m]`."""
    y = lax.optimization_barrier(y)
    for front, axis in enumerate(plan.tiled):
        y = _tiles(y, _outputs_adjoint, TILE, front, axis, plan.counts[axis])
    return y


def _tiles(a: Array, f: Callable, size: int, front: int, axis: int, count: int) -> Array:
    """`f` of the `size` entries of every tile of an axis, stacked along a new axis at `front`."""
    at = front + 1 + axis
    parts = [lax.slice_in_dim(a, i, i + TILE * (count - 1) + 1, TILE, at) for i in range(size)]
    return lax.optimization_barrier(jnp.stack(f(*parts), front))


def _along(a: Array, f: Callable, axis: int) -> Array:
    """`f` of the entries of an axis, in their place."""
    parts = [lax.index_in_dim(a, i, axis, keepdims=False) for i in range(a.shape[axis])]
    return jnp.stack(f(*parts), axis)


def _output_transform(spec: Spec, plan: Plan, products: Array) -> Array:
    """`A'` of every tile: `[4 ** tiled, rows, late * m]` to `[n, *out, m]`, or rows of it."""
    s, n, images = len(plan.tiled), len(plan.counts), plan.blocks.images
    held = [c + (spec.windows[i].reach if i in plan.late else 0) for i, c in enumerate(plan.counts)]
    m = lax.optimization_barrier(products.reshape(*(REACH,) * s, images, *held, -1))
    m = _sum_late(spec, plan, m)
    for front in range(s):
        m = _along(m if front == 0 else lax.optimization_barrier(m), _outputs, front)
    order = [s]
    for axis in range(n):
        order += [s + 1 + axis, *(i for i in range(s) if plan.tiled[i] == axis)]
    sizes = [TILE * c if i in plan.tiled else c for i, c in enumerate(plan.counts)]
    y = m.transpose(*order, m.ndim - 1).reshape(images, *sizes, m.shape[-1])
    return crop(y, 1, [(0, min(n, w.out)) for n, w in zip(sizes, spec.windows, strict=True)])


def _sum_late(spec: Spec, plan: Plan, products: Array) -> Array:
    """Every tap's part of the last axis, shifted into place on its own axis, and added."""
    for axis in plan.late:
        w, at = spec.windows[axis], len(plan.tiled) + 1 + axis
        views = [
            lax.slice_in_dim(part, t * w.dilation, t * w.dilation + w.out, axis=at)
            for t, part in enumerate(jnp.split(products, w.taps, -1))
        ]
        products = reduce(jnp.add, views)
    return products


def _kernel_transform(spec: Spec, plan: Plan, k: Array) -> Array:
    """`G k`: `[*taps, c, m]` to `[4 ** tiled, taps * c, late * m]`."""
    k = k.astype(accumulator(spec, k.dtype)) if plan.tiled else k
    for axis in plan.tiled:
        k = _along(k, _taps, axis)
    front = range(len(plan.tiled))
    k = jnp.moveaxis(k, (*plan.tiled, *plan.late), (*front, *(-2 for _ in plan.late)))
    columns = _late_taps(spec, plan.late) * k.shape[-1]
    return k.reshape(
        REACH ** len(plan.tiled), k.size // columns // REACH ** len(plan.tiled), columns
    )


def _kernel_transform_adjoint(spec: Spec, plan: Plan, u: Array) -> Array:
    """`G' u`: `[4 ** tiled, m, taps * c]` to `[*taps, c, m]`."""
    others = [w.taps for i, w in enumerate(spec.windows) if i not in plan.tiled]
    s = len(plan.tiled)
    u = jnp.swapaxes(u, 1, 2)
    u = u.reshape(*(REACH,) * s, *others, u.shape[1] // math.prod(others), u.shape[2])
    u = jnp.moveaxis(u, range(s), plan.tiled)
    for axis in plan.tiled:
        u = _along(u, _taps_adjoint, axis)
    return u


# ---------------------------------------------------------------- F(2, 3): B', A', A, G, G'


def _inputs(a, b, c, d):
    return a - c, b + c, c - b, b - d


def _outputs(a, b, c, d):
    return a + b + c, b - c - d


def _outputs_adjoint(a, b):
    return a, a + b, a - b, -b


def _taps(a, b, c):
    return a, (a + c + b) / 2, (a + c - b) / 2, c


def _taps_adjoint(a, b, c, d):
    return a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d


# ---------------------------------------------------------------- the product


def _rows(plan: Plan, a: Array) -> Array:
    """`[4, ..., n, *counts, c]` to `[4 ** tiled, rows, c]`."""
    positions = REACH ** len(plan.tiled)
    return a.reshape(positions, math.prod(a.shape[:-1]) // positions, a.shape[-1])


def _product(spec: Spec, a: Array, b: Array, contract: tuple[int, int]) -> Array:
    return matmul(spec, a, b, tuple((axis,) for axis in contract), ((0,), (0,)))
