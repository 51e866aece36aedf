"""Windows folded axis by axis, and the fold by a product with its rule.

    y = prod_t x_t        x_bar[i] = sum_o y_bar[o] prod_(t not i) x_t

where `o` runs over the windows that see entry `i`. A fold is associative: a fold of folds is one
too, and long windows are folded axis by axis.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv import adjoint
from jconv.batches import image_of, in_turns
from jconv.fusion import kept
from jconv.geometry import Window
from jconv.stages import (
    FEW,
    Block,
    Windows,
    along,
    beyond,
    blocked_sum,
    blocks,
    cells,
    cropped,
    enclosed,
    exists,
    few,
    held,
    shifted,
    spread,
    step,
    taps_of,
    tight,
    views,
    written,
)

Entry = tuple[Array, ...]


class Fold(NamedTuple):
    """One way to fold entries, each of which is an array or a few.

    `stage(windows, entry, custom_vjp)` folds every window in one loop, and `joined(a, b)` two
    entries. `fill(dtype)` is what padding holds.
    """

    stage: Callable[[Windows, Entry, bool], Entry]
    joined: Callable[[Entry, Entry], Entry]
    fill: Callable[[Any], tuple[float, ...]]


def over(fold: Fold, y: Entry, windows: Windows, custom_vjp: bool = False) -> Entry:
    """The fold of every window, which crops nothing; of long ones axis by axis."""
    if few(windows):
        return fold.stage(windows, y, custom_vjp)
    return by_axes(fold, y, windows, custom_vjp)


def by_axes(fold: Fold, y: Entry, windows: Windows, custom_vjp: bool) -> Entry:
    """The fold of every window, by folds of folds along one axis after the other."""
    rank, fills = len(windows), fold.fill(y[0].dtype)
    for axis in reversed(range(rank)):
        w = windows[axis]
        if w.low or w.high:
            around = along(y[0].shape[-rank - 1 : -1], axis, 1, 1, 1, (w.low, w.high))
            y = tuple(enclosed(part, around, fill) for part, fill in zip(y, fills, strict=True))
        elif axis < rank - 1:
            y = _between(y, rank)
        y = _along(fold, y, rank, axis, step(w), custom_vjp)
    return y


def _between(y: Entry, rank: int) -> Entry:
    """What one stage leaves, as arrays for the taps of the next."""
    return tuple(written(part, [(0, 0)] * rank) for part in y)


def _along(
    fold: Fold, x: Entry, rank: int, axis: int, step: tuple[int, int, int], custom_vjp: bool
) -> Entry:
    """The fold of windows along one axis: of runs side by side, and of what they leave over."""
    taps, stride, dilation = step
    shape = x[0].shape
    if taps <= FEW:
        stride = stride or (taps - 1) * dilation + 1
        made = along(shape[-rank - 1 : -1], axis, taps, stride, dilation)
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
    y = _along(fold, _between(y, rank), rank, axis, outer, custom_vjp)
    if tail is None:
        return y
    tail = _along(fold, tail, rank, axis, (rest, stride, dilation), custom_vjp)
    return fold.joined(y, tail)


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

    if not (custom_vjp and jnp.issubdtype(x.dtype, jnp.inexact)):
        return plain(None, x)
    return adjoint.linear(plain, glued, None, x)


# ---------------------------------------------------------------- product


def multiplied(x: Array, windows: Sequence[Window], custom_vjp: bool = True) -> Array:
    """The product of every window."""
    x, windows = cropped(x, [tight(w) for w in windows])
    image = image_of(x, len(windows), held(windows))
    return in_turns(_folded, (windows, custom_vjp), x, image=image, custom_vjp=custom_vjp)


def _folded(static: tuple[Windows, bool], x: Array) -> Array:
    (y,) = over(PRODUCT, (x,), *static)
    return y


def _product_stage(windows: Windows, entry: Entry, custom_vjp: bool) -> Entry:
    (x,) = entry

    def plain(windows, x):
        return kept(_multiplied(views(x, windows, 1)))

    def backward(windows, x, _, y_bar):
        return [_multiplied_adjoint(windows, x, y_bar)]

    if not (custom_vjp and jnp.issubdtype(x.dtype, jnp.inexact)):
        return (plain(windows, x),)
    return (adjoint.pointwise(plain, backward, windows, x),)


def _multiplied(parts: Sequence[Array]) -> Array:
    return reduce(jnp.multiply, parts)


def _multiplied_adjoint(windows: Windows, x: Array, y_bar: Array) -> Array:
    """Each tap takes `y_bar` times the entries of the other taps: no division.

    A window along several axes is a product of products, and each of these has fewer others.
    """
    made, taps = blocks(windows), [w.taps for w in windows if w.taps > 1]
    if len(made) * math.prod(taps) > FEW and (len(taps) > 1 or math.prod(taps) > FEW):
        _, transpose = jax.vjp(lambda x: by_axes(PRODUCT, (x,), windows, True), x)
        return transpose((y_bar,))[0]
    if all(w.stride == 1 for w in windows) and len(taps) == 1:
        return _running_adjoint(windows, x, y_bar)
    seen = views(*beyond(x, windows))
    y_bar, one = spread(y_bar, windows), jnp.ones((), x.dtype)

    def term(block):
        share = shifted(y_bar, windows, block)
        own = taps_of(block, share.ndim, np.int32)
        for tap, entry in enumerate(seen):
            reads = own == tap
            if not reads.all():
                entry = shifted(entry, windows, block)
                share = share * (jnp.where(reads, one, entry) if reads.any() else entry)
        taken = exists(block, windows, share.ndim) & (own >= 0)
        return jnp.where(taken, share, jnp.zeros_like(one))

    return blocked_sum(windows, term)


def _running_adjoint(windows: Windows, x: Array, y_bar: Array) -> Array:
    """Of windows everywhere along one axis: products of the entries before, and of those after."""
    axis = next(axis for axis, w in enumerate(windows) if w.taps > 1)
    w, lead = windows[axis], x.ndim - len(windows) - 1
    ends = [w.reach if a == axis else 0 for a in range(len(windows))]
    near, one = written(x, [(n, n) for n in ends], 1), jnp.ones((1,) * x.ndim, x.dtype)

    def products(step: int) -> list[Array]:
        starts = [w.reach + v * step for v in range(1, w.taps)]
        entries = [lax.slice_in_dim(near, s, s + w.size, axis=lead + axis) for s in starts]
        return [one, *accumulate(entries, jnp.multiply)]

    before, after = products(-w.dilation), products(w.dilation)
    y_bar = spread(y_bar, windows)

    def term(block: Block) -> Array:
        (own,) = block.taps.ravel()
        others = before[own] * after[w.taps - 1 - own]
        share = shifted(y_bar, windows, block) * cells(others, windows)
        return jnp.where(exists(block, windows, share.ndim), share, jnp.zeros((), x.dtype))

    return blocked_sum(windows, term)


def _product(a: Entry, b: Entry) -> Entry:
    return (a[0] * b[0],)


PRODUCT = Fold(_product_stage, _product, lambda dtype: (1,))
