"""Winograd's minimal filtering F(t, taps), for kernels of 3 to 5 taps an axis.

`t` neighbouring outputs of a correlation take `t + taps - 1` products instead of `taps * t`:

    forward         y = A' [(G k) . (B x)]      on every axis; a matrix product of each entry
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  k = G' [(B x) . (A y)]      summed over all tiles; by patches beyond 3 taps

The first axes go one transform position after the other, so that the products of the last axis,
one batch of them, have many rows: XLA:CPU splits the rows of a batched product among its threads,
in parts of a thousand, and nothing else of it.

F(2, 3) on the first axis keeps the error of float32 under 3 times that of XLA's convolution; of
F(2, 5) on both that is so for sums of up to 64 channels.
Source: Lavin and Gray (2016), eq. 8.
"""

import math
from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
from jax import Array, lax

from jconv.blocks import Blocks, Reader, map_blocks, reader, split, sum_blocks
from jconv.channels import accumulator, matmul, transposed_kernel
from jconv.fusion import alone, row_major
from jconv.geometry import Spec, transposed
from jconv.methods import patches
from jconv.methods.tiles import Tile, applied, combined, entries, tile, views, weighted
from jconv.padding import crop, grow

# Positions of an image from which the kernel's adjoint takes F(4, 3) on both axes: there XLA's own
# sum over the window of a whole image loses as much.
LARGE = 28**2
# Bytes of the transforms of a block: the products want rows enough, but beyond 32 MiB of scratch
# pages are mapped anew at every call.
BUDGET = 24 * 2**20
# Equal pieces of a block that products are summed over, where one thread would have each.
PIECES = 8
# Pairs of channels whose product XLA:CPU computes on one thread; tiles of a piece, at least.
SMALL, SHORTEST = 64**2, 64


def forward(spec: Spec, x: Array, k: Array) -> Array:
    tiles = _tiles(spec)
    blocks, read = _blocked(spec, tiles, x, k.shape[-1], BUDGET)
    u = _kernel_transform(spec, tiles, k)
    others = [(0, n) for n in spec.out[1:]]

    def block(step):
        return crop(_outputs(spec, tiles, read(step), u), 2, others)

    return map_blocks(blocks, block, spec.out[0])


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    return forward(transposed(spec), y, transposed_kernel(k, 1))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    if max(spec.taps) > 3:
        return patches.kernel_adjoint(spec, x, y)  # F(2, 5) rounds 8 times as much as XLA's
    tiles = _tiles(spec, 6 if math.prod(spec.out) >= LARGE else 4)
    is_small = _is_small(x.shape[-1], y.shape[-1])
    # Along one axis 96 to 64 channels on 8x4706 take 4.4 ms, and 13 in blocks twice as large.
    budget = BUDGET * 3 // (8 if is_small or len(tiles) == 1 else 4)
    of = PIECES if is_small and len(tiles) == 1 else 1
    whole = 2 if is_small else 1
    blocks, read = _blocked(spec, tiles, x, y.shape[-1], budget, whole, of)
    pieces = _pieces(blocks, _a_row(spec, tiles)) if is_small else 0
    spans, counts = _spans(spec, tiles), [blocks.padded_rows, *_counts(spec, tiles)[1:]]
    filled = [(0, s * n - out, 0) for s, n, out in zip(spans, counts, spec.out, strict=True)]
    y = grow(y.astype(accumulator(spec, y.dtype)), 1, filled)
    last = (-1, tiles[-1].size, spec.windows[-1].dilation)

    def block(step):
        ys = blocks.cut(y, step, spans[0], spans[0] * blocks.rows)
        ys = ys.reshape(*ys.shape[:-2], *last, ys.shape[-1])
        ys = _turned(ys.reshape(pieces, -1, *ys.shape[2:])) if pieces else ys
        return _products(spec, tiles, read(step), ys, pieces)

    us = sum_blocks(blocks, block)
    us = [jnp.swapaxes(u, -1, -2) for u in us] if pieces else us
    return _kernel_transform_adjoint(tiles, us)


