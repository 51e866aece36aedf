"""Patches and one matrix product (im2col): `y = unfold(x) . kernel`.

    forward         patches[n, o, t, c] k[t, c, m] -> y[n, o, m]
    input_adjoint   y[n, o, m] k[t, c, m] -> patches[n, o, t, c], overlapping ones added up
    kernel_adjoint  y[m, (n, o)] patches[(n, o), t, c] -> k[t, c, m]

Forward and kernel adjoint go block by block. The kernel's adjoint turns `y`, which is the smaller,
so that neither side of the product is read against its rows: XLA:CPU takes twice as long for that.
Of few positions it costs less than turning the kernel back.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
from jax import Array, lax

from jconv.blocks import Blocks, Reader, known, map_blocks, reader, split, sum_blocks
from jconv.channels import (
    MOST_CHAINED,
    by_group,
    groups_first,
    matmul,
    mix,
    mix_input,
    mix_kernel,
    mix_rows,
    transposed_kernel,
)
from jconv.fusion import finished
from jconv.geometry import Spec, Window, transposed
from jconv.padding import crop, embed, extract, grow, strided
from jconv.windows import gather_patches, overlap_add, seen

# Channels a group up to which the patches of a kernel's adjoint are rows of positions.
FEW = 7
# Entries up to which XLA:CPU computes a product on one thread, and a sum of products, of them all.
# In sums 5x5 taps from 1 to 32 channels on 64x28x28 take 0.34 ms instead of 0.52.
SMALL, SUMMED = 2**13, 2**15
# Positions of a product from which one of several is worth it.
LONG = 128
# Positions of a row from which a product of its own is worth it.
SHORT = 64
# Multiply-adds from which products of rows are worth a second thread: 5x5 taps of stride 2 from 1
# to 64 channels on 89x89 take 0.06 ms as one and 0.07 by rows.
LEAST = 2**24
# How many times a block's bytes are better used at once, with nothing to cut out of `y`: 3x3 taps
# from 3 to 32 channels on 4x224x224 take 3.7 ms so and 5.6 in blocks. Of what is cut anyway larger
# blocks are no gain: 3x3x3 taps from 2 to 8 on 8x30x32x33 take 2.0 ms, and 3.1 in three times them.
WHOLE = 3
# Positions below which a kernel is larger than what its adjoint reads: 3x3 taps, 512 -> 512
# channels on 7x7, take 0.7 ms as they lie and 2.0 turned.
BRIEF = 128
# Arrays that XLA:CPU puts together in one loop: nine are ten loops, most of them of one thread.
TOGETHER = 8
# Taps of a strided axis from which its phases are worth a copy.
FEWEST = 5
# Taps of several axes that are put together at once.
FUSED = 9
# Outputs of more channels fill a product on their own.
MOST_SHARED = 64


def forward(spec: Spec, x: Array, k: Array) -> Array:
    k = k.reshape(-1, k.shape[-1])
    if math.prod(spec.taps) == 1:
        return mix(spec, _single(spec, x), k)
    if in_runs(spec):
        return _forward_in_runs(spec, x, k)
    blocks, windows, read = _blocked(spec, x)

    def block(step):
        rows = _read_rows(spec, windows, read(step))
        return mix_rows(spec, rows, k, (blocks.images, blocks.rows, *spec.out[1:]))

    return map_blocks(blocks, block, spec.out[0])


def in_runs(spec: Spec) -> bool:
    """Whether a signal's patches are a few runs, of what one stride holds: it lies together."""
    w = spec.windows[0]
    is_signal = len(spec.windows) == spec.groups == w.dilation == 1
    return is_signal and 1 < w.stride < w.taps <= TOGETHER * w.stride


