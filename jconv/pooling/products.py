"""Windows multiplied, with the rule.

    y = prod_t x_t        x_bar[i] = sum_o y_bar[o] prod_(t not i) x_t

where `o` runs over the windows that see entry `i`.
"""

import math
from collections.abc import Sequence
from functools import partial, reduce
from itertools import accumulate
from operator import mul

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
from jconv.pooling.folds import Entry, Fold, by_axes, over
from jconv.pooling.reductions import reduced
from jconv.pooling.stages import held, tight
from jconv.pooling.views import FEW, Windows, cropped, several_axes, views, written

# Taps of an axis up to which each entry multiplies the others by itself.
LONG = 4


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
