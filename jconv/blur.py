"""Pooling that does not alias: a maximum, a blur, a stride, under one rule.

    y = blur(x[winners])            x_bar = the winners' places, given blur_adjoint(y_bar)

The winners are those of a maximum everywhere, a stride of one.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jconv import checks
from jconv.filtering import filtered
from jconv.geometry import Ints, Padding
from jconv.operands import array, inexact, wide
from jconv.placement import placed, zeros
from jconv.pool_options import called
from jconv.pooling.batches import selection
from jconv.pooling.extremes import Choice, Winners, choice_of, chosen, gathered, scattered
from jconv.pooling.views import laid


@placed("x")
def blur_pool(
    x: ArrayLike,
    window: Ints,
    *,
    stride: Ints,
    taps: int = 3,
    padding: Padding = "valid",
    custom_vjp: bool = True,
) -> Array:
    """Max pooling whose result moves smoothly when the input moves: a maximum, a blur, a stride.

    `y = drop(blur(max_pool(x, window, stride=1)), stride)`, where `blur` filters every axis by the
    binomial weights `(1, 1)^(taps - 1) / 2^(taps - 1)`, reflects at the ends, and keeps the size.
    What is dropped is not computed. A window of nothing but padding is `-inf`, as in `max_pool`,
    and so is all that the blur makes of it.

    Args:
      x: `[*batch, *size, channels]`, real; integers give the default float dtype.
      window, padding, custom_vjp: as in `max_pool`.
      stride: of the blur, an int or one int per spatial axis.
      taps: of the blur, at least 1; an even count reaches one further to the high end.

    Returns:
      `[*batch, *ceil(out / stride), channels]`, `out` the size of the maximum.

    Raises:
      ValueError, TypeError: as `max_pool`.

    Source: Zhang (2019), section 3.

    >>> blur_pool(jnp.array([[0.0], [0.0], [4.0], [0.0], [0.0]]), (1,), stride=2).ravel()
    Array([0., 2., 0.], dtype=float32)
    """
    x = inexact(array(x, real=True))
    call = called(x, window, 1, padding, 1, False, custom_vjp)
    rank = call.pooling.rank
    taps = checks.whole("taps", taps, least=1)
    strides = checks.per_axis("stride", stride, rank, least=1)
    if not x.shape[-1]:
        raise checks.wrong("x", "have one or more channels", f"shape {x.shape}")
    choice, x = choice_of(call.x, call.windows)
    # The maximum, what padding makes of it, and what each axis leaves.
    image = choice.image(x, more=4)
    y, _ = selection(
        _chosen, _gathered, _scattered, _Static(choice, taps, strides), x,
        image=image, ruled=call.custom_vjp,
    )  # fmt: skip
    return y


class _Static(NamedTuple):
    choice: Choice
    taps: int
    strides: tuple[int, ...]


def _chosen(static: _Static, x: Array) -> tuple[Array, Winners]:
    y, won = chosen(static.choice, x)
    return _blurred(static, y), won


def _gathered(static: _Static, x: Array, *won: Array) -> Array:
    return _blurred(static, gathered(static.choice, x, *won), custom_vjp=False)


def _scattered(static: _Static, y: Array, *won: Array) -> Array:
    """Adjoint of `_gathered`."""
    windows = static.choice.windows
    lead = y.ndim - len(windows) - 1
    greatest = zeros((*y.shape[:lead], *(w.out for w in windows), y.shape[-1]), y.dtype, y)
    _, blurred_adjoint = jax.vjp(partial(_blurred, static), greatest)
    return scattered(static.choice, *blurred_adjoint(y), *won)


def _blurred(static: _Static, y: Array, custom_vjp: bool = True) -> Array:
    dtype, taps, rank, channels = y.dtype, static.taps, len(static.strides), y.shape[-1]
    y = y.astype(wide(dtype))
    binomial = [math.comb(taps - 1, t) / 2 ** (taps - 1) for t in range(taps)]
    weights = jnp.asarray(binomial, y.dtype)
    for axis, step in enumerate(static.strides):
        kernel = laid(weights, axis, rank, rank + 1)[..., None]
        padding = [(0, 0)] * rank
        padding[axis] = (taps - 1) // 2, taps // 2
        y = filtered(
            y,
            jnp.broadcast_to(kernel, (*kernel.shape[:-1], channels)),
            stride=tuple(step if a == axis else 1 for a in range(rank)),
            padding=tuple(padding),
            padding_mode="reflect",
            groups=channels,
            custom_vjp=custom_vjp,
        )
    return y.astype(dtype)
