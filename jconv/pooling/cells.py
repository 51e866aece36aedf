"""The adjoint of a pooling's stage, in cells.

    x_bar[i] = sum_o y_bar[o] * (share of entry i in window o)

It scatters nothing. Entry `i = stride*q + r` is read by the windows `o = q - b` through the taps at
the distance `stride*b + low + r`, for the few blocks `b` that reach so far. Of 3 taps of stride 2:

    x, in cells q of two entries r      0 1 | 2 3 | 4 5 | 6
    b = 0: by window q, through taps    0 1 | 0 1 | 0 1 |
    b = 1: by window q - 1                  | 2   | 2   | 2

In the layout `[q, r]` the adjoint is a sum over the blocks of one shifted, broadcast view of the
windows; a reshape undoes the layout. So padding costs the adjoint nothing. Cells `q` that the same
blocks reach need no room around the windows, and are put side by side in one loop. Of few channels
all entries of a cell of the last axis are written side by side, or, where they are many, each
window is repeated `stride` times along that axis, which with the channels makes one long row.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from itertools import chain, pairwise, product
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata

from jconv.fusion import alone, barrier, in_vectors, single
from jconv.geometry import Window
from jconv.padding import crop, grow
from jconv.pooling.views import Windows, read_at_once, written

# Channels from which on they are rows of their own; and entries up to which fewer are put in rows,
# for which windows are copied.
NARROW, ROWS = 16, 2**22
# Entries side by side that LLVM writes in vectors; how many of them several windows may test, and
# how many factors they may take.
WOVEN, TESTED, FACTORS = 8, 12, 160


class Layout(NamedTuple):
    """How the last axis and the channels of cells lie: as `[q, r, c]`, or, with so many channels,
    in a `row` of all entries, `[size * c, 1, 1]`, or `woven`, `[q, 1, stride * c]`.
    """

    row: int = 0
    woven: int = 0


APART = Layout()


class Block(NamedTuple):
    """Windows `o = q - shift` at some cells `q`, and where those stand in an array of windows.

    `taps` are those that read the entries of a cell, -2 for none, laid out against the cells.
    """

    shift: tuple[int, ...]
    taps: np.ndarray
    cells: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    layout: Layout


class Piece(NamedTuple):
    """Cells of one axis, from `start` to `stop`, and `(shift, taps, start)` of all their blocks."""

    start: int
    stop: int
    blocks: list[tuple[int, np.ndarray, int]]


Pieces = Sequence[Sequence[Piece]]  # per axis


def row_of(windows: Sequence[Window], channels: int, light: bool = False) -> int:
    """How many channels are in a row with the last axis, `[..., q, r, size * c, 1, 1]`; 0 if none.

    Else loops over the entries `r` and the channels are short: the gradient of 3x3 maxima of stride
    3 over 1337x1337x1 took 0.8 ms, and takes 0.2. `light` terms of 8 channels are of vectors, which
    in rows took 2.0 times as long, over 25 drawn; others where the loops fill some, but of up to 4
    along one axis (27 drawn took 2.2 times as long so), or where windows of stride 2 do not
    overlap. Along one axis, copies cost what `light` terms gain.
    """
    w = windows[-1]
    entries = math.prod(w.size for w in windows) * channels
    fills = w.stride * channels % 8 == 0 and (len(windows) > 1 or channels > 4)
    vectors = channels >= 8 if light else channels >= NARROW or fills
    if vectors or entries > ROWS or w.stride == 1:
        return 0
    gains = w.stride > 2 or (blocks(windows) > 1 and not (light and len(windows) == 1))
    return channels if gains else 0


def layout_of(
    windows: Sequence[Window],
    channels: int,
    *,
    whole: bool = False,
    tested: bool = False,
    factors: int = 1,
) -> Layout:
    """The best layout of light terms: `whole` ones give each entry what a window holds, if it reads
    it, `tested` ones are for the entry that the window chose, others are of so many `factors`.

    Woven, a loop along the axis is in vectors: of 24 drawn sums and maxima of up to 4 channels the
    gradients took 0.76 of the time in rows and apart, of 22 products 0.68.
    """
    *_, w = windows
    beside, reach = w.stride * channels, blocks(windows[-1:])
    slow = tested and reach > 1 and beside * reach > TESTED
    slow = slow or (whole and blocks(windows) == 1) or beside * reach * factors > FACTORS
    if w.stride > 1 and beside <= WOVEN and not slow:
        return Layout(woven=channels)
    return Layout(row_of(windows, channels, light=True))


def blocks(windows: Sequence[Window]) -> int:
    """Through how many shifts a window reaches an entry."""
    return math.prod(len(list(_axis_blocks(w))) for w in windows)


def all_cells(windows: Windows) -> Pieces:
    """All cells at once, of what `spread` leaves."""
    return [[_whole(w)] for w in windows]


def _whole(w: Window) -> Piece:
    before, _ = _around(w)
    return Piece(0, _cells(w), [(b, taps, before - b) for b, taps in _axis_blocks(w)])


def cells_apart(windows: Windows, seen: bool = False) -> Pieces:
    """The cells that the same blocks reach, and of which, if `seen`, each tap sees all or none."""
    return [_apart(w, seen) for w in windows]


def _apart(w: Window, seen: bool) -> list[Piece]:
    made, ends = list(_axis_blocks(w)), {0, _cells(w)}
    for b, _ in made:
        ends |= {b, b + w.out}
        for at in range(-w.low, w.reach + 1 - w.low, w.dilation) if seen else ():
            ends |= {b - at // w.stride, b + (w.size - 1 - at) // w.stride + 1}
    inside = sorted(end for end in ends if 0 <= end <= _cells(w))
    return [
        Piece(start, stop, [(b, taps, start - b) for b, taps in made if b <= start < b + w.out])
        for start, stop in pairwise(inside)
    ]


def terms_of(pieces: Pieces) -> int:
    """Of how many blocks the sums of all pieces are."""
    return math.prod(sum(len(piece.blocks) for piece in axis) for axis in pieces)


def _block(windows: Windows, pieces: Sequence[Piece], choice: Sequence, layout: Layout) -> Block:
    """One block of a piece of every axis."""
    taps = np.zeros((1,) * len(windows), int)
    reached = np.ones_like(taps, bool)
    for axis, (w, (_, tap, _)) in enumerate(zip(windows, choice, strict=True)):
        tap = tap.reshape([-1 if a == axis else 1 for a in range(len(windows))])
        taps = taps * w.taps + tap
        reached = reached & (tap >= 0)
    taps = np.where(reached, taps, -2)
    *sides, stride = taps.shape
    if layout.row:
        taps = taps[..., np.arange(windows[-1].size * layout.row) // layout.row % stride]
        last = -1, 1, 1
    elif layout.woven:
        taps = taps.repeat(layout.woven, -1)
        last = 1, 1, -1
    else:
        last = 1, stride, 1
    taps = taps.reshape(*(n for r in sides for n in (1, r)), *last)
    shift, starts = (tuple(part[i] for part in choice) for i in (0, 2))
    return Block(shift, taps, tuple((p.start, p.stop) for p in pieces), starts, layout)


def _axis_blocks(w: Window) -> Iterator[tuple[int, np.ndarray]]:
    least, most = _shifts(w)
    for b in range(least, most + 1):
        distance = w.stride * b + w.low + np.arange(w.stride)
        tap = np.where(
            (distance % w.dilation == 0) & (distance >= 0) & (distance <= w.reach),
            distance // w.dilation,
            -1,
        )
        if (tap >= 0).any():
            yield b, tap


def _shifts(w: Window) -> tuple[int, int]:
    """The least and the greatest shift."""
    return -((w.low + w.stride - 1) // w.stride), (w.reach - w.low) // w.stride


def _cells(w: Window) -> int:
    """How many blocks of `stride` entries cover the axis."""
    return -(-w.size // w.stride)


def _around(w: Window) -> tuple[int, int]:
    """How many windows the shifts reach before the first one and behind the last."""
    least, most = _shifts(w)
    return max(most, 0), max(_cells(w) - least - w.out, 0)


def spread(
    y: Array, windows: Windows, fill: float = 0, layout: Layout = APART, light: bool = True
) -> Array:
    """`[*batch, *out, c]` with `fill` around, so that every shift of it is a plain slice."""
    around = [_around(w) for w in windows]
    if layout.row:
        return _row(_side_by_side(_enclosed(y, around, fill), windows[-1].stride))
    several = blocks(windows) > 1
    padded = partial(written, around=around, fill=fill, at_once=read_at_once(windows))
    if not several and not any(map(any, around)):
        return y
    # For one block alone XLA:CPU pads in the loop over it, which is in no vectors then, unless it
    # is `light`: 4x4 log-sum-exps of stride 4 over 4x202x202x12 took 12 ms, and take 0.9.
    return padded(y) if several or light or y.shape[-1] >= NARROW else alone(padded)(y)


def _row(y: Array) -> Array:
    return y.reshape(*y.shape[:-2], y.shape[-2] * y.shape[-1], 1)


def _enclosed(y: Array, around: Sequence[tuple[int, int]], fill: float) -> Array:
    """`y` with `fill` around its spatial axes, copied run by run."""
    for axis, ends in enumerate(around, y.ndim - len(around) - 1):
        if any(ends):
            shape = y.shape
            low, high = (
                jnp.full((*shape[:axis], n, *shape[axis + 1 :]), fill, y.dtype) for n in ends
            )
            y = alone(lambda *parts, axis=axis: lax.concatenate(parts, axis))(low, y, high)
    return y


def _side_by_side(y: Array, times: int) -> Array:
    """Every entry of the last but one axis so many times."""
    # XLA:CPU copies runs for a concatenation, but for one that it has put into another loop.
    return alone(lambda y: lax.concatenate([y] * times, y.ndim - 1))(y)


def shifted(y: Array, windows: Windows, block: Block) -> Array:
    """`y` at the windows of the block, laid out against its cells."""
    lead, row = y.ndim - len(windows) - 1, block.layout.row
    made = zip(block.starts, block.cells, strict=True)
    bounds = [(start, start + stop - first) for start, (first, stop) in made]
    if row:
        start = block.starts[-1] * windows[-1].stride * row
        bounds[-1] = start, start + windows[-1].size * row
    return _laid_out(crop(y, lead, bounds), windows, block.layout)


def entry(x: Array, windows: Windows, block: Block, tap: Sequence[int]) -> Array | None:
    """What a tap of the block's windows reads of `x`, laid out as `shifted`; None of padding."""
    bounds = []
    for w, b, t, (start, stop) in zip(windows, block.shift, tap, block.cells, strict=True):
        first = w.stride * (start - b) + w.dilation * t - w.low
        bounds.append((first, first + w.stride * (stop - 1 - start) + 1))
    if any(first < 0 or end > w.size for (first, end), w in zip(bounds, windows, strict=True)):
        return None
    lead = x.ndim - len(windows) - 1
    return _laid_out(crop(x, lead, bounds, [w.stride for w in windows]), windows, block.layout)


