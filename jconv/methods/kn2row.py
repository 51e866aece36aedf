"""Products first, shifts after: every tap's matrix product with the whole input, then shifted sums.

    forward         z[t, m, p] = k[t, c, m] xp[p, c],           y[o, m] = z[t, m, o + dilation*t]
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  z_bar[t, m, p] = y[p - dilation*t, m],      k[t, c, m] = z_bar[t, m, p] xp[p, c]

With few output channels, `z` is small where patches of the input would be large. Only stride 1.
Source: Vasudevan, Anderson, Gregg (2017), section 3 (kn2row).
"""

import math
from collections.abc import Callable
from functools import reduce
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.blocks import Blocks, map_blocks, reader, split, sum_blocks
from jconv.channels import accumulator, matmul, transposed_kernel
from jconv.geometry import Spec, transposed
from jconv.padding import crop, cut, grow


def forward(spec: Spec, x: Array, k: Array) -> Array:
    first = spec.windows[0]
    taps, outputs = math.prod(spec.taps), k.shape[-1]
    inner = math.prod(w.extent for w in spec.windows[1:])
    entries = (taps * outputs + x.shape[-1]) * inner
    blocks = split(x.shape[0], first.out, entries * accumulator(spec, x.dtype).itemsize)
    read = _reader(spec, x, blocks, first.reach)
    flat = lax.optimization_barrier(jnp.moveaxis(k, -1, -2).reshape(taps * outputs, -1))

    def block(step):
        xs = read(step)
        z = matmul(spec, flat, xs.reshape(-1, xs.shape[-1]), ((1,), (1,)))
        z = lax.optimization_barrier(z.reshape(*spec.taps, outputs, *xs.shape[:-1]))
        out = (blocks.rows, *spec.out[1:])
        terms = (_shifted(spec, z[t], t, out) for t in product(*map(range, spec.taps)))
        return jnp.moveaxis(reduce(jnp.add, terms), 0, -1)

    return map_blocks(blocks, block, first.out)


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    return forward(transposed(spec), y, transposed_kernel(k, 1))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    first = spec.windows[0]
    taps, outputs = math.prod(spec.taps), y.shape[-1]
    inner = math.prod(w.extent for w in spec.windows[1:])
    blocks = split(
        x.shape[0], first.extent, taps * outputs * inner * accumulator(spec, x.dtype).itemsize
    )
    read = _reader(spec, x, blocks, 0)
    # Zeros on both sides of `y`, so that each tap's z_bar is a plain view of it.
    reach = [(w.reach, w.extent - w.out, 0) for w in spec.windows]
    reach[0] = (first.reach, blocks.padded_rows - first.out, 0)
    yp = lax.optimization_barrier(grow(y, 1, reach))
    offsets = np.array(list(product(*map(range, spec.taps))))
    starts = [w.reach for w in spec.windows] - offsets * [w.dilation for w in spec.windows]

    def block(step):
        xs = read(step)
        ys = jnp.moveaxis(blocks.cut(yp, step, 1, blocks.rows + first.reach), -1, 0)
        ys = lax.optimization_barrier(ys)
        size = (outputs, *xs.shape[:-1])
        z_bar = lax.map(lambda s: cut(ys, (0, 0, *s), size), jnp.asarray(starts))
        z_bar = lax.optimization_barrier(z_bar.reshape(taps * outputs, -1))
        return matmul(spec, z_bar, xs.reshape(-1, xs.shape[-1]), ((1,), (0,)))

    k = sum_blocks(blocks, block)
    return jnp.moveaxis(k.reshape(*spec.taps, outputs, -1), -2, -1)


def _reader(spec: Spec, x: Array, blocks: Blocks, reach: int) -> Callable:
    """The reader of the rows of a block and `reach` more."""
    first = spec.windows[0]
    windows = (first.grown_to(blocks.padded_rows + reach), *spec.windows[1:])
    return reader(blocks, x, windows, 1, blocks.rows + reach)


def _shifted(spec: Spec, z: Array, tap, out) -> Array:
    starts = [w.dilation * t for w, t in zip(spec.windows, tap, strict=True)]
    return crop(z, 2, [(s, s + n) for s, n in zip(starts, out, strict=True)])
