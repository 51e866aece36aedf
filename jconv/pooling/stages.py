"""A pooling as a few stages, each one fused reduction over shifted views of its input.

    stage           y[o] = combine_t x[stride*o + dilation*t]
    its adjoint     x_bar[i] = sum_o y_bar[o] * (share of entry i in window o)

Every combination here is associative, so a long window is combined axis by axis, and a long axis
from combinations of shorter runs: 31 taps are 6 taps, then 6 taps of dilation 5. Each stage has its
own rule.

The adjoint scatters nothing. Entry `i = stride*q + r` is read by the windows `o = q - b` through
the taps at the distance `stride*b + low + r`, for the few blocks `b` that reach so far. In the
layout `[q, r]` the adjoint is a sum over the blocks of one shifted, broadcast view of the windows;
a reshape undoes the layout. So padding costs the adjoint nothing. Cells `q` that the same blocks
reach need no room around the windows, and are put side by side in one loop. Of few channels all
entries of a cell of the last axis are written side by side, or, where they are many, each window is
repeated `stride` times along that axis, which with the channels makes one long row.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from itertools import chain, pairwise, product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata

from jconv.fusion import alone, barrier, in_vectors, single
from jconv.geometry import Window
from jconv.padding import crop, grow
from jconv.placement import zeros
from jconv.windows import offsets, view

Windows = tuple[Window, ...]

# As many taps as one fused loop reads; and of windows so far apart that they read an entry only so
# often: 4x4 maxima of stride 4 over 8x64x64x64 and their gradient take 0.23 ms, axis by axis 0.90.
FEW, MANY, OFTEN = 9, 64, 8
# Channels from which on they are rows of their own; and entries up to which fewer are put in rows,
# for which windows are copied.
NARROW, ROWS = 16, 2**22
# Entries side by side that LLVM writes in vectors; how many of them several windows may test, and
# how many factors they may take.
WOVEN, TESTED, FACTORS = 8, 12, 160


def cropped(x: Array, windows: Sequence[Window]) -> tuple[Array, Windows]:
    """What negative padding leaves of `x`, and the same windows over it, padded by 0 or more."""
    kept = [left(w) for w in windows]
    x = crop(x, x.ndim - len(windows) - 1, kept)
    return x, tuple(map(over, windows, kept))


def left(w: Window) -> tuple[int, int]:
    """The bounds of what negative padding leaves of an axis."""
    start = min(max(-w.low, 0), w.size)
    return start, max(w.size + min(w.high, 0), start)


def over(w: Window, bounds: tuple[int, int]) -> Window:
    """The same window over that part of its input."""
    start, stop = bounds
    n = stop - start
    low = w.low + start if n else min(max(w.low + start, 0), w.extent)
    return dataclasses.replace(w, size=n, low=low, high=w.extent - low - n)


def enclosed(x: Array, windows: Sequence[Window], fill: float = 0) -> Array:
    """`x` with `fill` around, as an array that views read without bounds tests."""
    around = [(w.low, w.high) for w in windows]
    return written(x, around, fill, _at_once(windows)) if any(map(any, around)) else x


def _at_once(windows: Sequence[Window]) -> bool:
    """Whether a loop reads entries through taps of several axes, at every position."""
    return several_axes(windows) and all(w.stride == 1 for w in windows)


def written(
    x: Array, around: Sequence[tuple[int, int]], fill: float = 0, at_once: bool = False
) -> Array:
    """`x` with `fill` around its spatial axes, as an array of its own.

    XLA:CPU computes an array again for every entry that is read of it, whatever barrier stands
    behind it, but for a concatenation of three. So each padded axis gets both ends, if only one
    entry, and they are cropped behind the barrier, which keeps the slice from moving into the
    concatenation. Others pad where they read, but for what taps of several axes read `at_once`: on
    an H200 the gradient of 3x3 maxima over 64x56x56x128 takes 0.61 ms so, and would take 0.74.
    """
    return lax.platform_dependent(
        x,
        cpu=partial(_joined_of_three, around, fill),
        default=partial(_padded, around, fill, at_once),
    )


def _padded(around: Sequence[tuple[int, int]], fill: float, at_once: bool, x: Array) -> Array:
    ends = [(low, high, 0) for low, high in around]
    y = grow(x, x.ndim - len(around) - 1, ends, jnp.asarray(fill, x.dtype))
    return lax.optimization_barrier(y) if at_once else y


def _joined_of_three(around: Sequence[tuple[int, int]], fill: float, x: Array) -> Array:
    lead = x.ndim - len(around) - 1
    ends = [(max(low, 1), max(high, 1), 0) if low or high else (0, 0, 0) for low, high in around]
    ends = ends if any(map(any, ends)) else [(1, 1, 0), *ends[1:]]
    x = in_vectors(x)
    y = lax.optimization_barrier(grow(x, lead, ends, jnp.asarray(fill, x.dtype)))
    starts = [end - low for (end, _, _), (low, _) in zip(ends, around, strict=True)]
    sizes = [low + n + high for (low, high), n in zip(around, x.shape[lead:-1], strict=True)]
    return crop(y, lead, [(start, start + size) for start, size in zip(starts, sizes, strict=True)])


def views(x: Array, windows: Sequence[Window], fill: float = 0) -> list[Array]:
    """What each tap reads of `x` with `fill` around, row-major."""
    x = enclosed(x, windows, fill)
    inner = [w.padded() for w in windows]
    return [view(x, inner, tap) for tap in offsets(inner)]


# ---------------------------------------------------------------- windows apart


class Part(NamedTuple):
    """Some of the windows, side by side: from which on, what they read, and they over that."""

    starts: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]
    windows: Windows

    def read(self, x: Array) -> Array:
        return crop(x, x.ndim - len(self.bounds) - 1, self.bounds)

    def of(self, y: Array) -> Array:
        """What stands in `y`, an entry a window, for these windows."""
        ends = [(s, s + w.out) for s, w in zip(self.starts, self.windows, strict=True)]
        return crop(y, y.ndim - len(ends) - 1, ends)


def parts(windows: Sequence[Window]) -> list[Part]:
    """Those windows that see no padding, and those at each end of each axis that do.

    Windows of few taps at a stride read the input so few times that a padded copy of it is what
    costs most: apart, 3x3 windows of stride 2 over 8x112x112x64 took 1.0 ms and not 1.9.
    """
    whole = [(0, w.out) for w in windows]
    inner = [_inside(w) for w in windows]
    if not _ends_apart(windows) or any(start >= stop for start, stop in inner):
        return [_part(windows, whole)]
    made = [_part(windows, inner)]
    for axis, ((start, stop), (_, out)) in enumerate(zip(inner, whole, strict=True)):
        ends = [end for end in ((0, start), (stop, out)) if end[0] < end[1]]
        made += [_part(windows, [*inner[:axis], end, *whole[axis + 1 :]]) for end in ends]
    return made


def _inside(w: Window) -> tuple[int, int]:
    """The bounds of the windows that see no padding."""
    start = -(-w.low // w.stride)
    stop = (w.size - 1 - w.reach + w.low) // w.stride + 1
    return max(start, 0), min(stop, w.out)


def _part(windows: Sequence[Window], ranges: Sequence[tuple[int, int]]) -> Part:
    starts = tuple(start for start, _ in ranges)
    bounds, made = zip(*map(_restricted, windows, ranges), strict=True)
    return Part(starts, bounds, made)


def _restricted(w: Window, outputs: tuple[int, int]) -> tuple[tuple[int, int], Window]:
    """What these outputs of a window read, and the window over that."""
    start, stop = outputs
    first, last = w.stride * start - w.low, w.stride * (stop - 1) + w.reach - w.low
    begin = min(max(first, 0), w.size)
    end = min(max(last + 1, begin), w.size)
    extent, n = last + 1 - first, end - begin
    low = min(max(begin - first, 0), extent - n)
    return (begin, end), dataclasses.replace(w, size=n, low=low, high=extent - n - low)


def swept(f: Callable[..., Any], windows: Sequence[Window], *arrays: tuple[Array, float]) -> Any:
    """`f(part, views, ...)` of every part, put together; each array comes with its padding.

    So what is read twice is padded at its ends alone, and never copied as a whole.
    """
    first, _ = arrays[0]
    lead = first.ndim - len(windows) - 1
    made = parts(windows)
    results = [
        f(part, *(views(part.read(x), part.windows, fill) for x, fill in arrays)) for part in made
    ]
    if len(made) == 1:
        return jax.tree.map(partial(in_vectors, terms=_taps(windows)), results[0])
    return jax.tree.map(partial(_joined, lead, windows, made), *results)


def _joined(lead: int, windows: Sequence[Window], made: Sequence[Part], *results: Array) -> Array:
    shape = list(results[0].shape)
    shape[lead:-1] = [w.out for w in windows]
    y = zeros(shape, results[0].dtype, *results)
    for part, result in zip(made, results, strict=True):
        starts = [0] * y.ndim
        starts[lead:-1] = part.starts
        y = lax.dynamic_update_slice(y, result, starts)
    return y


def laid(values, axis: int, rank: int, ndim: int):
    """`values` along one of `rank` spatial axes of an array of `ndim` axes."""
    shape = [1] * ndim
    shape[ndim - 1 - rank + axis] = len(values)
    return values.reshape(shape)


# ---------------------------------------------------------------- the stages of a window


def along(
    size: Sequence[int], axis: int, taps: int, stride: int, dilation: int, padding=(0, 0)
) -> Windows:
    """A window along one axis of an input of this size, and single entries along the others."""
    still = [Window(n, 1) for n in size]
    low, high = padding
    still[axis] = Window(size[axis], taps, stride, low, high, dilation)
    return tuple(still)


def few(windows: Sequence[Window]) -> bool:
    """Whether one fused loop over all the taps is best."""
    taps = _taps(windows)
    return taps <= FEW or taps <= min(MANY, OFTEN * math.prod(w.stride for w in windows))


def several_axes(windows: Sequence[Window]) -> bool:
    """Whether a window has taps along more than one axis."""
    return sum(w.taps > 1 for w in windows) > 1


def _ends_apart(windows: Sequence[Window]) -> bool:
    """Whether a padded copy of the input is worth avoiding."""
    return _taps(windows) <= FEW and any(w.stride > 1 for w in windows)


def _taps(windows: Sequence[Window]) -> int:
    return math.prod(w.taps for w in windows)


def held(windows: Sequence[Window], channels: int, light: bool = False, copies: int = 4) -> int:
    """About how many arrays as large as the input a pooling and its gradient hold at once.

    Where few taps read a padded copy, so many `copies`. A `light` gradient reads neither the input
    nor the output.
    """
    if few(windows):
        copied = any(w.low or w.high for w in windows) and not (light and _ends_apart(windows))
        layout = layout_of(windows, channels) if light else Layout(row_of(windows, channels))
        return max(copies if copied else 0, 0 if layout == APART else 2)
    return 4 * sum(w.taps.bit_length() for w in windows)


def tight(w: Window) -> Window:
    """The window; where there is but one, of any stride, without the tail it does not cover."""
    if w.out > 1:
        return w
    return dataclasses.replace(w, high=w.high + w.covered - w.extent, stride=w.reach + 1)


def step(w: Window) -> tuple[int, int, int]:
    """`(taps, stride, dilation)`; the stride of a single window is any, which 0 says."""
    return w.taps, w.stride if w.out > 1 else 0, w.dilation


# ---------------------------------------------------------------- the blocked layout


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
    padded = partial(written, around=around, fill=fill, at_once=_at_once(windows))
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
