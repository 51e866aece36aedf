"""The kernel's adjoint of few channels a group: products of `x` and `y`, and no matrix product.

    k[t, c, m, g] = sum x[n, stride*o + dilation*t, c, g] y[n, o, m, g]    over examples and outputs

A loop adds up neighbouring outputs, at once for channels and taps that share what they read; what
all neighbours add up to comes last. Vectors run over the groups, and of few groups over parts of
the first axis as well.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.blocks import split, sum_blocks
from jconv.channels import groups_last
from jconv.fusion import added, row_major
from jconv.geometry import Spec, Window
from jconv.padding import crop, cut, embed, grow, strided

# Groups and parts of the first axis that fill vectors.
LANES = 32
# Entries of one axis of which a loop takes all.
ONE_LOOP = 7
# Sums of one step, and what they add up, past which compiling costs too much.
MOST_SUMS, MOST_TERMS = 27, 128
# Bytes of which all multiples share a place in the first cache. Parts so far apart take 0.34 ms on
# 2x256x256, and 0.19 with one row more.
PAGE = 4096


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    """A few examples at a time.

    Of all at once, 5x5 taps on 8x56x56x96 take 14 ms instead of 3.8: fresh pages of scratch.
    """
    example = math.prod(x.shape[1:]) + math.prod(y.shape[1:])
    blocks = split(x.shape[0], 1, example * x.dtype.itemsize)

    def some(a: Array, step: Array | int) -> Array:
        return lax.optimization_barrier(blocks.whole(a, step))

    if blocks.steps == 1:
        return _of_some(spec, x, y)
    return sum_blocks(blocks, lambda step: _of_some(spec, some(x, step), some(y, step)))


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
    high = (parts + 1) * hop - first.low - first.spread
    wider = dataclasses.replace(first, high=high)
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
        a = lax.optimization_barrier(a).reshape(*a.shape[:-1], spec.groups, -1)
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
    return dataclasses.replace(w, taps=taps, high=extent - w.low - w.spread)


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
