"""Windows folded by a sum, a product, a log-sum-exp or a norm, each with its rule.

    sum       y = sum_t x_t                  x_bar[i] = sum_o y_bar[o]
    product   y = prod_t x_t                 x_bar[i] = sum_o y_bar[o] prod_(t not i) x_t
    lse       y = log sum_t exp x_t          x_bar[i] = sum_o y_bar[o] exp(x[i] - y[o])
    norm      y = (sum_t |x_t|^p)^(1/p)      x_bar[i] = sum_o y_bar[o] u(x[i] / y[o])

where `u(r) = r |r|^(p-2)`, and `o` runs over the windows that see entry `i`. All four are
associative: a fold of folds is a fold, and long windows are folded axis by axis.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv import adjoint
from jconv.batches import Image, by_images, in_turns
from jconv.fusion import kept
from jconv.geometry import Window
from jconv.placement import zeros
from jconv.reductions import per_platform, serves, serves_adjoint, summed, summed_adjoint
from jconv.stages import (
    FEW,
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
    swept,
    taps_of,
    tight,
    views,
    written,
)


class Fold(NamedTuple):
    """One way to fold: of a list of arrays, entry by entry, and its derivatives.

    Of a nonlinear fold, `adjoint(windows, x, y, y_bar)` is the adjoint of a stage's derivative, and
    `slopes(a, b, y)` are the derivatives of the fold `y` of two entries. A sum has
    `adjoint(windows, y_bar)` alone.
    """

    combine: Callable[[Sequence[Array]], Array]
    adjoint: Callable[..., Array]
    fill: float
    slopes: Callable[[Array, Array, Array], Sequence[Array]] | None = None

    @property
    def linear(self) -> bool:
        return self.slopes is None

    def of(self, parts: Sequence[Array]) -> Array:
        """The fold, entry by entry, of arrays; kept where it takes more than additions."""
        y = self.combine(parts)
        return y if self.linear else kept(y)


def folded(fold: Fold, x: Array, windows: Sequence[Window], custom_vjp: bool = True) -> Array:
    """The fold of every window."""
    x, windows = cropped(x, [tight(w) for w in windows])
    if fold.linear and custom_vjp and jnp.issubdtype(x.dtype, jnp.inexact):
        return _sum(windows, x)
    static, rank = (fold, windows, custom_vjp), len(windows)
    holds = held(windows, light=fold.linear)
    return in_turns(_staged, static, x, rank=rank, held=holds, custom_vjp=custom_vjp)


def _sum(windows: Windows, x: Array) -> Array:
    """The sum of every window, whose rule keeps nothing."""
    lead = x.ndim - len(windows) - 1
    holds = held(windows, light=True) * math.prod(x.shape[lead:]) * x.dtype.itemsize
    plain, transposed = (
        partial(by_images, f, image=Image(lead, holds)) for f in (_summed, _summed_adjoint)
    )
    return adjoint.linear(plain, transposed, windows, x)


def _summed(windows: Windows, x: Array) -> Array:
    static = SUM, windows, False
    if not serves(windows):
        return _staged(static, x)
    return per_platform(_staged, _reduced, static, x)


def _summed_adjoint(windows: Windows, y: Array) -> Array:
    static = SUM, windows, True
    if not serves_adjoint(windows):
        return _staged_adjoint(static, y)
    return per_platform(_staged_adjoint, _reduced_adjoint, static, y)


def _reduced(static: tuple[Fold, Windows, bool], x: Array) -> Array:
    return summed(static[1], x)


def _reduced_adjoint(static: tuple[Fold, Windows, bool], y: Array) -> Array:
    return summed_adjoint(static[1], y)


def _staged_adjoint(static: tuple[Fold, Windows, bool], y: Array) -> Array:
    """Adjoint of `_staged`, which is linear."""
    windows = static[1]
    shape = (*y.shape[: -len(windows) - 1], *(w.size for w in windows), y.shape[-1])
    _, transpose = jax.vjp(partial(_staged, static), zeros(shape, y.dtype, y))
    return transpose(y)[0]


def _staged(static: tuple[Fold, Windows, bool], x: Array) -> Array:
    """The fold stage by stage, each with its rule."""
    fold, windows, custom_vjp = static
    if few(windows):
        return _stage(fold, windows, x, custom_vjp)
    rank = len(windows)
    for axis in reversed(range(rank)):
        w = windows[axis]
        if w.low or w.high:
            padding = along(x.shape[-rank - 1 : -1], axis, 1, 1, 1, (w.low, w.high))
            x = enclosed(x, padding, fold.fill)
        elif axis < rank - 1:
            x = _between(fold, x, rank)
        x = _along(fold, x, rank, axis, step(w), custom_vjp)
    return x


def _between(fold: Fold, y: Array, rank: int) -> Array:
    """What one stage leaves, as one array for the taps of the next."""
    alone = jnp.issubdtype(y.dtype, jnp.floating) and not fold.linear
    return y if alone else written(y, [(0, 0)] * rank)


def _along(
    fold: Fold, x: Array, rank: int, axis: int, step: tuple[int, int, int], custom_vjp: bool
) -> Array:
    """The fold of windows along one axis: of runs side by side, and of what they leave over."""
    taps, stride, dilation = step
    if taps <= FEW:
        made = along(
            x.shape[-rank - 1 : -1], axis, taps, stride or (taps - 1) * dilation + 1, dilation
        )
        return _stage(fold, made, x, custom_vjp)
    count = min(range(2, FEW), key=lambda count: count + sum(divmod(taps, count)))
    run, rest = divmod(taps, count)
    apart = run * dilation
    inner, outer = (
        (1, (count, stride, apart)) if stride % apart else (apart, (count, stride // apart, 1))
    )
    at = x.ndim - rank - 1 + axis
    tail = None
    if rest:
        start = count * apart
        out = (x.shape[at] - start - (rest - 1) * dilation - 1) // max(stride, 1) + 1
        stop = (out - 1) * stride + start - dilation + 1
        x, tail = _cut(x, at, stop, start, custom_vjp and not fold.linear)
    y = _along(fold, x, rank, axis, (run, inner, dilation), custom_vjp)
    y = _along(fold, _between(fold, y, rank), rank, axis, outer, custom_vjp)
    if tail is None:
        return y
    tail = _along(fold, tail, rank, axis, (rest, stride, dilation), custom_vjp)
    return _joined(fold, [y, tail], custom_vjp)


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


def _stage(fold: Fold, windows: Windows, x: Array, custom_vjp: bool) -> Array:
    """The fold of every window in one loop."""

    def plain(windows, x):
        if fold.linear:
            return swept(lambda part, seen: fold.of(seen), windows, (x, fold.fill))
        return fold.of(views(x, windows, fold.fill))

    if not (custom_vjp and jnp.issubdtype(x.dtype, jnp.inexact)):
        return plain(windows, x)
    if fold.linear:
        return adjoint.linear(plain, fold.adjoint, windows, x)

    def backward(windows, x, y, y_bar):
        return [fold.adjoint(windows, x, y, y_bar)]

    return adjoint.pointwise(plain, backward, windows, x)


def _joined(fold: Fold, parts: Sequence[Array], custom_vjp: bool) -> Array:
    """The fold of two arrays, entry by entry."""

    def plain(fold, *parts):
        return fold.of(parts)

    if fold.linear or not (custom_vjp and jnp.issubdtype(parts[0].dtype, jnp.inexact)):
        return plain(fold, *parts)

    def backward(fold, a, b, y, y_bar):
        assert fold.slopes is not None
        return [y_bar * slope for slope in fold.slopes(a, b, y)]

    return adjoint.pointwise(plain, backward, fold, *parts)


# ---------------------------------------------------------------- sum


def _added(parts: Sequence[Array]) -> Array:
    return reduce(jnp.add, parts)


def _added_adjoint(windows: Windows, y: Array) -> Array:
    y, zero = spread(y, windows), jnp.zeros((), y.dtype)

    def term(block):
        seen = shifted(y, windows, block)
        return jnp.where(taps_of(block, seen.ndim, np.int32) >= 0, seen, zero)

    return blocked_sum(windows, term)


SUM = Fold(_added, _added_adjoint, 0)


# ---------------------------------------------------------------- product


def _multiplied(parts: Sequence[Array]) -> Array:
    return reduce(jnp.multiply, parts)


def _multiplied_adjoint(windows: Windows, x: Array, y: Array, y_bar: Array) -> Array:
    """Each tap takes `y_bar` times the entries of the other taps: no division.

    A window along several axes is a product of products, and each of these has fewer others.
    """
    made, taps = blocks(windows), math.prod(w.taps for w in windows)
    axis = next((axis for axis, w in enumerate(windows) if w.taps > 1), len(windows))
    if len(made) * taps > FEW and any(w.taps > 1 for w in windows[axis + 1 :]):
        inner = tuple(Window(w.size, 1) if a <= axis else w for a, w in enumerate(windows))
        products = _multiplied(views(x, inner, 1))
        outer = tuple(w if a <= axis else Window(w.out, 1) for a, w in enumerate(windows))
        y_bar = _multiplied_adjoint(outer, products, y, y_bar)
        return _multiplied_adjoint(inner, x, products, y_bar)
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


PRODUCT = Fold(_multiplied, _multiplied_adjoint, 1, lambda a, b, y: (b, a))


# ---------------------------------------------------------------- folds by their slopes


def _sloped(combine: Callable, slope: Callable[[Array, Array], Array], fill: float) -> Fold:
    """The fold whose derivative by an entry `x` is `slope(x, y)`.

    Where there is no window, or nothing in it, `y` is 1 there: the slope must be finite.
    """

    def settled(y: Array) -> Array:
        return jnp.where(y == fill, jnp.ones((), y.dtype), y)

    def backward(windows: Windows, x: Array, y: Array, y_bar: Array) -> Array:
        y, y_bar = spread(settled(y), windows, 1), spread(kept(y_bar), windows)
        x = cells(x, windows)
        zero = jnp.zeros((), x.dtype)

        def term(block):
            part = shifted(y_bar, windows, block) * slope(x, shifted(y, windows, block))
            taken = taps_of(block, part.ndim, np.int32) >= 0
            return jnp.where(exists(block, windows, part.ndim) & taken, part, zero)

        return blocked_sum(windows, term)

    def slopes(a: Array, b: Array, y: Array) -> tuple[Array, Array]:
        y = settled(y)
        return slope(a, y), slope(b, y)

    return Fold(combine, backward, fill, slopes)


# ---------------------------------------------------------------- log-sum-exp


def _log_sum_exp(parts: Sequence[Array]) -> Array:
    zero, one = jnp.zeros((), parts[0].dtype), jnp.ones((), parts[0].dtype)
    most = lax.stop_gradient(reduce(jnp.maximum, parts))
    top = jnp.where(jnp.isfinite(most), most, zero)
    total = reduce(jnp.add, [jnp.exp(part - top) for part in parts])
    none = jnp.isneginf(most)
    return jnp.where(none, most, top + jnp.log(jnp.where(none, one, total)))


def _log_sum_exp_slope(x: Array, y: Array) -> Array:
    """`exp(x - y)`, of `x` up to `y` in a window; finite beyond."""
    return jnp.exp(jnp.where(x - y > 1, jnp.zeros((), x.dtype), x - y))


LOG_SUM_EXP = _sloped(_log_sum_exp, _log_sum_exp_slope, fill=-np.inf)


# ---------------------------------------------------------------- norm


@cache
def norm(p: float) -> Fold:
    """The fold by a p-norm, 1 <= p < inf."""
    return _sloped(partial(_norm, p), partial(_norm_slope, p), fill=0)


def _norm(p: float, parts: Sequence[Array]) -> Array:
    # A power above 1 has derivative 0 at 0 by itself.
    sizes = [magnitude(part) if p == 1 else jnp.abs(part) for part in parts]
    zero, one = jnp.zeros((), sizes[0].dtype), jnp.ones((), sizes[0].dtype)
    least = float(jnp.finfo(one.dtype).tiny)
    most = lax.stop_gradient(reduce(jnp.maximum, sizes))
    none = most < least
    top = jnp.clip(most, least, 1 / least)
    # By one reciprocal: XLA:CPU writes out each quotient that is read more than once.
    scale = one / top
    total = reduce(jnp.add, [_power(size * scale, p) for size in sizes])
    return jnp.where(none, zero, top * _positive_power(jnp.where(none, one, total), 1 / p))


def _norm_slope(p: float, x: Array, y: Array) -> Array:
    """`u(x / y)`, of `|x|` up to `y` in a window; finite beyond."""
    one = jnp.ones((), x.dtype)
    ratio = x / y
    # Above 1 by rounding alone: of more, a large power would overflow.
    most = 1 + 64 * float(jnp.finfo(x.dtype).eps)
    ratio = jnp.where(jnp.abs(ratio) > most, one, ratio)
    if p >= 2:
        return ratio * _power(jnp.abs(ratio), p - 2)
    return jnp.sign(ratio) * _power(jnp.abs(ratio), p - 1)


def magnitude(x: Array) -> Array:
    """`|x|`, with derivative 0 at 0."""
    return x * jnp.sign(x)


def _power(size: Array, exponent: float) -> Array:
    """`size ** exponent` from 0 on; its derivative at 0 is 0 where it would be infinite."""
    if exponent == 0:
        return jnp.ones_like(size)
    if exponent == 1:
        return size
    if exponent in (2, 3, 4):
        return lax.integer_pow(size, int(exponent))
    zero = size == 0
    powered = _positive_power(jnp.where(zero, jnp.ones((), size.dtype), size), exponent)
    return jnp.where(zero, jnp.zeros((), size.dtype), powered)


def _positive_power(size: Array, exponent: float) -> Array:
    """`size ** exponent` above 0. XLA:CPU's own power takes several times as long."""
    if exponent == 1:
        return size
    return jnp.sqrt(size) if exponent == 0.5 else jnp.exp(exponent * jnp.log(size))
