"""Windows folded by a log-sum-exp or a norm: a function of a sum of functions, and its rule.

    lse     y = log z, z = sum_t e^x_t     x_bar[i] = e^x[i] sum_o y_bar[o] / z[o]
    norm    y = (sum_t |x_t|^p)^(1/p)      x_bar[i] = u(x[i]) sum_o y_bar[o] y[o]^(1-p)

where `u(x) = x |x|^(p-2)`, and `o` runs over the windows that see entry `i`. All sums are of
numbers with exponents of their own, and those of the rule are windows too, over what the stride
leaves apart.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv import adjoint
from jconv.fusion import kept
from jconv.geometry import Window, transposed_window
from jconv.pooling import scaled
from jconv.pooling.batches import by_images, image_of
from jconv.pooling.cells import (
    NARROW,
    Block,
    Layout,
    blocked_sum,
    blocks,
    cells,
    row_of,
    shifted,
    spread,
    taps_of,
)
from jconv.pooling.folds import Entry, Fold, between, over
from jconv.pooling.scaled import Scaled
from jconv.pooling.stages import few, held, tight
from jconv.pooling.views import FEW, Part, Windows, cropped, swept, written

Values = tuple[Array, Scaled]  # (y, z), where nothing reads `z` with none


class Smooth(NamedTuple):
    """`y = leave(z)`, `z = sum_t enter(x_t)`, of derivative `slope(x_t) share((y, z), 1)`."""

    enter: Callable[[Array], Scaled]
    leave: Callable[[Scaled], Array]
    slope: Callable[[Array], Scaled]
    share: Callable[[Values, Array], Scaled]
    keeps_sum: bool  # whether `share` reads `z`


Static = tuple[Smooth, Windows, bool]  # and whether a rule, not JAX, differentiates it


def smoothed(kind: Smooth, x: Array, windows: Sequence[Window], custom_vjp: bool = True) -> Array:
    """The smooth fold of every window."""
    x, windows = cropped(x, [tight(w) for w in windows])
    image = image_of(x, len(windows), held(windows, x.shape[-1]))

    def plain(static: Static, x: Array) -> Values:
        return by_images(_forward, static, x, image=image)

    def backward(static: Static, x: Array, values: Values, bars: Values) -> list[Array]:
        (y, z), (y_bar, _) = values, bars
        return [by_images(_backward, static, x, y_bar, y, *z, image=image)]

    static = kind, windows, custom_vjp
    y, _ = adjoint.pointwise(plain, backward, static, x, ruled=custom_vjp)
    return y


def _forward(static: Static, x: Array) -> Values:
    kind, windows, ruled = static
    number = kind.enter(x)
    overlap = any(w.stride <= w.reach for w in windows)
    if _is_written(windows, x.shape[-1], overlap):
        number = between(number, len(windows))
    elif overlap:
        number = tuple(map(kept, number))
    z = over(SCALED, number, windows, ruled)
    if kind.keeps_sum:
        z = tuple(map(kept, z))
    # Kept, as the rule reads it too.
    return kept(kind.leave(z)), z if kind.keeps_sum else ()


def _is_written(windows: Windows, channels: int, overlap: bool) -> bool:
    """Whether short loops over channels would compute again, or not in vectors, what taps read.

    3x3 norms of stride 2 over 4x94x94x12 took 2.1 ms, and take 0.24. Where the ends are apart, as
    with padding, XLA:CPU makes arrays itself, and fewer channels of windows apart are read at once:
    3 taps of stride 3 over 1x36575x4 take 0.14 ms, and would take 0.60.
    """
    ends = few(windows) and any(w.low or w.high for w in windows)
    return (overlap or channels >= 8) and channels < NARROW and not ends


def _backward(static: Static, x: Array, y_bar: Array, y: Array, *z: Array) -> Array:
    kind, windows, _ = static
    shares = tuple(map(kept, kind.share((y, z), y_bar)))
    if blocks(windows) <= FEW:
        return _seen(kind, windows, x, shares)
    s, c = kind.slope(x)
    total, most = over(SCALED, *_turned(windows, shares), custom_vjp=True)
    return s * scaled.brought(scaled.limited(c + most)) * total


def _turned(windows: Windows, shares: Scaled) -> tuple[Scaled, Windows]:
    """The shares, `stride` entries apart, and windows over them: those that see each entry."""
    lead = shares[0].ndim - len(windows) - 1
    if any(w.stride > 1 for w in windows):
        apart = [(0, 0, 0)] * shares[0].ndim
        apart[lead:-1] = [(0, 0, w.stride - 1) for w in windows]
        around = [(0, 0)] * len(windows)
        fills = SCALED.fill(shares[0].dtype)
        shares = tuple(
            written(lax.pad(part, jnp.asarray(fill, part.dtype), apart), around)
            for part, fill in zip(shares, fills, strict=True)
        )
    made = [
        dataclasses.replace(transposed_window(w), size=size, input_dilation=1)
        for w, size in zip(windows, shares[0].shape[lead:-1], strict=True)
    ]
    (s, turned), (c, _) = (cropped(part, made) for part in shares)
    return (s, c), turned


def _seen(kind: Smooth, windows: Windows, x: Array, shares: Scaled) -> Array:
    """Every entry's slope, times the shares of all windows that see it."""
    layout = Layout(row_of(windows, x.shape[-1]))
    s, c = kind.slope(cells(x, windows, layout))
    fills = SCALED.fill(c.dtype)
    heavy = partial(spread, windows=windows, layout=layout, light=False)
    share, own = (heavy(a, fill=fill) for a, fill in zip(shares, fills, strict=True))

    def term(block: Block) -> Array:
        exponent = scaled.limited(c + shifted(own, windows, block))
        part = s * scaled.brought(exponent) * shifted(share, windows, block)
        taken = taps_of(block, part.ndim, np.int32) >= 0
        return jnp.where(taken, part, jnp.zeros((), part.dtype))

    return blocked_sum(windows, term, layout=layout)


