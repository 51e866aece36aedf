"""Pooling: what each window holds most, least, on average, or in all.

    extremes    y[o] = max_t x[stride*o + dilation*t - low]    its winners are kept
    folds       y[o] = sum, product, log-sum-exp or p-norm of the same entries

Each public function resolves its options to static windows, pads by composition, and hands over to
`extremes`, `sums`, `folds` or `smooth` of `jconv.pooling`, which hold the rules.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jconv import checks, geometry
from jconv.geometry import Ints, Padding, Window
from jconv.operands import array, inexact, number, scalar, wide
from jconv.padding import crop, padded, unpadded
from jconv.placement import placed
from jconv.pool_options import Call, called
from jconv.pooling import scaled, smooth, sums
from jconv.pooling.extremes import extremes, positions, winners
from jconv.pooling.products import multiplied


@placed("x")
def max_pool(
    x: ArrayLike,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    custom_vjp: bool = True,
) -> Array | tuple[Array, Array]:
    """The greatest entry of every window.

    `y[o] = max_t x[stride*o + dilation*t - low]`, and its gradient goes to the winner:
    `x_bar[i] = sum_o y_bar[o]` over the windows `o` that `i` won. The first of equals wins, in
    row-major order; a NaN wins over all numbers, the first NaN over the others. Padding never wins:
    a window of only `-inf` gives `-inf` and its first entry inside the input, and a window of only
    padding gives the least value of the dtype (`-inf`), index -1, and no gradient.

    Args:
      x: `[*batch, *size, channels]`, real; no, one or many batch axes.
      window: one int per spatial axis, or an int for all axes of `x` but the first and the last.
      stride: int, or one int per spatial axis; default the window.
      padding: `"valid"`, `"same"`, `"same_lower"`, `"full"`, `"causal"`, an int, one int per axis,
        or one `(low, high)` pair per axis, as in `conv`. Negative amounts crop.
      dilation: int, or one int per spatial axis.
      ceil_mode: a last, partial window counts, unless it starts in the high padding (torch's
        meaning).
      return_indices: also where the winners are.
      custom_vjp: False leaves it to JAX to transpose what the winners read, which also gives
        `jax.jvp`.

    Returns:
      `[*batch, *out, channels]`, of the dtype of `x`; with `return_indices` also the winners, int32
      of the same shape: row-major in the unpadded spatial size, per channel.

    Raises:
      ValueError: a wrong value, TypeError: a wrong type, before anything is computed.

    Source: Goodfellow, Bengio, Courville (2016), section 9.3.

    >>> y, winners = max_pool(jnp.array([[1], [3], [3], [2]]), (2,), stride=1, return_indices=True)
    >>> y.ravel(), winners.ravel()
    (Array([3, 3, 3], dtype=int32), Array([1, 1, 2], dtype=int32))
    """
    return _extremes(
        x, window, stride, padding, dilation, ceil_mode, return_indices, custom_vjp, least=False
    )


@placed("x")
def min_pool(
    x: ArrayLike,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    custom_vjp: bool = True,
) -> Array | tuple[Array, Array]:
    """The least entry of every window.

    `y[o] = min_t x[stride*o + dilation*t - low]`; gradient, ties and NaN are as in `max_pool`, with
    the greatest value of the dtype (`inf`) where a window holds only padding.

    Args:
      x: `[*batch, *size, channels]`, real.
      window, stride, padding, dilation, ceil_mode, return_indices, custom_vjp: as in `max_pool`.

    Returns:
      As `max_pool`, of the least entries.

    Raises:
      ValueError, TypeError: as `max_pool`.

    Source: `-max_pool(-x)`, with the same winners.

    >>> min_pool(jnp.array([[1], [3], [3], [2]]), (2,)).ravel()
    Array([1, 2], dtype=int32)
    """
    return _extremes(
        x, window, stride, padding, dilation, ceil_mode, return_indices, custom_vjp, least=True
    )


@placed("x")
def avg_pool(
    x: ArrayLike,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: float | None = None,
    custom_vjp: bool = True,
) -> Array:
    """The mean of every window.

    `y[o] = sum_t x[stride*o + dilation*t - low] / count[o]`, with zeros as padding. `count[o]` is
    `divisor` where one is given; else how many taps read inside the padded input, or, without
    `count_include_pad`, inside the input. What only `ceil_mode` adds is never counted (torch's
    meaning of all three). A window that counts nothing gives 0. Integers give the default float
    dtype.

    Args:
      x: `[*batch, *size, channels]`.
      window, stride, padding, dilation, ceil_mode, custom_vjp: as in `max_pool`.
      count_include_pad: whether padding counts.
      divisor: a number other than 0 to divide by instead.

    Returns:
      `[*batch, *out, channels]`.

    Raises:
      ValueError, TypeError: as `max_pool`.

    Source: Goodfellow, Bengio, Courville (2016), section 9.3.

    >>> avg_pool(jnp.array([[1.0], [3.0], [3.0], [2.0]]), (2,)).ravel()
    Array([2. , 2.5], dtype=float32)
    """
    x = array(x)
    call = called(inexact(x), window, stride, padding, dilation, ceil_mode, custom_vjp)
    include = checks.flag("count_include_pad", count_include_pad)
    counts = call.pooling.counts(include, divisor)
    total = sums.summed(call.x.astype(wide(call.x.dtype)), call.windows, call.custom_vjp)
    return sums.divided(total, counts).astype(call.x.dtype)


@placed("x")
def sum_pool(
    x: ArrayLike,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    custom_vjp: bool = True,
) -> Array:
    """The sum of every window.

    `y[o] = sum_t x[stride*o + dilation*t - low]`, with zeros as padding. The dtype is kept;
    bfloat16 and float16 are summed in float32, and integers wrap.

    Args:
      x: `[*batch, *size, channels]`.
      window, stride, padding, dilation, ceil_mode, custom_vjp: as in `max_pool`.

    Returns:
      `[*batch, *out, channels]`.

    Raises:
      ValueError, TypeError: as `max_pool`.

    Source: `avg_pool` times its count.

    >>> sum_pool(jnp.array([[1], [3], [3], [2]]), (2,), stride=1).ravel()
    Array([4, 6, 5], dtype=int32)
    """
    call = called(array(x), window, stride, padding, dilation, ceil_mode, custom_vjp)
    return _widely(sums.summed, call)


@placed("x")
def prod_pool(
    x: ArrayLike,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    custom_vjp: bool = True,
) -> Array:
    """The product of every window.

    `y[o] = prod_t x[stride*o + dilation*t - low]`, with ones as padding: a window of only padding
    gives 1. The gradient multiplies the other entries, with no division, so it is right where
    entries are zero.

    Args:
      x: `[*batch, *size, channels]`.
      window, stride, padding, dilation, ceil_mode, custom_vjp: as in `max_pool`.

    Returns:
      `[*batch, *out, channels]`, of the dtype of `x`; integers wrap.

    Raises:
      ValueError, TypeError: as `max_pool`.

    Source: the product rule, `d prod_t x_t = sum_t dx_t prod_(u not t) x_u`.

    >>> prod_pool(jnp.array([[1], [3], [0], [2]]), (2,), stride=1).ravel()
    Array([3, 0, 0], dtype=int32)
    """
    call = called(array(x), window, stride, padding, dilation, ceil_mode, custom_vjp)
    return _widely(multiplied, call)


@placed("x")
def logsumexp_pool(
    x: ArrayLike,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    temperature: ArrayLike = 1.0,
    custom_vjp: bool = True,
) -> Array:
    """The smooth maximum of every window.

    `y[o] = temperature * log sum_t exp(x[stride*o + dilation*t - low] / temperature)`: a sum, not a
    mean, so `max <= y <= max + temperature * log(taps)`, and its limit for a small temperature is
    `max_pool`. Padding is `-inf`, which adds nothing; a window of nothing else gives `-inf` and no
    gradient. An entry of `inf` gives `inf`, and NaN as its own gradient. Computed without overflow
    as long as no `x / temperature` overflows.

    Args:
      x: `[*batch, *size, channels]`, real; integers give the default float dtype.
      window, stride, padding, dilation, ceil_mode, custom_vjp: as in `max_pool`.
      temperature: positive, a number or a scalar array; differentiable.

    Returns:
      `[*batch, *out, channels]`.

    Raises:
      ValueError, TypeError: as `max_pool`.

    Source: Boyd and Vandenberghe (2004), section 3.1.5.

    >>> logsumexp_pool(jnp.array([[0.0], [0.0], [0.0], [3.0]]), (2,)).ravel().round(2)
    Array([0.69, 3.05], dtype=float32)
    """
    x = inexact(array(x, real=True))
    call = called(x, window, stride, padding, dilation, ceil_mode, custom_vjp)
    unit = isinstance(temperature, int | float) and temperature == 1
    temperature = _temperature(temperature, wide(x.dtype))
    x = call.x.astype(wide(call.x.dtype))
    x = x if unit else _finite(x, lambda x: x / temperature)
    y = smooth.smoothed(smooth.LOG_SUM_EXP, x, call.windows, call.custom_vjp)
    y = y if unit else _finite(y, lambda y: y * temperature)
    return y.astype(call.x.dtype)


@placed("x")
def lp_pool(
    x: ArrayLike,
    window: Ints,
    p: float,
    *,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    custom_vjp: bool = True,
) -> Array:
    """The p-norm of every window.

    `y[o] = (sum_t |x[stride*o + dilation*t - low]|^p)^(1/p)`, with zeros as padding: ONNX's LpPool.
    (Torch's `lp_pool` takes the root of `sum x^p`, which is another number for an odd `p` and
    entries below 0, and scales a partial window of `ceil_mode` up to a whole one.) The gradient is
    0 where a window is all zero, and NaN at an entry of `inf`. Computed without overflow.

    Args:
      x: `[*batch, *size, channels]`, real; integers give the default float dtype.
      window, stride, padding, dilation, ceil_mode, custom_vjp: as in `max_pool`.
      p: at least 1; `inf` gives the greatest absolute value.

    Returns:
      `[*batch, *out, channels]`.

    Raises:
      ValueError, TypeError: as `max_pool`.

    Source: Gulcehre, Cho, Pascanu, Bengio (2014), eq. 1, without its mean.

    >>> lp_pool(jnp.array([[3.0], [-4.0], [0.0], [2.0]]), (2,), 2).ravel()
    Array([5., 2.], dtype=float32)
    """
    x = inexact(array(x, real=True))
    call = called(x, window, stride, padding, dilation, ceil_mode, custom_vjp)
    p = _exponent(p)
    if p == np.inf:
        sizes = padded(scaled.magnitude(call.x), call.windows, custom_vjp=call.custom_vjp)
        inner = [w.padded() for w in call.windows]
        return extremes(sizes, inner, custom_vjp=call.custom_vjp)
    return _widely(partial(smooth.smoothed, smooth.norm(p)), call)


@placed("x")
def drop(x: ArrayLike, stride: Ints, *, offset: Ints = 0) -> Array:
    """Every `stride`-th position.

    `y[o] = x[stride*o + offset]`. `drop(conv(x, k), s)` is `conv(x, k, stride=s)`, which never
    computes what is dropped.

    Args:
      x: `[*batch, *size, channels]`.
      stride: one int per spatial axis, or an int for all axes of `x` but the first and the last.
      offset: the first position kept, an int or one int per spatial axis.

    Returns:
      `[*batch, *ceil((size - offset) / stride), channels]`.

    Raises:
      ValueError: an `offset` outside the input; and as `max_pool`.

    Source: Vaidyanathan (1993), section 4.1, the decimator.

    >>> drop(jnp.array([[1], [2], [3], [4]]), (2,), offset=1).ravel()
    Array([2, 4], dtype=int32)
    """
    x = array(x)
    strides = checks.window_taps("stride", stride, x.ndim)
    size, _ = geometry.split_shape("x", x.shape, len(strides))
    geometry.require_entries("x", size, x.shape)
    starts = checks.per_axis("offset", offset, len(strides), least=0)
    for axis, (start, n) in enumerate(zip(starts, size, strict=True)):
        if start >= n:
            raise checks.wrong("offset", f"be less than size {n} on spatial axis {axis}", start)
    kept = zip(size, strides, starts, strict=True)
    return unpadded(x, [_spaced(-(-(n - start) // s), s, start, n) for n, s, start in kept])


def _spaced(count: int, apart: int, start: int, size: int) -> Window:
    """So many entries, from `start` on so far apart, among the zeros of an axis of this size."""
    return Window(count, 1, low=start, input_dilation=apart).grown_to(size)


# ---------------------------------------------------------------- options


def _temperature(temperature: ArrayLike, dtype) -> Array:
    made = scalar("temperature", temperature, dtype)
    if not isinstance(temperature, Tracer) and not np.asarray(temperature) > 0:
        raise checks.wrong("temperature", "be positive", temperature)
    return jnp.asarray(made)


def _exponent(p: object) -> float:
    made = number("p", p)
    if not made >= 1:
        raise checks.wrong("p", "be at least 1", p)
    return made


# ---------------------------------------------------------------- evaluation


def _extremes(
    x, window, stride, padding, dilation, ceil_mode, return_indices, custom_vjp, *, least
):
    call = called(array(x, real=True), window, stride, padding, dilation, ceil_mode, custom_vjp)
    if not checks.flag("return_indices", return_indices):
        return extremes(call.x, call.windows, least, call.custom_vjp)
    lead = call.x.ndim - call.pooling.rank - 1
    size = [w.size for w in call.pooling.explicit]
    places = crop(positions(size, call.x.ndim), lead, call.pooling.kept)
    return winners(call.x, call.windows, places, least, call.custom_vjp)


def _widely(fold: Callable[[Array, Sequence[Window], bool], Array], call: Call) -> Array:
    """The fold, in float32 where `x` is narrower."""
    dtype = call.x.dtype
    return fold(call.x.astype(wide(dtype)), call.windows, call.custom_vjp).astype(dtype)


def _finite(x: Array, f: Callable[[Array], Array]) -> Array:
    """`f(x)` where `x` is no infinity, and `x` itself where it is one; so for the gradients."""
    infinite = jnp.isinf(x)
    return jnp.where(infinite, x, f(jnp.where(infinite, jnp.zeros((), x.dtype), x)))
