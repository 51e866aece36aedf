"""Arrays that users pass in: what they must be, and what they are computed in."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jconv import geometry


def array(x: ArrayLike, real: bool = False, name: str = "x") -> Array:
    """`x` as an array of numbers."""
    if isinstance(x, str | bytes) or x is None:
        raise geometry.mistyped(name, "be an array", x)
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise geometry.mistyped(name, "be an array", x) from error
    except OverflowError:
        raise geometry.wrong(name, "fit the default dtype of integers", x) from None
    if not jnp.issubdtype(x.dtype, jnp.number):
        raise geometry.mistyped(name, "be an array of numbers", x.dtype)
    if real and jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise geometry.mistyped(name, "be an array of real numbers", x.dtype)
    return x


def numbers(**arrays: ArrayLike) -> list[Array]:
    """Arrays of numbers, in their common dtype."""
    made = [array(value, name=name) for name, value in arrays.items()]
    common = jnp.result_type(*made)
    return [a.astype(common) for a in made]


def scalar(name: str, value: ArrayLike, dtype) -> ArrayLike:
    """A number, or an array without axes, as the `dtype` that must hold it; Python's 0 as it is."""
    if type(value) in (int, float) and value == 0:
        return value
    if jnp.issubdtype(dtype, jnp.integer) and isinstance(value, float) and value.is_integer():
        value = int(value)
    made = array(value, name=name)
    if made.ndim:
        raise geometry.wrong(name, "be a scalar", f"shape {made.shape}")
    if _kind(made.dtype) > _kind(dtype):
        raise geometry.mistyped(name, f"be a number that {dtype} can hold", value)
    try:
        return jnp.asarray(value, dtype)
    except OverflowError:
        raise geometry.wrong(name, f"be a number that {dtype} can hold", value) from None


def _kind(dtype) -> int:
    """Integers, floats, complex numbers: each can hold those before."""
    kinds = (jnp.integer, jnp.floating, jnp.complexfloating)
    return next(i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind))


def number_dtype(name: str, dtype: DTypeLike) -> np.dtype:
    """`dtype` as a dtype of numbers."""
    try:
        made = jnp.dtype(dtype) if isinstance(dtype, str | type | np.dtype) else None
    except TypeError:
        made = None
    if made is None:
        raise geometry.mistyped(name, "be a dtype", dtype)
    if not jnp.issubdtype(made, jnp.number):
        raise geometry.mistyped(name, "be a dtype of numbers", dtype)
    return made


def inexact(x: Array) -> Array:
    """Integers as the default float dtype."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def wide(dtype):
    """What sums are kept in: float32 for the half-precision floats."""
    return jnp.dtype(jnp.float32) if dtype in (jnp.bfloat16, jnp.float16) else dtype