def _laid_out(y: Array, windows: Windows, layout: Layout) -> Array:
    """`[*batch, q, 1, q, 1, ..., c]` of `[*batch, q, q, ..., c]`."""
    lead = y.ndim - len(windows) - 1
    y = lax.expand_dims(y, [lead + 2 * axis + 1 for axis in range(len(windows))])
    if not layout.woven:
        return y
    beside = *y.shape[:-1], windows[-1].stride, layout.woven
    return jnp.broadcast_to(y[..., None, :], beside).reshape(*y.shape[:-1], math.prod(beside[-2:]))


def cells(x: Array, windows: Windows, layout: Layout) -> Array:
    """`[*batch, *size, c]` in blocks, `[*batch, q, r, q, r, ..., c]`, with zeros behind."""
    lead = x.ndim - len(windows) - 1
    pairs = [(_cells(w), w.stride) for w in windows]
    if layout.row:
        x = _row(x)
        pairs[-1] = x.shape[-2], 1
    sizes = x.shape[lead:-1]
    x = grow(x, lead, [(0, q * r - n, 0) for (q, r), n in zip(pairs, sizes, strict=True)])
    return x.reshape(*x.shape[:lead], *chain(*pairs), x.shape[-1])


def uncells(x: Array, size: Sequence[int]) -> Array:
    """Adjoint of `cells`, of what has this spatial size."""
    lead = x.ndim - 2 * len(size) - 1
    pairs = zip(x.shape[lead:-1:2], x.shape[lead + 1 : -1 : 2], strict=True)
    x = x.reshape(*x.shape[:lead], *(q * r for q, r in pairs), x.shape[-1])
    return crop(x, lead, [(0, n) for n in size])


