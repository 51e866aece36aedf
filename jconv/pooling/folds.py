"""Windows folded axis by axis, and the fold by a product with its rule.

    y = prod_t x_t        x_bar[i] = sum_o y_bar[o] prod_(t not i) x_t

where `o` runs over the windows that see entry `i`. A fold is associative: a fold of folds is one
too, and long windows are folded axis by axis.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv import adjoint
from jconv.fusion import barrier, in_vectors, kept
from jconv.geometry import Window
from jconv.padding import crop
from jconv.platforms import per_platform
from jconv.pooling.batches import image_of, in_turns
from jconv.pooling.cells import (
    APART,
    NARROW,
    Block,
    blocked_sum,
    blocks,
    cells_apart,
    entry,
    known,
    layout_of,
    shifted,
    taps_of,
    terms_of,
)
from jconv.pooling.reductions import reduced
from jconv.pooling.stages import along, few, held, step, tight
from jconv.pooling.views import FEW, Windows, cropped, enclosed, several_axes, views, written

Entry = tuple[Array, ...]

# Taps of an axis up to which each entry multiplies the others by itself.
LONG = 4


class Fold(NamedTuple):
    """One way to fold entries, each of which is an array or a few.

    `stage(windows, entry, custom_vjp)` folds every window in one loop, and `joined(a, b)` two
    entries. `fill(dtype)` is what padding holds. Stages `in_rows` pad themselves, and take few
    channels together with the axes behind theirs: 31x31 sums of 8x116x116x3, which are light, take
    0.14 ms without and 0.35 so.
    """

    stage: Callable[[Windows, Entry, bool], Entry]
    joined: Callable[[Entry, Entry], Entry]
    fill: Callable[[Any], tuple[float, ...]]
    in_rows: bool = False

    def narrow(self, y: Array) -> bool:
        """Whether rows along the last axis alone are short."""
        return self.in_rows and y.shape[-1] < NARROW


def over(fold: Fold, y: Entry, windows: Windows, custom_vjp: bool = False) -> Entry:
    """The fold of every window, which crops nothing; of long ones axis by axis."""
    if few(windows):
        return fold.stage(windows, y, custom_vjp)
    return by_axes(fold, y, windows, custom_vjp)


def by_axes(fold: Fold, y: Entry, windows: Windows, custom_vjp: bool) -> Entry:
    """The fold of every window, by folds of folds along one axis after the other."""
    rank, fills = len(windows), fold.fill(y[0].dtype)
    axes, narrow = range(rank), fold.narrow(y[0])
    # Short rows are those of the last axis, which takes what the others leave.
    for n, axis in enumerate(axes if narrow else reversed(axes)):
        w = windows[axis]
        padding = w.low, w.high
        if fold.in_rows and w.taps <= FEW:
            y = _along(fold, y, rank, axis, step(w), custom_vjp, padding)
            continue
        if any(padding):
            around = along(y[0].shape[-rank - 1 : -1], axis, 1, 1, 1, padding)
            y = tuple(enclosed(part, around, fill) for part, fill in zip(y, fills, strict=True))
        elif n or narrow:
            y = between(y, rank)
        y = _along(fold, y, rank, axis, step(w), custom_vjp)
    return y


def between(y: Entry, rank: int) -> Entry:
    """What one stage leaves, as arrays for the taps of the next."""
    return tuple(written(part, [(0, 0)] * rank) for part in y)


def _along(
    fold: Fold,
    x: Entry,
    rank: int,
    axis: int,
    step: tuple[int, int, int],
    custom_vjp: bool,
    padding: tuple[int, int] = (0, 0),
) -> Entry:
    """The fold of windows along one axis: of runs side by side, and of what they leave over.

    Only windows of few taps come with padding.
    """
    taps, stride, dilation = step
    shape = x[0].shape
    if taps <= FEW:
        stride = stride or (taps - 1) * dilation + 1
        made = along(shape[-rank - 1 : -1], axis, taps, stride, dilation, padding)
        if fold.narrow(x[0]):
            return _in_rows(fold, x, rank, axis, made[axis], custom_vjp)
        return fold.stage(made, x, custom_vjp)
    count = min(range(2, FEW), key=lambda count: count + sum(divmod(taps, count)))
    run, rest = divmod(taps, count)
    apart = run * dilation
    inner, outer = (
        (1, (count, stride, apart)) if stride % apart else (apart, (count, stride // apart, 1))
    )
    at = len(shape) - rank - 1 + axis
    tail = None
    if rest:
        start = count * apart
        out = (shape[at] - start - (rest - 1) * dilation - 1) // max(stride, 1) + 1
        stop = (out - 1) * stride + start - dilation + 1
        x, tail = zip(*(_cut(part, at, stop, start, custom_vjp) for part in x), strict=True)
    y = _along(fold, x, rank, axis, (run, inner, dilation), custom_vjp)
    y = _along(fold, between(y, rank), rank, axis, outer, custom_vjp)
    if tail is None:
        return y
    tail = _along(fold, tail, rank, axis, (rest, stride, dilation), custom_vjp)
    return fold.joined(y, tail)


def _in_rows(fold: Fold, x: Entry, rank: int, axis: int, w: Window, custom_vjp: bool) -> Entry:
    """A stage along one axis, with the axes behind it as channels, which alone are few."""
    shape = x[0].shape
    at = len(shape) - rank - 1 + axis
    rows = [part.reshape(*shape[: at + 1], math.prod(shape[at + 1 :])) for part in x]
    y = map(barrier, fold.stage((w,), tuple(rows), custom_vjp))
    return tuple(part.reshape(*part.shape[: at + 1], *shape[at + 1 :]) for part in y)


def _cut(x: Array, at: int, stop: int, start: int, custom_vjp: bool) -> tuple[Array, Array]:
    """`x[:stop]` and `x[start:]` along the axis `at`, which may overlap."""

    def part(x: Array, start: int, stop: int) -> Array:
        return lax.slice_in_dim(x, start, stop, axis=at)

    def plain(_, x):
        return part(x, 0, stop), part(x, start, x.shape[at])

    def glued(_, cotangents):
        # Both are read twice, so XLA:CPU finishes them before it joins them.
        low, high = map(kept, cotangents)
        both = max(stop - start, 0)
        gap = (*low.shape[:at], max(start - stop, 0), *low.shape[at + 1 :])
        shared = part(low, stop - both, stop) + part(high, 0, both)
        return lax.concatenate(
            [
                part(low, 0, stop - both),
                jnp.zeros(gap, low.dtype),
                shared,
                part(high, both, high.shape[at]),
            ],
            at,
        )

    return adjoint.linear(plain, glued, None, x, ruled=custom_vjp)


# ---------------------------------------------------------------- product


def multiplied(x: Array, windows: Sequence[Window], custom_vjp: bool = True) -> Array:
    """The product of every window."""
    x, windows = cropped(x, [tight(w) for w in windows])
    image = image_of(x, len(windows), _held(windows, x.shape[-1]))
    return in_turns(_folded, (windows, custom_vjp), x, image=image, custom_vjp=custom_vjp)


def _held(windows: Windows, channels: int) -> int:
    """About how many arrays as large as the input a product and its gradient hold at once."""
    if any(w.taps > FEW for w in windows):
        return held(windows, channels)
    copied = 3 if channels < NARROW or _is_long(windows) else 0
    # What all axes but one leave, and its cotangent.
    steps = list(accumulate((w.stride for w in windows if w.taps > 1), mul))[:-1]
    return copied + math.ceil(sum(2 / step for step in steps))


def _is_long(windows: Windows) -> bool:
    """Whether running products are best of channels that fill vectors."""
    return all(w.stride == 1 for w in windows) and max(w.taps for w in windows) > LONG


def _folded(static: tuple[Windows, bool], x: Array) -> Array:
    (y,) = over(PRODUCT, (x,), *static)
    return y


def _product_stage(windows: Windows, entry: Entry, custom_vjp: bool) -> Entry:
    (x,) = entry

    def backward(windows, x, _, y_bar):
        return [_multiplied_adjoint(windows, x, y_bar)]

    # Along one axis XLA:GPU fuses views with what reads them: 3x3x3 products over 8x32x32x32x64
    # take 0.13 ms on an H200, and by its own windows, axis by axis, 0.30.
    primal = partial(per_platform, _seen_multiplied, _reduced) if several_axes(windows) else None
    y = adjoint.pointwise(_seen_multiplied, backward, windows, x, ruled=custom_vjp, primal=primal)
    return (y,)


def _seen_multiplied(windows: Windows, x: Array) -> Array:
    seen = views(x, windows, 1)
    return kept(in_vectors(_multiplied(seen), len(seen)))


def _reduced(windows: Windows, x: Array) -> Array:
    return reduced(windows, lax.mul, 1, x)


def _multiplied(parts: Sequence[Array]) -> Array:
    return reduce(jnp.multiply, parts)


def _multiplied_adjoint(windows: Windows, x: Array, y_bar: Array) -> Array:
    """Each tap takes `y_bar` times the entries of the other taps: no division.

    A window along several axes is a product of products, and each of these has fewer others.
    """
    taps = [w.taps for w in windows if w.taps > 1 or w.stride > 1]
    count = math.prod(taps)
    layout = layout_of(windows, x.shape[-1], factors=count)
    narrow = x.shape[-1] < NARROW and not layout.woven
    short = narrow and len(taps) == 1
    if (short or _is_long(windows)) and max(taps) <= FEW:
        return _running_adjoint(windows, x, y_bar)
    several = len(taps) > 1 or count > FEW
    if several and (narrow or blocks(windows) * count > FEW):
        _, transpose = jax.vjp(lambda x: by_axes(PRODUCT, (x,), windows, True), x)
        return transpose((y_bar,))[0]
    one, pieces = jnp.ones((), x.dtype), cells_apart(windows, seen=True)
    if not terms_of(pieces):
        return jnp.zeros_like(x)

    def term(block: Block) -> Array:
        share = shifted(y_bar, windows, block)
        own = taps_of(block, share.ndim, np.int32)
        for tap, at in enumerate(np.ndindex(*(w.taps for w in windows))):
            reads, other = own == tap, entry(x, windows, block, at)
            if other is not None and not reads.all():
                other = jnp.where(known(block, reads), one, other) if reads.any() else other
                share = share * other
        return jnp.where(known(block, own >= 0), share, jnp.zeros_like(one))

    layout = layout if layout.woven else APART
    return blocked_sum(windows, term, layout=layout, pieces=pieces)


def _running_adjoint(windows: Windows, x: Array, y_bar: Array) -> Array:
    """Of windows everywhere, or along one axis: axis after axis.

    All that the steps read is padded once, and each leaves just what the next one reads.
    """
    lead, channels, shape = x.ndim - len(windows) - 1, 1, x.shape
    axes = [axis for axis, w in enumerate(windows) if w.taps > 1 or w.stride > 1]
    near = written(x, [(w.reach, w.reach) for w in windows], 1)
    taken = _reaching(windows, _repeated(windows, y_bar))
    if 1 < x.shape[-1] < NARROW:
        channels = x.shape[-1]
        windows = (*windows[:-1], _in_a_row(windows[-1], channels))
        near, taken = (a.reshape(*a.shape[:-2], math.prod(a.shape[-2:])) for a in (near, taken))
    still = [(0, 0)] * (taken.ndim - lead - 1)
    products = [near]
    for axis in reversed(axes[1:]):
        w, near = windows[axis], products[-1]
        runs = [
            lax.slice_in_dim(near, start, start + w.size + w.reach, axis=lead + axis)
            for start in range(0, w.reach + 1, w.dilation)
        ]
        products.append(written(_multiplied(runs), still))
    for axis in axes:
        taken = _others(windows, axis, lead, channels, products.pop(), taken)
        if axis != axes[-1]:
            taken = written(taken, still)
            at, w = lead + axis, windows[axis]
            products = [
                lax.slice_in_dim(near, w.reach, w.reach + w.size, axis=at) for near in products
            ]
    y = in_vectors(taken)
    if len(windows) > 1:
        # Another axis may read it for each of its taps.
        y = kept(y)
    return y if channels == 1 else barrier(y).reshape(shape)


def _repeated(windows: Windows, y: Array) -> Array:
    """`y` of the window at each position, whether it starts there or before."""
    lead, shape = y.ndim - len(windows) - 1, list(y.shape)
    for axis, w in enumerate(windows):
        if w.stride > 1:
            at = lead + axis
            shape[at] *= w.stride
            apart = (*y.shape[: at + 1], w.stride, *y.shape[at + 1 :])
            y = in_vectors(jnp.broadcast_to(jnp.expand_dims(y, at + 1), apart))
            y = barrier(y).reshape(shape)
    return y


def _reaching(windows: Windows, y: Array) -> Array:
    """`y` at each position from which a window might see an entry of `x`: zeros where none is."""
    lead = y.ndim - len(windows) - 1
    ends = [(max(w.reach - w.low, 0), max(w.size + w.low - w.stride * w.out, 0)) for w in windows]
    y = written(y, ends) if any(map(any, ends)) or any(w.stride > 1 for w in windows) else y
    starts = [max(w.low - w.reach, 0) for w in windows]
    ends = [(s, s + w.size + w.reach) for s, w in zip(starts, windows, strict=True)]
    return crop(y, lead, ends)


def _in_a_row(w: Window, channels: int) -> Window:
    """The window over `[size * c]`: one of every channel at a time."""
    size, stride, low, high, dilation = (
        n * channels for n in (w.size, w.stride, w.low, w.high, w.dilation)
    )
    return Window(size, w.taps, stride, low, high, dilation)


def _others(windows: Windows, axis: int, lead: int, channels: int, near: Array, y: Array) -> Array:
    """What each entry takes of the windows along this axis: `y` times the other entries.

    `near` and `y` hold `reach` more along it, `near` at both ends, `y` before. Windows along the
    last axis start side by side, as many as there are `channels` in it.
    """
    w, at, one = windows[axis], lead + axis, jnp.ones((), y.dtype)
    run = channels if axis == len(windows) - 1 else 1

    def read(a: Array, taps: int) -> Array:
        start = w.reach + w.dilation * taps
        return lax.slice_in_dim(a, start, start + w.size, axis=at)

    def beside(step: int) -> list[Array]:
        entries = [read(near, t * step) for t in range(1, w.taps)]
        return [one, *accumulate(entries, jnp.multiply)]

    before, after = beside(-1), beside(1)
    terms = []
    for tap in range(w.taps):
        share = read(y, -tap) * (before[tap] * after[w.taps - 1 - tap])
        there = np.expand_dims(_exists(w, tap, run), [a for a in range(y.ndim) if a != at])
        terms.append(jnp.where(there, share, jnp.zeros((), y.dtype)))
    return reduce(jnp.add, terms)


def _exists(w: Window, tap: int, run: int) -> np.ndarray:
    """Whether there is a window, or one of a run of them, that reads an entry through this tap."""
    start = np.arange(w.size) + w.low - w.dilation * tap
    return (start >= 0) & (start < w.stride * w.out) & (start % w.stride < run)


def _product(a: Entry, b: Entry) -> Entry:
    return (a[0] * b[0],)


PRODUCT = Fold(_product_stage, _product, lambda dtype: (1,), in_rows=True)