# ---------------------------------------------------------------- the sum


def _stage(windows: Windows, number: Entry, custom_vjp: bool) -> Scaled:
    s, c = number
    zero, least = SCALED.fill(s.dtype)
    most = swept(lambda part, seen: scaled.greatest(seen), windows, (c, least))
    added = scaled.added if custom_vjp else scaled.added_for_jax

    def total(part: Part, seen: Sequence[Array], exponents: Sequence[Array]) -> Array:
        return added(list(zip(seen, exponents, strict=True)), part.of(most))

    return swept(total, windows, (s, zero), (c, least)), most


def _sum(a: Entry, b: Entry) -> Scaled:
    most = scaled.greatest([a[1], b[1]])
    return scaled.added_for_jax([(a[0], a[1]), (b[0], b[1])], most), most


SCALED = Fold(_stage, _sum, lambda dtype: (0, scaled.least(dtype)))


# ---------------------------------------------------------------- log-sum-exp


def _share_of_log(values: Values, y_bar: Array) -> Scaled:
    """`y_bar / z`, 0 where `z` is: `e^-y` would round once more, and by as much as `y` is large."""
    _, (s, c) = values
    none = s == 0
    share = y_bar / jnp.where(none, jnp.ones((), s.dtype), s)
    return jnp.where(none, jnp.zeros((), s.dtype), share), jnp.where(none, c, -c)


LOG_SUM_EXP = Smooth(
    scaled.exponential, scaled.logarithm,
    slope=scaled.exponential, share=_share_of_log, keeps_sum=True,
)  # fmt: skip


# ---------------------------------------------------------------- norm


@cache
def norm(p: float) -> Smooth:
    """The fold by a p-norm, 1 <= p < inf; the same for the same `p`, or JAX would compile anew."""
    return Smooth(
        partial(scaled.power, p), partial(scaled.root, p),
        slope=partial(scaled.signed_power, p), share=partial(_share_of_norm, p), keeps_sum=False,
    )  # fmt: skip


def _share_of_norm(p: float, values: Values, y_bar: Array) -> Scaled:
    """`y_bar y^(1-p)`, 0 where `y` is."""
    y, _ = values
    none, zero = y == 0, jnp.zeros((), y.dtype)
    s, c = scaled.power(1 - p, jnp.where(none, jnp.ones((), y.dtype), y))
    return jnp.where(none, zero, y_bar * s), jnp.where(none, scaled.least(y.dtype), c)