def taps_of(block: Block, ndim: int, dtype) -> np.ndarray:
    """The block's taps, laid out against a blocked array of `ndim` axes."""
    return block.taps.reshape((1,) * (ndim - block.taps.ndim) + block.taps.shape).astype(dtype)


def known(block: Block, table: np.ndarray) -> Array:
    """A table of the block's entries; of woven ones LLVM leaves out what a choice by them takes."""
    if not block.layout.woven:
        return jnp.asarray(table)
    shape = (1,) * (table.ndim - 1) + table.shape[-1:]
    entry = lax.broadcasted_iota(np.int32, shape, table.ndim - 1)
    *values, y = np.split(table, table.shape[-1], -1)
    for k, value in enumerate(values):
        y = jnp.where(entry == k, value, y)
    return jnp.asarray(y)


def blocked_sum(
    windows: Windows,
    term: Callable[[Block], Array],
    terms: int = 1,
    layout: Layout = APART,
    pieces: Pieces | None = None,
) -> Array:
    """`sum_b term(b)` over the blocks, out of the blocked layout, `terms` for `in_vectors`.

    Of the blocks of `pieces`, of which there are some, or of all that `spread` made room for.
    """
    *sides, size = (w.size for w in windows)

    def total() -> Array:
        phases = layout.woven > 0 and pieces is None
        # What terms call is no part that is computed alone.
        with set_xla_metadata(inlineable=None):
            made = _sums(windows, term, layout, phases, pieces or all_cells(windows), [])
        assert made is not None
        return made

    # XLA:CPU would find each entry's place in the blocks by division, were the reshape in the loop.
    if layout.woven:
        y = uncells(alone(total)(), [*sides, _cells(windows[-1])])
        y = y.reshape(*y.shape[:-2], y.shape[-2] * windows[-1].stride, layout.woven)
        return single(crop(y, y.ndim - 2, [(0, size)]))
    if not layout.row:
        return uncells(barrier(in_vectors(total(), terms)), [*sides, size])
    y = in_vectors(uncells(total(), [*sides, size * layout.row]), terms)
    # And each channel's in the row.
    return barrier(y).reshape(*y.shape[:-2], size, layout.row)