def _tiles(spec: Spec, reach: int = 4) -> tuple[Tile, ...]:
    """Tiles of 6 entries on the last axis; of 3 taps on the others, of `reach` entries."""
    *others, last = spec.taps
    return (*(tile(reach if taps == 3 else 6, taps) for taps in others), tile(6, last))


def _spans(spec: Spec, tiles: Sequence[Tile]) -> list[int]:
    """Outputs of a tile on each axis, or of `dilation` tiles, which lie in each other's gaps."""
    return [t.size * w.dilation for t, w in zip(tiles, spec.windows, strict=True)]


def _counts(spec: Spec, tiles: Sequence[Tile]) -> list[int]:
    """How many spans each axis has."""
    return [-(-n // span) for n, span in zip(spec.out, _spans(spec, tiles), strict=True)]


def _a_row(spec: Spec, tiles: Sequence[Tile]) -> int:
    """The tiles of a row of spans."""
    _, *others = _counts(spec, tiles)
    return math.prod((*others, *(w.dilation for w in spec.windows)))


def _blocked(
    spec: Spec, tiles: Sequence[Tile], x: Array, outputs: int, budget: int, whole: int = 1,
    of: int = 1,
) -> tuple[Blocks, Reader]:  # fmt: skip
    """The blocks, in rows of spans, and the reader of what whole tiles take of `x`.

    An image has a multiple of `of` rows: 593 have no equal parts, and 64 to 64 channels on 2x2371
    take 0.45 ms with 600, not 0.62.
    """
    acc = accumulator(spec, x.dtype)
    rows, *others = _counts(spec, tiles)
    channels = (x.shape[-1] + outputs) * math.prod(t.reach for t in tiles)
    row = _a_row(spec, tiles) * channels * acc.itemsize
    blocks = split(x.shape[0], -(-rows // of) * of, row, budget, whole=whole)
    spans = _spans(spec, tiles)
    windows = tuple(
        w.grown_to(s * n + w.reach)
        for w, s, n in zip(spec.windows, spans, (blocks.padded_rows, *others), strict=True)
    )
    extent = spans[0] * blocks.rows + spec.windows[0].reach
    return blocks, reader(blocks, x.astype(acc), windows, spans[0], extent)


def _outputs(spec: Spec, tiles: Sequence[Tile], x: Array, us: Sequence[Array]) -> Array:
    """`[n, *extent, c]` and the kernel's transform to `[n, *whole tiles, m]`.

    The axes before those of `tiles` are done: `x` has one entry a tile of them.
    """
    t, *others = tiles
    axis = x.ndim - 1 - len(tiles)
    parts = _inputs(spec, tiles, lax.optimization_barrier(x))
    if others:
        parts = [
            lax.optimization_barrier(_outputs(spec, others, weighted(b, parts), [u]))
            for b, u in zip(t.b, us, strict=True)
        ]
    else:
        v = lax.optimization_barrier(combined(t.b, parts, 0))
        products = matmul(spec, _rows(v), us[0], ((2,), (2,)), ((0,), (0,)))
        products = lax.optimization_barrier(products.reshape(*v.shape[:-1], -1))
        parts = entries(products, 0)
    y = combined(t.a.T, parts, axis + 1)
    return y.reshape(*y.shape[:axis], -1, *y.shape[y.ndim - len(tiles) :])


def _is_small(inputs: int, outputs: int) -> bool:
    """A product that XLA:CPU would compute on one thread, in rows that fill its vectors.

    Of 48 to 48 channels on 8x8000 both threads take 3.9 ms, as they are not filled, and one 3.4.
    """
    return outputs <= inputs and inputs * outputs <= SMALL and inputs % 32 == 0


def _pieces(blocks: Blocks, tiles: int) -> int:
    """Up to `PIECES` equal parts of a block, of so many tiles a row, that are not too short."""
    rows = blocks.images * blocks.rows
    parts = [n for n in range(2, PIECES + 1) if rows % n == 0 and rows // n * tiles >= SHORTEST]
    return max(parts, default=1)


def _turned(y: Array) -> Array:
    """`[pieces, *size, tiles, entries, run, m]` to `[entries * pieces * m, *size, tiles, run]`."""
    y = alone(lambda y: row_major(jnp.moveaxis(y, (-3, 0, -1), (0, 1, 2))))(y)
    return y.reshape(-1, *y.shape[3:])


def _products(spec: Spec, tiles: Sequence[Tile], x: Array, y: Array, pieces: int) -> list[Array]:
    """The products `[reach, c, m]` of both transforms, summed over all tiles.

    Of two axes one such array for each position of the first. Of small kernels `[reach, m, c]`:
    XLA:CPU computes a product of few rows and columns on one thread, and sums of several on both.
    So 64 to 64 channels on 32x32x32 take 4.7 ms, not 7.6.
    """
    t, *others = tiles
    x, y = lax.optimization_barrier((x, y))
    xs = _inputs(spec, tiles, x)
    if others:
        axis, run = y.ndim - len(tiles) - (1 if pieces else 3), spec.windows[-len(tiles)].dilation
        ys = views(y, axis, range(t.size), y.shape[axis] // (t.size * run), t.size, run)
        pairs = [(weighted(b, xs), weighted(a, ys)) for a, b in zip(t.a, t.b, strict=True)]
        return [p for v, w in pairs for p in _products(spec, others, v, w, pieces)]
    ys = entries(y.reshape(t.size, -1), 0) if pieces else entries(y, y.ndim - 3)
    v, w = lax.optimization_barrier((combined(t.b, xs, 0), combined(t.a, ys, 0)))
    if not pieces:
        return [matmul(spec, _rows(v), _rows(w), ((1,), (1,)), ((0,), (0,)))]
    v = v.reshape(t.reach, pieces, -1, v.shape[-1])
    w = w.reshape(t.reach, pieces, -1, v.shape[2])
    return [matmul(spec, w, v, ((3,), (2,)), ((0, 1), (0, 1))).sum(1)]


def _kernel_transform(spec: Spec, tiles: Sequence[Tile], k: Array) -> Sequence[Array]:
    """`G k` on every axis: `[3, ..., c, m]` to `[reach, m, c]`, outputs first for the product.

    Of two axes one such array for each position of the first.
    """
    k = jnp.swapaxes(k.astype(accumulator(spec, k.dtype)), -1, -2)
    *first, last = (t.g for t in tiles)
    return [applied([row[None], last], k)[0] for g in first for row in g] or [applied([last], k)]


def _kernel_transform_adjoint(tiles: Sequence[Tile], us: Sequence[Array]) -> Array:
    """`G' u` on every axis: `[reach, c, m]`, for each position of the first of two, to the kernel.

    Added up by rows, as a stack of six small arrays takes XLA:CPU 0.4 s to compile, and this 0.05.
    """
    *first, last = (t.g for t in tiles)
    if not first:
        return applied([last.T], us[0])
    rows = [row[:, None] for g in first for row in g]
    return reduce(jnp.add, [applied([g, last.T], u[None]) for g, u in zip(rows, us, strict=True)])


def _rows(a: Array) -> Array:
    """`[reach, n, ..., c]` to `[reach, rows, c]`."""
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def _inputs(spec: Spec, tiles: Sequence[Tile], x: Array) -> list[Array]:
    """What each entry of the tiles reads, on the first axis of `tiles`."""
    t, axis, run = tiles[0], x.ndim - 1 - len(tiles), spec.windows[-len(tiles)].dilation
    count = (x.shape[axis] // run - t.reach) // t.size + 1
    return views(x, axis, range(t.reach), count, t.size, run)
