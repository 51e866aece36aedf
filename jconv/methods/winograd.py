"""Winograd's minimal filtering F(t, 3), for kernels of 3 taps an axis.

`t` neighbouring outputs of a 3-tap correlation take `t + 2` products instead of `3 t`:

    forward         y = A' [(G k) . (B x)]      on every axis; a matrix product each of (t + 2) ** n
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  k = G' [(B x) . (A y)]      summed over all tiles

The first axes go one transform position after the other, so that the products of the last axis,
one batch of them, have many rows: XLA:CPU splits the rows of a batched product among its threads,
in parts of a thousand, and nothing else of it.

The matrices are those of Toom and Cook: polynomials of degree `t + 1` are known by their values at
`t + 1` points and at infinity. With those of F(4, 3) below, the error of float32 is a fourth of
that with 0, +-1, +-2; F(2, 3) on the first axis keeps it under 3 times that of XLA's convolution.
Source: Lavin and Gray (2016), eq. 8; Barabasz, Anderson, Soodhalter, Gregg (2020).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.blocks import Blocks, map_blocks, reader, split, sum_blocks
from jconv.channels import accumulator, transposed_kernel
from jconv.geometry import Spec, transposed
from jconv.padding import crop, grow

POINTS = {2: (0, 1, -1), 4: (0, 3 / 4, -3 / 4, 11 / 8, -11 / 8)}
# Positions of an image from which the kernel's adjoint takes F(4, 3) on both axes: there XLA's own
# sum over the window of a whole image loses as much.
LARGE = 28**2
# Bytes of a block, both operands and what they become: the products want rows enough.
BUDGET = 16 * 2**20


class Tile(NamedTuple):
    """F(size, 3) on one axis: outputs, inputs, and what turns `y`, `x` and `k` into products."""

    size: int
    reach: int
    a: np.ndarray
    b: np.ndarray
    g: np.ndarray


def tile(size: int) -> Tile:
    """The Toom-Cook matrices, `[reach, size]`, `[reach, reach]` and `[reach, 3]`."""
    points = np.array(POINTS[size])
    others = [np.delete(points, i) for i in range(len(points))]
    scale = [np.prod(p - q) for p, q in zip(points, others, strict=True)]
    a = np.vander(points, size, increasing=True)
    g = np.vander(points, 3, increasing=True) / np.array(scale)[:, None]
    b = [[*np.poly(q)[::-1], 0] for q in others]
    return Tile(
        size,
        size + 2,
        np.vstack([a, np.eye(size)[-1]]),
        np.array([*b, np.poly(points)[::-1]]),
        np.vstack([g, np.eye(3)[-1]]),
    )


def forward(spec: Spec, x: Array, k: Array) -> Array:
    tiles = _tiles(spec)
    blocks, read = _blocked(spec, tiles, x, k.shape[-1])
    u = lax.optimization_barrier(_kernel_transform(spec, tiles, k))
    y = map_blocks(blocks, lambda step: _outputs(spec, tiles, read(step), u), spec.out[0])
    return crop(y, 1, [(0, n) for n in spec.out])


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    return forward(transposed(spec), y, transposed_kernel(k, 1))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    tiles = _tiles(spec, 4 if math.prod(spec.out) >= LARGE else 2)
    blocks, read = _blocked(spec, tiles, x, y.shape[-1])
    size = tiles[0].size
    whole = [n * t.size for n, t in zip(_counts(spec, tiles), tiles, strict=True)]
    whole[0] = blocks.padded_rows * size
    y = grow(y, 1, [(0, m - n, 0) for m, n in zip(whole, spec.out, strict=True)])

    def block(step):
        return _products(spec, tiles, read(step), blocks.cut(y, step, size, size * blocks.rows))

    u = sum_blocks(blocks, block)
    for axis, t in enumerate(tiles):
        u = _combined(t.g.T, _entries(u, axis), axis)
    return u


def _tiles(spec: Spec, first: int = 2) -> tuple[Tile, ...]:
    """F(4, 3) on the last axis, F(first, 3) on the others."""
    return (*(tile(first) for _ in spec.out[1:]), tile(4))


def _counts(spec: Spec, tiles: Sequence[Tile]) -> list[int]:
    return [-(-n // t.size) for n, t in zip(spec.out, tiles, strict=True)]


def _blocked(
    spec: Spec, tiles: Sequence[Tile], x: Array, outputs: int
) -> tuple[Blocks, Callable[[Array | int], Array]]:
    """The blocks, in rows of tiles, and the reader of what whole tiles take of `x`."""
    acc = accumulator(spec, x.dtype)
    rows, *others = _counts(spec, tiles)
    channels = 2 * (x.shape[-1] + outputs) * math.prod(t.size for t in tiles)
    blocks = split(x.shape[0], rows, math.prod(others) * channels * acc.itemsize, BUDGET)
    windows = tuple(
        dataclasses.replace(w, high=t.size * n + 2 - w.low - w.size)
        for w, t, n in zip(spec.windows, tiles, (blocks.padded_rows, *others), strict=True)
    )
    size = tiles[0].size
    return blocks, reader(blocks, x.astype(acc), windows, size, size * blocks.rows + 2)


def _outputs(spec: Spec, tiles: Sequence[Tile], x: Array, u: Array) -> Array:
    """`[n, *extent, c]` and the kernel's transform to `[n, *whole tiles, m]`.

    The axes before those of `tiles` are done: `x` has one entry a tile of them.
    """
    t, *others = tiles
    axis = x.ndim - 1 - len(tiles)
    parts = _read(t, lax.optimization_barrier(x), axis)
    if others:
        parts = [
            lax.optimization_barrier(_outputs(spec, others, _weighted(b, parts), v))
            for b, v in zip(t.b, u, strict=True)
        ]
    else:
        v = lax.optimization_barrier(_combined(t.b, parts, 0))
        products = _product(spec, _rows(v), u, ((2,), (2,)))
        products = lax.optimization_barrier(products.reshape(*v.shape[:-1], -1))
        parts = _entries(products, 0)
    y = _combined(t.a.T, parts, axis + 1)
    return y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])


def _products(spec: Spec, tiles: Sequence[Tile], x: Array, y: Array) -> Array:
    """The products `[*reach, c, m]` of both transforms, summed over all tiles."""
    t, *others = tiles
    axis = x.ndim - 1 - len(tiles)
    x, y = lax.optimization_barrier((x, y))
    xs = _read(t, x, axis)
    ys = [_step(y, axis, i, y.shape[axis] // t.size, t.size) for i in range(t.size)]
    if others:
        pairs = zip(t.a, t.b, strict=True)
        return jnp.stack(
            [_products(spec, others, _weighted(b, xs), _weighted(a, ys)) for a, b in pairs]
        )
    v, w = lax.optimization_barrier((_combined(t.b, xs, 0), _combined(t.a, ys, 0)))
    return _product(spec, _rows(v), _rows(w), ((1,), (1,)))


def _kernel_transform(spec: Spec, tiles: Sequence[Tile], k: Array) -> Array:
    """`G k` on every axis: `[3, ..., c, m]` to `[*reach, m, c]`, outputs first for the product."""
    k = k.astype(accumulator(spec, k.dtype))
    for axis, t in enumerate(tiles):
        k = _combined(t.g, _entries(k, axis), axis)
    return jnp.swapaxes(k, -1, -2)


def _rows(a: Array) -> Array:
    """`[reach, n, ..., c]` to `[reach, rows, c]`."""
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def _read(t: Tile, x: Array, axis: int) -> list[Array]:
    """What each entry of the tiles reads."""
    count = (x.shape[axis] - 2) // t.size
    return [_step(x, axis, i, count, t.size) for i in range(t.reach)]


def _step(a: Array, axis: int, start: int, count: int, stride: int) -> Array:
    return lax.slice_in_dim(a, start, start + stride * (count - 1) + 1, stride, axis)


def _entries(a: Array, axis: int) -> list[Array]:
    return [lax.index_in_dim(a, i, axis, keepdims=False) for i in range(a.shape[axis])]


def _combined(matrix: np.ndarray, parts: list[Array], axis: int) -> Array:
    """`matrix @ parts` along a new `axis`."""
    return jnp.stack([_weighted(row, parts) for row in matrix], axis)


def _weighted(row: np.ndarray, parts: list[Array]) -> Array:
    """`row @ parts` without the products by 0 and 1."""
    terms = [
        p if w == 1 else -p if w == -1 else p * float(w)
        for w, p in zip(row, parts, strict=True)
        if w
    ]
    return sum(terms[1:], terms[0])


def _product(spec: Spec, a: Array, b: Array, contract) -> Array:
    return lax.dot_general(a, b, (contract, ((0,), (0,))), precision=spec.precision)
