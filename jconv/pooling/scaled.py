"""Numbers `s e^c` with an exponent of their own, so that no sum of them overflows.

Each exponent is as good as a multiple of log 2: a power of two brings one number to the exponent of
another, without a logarithm and without rounding. So a sum of exponentials, or of powers, takes one
transcendental function of every entry and one of every sum, however many sums of sums it is.
"""

import math
from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Scaled = tuple[Array, ...]  # (s, c)

LOG2 = math.log(2)


def exponential(x: Array) -> Scaled:
    """`e^x`."""
    finite = lax.stop_gradient(jnp.where(jnp.isfinite(x), x, jnp.zeros((), x.dtype)))
    # From here on neighbours are 1 apart, and any of them is an exponent.
    few = jnp.abs(finite) < 2.0 ** int(jnp.finfo(x.dtype).nmant)
    c = jnp.where(few, jnp.round(finite * (1 / LOG2)) * LOG2, finite)
    return jnp.exp(x - c), jnp.where(jnp.isneginf(x), least(x.dtype), c)


def logarithm(number: Scaled) -> Array:
    """`log (s e^c)`, `-inf` of 0."""
    s, c, none = _settled(number)
    return jnp.where(none, jnp.full((), -np.inf, s.dtype), c + jnp.log(s))


def power(p: float, x: Array) -> Scaled:
    """`|x|^p`; where its derivative at 0 is none, that is 0."""
    s, c, none = _power(p, x)
    return s, jnp.where(none, least(s.dtype), c)


def signed_power(p: float, x: Array) -> Scaled:
    """`x |x|^(p-2)`; the exponent of 0 is 0."""
    if p < 2:
        s, c, _ = _power(p - 1, x)
        return jnp.sign(x) * s, c
    exponent, scale = _exponent(jnp.abs(x))
    s, c, _ = _power(p - 2, x)
    return x * scale * s, c + exponent * LOG2


def _power(p: float, x: Array) -> tuple[Array, Array, Array]:
    """`|x|^p`, with the exponent 0 where `x` is 0, and where it is."""
    # To JAX `abs` has the derivative 1 at 0, of which the square needs one, and `|x|` itself none.
    size = magnitude(x) if p == 1 else jnp.abs(x)
    none, zero = size == 0, jnp.zeros((), size.dtype)
    exponent, scale = _exponent(size)
    if p in range(-3, 5):
        return lax.integer_pow(size * scale, int(p)), exponent * (p * LOG2), none
    log = p * jnp.log(jnp.where(none, jnp.ones((), size.dtype), size * scale))
    known = lax.stop_gradient(jnp.where(jnp.isfinite(log), log, zero))
    whole = jnp.round(p * exponent + known * (1 / LOG2))
    short = round(256 * p) / 256  # of so few bits that its product is exact
    s = jnp.exp(log + ((short * exponent - whole) + (p - short) * exponent) * LOG2)
    return jnp.where(none, zero, s), whole * LOG2, none


def root(p: float, number: Scaled) -> Array:
    """`(s e^c)^(1/p)`, 0 of 0."""
    s, c, none = _settled(number)
    k = jnp.round(c * (1 / LOG2))
    whole = jnp.round(k * (1 / p))
    rest = k - p * whole
    if p == 1:
        y = s
    elif p == 2:
        y = jnp.sqrt(s * power_of_two(rest))
    else:
        y = jnp.exp((jnp.log(s) + rest * LOG2) * (1 / p))
    return jnp.where(none, jnp.zeros((), s.dtype), y * power_of_two(whole))


def _settled(number: Scaled) -> tuple[Array, Array, Array]:
    """`s` and `c`, 1 and 0 where the number is 0, and where it is."""
    s, c = number
    none = s == 0
    return jnp.where(none, jnp.ones_like(s), s), jnp.where(none, jnp.zeros_like(c), c), none


def magnitude(x: Array) -> Array:
    """`|x|`, with derivative 0 at 0."""
    return x * jnp.sign(x)


# ---------------------------------------------------------------- sums


def least(dtype) -> float:
    """The exponent of zero, and of what is not there."""
    return float(jnp.finfo(dtype).min)


def greatest(exponents: Sequence[Array]) -> Array:
    """The exponent of a sum."""
    # One instruction, for there is no NaN among them.
    return reduce(lambda a, b: jnp.where(a > b, a, b), exponents)


def added(numbers: Sequence[Scaled], c: Array) -> Array:
    """The sum, with the exponent `c`, which is none of theirs less."""
    return reduce(jnp.add, [s * brought(own - c) for s, own in numbers])


def added_for_jax(numbers: Sequence[Scaled], c: Array) -> Array:
    """The same where JAX differentiates it: a zero is `0 e^0`, whose derivative is of size 1.

    So the norm of (0, 3, 4) has its second derivative in the first entry, 1 / 5.
    """
    c = _of_zero(c)
    return reduce(jnp.add, [s * brought(limited(_of_zero(own) - c)) for s, own in numbers])


def _of_zero(c: Array) -> Array:
    return jnp.where(c == least(c.dtype), jnp.zeros((), c.dtype), c)


def brought(difference: Array) -> Array:
    """`e^difference`, as a power of two: of a difference of exponents up to `limited`."""
    lowest = jnp.full((), float(jnp.finfo(difference.dtype).minexp) * LOG2, difference.dtype)
    difference = jnp.where(difference > lowest, difference, lowest)
    return power_of_two(difference * (1 / LOG2))


def limited(difference: Array) -> Array:
    """No greater than what `brought` takes, and numbers bear."""
    highest = float(jnp.finfo(difference.dtype).maxexp - 9) * LOG2
    return jnp.minimum(difference, jnp.full((), highest, difference.dtype))


# ---------------------------------------------------------------- bits


def power_of_two(n: Array) -> Array:
    """`2^n` of `n` rounded, which must be an exponent of normal numbers.

    Next to `1.5 * 2^nmant` the last bits of a number are an integer; XLA's own conversion to
    integers saturates, which takes several times as long.
    """
    info = jnp.finfo(n.dtype)
    placed = n + float(1.5 * 2**info.nmant - info.minexp + 1)
    bits = lax.bitcast_convert_type(placed, _bits(n.dtype))
    return lax.bitcast_convert_type(lax.shift_left(bits, _shift(n.dtype)), n.dtype)


def _exponent(size: Array) -> tuple[Array, Array]:
    """`n` of `2^n <= size < 2^(n + 1)`, as far as `2^-n` is a normal number, and `2^-n`.

    The `n` of 0 is 0.
    """
    info, size = jnp.finfo(size.dtype), lax.stop_gradient(size)
    bias, shift = 1 - int(info.minexp), _shift(size.dtype)
    biased = lax.shift_right_logical(lax.bitcast_convert_type(size, _bits(size.dtype)), shift)
    biased = jnp.where(size == 0, bias, jnp.clip(biased, 1, 2 * bias - 1))
    scale = lax.bitcast_convert_type(lax.shift_left(2 * bias - biased, shift), size.dtype)
    return (biased - bias).astype(size.dtype), scale


def _bits(dtype) -> np.dtype:
    return np.dtype(f"int{jnp.finfo(dtype).bits}")


def _shift(dtype) -> Array:
    return jnp.full((), jnp.finfo(dtype).nmant, _bits(dtype))
