"""Channels that are each filtered alone, and no entry felt beyond the windows that see it."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jconv.conv import conv
from jconv.operands import is_zero
from jconv.platforms import per_platform
from jconv.rules.shared import MOST_TAPS

# Taps up to which loops are worth their time to compile: 321 to 801 taps take 1 to 3 s.
MOST_LOOPED = 2000


def filtered(x: Array, kernel: Array, *, padding_value: ArrayLike = 0, **options: Any) -> Array:
    """`conv` of a group a channel, with hashable options, by no transform.

    For more taps a CPU has transforms: faster by far, but one NaN is everywhere then, and means of
    numbers that are not negative may be. 33x33 taps on 256x256x3 take 24 ms by loops and 4 by
    transforms, 321 taps on a photograph's 512 rows 40 and 4.
    """
    taps = kernel.size // kernel.shape[-1]
    if taps <= MOST_TAPS or not jnp.issubdtype(x.dtype, jnp.floating):
        return conv(x, kernel, padding_value=padding_value, **options)
    # One signal of 100,000 numbers under 801 taps takes 54 ms by loops, and 33 as it is.
    is_signal = kernel.ndim == 3 and kernel.shape[-1] == 1
    method = "direct" if is_signal or taps > MOST_LOOPED else "lanes"
    values = () if is_zero(padding_value) else (jnp.asarray(padding_value, x.dtype),)
    static = method, tuple(options.items())
    return per_platform(_by_method, _elsewhere, static, x, kernel, *values)


def _by_method(static: tuple[str, tuple], x: Array, kernel: Array, *values: Array) -> Array:
    method, options = static
    given: dict[str, Any] = dict(options)
    if values:
        (given["padding_value"],) = values
    return conv(x, kernel, method=method, **given)


def _elsewhere(static: tuple[str, tuple], x: Array, kernel: Array, *values: Array) -> Array:
    return _by_method(("auto", static[1]), x, kernel, *values)
