"""Work in blocks whose scratch fits the cache.

A block is a few whole images, or a few rows (positions of the first spatial axis) of one image.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jconv.fusion import alone
from jconv.geometry import Window
from jconv.padding import crop, cut, embed, grow
from jconv.placement import zeros

# What block a step reads.
Reader = Callable[[Array | int], Array]

# Scratch a block. From 1 to 12 MiB most faces alone are as fast; the kernel's adjoint of
# res3x3s2_56 takes 5.4 ms with a whole image a block, 7.3 with a half. But a training step whose
# scratch passes 32 MiB has its pages mapped anew at every call (glibc's largest threshold), which
# took an MNIST step from 17 to 30 ms.
BLOCK_BYTES = 6 * 2**20
# Entries of a sum that may be computed apart from what reads it, which XLA:CPU then turns by a copy
# where a product in place would have come out turned: 6x256x768 take 0.6 ms, and 3.0 apart.
MOST_APART = 2**15


class Blocks(NamedTuple):
    """`n` images of `row_blocks * rows` rows each, cut into steps of `images` or of `rows`."""

    n: int
    images: int
    row_blocks: int
    rows: int

    @property
    def steps(self) -> int:
        return self.n // self.images * self.row_blocks

    @property
    def padded_rows(self) -> int:
        """The rows of all blocks, of which the last few may be too many."""
        return self.row_blocks * self.rows

    def cut(self, a: Array, step: Array | int, stride: int, size: int) -> Array:
        """Block `step` of `a`: `size` entries of axis 1, from `stride` times its first row on."""
        starts = self.starts(step, self.rows * stride, a.ndim)
        return cut(a, starts, (self.images, size, *a.shape[2:]))

    def starts(self, step: Array | int, rows: int, ndim: int) -> tuple[Array | int, ...]:
        """Where block `step` starts, in an array of so many rows a block."""
        image, row = step // self.row_blocks * self.images, step % self.row_blocks * rows
        return (image, row, *(0,) * (ndim - 2))

    def whole(self, a: Array, step: Array | int) -> Array:
        """The images of block `step`, where blocks are of whole images."""
        return self.cut(a, step, 1, a.shape[1])

    def inside(self, step: Array | int, rows: int) -> Array:
        """Which rows of block `step` are among the `rows` of an image."""
        return step % self.row_blocks * self.rows + jnp.arange(self.rows) < rows

    def windows(self, w: Window) -> tuple[Window, Window]:
        """`w` over the rows of all blocks, some of which may be too many, and of one, padded."""
        one, whole = ((n - 1) * w.stride + w.reach + 1 for n in (self.rows, self.padded_rows))
        grown = w.grown_to(max(whole, w.extent))
        return grown, dataclasses.replace(w.padded(), size=one)


def known(n: int) -> int:
    """`n` examples; of an exported batch, whose number is unknown, what holds of one decides."""
    return n if isinstance(n, int) else 1


def reader(blocks: Blocks, x: Array, windows: Sequence[Window], stride: int, size: int) -> Reader:
    """`read(step)`: what block `step` reads of `x` `[n, *size, c]` padded as the windows say.

    It is padded within its step, while it is in the cache.
    """
    first, *others = windows
    if blocks.row_blocks == 1:
        return lambda step: lax.optimization_barrier(embed(blocks.whole(x, step), windows))
    if first.input_dilation > 1:
        x = lax.optimization_barrier(embed(x, (first, *(Window(w.size, 1) for w in others))))
        first = first.padded()
    low, high = max(first.low, 0), max(first.high, 0)
    held = min(size, first.size)

    def read(step):
        start = step % blocks.row_blocks * blocks.rows * stride - first.low
        inside = jnp.clip(start, 0, first.size - held)
        rest = (0,) * (x.ndim - 2)
        rows = cut(x, (step // blocks.row_blocks, inside, *rest), (1, held, *x.shape[2:]))
        if low or high:
            rows = grow(rows, 1, [(low, high, 0)])
            rows = cut(rows, (0, start - inside + low, *rest), (1, size, *x.shape[2:]))
        # One row more: behind a plain slice XLA drops the barrier, and each read of each tap would
        # find the block anew, which takes 3x3 taps of stride 2 from 7 to 16 ms.
        rows = embed(rows, (Window(size, 1, high=1), *others))
        return crop(lax.optimization_barrier(rows), 1, [(0, size)])

    return read


def split(
    n: int, rows: int, row_bytes: int, budget: int | None = None, least: int = 0, whole: int = 1
) -> Blocks:
    """The fewest equal blocks of `n` images of `rows` rows that need about `budget` bytes each.

    A budget of `least` bytes if that is more; all at once where `whole` times as many are enough.
    An unknown number, exported, goes one by one.
    """
    if not isinstance(n, int):
        return split(1, rows, row_bytes, budget, least)._replace(n=n)
    budget = max(BLOCK_BYTES if budget is None else budget, least)
    if n * rows * row_bytes <= whole * budget:
        return Blocks(n, n, 1, rows)
    if rows * row_bytes >= budget:
        most = max(budget // max(row_bytes, 1), 1)
        size = min(range(most, most // 2, -1), key=lambda size: -(-rows // size) * size)
        return Blocks(n, 1, -(-rows // size), size)
    most = min(budget // max(rows * row_bytes, 1), n)
    images = max(d for d in range(1, most + 1) if n % d == 0)
    return Blocks(n, images, 1, rows)


@partial(jax.jit, static_argnums=(0, 1), inline=True)
def at_once(f: Callable, static: Any, *arrays: Array) -> Any:
    """`f(static, *arrays)`, compiled as one program when called eagerly.

    A loop within would compile anew at every call. Inside another `jit` this leaves no trace.
    """
    return f(static, *arrays)


def map_blocks(blocks: Blocks, f: Callable[[Array | int], Array], rows: int) -> Array:
    """Every `f(step)`, `[images, block rows, ...]`, put together as `[n, rows, ...]`.

    Written where they stay: what `lax.map` stacks XLA:CPU would copy where an axis has one entry,
    and 3x3 taps of one channel on 64x512x512 had 67 MB of scratch instead of 17.
    """

    def part(step: Array | int) -> Array:
        return f(step)[:, :rows] if blocks.row_blocks == 1 else f(step)

    if blocks.steps == 1:
        return part(0)
    each, steps, one = _looped(blocks, part)
    size = one.shape[1]

    def put(whole: Array, step: Array) -> tuple[Array, None]:
        starts = blocks.starts(step, size, whole.ndim)
        return lax.dynamic_update_slice(whole, each(step), starts), None

    empty = zeros((blocks.n, size * blocks.row_blocks, *one.shape[2:]), one.dtype, one)
    whole, _ = lax.scan(put, empty, steps)
    return whole[:, :rows]


def sum_blocks(blocks: Blocks, f: Callable[[Array | int], Any]) -> Any:
    """`f(step)`, an array or a tree of them, added up over every step.

    XLA would prepare as early as it can what one step makes of the input alone, and hold it until
    there is a gradient: the step of a small 3D net had 26 MB of scratch instead of 18.
    """
    if blocks.steps == 1:
        only = jax.jit(lambda: f(0), inline=True)
        size = sum(term.size for term in jax.tree.leaves(jax.eval_shape(only)))
        return alone(only)() if size <= MOST_APART else only()
    each, steps, term = _looped(blocks, f)
    zero = jax.tree.map(lambda t: zeros(t.shape, t.dtype, t), term)
    total, _ = lax.scan(lambda acc, i: (jax.tree.map(jnp.add, acc, each(i)), None), zero, steps)
    return total


def _looped(blocks: Blocks, f: Callable[[Array], Any]) -> tuple[Callable[[Array], Any], Array, Any]:
    """`f`, all steps, and the shapes of what `f` gives of one, for which it is traced only once."""
    each, steps = jax.jit(f, inline=True), jnp.arange(blocks.steps)
    return each, steps, jax.eval_shape(each, jax.ShapeDtypeStruct((), steps.dtype))
