"""Winograd's minimal filtering F(2, 3), for kernels of 3 taps an axis in one or two dimensions.

Two neighbouring outputs of a 3-tap correlation take 4 products instead of 6, in 2D 16 instead of
36:

    forward         Y = A' [(G k G') . (B' x B)] A     a matrix product a transform position
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  K = G' [(B' x B) . (A y A')] G     the same, summed over all tiles

All entries of the matrices are 0, 1 or 1/2, so float32 loses nothing to the direct sum; larger
tiles, F(4, 3) say, lose a digit. Source: Lavin and Gray (2016), eq. 8 and section 4.1.
"""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.blocks import Blocks, map_blocks, reader, split, sum_blocks
from jconv.channels import accumulator, swap_channels
from jconv.geometry import Spec, transposed
from jconv.padding import crop, grow

A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
TILE, REACH = 2, 4
# Bytes of both transforms together: the products want rows enough to be worth their start.
BUDGET = 9 * 2**20


def forward(spec: Spec, x: Array, k: Array) -> Array:
    blocks, read = _tiled(spec, x, k.shape[-1])
    u = lax.optimization_barrier(_kernel_transform(spec, k))

    def block(step):
        tiles = _input_transform(spec, read(step))
        products = _product(spec, _flat(spec, tiles), u, ((2,), (2,)))
        return _output_transform(spec, products.reshape(*tiles.shape[:-1], k.shape[-1]))

    y = map_blocks(blocks, block, spec.out[0])
    return crop(y, 1, [(0, n) for n in spec.out])


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    return forward(transposed(spec), y, swap_channels(lax.rev(k, range(k.ndim - 2)), 1))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    blocks, read = _tiled(spec, x, y.shape[-1])
    whole = [TILE * n for n in (blocks.padded_rows, *map(_tiles, spec.out[1:]))]
    y = grow(y, 1, [(0, m - n, 0) for m, n in zip(whole, spec.out, strict=True)])

    def block(step):
        tiles = _input_transform(spec, read(step))
        spread = _spread_transform(spec, blocks.cut(y, step, TILE, TILE * blocks.rows))
        return _product(spec, _flat(spec, tiles), _flat(spec, spread), ((1,), (1,)))

    return _kernel_transform_adjoint(spec, sum_blocks(blocks, block))


def _tiles(size: int) -> int:
    return -(-size // TILE)


def _tiled(spec: Spec, x: Array, outputs: int) -> tuple[Blocks, Callable]:
    """The blocks, in rows of tiles, and the reader of what whole tiles take of `x`."""
    rows, *others = map(_tiles, spec.out)
    acc = accumulator(spec, x.dtype)
    channels = x.shape[-1] + outputs
    row_bytes = REACH ** len(spec.out) * math.prod(others) * channels * acc.itemsize
    blocks = split(x.shape[0], rows, row_bytes, BUDGET)
    windows = tuple(
        dataclasses.replace(w, high=TILE * n + 2 - w.low - w.size)
        for w, n in zip(spec.windows, (blocks.padded_rows, *others), strict=True)
    )
    return blocks, reader(blocks, x.astype(acc), windows, TILE, TILE * blocks.rows + 2)


def _input_transform(spec: Spec, x: Array) -> Array:
    """`B' x B` of every tile: `[n, 2r + 2, ..., c]` to `[4, ..., n, r, ..., c]`."""
    x = lax.optimization_barrier(x)  # else every read below would add the block's offset anew
    for axis in range(len(spec.out)):
        at = 2 * axis + 1
        parts = [_step(x, at, i, x.shape[at] // TILE - 1) for i in range(REACH)]
        x = lax.optimization_barrier(_combined(B.T, parts, axis))
    return x


def _output_transform(spec: Spec, m: Array) -> Array:
    """`A' m A` of every tile: `[4, ..., n, r, ..., c]` to `[n, 2r, ..., c]`."""
    rank = len(spec.out)
    for axis in range(rank):
        m = _combined(A.T, _entries(lax.optimization_barrier(m), axis), axis)
    pairs = [at for axis in range(rank) for at in (rank + 1 + axis, axis)]
    sizes = [TILE * n for n in m.shape[rank + 1 : -1]]
    return m.transpose(rank, *pairs, m.ndim - 1).reshape(m.shape[rank], *sizes, m.shape[-1])


def _spread_transform(spec: Spec, y: Array) -> Array:
    """`A y A'` of every tile, the adjoint of `_output_transform`."""
    for axis in range(len(spec.out)):
        at = 2 * axis + 1
        parts = [_step(y, at, i, y.shape[at] // TILE) for i in range(TILE)]
        y = lax.optimization_barrier(_combined(A, parts, axis))
    return y


def _kernel_transform(spec: Spec, k: Array) -> Array:
    """`G k G'`: `[3, ..., c, m]` to `[4 ** rank, m, c]`, outputs first for a faster product."""
    k = k.astype(accumulator(spec, k.dtype))
    for axis in range(len(spec.out)):
        k = _combined(G, _entries(k, axis), axis)
    return jnp.swapaxes(_flat(spec, k), 1, 2)


def _kernel_transform_adjoint(spec: Spec, u: Array) -> Array:
    """`G' u G`: `[4 ** rank, c, m]` to `[3, ..., c, m]`."""
    u = u.reshape(*(REACH,) * len(spec.out), *u.shape[1:])
    for axis in range(len(spec.out)):
        u = _combined(G.T, _entries(u, axis), axis)
    return u


def _flat(spec: Spec, a: Array) -> Array:
    """`[4, ..., n, r, ..., c]` to `[4 ** rank, rows, c]`."""
    positions = REACH ** len(spec.out)
    return a.reshape(positions, math.prod(a.shape[:-1]) // positions, a.shape[-1])


def _step(a: Array, axis: int, start: int, count: int) -> Array:
    """Every other entry, `count` of them."""
    return lax.slice_in_dim(a, start, start + TILE * (count - 1) + 1, TILE, axis)


def _entries(a: Array, axis: int) -> list[Array]:
    return [lax.index_in_dim(a, i, axis, keepdims=False) for i in range(a.shape[axis])]


def _combined(matrix: np.ndarray, parts: list[Array], axis: int) -> Array:
    """`matrix @ parts` along a new `axis`, without the products by 0 and 1."""
    return jnp.stack([_weighted(row, parts) for row in matrix], axis)


def _weighted(row: np.ndarray, parts: list[Array]) -> Array:
    terms = [
        p if w == 1 else -p if w == -1 else p * float(w)
        for w, p in zip(row, parts, strict=True)
        if w
    ]
    return sum(terms[1:], terms[0])


def _product(spec: Spec, a: Array, b: Array, contract) -> Array:
    return lax.dot_general(a, b, (contract, ((0,), (0,))), precision=spec.precision)
