"""Windows folded by a sum, a product, a log-sum-exp or a norm, each with its rule.

    sum       y = sum_t x_t                  x_bar[i] = sum_o y_bar[o]
    product   y = prod_t x_t                 x_bar[i] = sum_o y_bar[o] prod_(t not i) x_t
    lse       y = log sum_t exp x_t          x_bar[i] = sum_o y_bar[o] exp(x[i] - y[o])
    norm      y = (sum_t |x_t|^p)^(1/p)      x_bar[i] = sum_o y_bar[o] u(x[i] / y[o])

where `u(r) = r |r|^(p-2)`, and `o` runs over the windows that see entry `i`. All four are
associative: a fold of folds is a fold.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv import adjoint
from jconv.geometry import Window
from jconv.stages import (
    FEW,
    Windows,
    along,
    beyond,
    blocked_sum,
    cells,
    enclosed,
    exists,
    few,
    shifted,
    spread,
    step,
    taps_of,
    tight,
    views,
    written,
)


class Fold(NamedTuple):
    """One way to fold: of a list of arrays, entry by entry, and the adjoint of its derivative.

    `adjoint(windows, x, y, y_bar)` where the fold is nonlinear, `adjoint(windows, y_bar)` where it
    is a sum.
    """

    combine: Callable[[Sequence[Array]], Array]
    adjoint: Callable[..., Array]
    fill: float
    linear: bool = False


def folded(fold: Fold, x: Array, windows: Sequence[Window], custom_vjp: bool = True) -> Array:
    """The fold of every window."""
    windows = tuple(map(tight, windows))
    x = enclosed(x, windows, fold.fill)
    if few(windows):
        return _stage(fold, tuple(w.padded() for w in windows), x, custom_vjp)
    rank = len(windows)
    for axis in reversed(range(rank)):
        x = written(x, [(0, 0)] * rank) if axis < rank - 1 else x
        x = _along(fold, x, rank, axis, step(windows[axis]), custom_vjp)
    return x


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
    y = _along(fold, x, rank, axis, (run, inner, dilation), custom_vjp)
    y = _along(fold, written(y, [(0, 0)] * rank), rank, axis, outer, custom_vjp)
    if not rest:
        return y
    at = x.ndim - rank - 1 + axis
    tail = lax.slice_in_dim(x, count * apart, x.shape[at], axis=at)
    tail = _along(fold, tail, rank, axis, (rest, stride, dilation), custom_vjp)
    return fold.combine([lax.slice_in_dim(y, 0, tail.shape[at], axis=at), tail])


def _stage(fold: Fold, windows: Windows, x: Array, custom_vjp: bool) -> Array:
    plain = partial(_combined, fold)
    if not (custom_vjp and jnp.issubdtype(x.dtype, jnp.inexact)):
        return plain(windows, x)
    rule = adjoint.linear if fold.linear else adjoint.pointwise
    return rule(plain, fold.adjoint, windows, x)


def _combined(fold: Fold, windows: Windows, x: Array) -> Array:
    return fold.combine(views(x, windows))


# ---------------------------------------------------------------- sum


def _added(parts: Sequence[Array]) -> Array:
    return reduce(jnp.add, parts)


def _added_adjoint(windows: Windows, y: Array) -> Array:
    y, zero = spread(y, windows), jnp.zeros((), y.dtype)

    def term(block):
        seen = shifted(y, windows, block)
        return jnp.where(taps_of(block, seen.ndim, np.int32) >= 0, seen, zero)

    return blocked_sum(windows, term)


SUM = Fold(_added, _added_adjoint, 0, linear=True)


# ---------------------------------------------------------------- product


def _multiplied(parts: Sequence[Array]) -> Array:
    return reduce(jnp.multiply, parts)


def _multiplied_adjoint(windows: Windows, x: Array, y: Array, y_bar: Array) -> Array:
    """Each tap takes `y_bar` times the entries of the other taps: no division."""
    del y
    seen = views(*beyond(x, windows))
    y_bar, zero = spread(y_bar, windows), jnp.zeros((), x.dtype)

    def term(block):
        total = zero
        for tap in np.unique(block.taps[block.taps >= 0]):
            others = reduce(jnp.multiply, [*seen[:tap], *seen[tap + 1 :]], y_bar)
            share = shifted(others, windows, block)
            taken = taps_of(block, share.ndim, np.int32) == tap
            total = total + jnp.where(exists(block, windows, share.ndim) & taken, share, zero)
        return total

    return blocked_sum(windows, term)


PRODUCT = Fold(_multiplied, _multiplied_adjoint, 1)


# ---------------------------------------------------------------- log-sum-exp


def _log_sum_exp(parts: Sequence[Array]) -> Array:
    zero, one = jnp.zeros((), parts[0].dtype), jnp.ones((), parts[0].dtype)
    top = lax.stop_gradient(reduce(jnp.maximum, parts))
    top = jnp.where(jnp.isfinite(top), top, zero)
    total = reduce(jnp.add, [jnp.exp(part - top) for part in parts])
    none = total == 0
    return jnp.where(none, -jnp.inf, top + jnp.log(jnp.where(none, one, total)))


def _log_sum_exp_adjoint(windows: Windows, x: Array, y: Array, y_bar: Array) -> Array:
    zero = jnp.zeros((), x.dtype)
    y = jnp.where(jnp.isneginf(y), zero, y)
    return _shares(windows, x, y, y_bar, lambda x, y: jnp.exp(jnp.where(x - y > 1, zero, x - y)))


LOG_SUM_EXP = Fold(_log_sum_exp, _log_sum_exp_adjoint, -np.inf)


# ---------------------------------------------------------------- norm


def norm(p: float) -> Fold:
    """The fold by a p-norm, 1 <= p < inf."""
    return Fold(partial(_norm, p), partial(_norm_adjoint, p), 0)


def _norm(p: float, parts: Sequence[Array]) -> Array:
    sizes = [magnitude(part) for part in parts]
    one = jnp.ones((), sizes[0].dtype)
    top = lax.stop_gradient(reduce(jnp.maximum, sizes))
    top = jnp.where((top > 0) & jnp.isfinite(top), top, one)
    total = reduce(jnp.add, [_power(size / top, p) for size in sizes])
    return top * _power(total, 1 / p)


def _norm_adjoint(p: float, windows: Windows, x: Array, y: Array, y_bar: Array) -> Array:
    one = jnp.ones((), x.dtype)
    y = jnp.where(y == 0, one, y)

    def share(x, y):
        ratio = x / y
        ratio = jnp.where(magnitude(ratio) > 2, one, ratio)
        if p >= 2:
            return ratio * _power(magnitude(ratio), p - 2)
        return jnp.sign(ratio) * _power(magnitude(ratio), p - 1)

    return _shares(windows, x, y, y_bar, share)


def magnitude(x: Array) -> Array:
    """`|x|`, with derivative 0 at 0."""
    return x * jnp.sign(x)


def _power(size: Array, exponent: float) -> Array:
    """`size ** exponent` from 0 on; its derivative at 0 is 0 where it would be infinite."""
    if exponent == 0:
        return jnp.ones_like(size)
    if exponent == 1:
        return size
    if exponent == 2:
        return size * size
    zero = size == 0
    powered = jnp.where(zero, jnp.ones((), size.dtype), size) ** exponent
    return jnp.where(zero, jnp.zeros((), size.dtype), powered)


# ---------------------------------------------------------------- adjoints


def _shares(windows: Windows, x: Array, y: Array, y_bar: Array, share: Callable) -> Array:
    """`x_bar[i] = sum_o y_bar[o] share(x[i], y[o])`."""
    x, y, y_bar = cells(x, windows), spread(y, windows, 1), spread(y_bar, windows)
    zero = jnp.zeros((), x.dtype)

    def term(block):
        seen = shifted(y_bar, windows, block)
        part = seen * share(x, shifted(y, windows, block))
        taken = taps_of(block, part.ndim, np.int32) >= 0
        return jnp.where(exists(block, windows, part.ndim) & taken, part, zero)

    return blocked_sum(windows, term)