def _forward_in_runs(spec: Spec, x: Array, k: Array) -> Array:
    """25 taps of stride 4 are 7 runs instead of 25 slices."""
    (w,), c = spec.windows, x.shape[-1]
    runs = -(-w.taps // w.stride)
    whole = dataclasses.replace(w, taps=runs * w.stride).grown_to((w.out + runs - 1) * w.stride)
    blocks, (within,), read = _blocked(dataclasses.replace(spec, windows=(whole,)), x)

    def block(step):
        rows = read(step).reshape(blocks.images, within.out + runs - 1, w.stride * c)
        ends = [(w.taps - i * w.stride) * c for i in range(runs)]
        parts = [rows[:, i : i + within.out, :end] for i, end in enumerate(ends)]
        return mix(spec, lax.optimization_barrier(jnp.concatenate(parts, -1)), k)

    return map_blocks(blocks, block, w.out)


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    positions = known(y.shape[0]) * math.prod(spec.out)
    unit = all(w.stride == w.input_dilation == 1 for w in spec.windows)
    if unit and positions > k.shape[-2]:  # else turning the kernel costs as much as the product
        k = transposed_kernel(k, spec.groups)
        return forward(transposed(spec), y, k)
    columns = mix_input(spec, y, k.reshape(-1, k.shape[-1]))
    patches = _from_columns(spec, columns)
    inner = spec.padded().windows
    return extract(overlap_add(inner, patches), spec.windows)


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    if math.prod(spec.taps) == 1:
        return mix_kernel(spec, _single(spec, x), y).reshape(*spec.taps, -1, y.shape[-1])
    if x.shape[-1] <= FEW * spec.groups:
        return kernel_adjoint_by_rows(spec, x, y)
    # A sum as large as a block's patches is not to be added to more often than need be.
    kernel = math.prod(spec.taps) * x.shape[-1] // spec.groups * y.shape[-1] * x.dtype.itemsize
    blocks, windows, read = _blocked(spec, x, kernel)
    y = grow(y, 1, [(0, blocks.padded_rows - spec.out[0], 0)])
    # Of one block: how many there are of an exported batch is unknown.
    positions = blocks.images * blocks.rows * math.prod(spec.out[1:])
    is_brief = blocks.steps == 1 and positions < BRIEF

    def block(step):
        rows = _read_rows(spec, windows, read(step))
        ys = by_group(spec, lax.optimization_barrier(blocks.cut(y, step, 1, blocks.rows)))
        if is_brief:
            return matmul(spec, rows, ys, ((1,), (1,)), ((0,), (0,)))
        return matmul(spec, jnp.swapaxes(ys, 1, 2), rows, ((2,), (1,)), ((0,), (0,)))

    k = sum_blocks(blocks, block)
    k = k if is_brief else jnp.swapaxes(k, 1, 2)  # [groups, taps * c, m]
    return jnp.moveaxis(k, 0, 1).reshape(*spec.taps, -1, y.shape[-1])


def kernel_adjoint_by_rows(spec: Spec, x: Array, y: Array) -> Array:
    """By patches with positions last, copied in whole rows however few the channels.

    Neighbouring outputs share a patch of all that they see: it took 5x5 taps from 1 to 16 channels
    on 256x28x28 from 4.1 to 2.9 ms. Each of them then finds its taps `stride` later.
    """
    side = _neighbours(spec, y.shape[-1])
    wider = sharing(spec, side)
    blocks, windows, read = _blocked(wider, x, whole=WHOLE)
    *others, last = blocks.padded_rows, *wider.out[1:]
    whole = (*others, side * last)
    y = grow(y, 1, [(0, n - out, 0) for n, out in zip(whole, spec.out, strict=True)])
    y = y.reshape(*y.shape[:-2], last, side * y.shape[-1])

    taps = math.prod(wider.taps) * x.shape[-1] // spec.groups
    axes = _axes_of_each(windows, blocks.images, taps, y.shape[-1] // spec.groups)

    def block(step):
        ys = by_group(spec, blocks.cut(y, step, 1, blocks.rows))
        if not axes:
            rows = planar(windows, spec.groups, read(step))
            return matmul(spec, rows, ys, ((2,), (1,)), ((0,), (0,)))
        rows = _pieces(windows, spec.groups, read(step), axes)
        ys = ys.reshape(*rows.shape[:2], rows.shape[-1], -1)
        return matmul(spec, rows, ys, ((3,), (2,)), ((0, 1), (0, 1))).sum(1)

    k = jnp.moveaxis(sum_blocks(blocks, block), 0, 1)  # from [groups, taps * c, m]
    return kernel_of_each(spec, k.reshape(*wider.taps, -1, side, y.shape[-1] // side))


def _axes_of_each(windows: Sequence[Window], images: int, rows: int, columns: int) -> int:
    """How many of the last axes each of several products sums over; none where one sums over all.

    XLA:CPU shares a sum of products among threads, `SUMMED` entries to each, but none of the small
    products. Where one takes them all, or planes leave much to one thread, products of rows: 3x3
    taps from 3 to 64 channels on 2x131x131 take 0.46 ms so and 0.75 as one, but from 1 to 32 on
    1x215x215, whose columns it shares, 0.23 and 0.21. Short rows are added up more than they sum:
    3x3 taps from 4 to 32, 29 pairs a row on 2x214x58, take 0.54 and 0.46, and of planes of 18
    positions 3x3x3 taps from 1 to 8 on 16x12x6x6 0.15 and 0.07. One column is added up in a chain,
    which rounds: 3x3 taps of stride 2 from 3 to 1 channels on 512x512 were five times as far off as
    XLA's own, and are half as far by rows.
    """
    out, kernel = [w.out for w in windows], rows * columns
    if len(out) < 2 or kernel > SMALL:
        return 0
    if columns == 1 and images * math.prod(out) >= MOST_CHAINED:
        return 1 if out[-1] >= SHORT else 2
    summed = kernel * images * math.prod(out[:-2])
    is_alone = 2 * summed < 3 * SUMMED and rows <= 64 and 16 < columns < 96
    if is_alone and out[-1] >= columns and images * math.prod(out) * kernel >= LEAST:
        return 1
    return 2 if math.prod(out[-2:]) >= LONG and summed > SUMMED else 0


def _pieces(windows: Sequence[Window], groups: int, x: Array, axes: int) -> Array:
    """`planar` of the last `axes` of every example, `[groups, pieces, taps * c, positions]`.

    The last axis first, then the others at once where they have few taps: 3x3x3 taps from 1 to 16
    channels on 2x48x48x48 take 1.4 ms so, and 1.5 one after the other.
    """
    at = 1 + len(windows) - axes
    turned = lax.optimization_barrier(jnp.moveaxis(embed(x, windows), -1, at))
    rows = turned.reshape(*turned.shape[:at], groups, -1, *turned.shape[at + 1 :])
    places = (*range(1, at), *range(at + 2, at + 2 + axes))
    *others, last = zip(places, (w.padded() for w in windows), strict=True)
    is_few = math.prod(w.taps for _, w in others) <= FUSED
    for step in [[last], others] if is_few else [[place] for place in (last, *reversed(others))]:
        if all(axis < at for axis, _ in step):  # copied in whole runs
            rows = rows.reshape(*rows.shape[: at + 2], -1)
        stacked = lax.optimization_barrier(_stacked(rows, at + 1, step))
        rows = stacked.reshape(*stacked.shape[: at + 1], -1, *stacked.shape[at + 2 + len(step) :])
    rows = jnp.moveaxis(rows, at, 0)
    return rows.reshape(groups, -1, rows.shape[at + 1], math.prod(rows.shape[at + 2 :]))


def _stacked(rows: Array, at: int, places: Sequence[tuple[int, Window]]) -> Array:
    """What each tap of some axes sees, as new axes from `at` on: a stack in stacks is one loop."""
    if not places:
        return rows
    (axis, w), *others = places
    if not others:
        return _taps(rows, at, axis, w)
    return jnp.stack([_stacked(view, at, others) for view in _views(rows, axis, w)], at)


def _neighbours(spec: Spec, outputs: int) -> int:
    """How many outputs of the last axis share a patch: few, whose patches overlap by most.

    Of few channels rows that divide by none are filled up: 3x3x3 taps from 1 to 8 channels on
    43x43x43 take 1.07 ms alone and 0.45 by fours, to 16 on 31x33x35 1.4 and 1.1 in pairs, but on
    21x21x19 0.11 and 0.15.
    """
    w = spec.windows[-1]
    if spec.groups > 1 or w.dilation > 1 or 5 * w.stride > 2 * w.taps or outputs > MOST_SHARED:
        return 1
    sides = (4, 2, 3) if outputs <= 8 else (2, 3)
    exact = next((side for side in sides if w.out % side == 0), 1)
    is_large = len(spec.windows) > 2 and math.prod(spec.out) >= 2**14
    is_few = outputs <= (16 if is_large else 8)
    fills_up = exact == 1 and is_few and 4 * (-w.out % sides[0]) <= w.out
    return sides[0] if fills_up else exact


def sharing(spec: Spec, side: int) -> Spec:
    """One patch for `side` neighbouring outputs of the last axis: all that they see, undilated.

    Of what divides no further the last patch sees more than there is.
    """
    *others, w = spec.windows
    taps, high = w.taps + (side - 1) * w.stride, w.high + -w.out % side * w.stride
    wider = dataclasses.replace(w, taps=taps, stride=side * w.stride, high=high)
    return dataclasses.replace(spec, windows=(*others, wider))


def kernel_of_each(spec: Spec, k: Array) -> Array:
    """`[..., wider taps, c, side, m]` to `[..., taps, c, m]`: the taps of each of the neighbours.

    k[t, c, m] = sum_r z[stride*r + t, c, r, m],    z[u, c, r, m] = sum_q patch[q, u, c] y[q, r, m]
    """
    w, axis = spec.windows[-1], k.ndim - 4
    parts = [
        lax.slice_in_dim(k[..., r, :], r * w.stride, r * w.stride + w.taps, axis=axis)
        for r in range(k.shape[-2])
    ]
    return reduce(jnp.add, parts)


def _single(spec: Spec, x: Array) -> Array:
    """What one tap sees: `[n, *out, c]`."""
    patches = gather_patches(spec.padded().windows, embed(x, spec.windows))
    return patches.reshape(*patches.shape[: 1 + len(spec.out)], x.shape[-1])


def planar_rows(spec: Spec, x: Array) -> tuple[Blocks, Reader]:
    """The blocks, and the patches of block `step` as rows `[groups, taps * c, positions]`.

    Where the last block has too many rows, those of its positions that are none hold anything.
    """
    blocks, windows, read = _blocked(spec, x)

    def rows(step: Array | int) -> Array:
        return planar(windows, spec.groups, read(step))

    return blocks, rows


def _blocked(
    spec: Spec, x: Array, least: int = 0, whole: int = 1
) -> tuple[Blocks, tuple[Window, ...], Reader]:
    """The blocks, the windows within one block, and the reader of what they take of `x`.

    A block has `least` bytes where that is more than the usual, or `whole` times as many.
    """
    first, *others = spec.windows
    row = math.prod(spec.taps) * x.shape[-1] * math.prod(spec.out[1:]) * x.dtype.itemsize
    blocks = split(x.shape[0], first.out, row, least=least, whole=whole)
    grown, one = blocks.windows(first)
    windows = one, *(w.padded() for w in others)
    return blocks, windows, reader(blocks, x, (grown, *others), first.stride, one.size)


def planar(
    windows: Sequence[Window], groups: int, x: Array, bands: int = 1, taps_first: bool = False
) -> Array:
    """`[n, *size, groups * c]`, padded as the windows say, to `[groups, taps * c, n * positions]`.

    One axis after the other, the last one first: copies of whole rows on both threads. A loop over
    all taps took a third longer and one thread. Turned and padded at once: 7x7 taps of stride 2
    take 1.1 ms so, and 1.7 one after the other.

    With `bands` of equally many outputs of the first axis, each by itself,
    `[groups, bands * taps * c, n * positions // bands]`; the first axis' taps may precede them.
    """
    turned = lax.optimization_barrier(embed(jnp.moveaxis(x, -1, 0)[..., None], windows))
    rows = turned.reshape(groups, x.shape[-1] // groups, *turned.shape[1:-1])
    for axis, w in reversed([*enumerate(windows, 3)]):
        if axis == 3 and bands > 1:
            rows = _of_bands(rows, w, bands, taps_first)
            continue
        stacked = lax.optimization_barrier(_taps(rows, 1, axis, w))
        rows = stacked.reshape(groups, w.taps * rows.shape[1], *stacked.shape[3:])
    return rows.reshape(*rows.shape[:2], math.prod(rows.shape[2:]))


def _of_bands(rows: Array, w: Window, bands: int, taps_first: bool) -> Array:
    """Bands of the first axis: of few an array for each band and tap.

    Of more, bands are cut from what each tap sees, which are fewer arrays to put together: 64
    images of 32x32, 5x5 taps of stride 2 from 3 to 24 channels take 0.43 ms so, and 0.51.
    """
    lead, rest, out = rows.shape[:3], rows.shape[4:], w.out // bands
    if bands * w.taps <= TOGETHER:
        places = itertools.product(range(bands), range(w.taps))
        if taps_first:
            places = sorted(places, key=lambda place: place[1])
        starts = [b * out * w.stride + t * w.dilation for b, t in places]
        stacked = jnp.stack([strided(rows, 3, [s], [out], [w.stride]) for s in starts], 1)
    else:
        cuts = (v.reshape(*lead, bands, out, *rest) for v in _views(rows, 3, w))
        stacked = jnp.stack([jnp.moveaxis(v, 3, 1) for v in cuts], 1 if taps_first else 2)
    stacked = lax.optimization_barrier(stacked)
    return stacked.reshape(lead[0], bands * w.taps * lead[1], lead[2], out, *rest)


def _taps(rows: Array, at: int, axis: int, w: Window) -> Array:
    """What each tap of an axis sees, as a new axis `at`.

    With a stride, of its phases: whole rows in place of entries far apart, and as many arrays as
    the taps span strides. 25 taps of stride 4 on 8x16384 take 0.85 ms so and 1.2 one by one, 400 of
    stride 160 on 4x48000 0.7 and 2.0; 3 of stride 2 on 32x64x64 0.45 and 0.41.
    """
    runs = -(-w.taps // w.stride)
    is_strided = axis == rows.ndim - 1 and w.dilation == 1 < w.stride < w.taps
    if not is_strided or w.taps < FEWEST or runs > TOGETHER:
        return jnp.stack(_views(rows, axis, w), at)
    size = (w.out + runs - 1) * w.stride
    rows = crop(rows, axis, [(0, min(size, w.extent))])
    rows = grow(rows, axis, [(0, size - rows.shape[axis], 0)])
    phases = finished(jnp.moveaxis(rows.reshape(*rows.shape[:axis], -1, w.stride), -1, at))
    views = []
    for run in range(runs):
        some = crop(phases, at, [(0, min(w.stride, w.taps - run * w.stride))])
        views.append(crop(some, axis + 1, [(run, run + w.out)]))
    return lax.concatenate(views, at)


def _views(rows: Array, axis: int, w: Window) -> list[Array]:
    """What each tap reads of an axis."""
    return [seen(rows, axis, w, t) for t in range(w.taps)]


def _read_rows(spec: Spec, windows: tuple[Window, ...], xp: Array) -> Array:
    """The columns of what the windows read of each group, `[groups, positions, taps * c]`.

    Groups are turned first, while they are small, and patches gathered before they are reshaped:
    one loop for both would find each entry's place anew, which took res3x3s2_56 from 6 to 17 ms.
    """
    if spec.groups > 1:
        xp = lax.optimization_barrier(groups_first(spec, xp))
    patches = lax.optimization_barrier(gather_patches(windows, xp))
    terms = math.prod(patches.shape[-1 - len(windows) :])
    return patches.reshape(spec.groups, -1, terms)


def _from_columns(spec: Spec, columns: Array) -> Array:
    """`[n, *out, groups * taps * c]` to patches `[n, *out, *taps, groups * c]`."""
    lead, taps = columns.shape[:-1], math.prod(spec.taps)
    channels = columns.shape[-1] // taps
    grouped = columns.reshape(*lead, spec.groups, taps, channels // spec.groups)
    return jnp.moveaxis(grouped, -3, -2).reshape(*lead, *spec.taps, channels)