def _sums(
    windows: Windows,
    term: Callable,
    layout: Layout,
    phases: bool,
    left: Pieces,
    pieces: Sequence[Piece],
) -> Array | None:
    """The sums at the cells of these pieces, and of those `left`; None where no window reaches.

    What one loop of XLA:CPU concatenates it computes part by part, without an array for any: the
    gradient of products of 3 with stride 2 over 4x8192x64 took 1.2 ms from padded copies, and
    takes 0.26. So the `phases` of all axes but the last, too, which no block reaches in vain.
    """
    if not left:
        choices = product(*(piece.blocks for piece in pieces))
        terms = [term(_block(windows, pieces, choice, layout)) for choice in choices]
        return reduce(jnp.add, terms) if terms else None
    here, *left = left
    axis = -2 * len(left) - 3
    of = partial(_sums, windows, term, layout, phases, left)

    def each(piece: Piece) -> Array | None:
        if not (left and phases):
            return of([*pieces, piece])
        made = [of([*pieces, phase]) for phase in _phases(piece, windows[len(pieces)].stride)]
        return _joined_along(axis + 1, made, [1] * len(made))

    return _joined_along(axis, [each(piece) for piece in here], [p.stop - p.start for p in here])


def _phases(piece: Piece, stride: int) -> list[Piece]:
    """The piece at every entry of a cell alone."""
    made = []
    for r in range(stride):
        reach = [(b, taps[r : r + 1], start) for b, taps, start in piece.blocks if taps[r] >= 0]
        made.append(piece._replace(blocks=reach))
    return made


def _joined_along(axis: int, parts: Sequence[Array | None], counts: Sequence[int]) -> Array | None:
    """The parts, of which None are zeros, and None if all are."""
    some = next((part for part in parts if part is not None), None)
    if some is None or len(parts) == 1:
        return some
    axis += some.ndim

    def none(count: int) -> Array:
        return jnp.zeros((*some.shape[:axis], count, *some.shape[axis + 1 :]), some.dtype)

    made = [none(n) if part is None else part for part, n in zip(parts, counts, strict=True)]
    return lax.concatenate(made, axis)
