"""Winograd's minimal filtering F(2, 3) on the last two axes, for kernels of 3x3 taps.

Two neighbouring outputs of a 3-tap correlation take 4 products instead of 6, in 2D 16 instead of 36:

    forward         Y = A' [(G k G') . (B' x B)] A       one matrix product over channels per transform position
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  K = G' [(B' x B) . (A y A')] G       the same, with the products summed over all tiles

All entries of the matrices are 0, 1 or 1/2, so float32 loses nothing to the direct sum; larger tiles,
F(4, 3) say, lose a digit. Source: Lavin and Gray (2016), eq. 8 and section 4.1.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.blocks import Blocks, map_blocks, split, sum_blocks
from jconv.channels import accumulator, swap_channels
from jconv.geometry import Spec, Window, transposed
from jconv.padding import embed, grow

A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
TILE = 2
REACH = 4


def serves(spec: Spec) -> bool:
    """Two axes of 3 taps, stride 1, nothing dilated, one group."""
    return spec.groups == 1 and len(spec.windows) == 2 and all(map(_served, spec.windows))


def _served(w: Window) -> bool:
    return (w.taps, w.stride, w.dilation, w.input_dilation) == (3, 1, 1, 1)


def forward(spec: Spec, x: Array, k: Array) -> Array:
    blocks, xp = _tiled(spec, x, k.shape[-1])
    u = lax.optimization_barrier(_kernel_transform(spec, k))
    out = spec.out

    def block(step):
        tiles = _input_transform(blocks.cut(xp, step, TILE, TILE * blocks.rows + 2))
        products = _product(spec, tiles.reshape(16, -1, tiles.shape[-1]), u, ((2,), (2,)))
        return _output_transform(products.reshape(*tiles.shape[:-1], k.shape[-1]))

    return map_blocks(blocks, block, out[0])[:, :, : out[1]]


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    return forward(transposed(spec), y, swap_channels(lax.rev(k, (0, 1)), 1))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    blocks, xp = _tiled(spec, x, y.shape[-1])
    out, columns = spec.out, _tiles(spec.out[1])
    y = grow(
        y, 1, [(0, TILE * blocks.padded_rows - out[0], 0), (0, TILE * columns - out[1], 0)]
    )

    def block(step):
        tiles = _input_transform(blocks.cut(xp, step, TILE, TILE * blocks.rows + 2))
        spread = _spread_transform(blocks.cut(y, step, TILE, TILE * blocks.rows))
        a, b = (t.reshape(16, -1, t.shape[-1]) for t in (tiles, spread))
        return _product(spec, a, lax.optimization_barrier(b), ((1,), (1,)))

    return _kernel_transform_adjoint(sum_blocks(blocks, block))


def _tiles(size: int) -> int:
    return -(-size // TILE)


def _tiled(spec: Spec, x: Array, outputs: int) -> tuple[Blocks, Array]:
    """The blocks, in rows of tiles, and `x` padded to what whole tiles of all blocks read."""
    rows, columns = map(_tiles, spec.out)
    acc = accumulator(spec, x.dtype)
    row_bytes = 16 * columns * (x.shape[-1] + outputs) * acc.itemsize
    blocks = split(x.shape[0], rows, row_bytes)
    reach = (TILE * blocks.padded_rows + 2, TILE * columns + 2)
    grown = (
        dataclasses.replace(w, high=n - w.low - w.size)
        for w, n in zip(spec.windows, reach, strict=True)
    )
    return blocks, lax.optimization_barrier(embed(x.astype(acc), tuple(grown)))


def _input_transform(x: Array) -> Array:
    """`B' x B` of every tile: `[n, 2r + 2, 2s + 2, c]` to `[4, 4, n, r, s, c]`."""
    rows = [_step(x, 1, i, x.shape[1] // TILE - 1) for i in range(REACH)]
    half = lax.optimization_barrier(jnp.stack(_combine(B.T, rows)))
    columns = [_step(half, 3, j, half.shape[3] // TILE - 1) for j in range(REACH)]
    return lax.optimization_barrier(jnp.stack(_combine(B.T, columns), 1))


def _output_transform(m: Array) -> Array:
    """`A' m A` of every tile: `[4, 4, n, r, s, c]` to `[n, 2r, 2s, c]`."""
    half = lax.optimization_barrier(jnp.stack(_combine(A.T, list(lax.optimization_barrier(m)))))
    whole = jnp.stack(_combine(A.T, [half[:, j] for j in range(REACH)]), 1)
    _, _, n, rows, columns, c = whole.shape
    return whole.transpose(2, 3, 0, 4, 1, 5).reshape(n, TILE * rows, TILE * columns, c)


def _spread_transform(y: Array) -> Array:
    """`A y A'` of every tile, the adjoint of `_output_transform`."""
    half = lax.optimization_barrier(
        jnp.stack(_combine(A, [_step(y, 1, i, y.shape[1] // TILE) for i in range(TILE)]))
    )
    columns = [_step(half, 3, j, half.shape[3] // TILE) for j in range(TILE)]
    return jnp.stack(_combine(A, columns), 1)


def _step(a: Array, axis: int, start: int, count: int) -> Array:
    return lax.slice_in_dim(a, start, start + TILE * (count - 1) + 1, TILE, axis)


def _combine(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """`matrix @ parts`, without the products by 0 and 1."""
    return [_weighted(row, parts) for row in matrix]


def _weighted(row: np.ndarray, parts: list[Array]) -> Array:
    terms = [p if w == 1 else -p if w == -1 else p * float(w) for w, p in zip(row, parts, strict=True) if w]
    return sum(terms[1:], terms[0])


def _kernel_transform(spec: Spec, k: Array) -> Array:
    """`G k G'`: `[3, 3, c, m]` to `[16, m, c]`, output channels first for a faster product."""
    k = k.astype(accumulator(spec, k.dtype))
    half = jnp.stack(_combine(G, [k[i] for i in range(3)]))
    whole = jnp.stack(_combine(G, [half[:, j] for j in range(3)]), 1)
    return jnp.swapaxes(whole.reshape(16, *k.shape[2:]), 1, 2)


def _kernel_transform_adjoint(u: Array) -> Array:
    """`G' u G`: `[16, c, m]` to `[3, 3, c, m]`."""
    u = u.reshape(REACH, REACH, *u.shape[1:])
    half = jnp.stack(_combine(G.T, list(u)))
    return jnp.stack(_combine(G.T, [half[:, j] for j in range(REACH)]), 1)


def _product(spec: Spec, a: Array, b: Array, contract) -> Array:
    return lax.dot_general(a, b, (contract, ((0,), (0,))), precision=spec.precision)
