"""Patches and one matrix product (im2col): `y = unfold(x) . kernel`.

    forward         patches[n, o, t, c] k[t, c, m] -> y[n, o, m]
    input_adjoint   y[n, o, m] k[t, c, m] -> patches[n, o, t, c], overlapping ones added up
    kernel_adjoint  patches[t, c, (n, o)] y[(n, o), m] -> k[t, c, m]

Forward and kernel adjoint go block by block. The kernel's adjoint keeps positions last, so that each tap is
a plain copy and the product reads whole rows.
"""

import dataclasses
import math
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.blocks import Blocks, map_blocks, split, sum_blocks
from jconv.channels import accumulator, mix, mix_input
from jconv.geometry import Spec, Window
from jconv.padding import cut, embed, extract, grow
from jconv.windows import gather_patches, overlap_add


def forward(spec: Spec, x: Array, k: Array) -> Array:
    blocks, windows, xp = _blocked(spec, x)
    k = k.reshape(-1, k.shape[-1])

    def block(step):
        xs = blocks.cut(xp, step, windows[0].stride, windows[0].size)
        return mix(spec, _columns(spec, gather_patches(windows, xs)), k)

    return map_blocks(blocks, block, spec.out[0])


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    columns = mix_input(spec, y, k.reshape(-1, k.shape[-1]))
    patches = _from_columns(spec, columns)
    inner = spec.padded().windows
    return extract(overlap_add(inner, patches), spec.windows)


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    blocks, windows, xp = _blocked(spec, x)
    y = grow(y, 1, [(0, blocks.padded_rows - spec.out[0], 0)])
    groups, taps = spec.groups, math.prod(spec.taps)

    def block(step):
        xs = blocks.cut(xp, step, windows[0].stride, windows[0].size)
        ys = blocks.cut(y, step, 1, blocks.rows)
        patches = _planar(windows, xs).reshape(taps, groups, x.shape[-1] // groups, -1)
        rows = jnp.moveaxis(patches, 0, 1).reshape(groups, -1, patches.shape[-1])
        columns = jnp.moveaxis(ys.reshape(-1, groups, y.shape[-1] // groups), 1, 0)
        return lax.dot_general(
            lax.optimization_barrier(rows),
            columns,
            (((2,), (1,)), ((0,), (0,))),
            precision=spec.precision,
            preferred_element_type=accumulator(spec, x.dtype),
        )

    k = sum_blocks(blocks, block)  # [groups, taps * c, m]
    return jnp.moveaxis(k, 0, 1).reshape(*spec.taps, -1, y.shape[-1])


def _blocked(spec: Spec, x: Array) -> tuple[Blocks, tuple[Window, ...], Array]:
    """The blocks, the windows within one block, and `x` padded to what all of them read."""
    first, *others = spec.padded().windows
    row = math.prod(spec.taps) * x.shape[-1] * math.prod(spec.out[1:]) * x.dtype.itemsize
    blocks = split(x.shape[0], first.out, row)

    def needed(rows: int) -> int:
        return (rows - 1) * first.stride + first.reach + 1

    outer = spec.windows[0]
    high = needed(blocks.padded_rows) - outer.low - outer.spread
    grown = (dataclasses.replace(outer, high=max(high, outer.high)), *spec.windows[1:])
    windows = (dataclasses.replace(first, size=needed(blocks.rows)), *others)
    return blocks, windows, lax.optimization_barrier(embed(x, grown))


def _planar(windows: tuple[Window, ...], xp: Array) -> Array:
    """`[n, *extent, c]` to `[taps, c, n, *out]`, one copy a tap in a loop that compiles once."""
    planar = lax.optimization_barrier(jnp.moveaxis(xp, -1, 0))
    reach = [(w.out - 1) * w.stride + 1 for w in windows]
    offsets = np.array(list(product(*map(range, (w.taps for w in windows)))))
    starts = jnp.asarray(offsets * [w.dilation for w in windows], jnp.int32)
    steps = (1, 1, *(w.stride for w in windows))

    def tap(start):
        view = cut(planar, (0, 0, *start), (*planar.shape[:2], *reach))
        return lax.slice(view, (0,) * view.ndim, view.shape, steps)

    return lax.map(tap, starts)


def _columns(spec: Spec, patches: Array) -> Array:
    """`[n, *out, *taps, c]` to `[n, *out, groups * taps * c_of_group]`."""
    lead = patches.shape[: 1 + len(spec.out)]
    taps, channels = math.prod(spec.taps), patches.shape[-1]
    grouped = patches.reshape(*lead, taps, spec.groups, channels // spec.groups)
    return jnp.moveaxis(grouped, -2, -3).reshape(*lead, taps * channels)


def _from_columns(spec: Spec, columns: Array) -> Array:
    """Adjoint of `_columns`."""
    lead, taps = columns.shape[:-1], math.prod(spec.taps)
    channels = columns.shape[-1] // taps
    grouped = columns.reshape(*lead, spec.groups, taps, channels // spec.groups)
    return jnp.moveaxis(grouped, -3, -2).reshape(*lead, *spec.taps, channels)
