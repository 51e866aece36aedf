"""The kernel's adjoint of few channels a group: products of `x` and `y`, and no matrix product.

    k[t, c, m, g] = sum x[n, stride*o + dilation*t, c, g] y[n, o, m, g]    over examples and outputs

A loop adds up neighbouring outputs, at once for channels and taps that share what they read; what
all neighbours add up to comes last. Vectors run over the groups, and of few groups over parts of
the first axis as well. Depthwise layers of few taps are read where they are, others padded.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.blocks import BLOCK_BYTES, Blocks, Reader, known, reader, split, sum_blocks
from jconv.channels import accumulator, groups_last, in_groups
from jconv.fusion import added, row_major
from jconv.geometry import Spec, Window
from jconv.padding import crop, cut, embed, grow, strided
from jconv.placement import varied, zeros

# Groups and parts of the first axis that fill vectors.
LANES = 32
# Entries of one axis of which a loop takes all.
ONE_LOOP = 7
# Sums of one step, and what they add up, past which compiling costs too much.
MOST_SUMS, MOST_TERMS = 27, 128
# Taps of the last axis that share a loop; 7x7 taps on 4x56x56x96 take 1.15 times as long that way.
SHARED = 5
# Blocks' bytes that are read in place all at once. Of 3x3 taps 19 MB, 8x56x56x96, take 1.15 times
# as long as in blocks, 12 MB, 4x64x51x116, 0.7 times; of 4 taps 17 MB, 8x1024x256, 0.6 times.
WHOLE_IMAGES, WHOLE_SIGNALS = 2, 5
# Blocks' bytes up to which an image is not cut into rows, which read some twice: 3x3 taps of 24
# channels on 8x161x266, 8 MB an image, take 3.6 ms whole and 5.0 cut, of 96 on 2x224x224, 38 MB
# each, 11.8 and 5.5.
UNCUT = 2
# Bytes of which all multiples share a place in the first cache. 3x3 taps on 8x256x256 take 0.80 ms
# in parts so far apart, and 0.35 with one row more.
PAGE = 4096


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    """A few examples at a time, or a few rows of a large one.

    Of all at once, 5x5 taps on 8x56x56x96 take 14 ms instead of 3.8: fresh pages of scratch.
    """
    example = (math.prod(x.shape[1:]) + math.prod(y.shape[1:])) * x.dtype.itemsize
    most = WHOLE_SIGNALS if len(spec.taps) == 1 else WHOLE_IMAGES
    # Signals that are more than the caches hold are read in order only where they are copied.
    fits = len(spec.taps) > 1 or known(x.shape[0]) * example <= most * BLOCK_BYTES
    in_place = fits and _is_in_place(spec, x, y)
    of_some = _in_place if in_place else _of_some
    rows = spec.out[0] if example > UNCUT * BLOCK_BYTES else 1
    blocks = split(x.shape[0], rows, example // rows, whole=most if in_place else 1)
    if blocks.steps == 1:
        return of_some(spec, x, y)
    part, read_x, read_y = _in_blocks(blocks, spec, x, y)
    return sum_blocks(blocks, lambda step: of_some(part, read_x(step), read_y(step)))


def _in_blocks(blocks: Blocks, spec: Spec, x: Array, y: Array) -> tuple[Spec, Reader, Reader]:
    """The convolution that a block is, and the readers of both its sides, which pad rows alone."""
    first, *others = spec.windows
    whole = blocks.row_blocks == 1
    of_x, one = (Window(first.size, 1), first) if whole else blocks.windows(first)
    of_y, _ = blocks.windows(Window(first.out, 1))
    read_x, read_y = (
        reader(blocks, a, (w, *(Window(n, 1) for n in a.shape[2:-1])), w.stride, size)
        for a, w, size in ((x, of_x, one.size), (y, of_y, blocks.rows))
    )
    return dataclasses.replace(spec, windows=(one, *others)), read_x, read_y


def _of_some(spec: Spec, x: Array, y: Array) -> Array:
    parts = _parts(spec)
    if parts > 1:
        k = _of_some(*_in_parts(spec, parts, x, y))
        k = k.reshape(*k.shape[:-1], spec.groups, parts, -1).sum(-2)
        return k.reshape(*k.shape[:-2], -1)
    entries = (x.shape[-1] // spec.groups, *spec.taps)
    some = _at_once(entries)
    steps = [-(-n // size) for n, size in zip(entries, some, strict=True)]
    side = _side_by_side(spec.out[-1], math.prod(some))
    spec = _with_room(spec, [n * size for n, size in zip(steps[1:], some[1:], strict=True)], side)
    k = _step_by_step(spec, steps, some, *_arranged(spec, side, x, y))
    axes = range(len(entries))
    k = k.transpose(*(i + at for i in axes for at in (0, len(entries))), -2, -1)
    k = k.reshape(*(n * size for n, size in zip(steps, some, strict=True)), *k.shape[-2:])
    k = jnp.moveaxis(crop(k, 0, [(0, n) for n in entries]), 0, -3)
    return jnp.swapaxes(k, -1, -2).reshape(*k.shape[:-2], -1)


# ---------------------------------------------------------------- depthwise, in place


def _is_in_place(spec: Spec, x: Array, y: Array) -> bool:
    """Whether loops read `x` where it is: one channel a group, few taps, each of which is reached.

    Of 12 channels, 3x3 taps on 16x64x64, vectors take longer than numbers one by one.
    """
    is_depthwise = x.shape[-1] == spec.groups == y.shape[-1] and spec.groups >= 16
    if not is_depthwise or x.dtype != accumulator(spec, x.dtype):
        return False
    if any(w.input_dilation > 1 for w in spec.windows) or spec.taps[-1] > SHARED:
        return False
    reached = (_reached(w, t) for w in spec.windows for t in range(w.taps))
    return (
        _at_once((1, *spec.taps)) == (1, *spec.taps)
        and all(first < last for first, last in reached)
        and len(_around(spec)) <= _most_neighbours(spec)
    )


def _most_neighbours(spec: Spec) -> int:
    """Outputs of a row that one loop adds up: 26 by 3 taps take six times as long as 13."""
    return max(8, min(14, MOST_TERMS // math.prod(spec.taps)))


def _reached(w: Window, tap: int) -> tuple[int, int]:
    """The first output of which `tap` reads what is inside, and the one behind the last."""
    at = w.dilation * tap - w.low
    return max(-(at // w.stride), 0), min((w.size - 1 - at) // w.stride + 1, w.out)


def _repeated(spec: Spec) -> tuple[int, int, int]:
    """Neighbourhoods of a row that all taps reach: the first output, their size, how many."""
    w, most = spec.windows[-1], _most_neighbours(spec)
    firsts, lasts = zip(*(_reached(w, t) for t in range(w.taps)), strict=True)
    first, whole = max(firsts), max(min(lasts) - max(firsts), 0)
    if w.out <= most:
        return first, 1, 0

    def cost(size: int) -> tuple[bool, int, int]:
        around = w.out - whole // size * size
        return around > most, whole // size + (around > 0), around

    size = min(range(most // 2, most + 1), key=cost)
    return first, size, whole // size


def _around(spec: Spec) -> list[int]:
    """The other outputs of a row."""
    first, size, count = _repeated(spec)
    return [o for o in range(spec.out[-1]) if not first <= o < first + size * count]


def _in_place(spec: Spec, x: Array, y: Array) -> Array:
    """Two loops: over neighbourhoods that all taps reach, and over all other outputs of a row.

    So no copy of `x` is padded.
    """
    first, size, count = _repeated(spec)
    around = _around(spec)
    loops = [(range(first, first + size), count)] * (count > 0) + [(around, 1)] * bool(around)
    sums = []
    for tap in product(*map(range, spec.taps[:-2])):
        each = (lax.optimization_barrier(_rows(spec, x, y, *loop, tap)) for loop in loops)
        sums.append(reduce(jnp.add, [_total(a, a.ndim - 3) for a in each]))
    return jnp.swapaxes(jnp.stack(sums), -1, -2).reshape(*spec.taps, 1, -1)


def _total(a: Array, axes: int) -> Array:
    """What the first `axes` add up to, as a product by ones, which XLA:CPU adds up row by row.

    A sum goes down column by column: 5x5 taps of 1024 channels on 2x7x7, stride 2, took 0.33 ms,
    and take 0.07.
    """
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return a.sum(range(axes))
    ones = varied(jnp.ones(a.shape[:axes], a.dtype), a)
    return jnp.tensordot(ones, a, axes, precision="highest")


def _rows(
    spec: Spec, x: Array, y: Array, outputs: Sequence[int], count: int, tap: tuple[int, ...]
) -> Array:
    """The sums of every row of taps, none of the outputs that it does not reach:

    `[n, *out, count, taps, g, taps]`.
    """
    axis = len(tap) + 1
    if axis == len(spec.taps):
        return _row(spec, x, y, outputs, count, tap)[..., None, :, :]
    w = spec.windows[axis - 1]
    rows = []
    for t in range(w.taps):
        first, last = _reached(w, t)
        row = _row(spec, x, y, outputs, count, (*tap, t))
        rows.append(grow(row, axis, [(first, w.out - last, 0)]))
    return jnp.stack(rows, -3)


def _row(
    spec: Spec, x: Array, y: Array, outputs: Sequence[int], count: int, tap: Sequence[int]
) -> Array:
    """The sums of `outputs`, and of `count - 1` times as many behind, for each last tap.

    Stacked behind the channels they share a loop, which reads an entry once for all of them.
    """
    *heads, last = spec.windows
    spans = [_reached(w, t) for w, t in zip(heads, tap, strict=True)]
    starts, counts = [a for a, _ in spans], [*(b - a for a, b in spans), count]
    windows = zip(heads, starts, tap, strict=True)
    read = [w.stride * o + w.dilation * t - w.low for w, o, t in windows]
    hop = len(outputs)
    hops = [*(w.stride for w in heads), last.stride * hop]
    sums = []
    for t in range(last.taps):
        at, (first, behind) = last.dilation * t - last.low, _reached(last, t)
        terms = [
            strided(x, 1, [*read, last.stride * o + at], counts, hops)
            * strided(y, 1, [*starts, o], counts, [*(1 for _ in heads), hop])
            for o in outputs
            if first <= o < behind
        ]
        none = zeros((len(x), *counts, x.shape[-1]), x.dtype, x, y)
        sums.append(reduce(jnp.add, terms) if terms else none)
    return jnp.stack(sums, -1)


# ---------------------------------------------------------------- padded


def _parts(spec: Spec) -> int:
    """How many parts of the first axis fill vectors together, each of more than the taps reach."""
    w = spec.windows[0]
    most = w.out * w.stride // max(w.reach + 1, w.stride)
    return max(min(LANES // (4 * spec.groups) * 4, most), 1)


def _in_parts(spec: Spec, parts: int, x: Array, y: Array) -> tuple[Spec, Array, Array]:
    """The first axis in equal parts that overlap by the taps' reach, as groups of their own."""
    first, *others = spec.windows
    rows = -(-first.out // parts)
    apart = rows * first.stride * math.prod(x.shape[2:]) * x.dtype.itemsize
    rows += apart % PAGE == 0
    hop = rows * first.stride
    size = hop - first.stride + first.reach + 1
    wider = first.grown_to((parts + 1) * hop)
    xp = embed(x, (wider, *(Window(w.size, 1) for w in others)))
    body, after = (
        lax.slice_in_dim(xp, start, start + parts * hop, axis=1).reshape(
            len(x), parts, hop, *x.shape[2:]
        )
        for start in (0, hop)
    )
    xs = jnp.concatenate([body, after[:, :, : max(size - hop, 0)]], 2)[:, :, :size]
    ys = grow(y, 1, [(0, rows * parts - first.out, 0)]).reshape(len(y), parts, rows, *y.shape[2:])

    def as_groups(a: Array) -> Array:
        a = in_groups(lax.optimization_barrier(a), spec.groups)
        return jnp.moveaxis(a, 1, -2).reshape(len(a), *a.shape[2:-2], -1)

    one = Window(size, first.taps, first.stride, dilation=first.dilation)
    many = dataclasses.replace(spec, windows=(one, *others), groups=spec.groups * parts)
    return many, as_groups(xs), as_groups(ys)


def _at_once(entries: Sequence[int]) -> tuple[int, ...]:
    """How many of all channels and taps one step takes: the last axes, as far as they go."""
    *others, last = entries
    some = [-(-last // -(-last // ONE_LOOP))]
    for n in reversed(others):
        is_whole = n <= ONE_LOOP and n * math.prod(some) <= MOST_SUMS and some[0] == last
        some.insert(0, n if is_whole else 1)
        last = n
    return tuple(some)


def _side_by_side(size: int, sums: int) -> int:
    """How many neighbouring outputs are added up at once: all, or those that fill up rows best."""
    most = max(8, min(16, MOST_TERMS // sums))
    return size if size <= most else min(range(most // 2, most + 1), key=lambda n: (-size % n, -n))


def _with_room(spec: Spec, taps: Sequence[int], side: int) -> Spec:
    """Whole steps of taps, and of outputs whole neighbourhoods."""
    outs = [*spec.out[:-1], -(-spec.out[-1] // side) * side]
    windows = (_covering(w, n, t) for w, n, t in zip(spec.windows, outs, taps, strict=True))
    return dataclasses.replace(spec, windows=tuple(windows))


def _covering(w: Window, out: int, taps: int) -> Window:
    """The window padded for so many outputs and taps."""
    extent = (out - 1) * w.stride + (taps - 1) * w.dilation + 1
    return dataclasses.replace(w, taps=taps).grown_to(extent)


def _arranged(spec: Spec, side: int, x: Array, y: Array) -> tuple[Array, Array]:
    """`[c, n, *size, g]` padded, and `[n, *out, blocks, side, m, g]`."""
    xp = jnp.moveaxis(groups_last(spec, embed(x, spec.windows)), -2, 0)
    more = [(0, out - n, 0) for out, n in zip(spec.out, y.shape[1:], strict=False)]
    ys = groups_last(spec, grow(y, 1, more))
    ys = row_major(ys) if ys.shape[-2] > 1 else ys  # else it is so already
    return row_major(xp), ys.reshape(*ys.shape[:-3], -1, side, *ys.shape[-2:])


def _step_by_step(
    spec: Spec, steps: Sequence[int], some: Sequence[int], xp: Array, y: Array
) -> Array:
    """The sums of every step's entries, of what it reads of `xp`: `[*steps, *some, m, g]`."""
    strides = (some[0], *(w.dilation * n for w, n in zip(spec.windows, some[1:], strict=True)))
    read = [
        (w.out - 1) * w.stride + (n - 1) * w.dilation + 1
        for w, n in zip(spec.windows, some[1:], strict=True)
    ]
    # First axes of one tap a step are as good as examples.
    alone = next((i for i, n in enumerate(some[1:-1]) if n > 1), len(some) - 2)
    apart = [w.stride for w in spec.windows[:alone]]
    y = y.reshape(-1, *y.shape[1 + alone :])
    sums = partial(_sums, spec.windows[alone:], (some[0], *some[1 + alone :]), y)

    def step(_, index):
        channel, *starts = index * jnp.asarray(strides, jnp.int32)
        sizes = (some[0], xp.shape[1], *read, xp.shape[-1])
        part = cut(xp, (channel, 0, *starts, 0), sizes)
        part = lax.optimization_barrier(crop(part, 2, [(0, n) for n in read[:alone]], apart))
        return None, sums(part.reshape(some[0], -1, *part.shape[2 + alone :]))

    indices = jnp.asarray(list(product(*map(range, steps))), jnp.int32)
    if len(indices) == 1:
        _, k = step(None, np.zeros(len(steps), np.int32))
    else:
        _, k = lax.scan(step, None, indices)
    return k.reshape(*steps, *some, *k.shape[-2:])


def _sums(windows: Sequence[Window], some: Sequence[int], y: Array, xp: Array) -> Array:
    """Over all outputs, of every entry of a step; a loop takes those of the last two axes."""
    neighbours = partial(_neighbours, windows, y, xp)
    sums = []
    for entry in product(*map(range, some[:-2])):
        each = lax.optimization_barrier(_nested(neighbours, some[-2:], *entry))
        sums.append(each.sum(range(y.ndim - 3)))
    return jnp.stack(sums)


def _nested(f: Callable[..., Array], sizes: Sequence[int], *entry: int) -> Array:
    """`f` of every entry, `[..., *sizes, m, g]`: XLA:CPU is slow at one stack of many."""
    if not sizes:
        return f(*entry)
    parts = [_nested(f, sizes[1:], *entry, at) for at in range(sizes[0])]
    return jnp.stack(parts, -2 - len(sizes))


def _neighbours(windows: Sequence[Window], y: Array, xp: Array, channel: int, *tap: int) -> Array:
    """The sums of neighbouring outputs of one channel and tap: `[n, *out, blocks, m, g]`."""
    side, stride = y.shape[-3], windows[-1].stride
    counts = y.shape[1:-3]
    strides = [*(w.stride for w in windows[:-1]), stride * side]
    starts = [w.dilation * t for w, t in zip(windows, tap, strict=True)]
    terms = []
    for at in range(side):
        view = strided(xp[channel], 1, [*starts[:-1], starts[-1] + at * stride], counts, strides)
        terms.append(view[..., None, :] * lax.index_in_dim(y, at, y.ndim - 3, keepdims=False))
    return added(terms)
