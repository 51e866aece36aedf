"""Arrays that users pass in: what they must be, and what they are computed in."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jconv import checks


def array(x: ArrayLike, real: bool = False, name: str = "x", booleans: bool = False) -> Array:
    """`x` as an array of numbers; of `booleans` too where these are no slip."""
    if isinstance(x, str | bytes) or x is None:
        raise checks.mistyped(name, "be an array", x)
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise checks.mistyped(name, "be an array", x) from error
    except OverflowError:
        raise checks.wrong(name, "fit the default dtype of integers", x) from None
    if not jnp.issubdtype(x.dtype, jnp.number) and not (booleans and x.dtype == bool):
        raise checks.mistyped(name, "be an array of numbers", x.dtype)
    if real and jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise checks.mistyped(name, "be an array of real numbers", x.dtype)
    return x


def numbers(**arrays: ArrayLike) -> list[Array]:
    """Arrays of numbers, in their common dtype."""
    made = [array(value, name=name) for name, value in arrays.items()]
    common = jnp.result_type(*made)
    return [a.astype(common) for a in made]


def merged(a: Array, rank: int) -> Array:
    """All batch axes as one."""
    lead = a.ndim - rank - 1
    return a.reshape(math.prod(a.shape[:lead]), *a.shape[lead:])


def is_zero(value: object) -> bool:
    """Whether this is Python's 0: known while JAX traces, and without the sign of -0.0."""
    return type(value) in (int, float) and repr(value) in ("0", "0.0")


def is_within(value: float, dtype) -> bool:
    """Whether integers of this dtype hold a number, but for its fraction."""
    limits = jnp.iinfo(dtype)
    return math.isfinite(value) and limits.min <= int(value) <= limits.max


def scalar(name: str, value: ArrayLike, dtype) -> ArrayLike:
    """A number, or an array without axes, as the `dtype` that must hold it; Python's 0 as it is."""
    if is_zero(value):
        return value
    if jnp.issubdtype(dtype, jnp.integer) and isinstance(value, float) and value.is_integer():
        value = int(value)
    made = array(value, name=name)
    if made.ndim:
        raise checks.wrong(name, "be a scalar", f"shape {made.shape}")
    if _kind(made.dtype) > _kind(dtype):
        raise checks.mistyped(name, f"be a number that {dtype} can hold", value)
    try:
        return jnp.asarray(value, dtype)
    except OverflowError:
        raise checks.wrong(name, f"be a number that {dtype} can hold", value) from None


def number(name: str, value: object, must: str = "be a number") -> float:
    """A real number that is known while JAX traces."""
    try:
        made = np.asarray(value)
    except (TypeError, ValueError):  # traced, or ragged
        made = np.asarray(None)
    real = jnp.issubdtype(made.dtype, jnp.integer) or jnp.issubdtype(made.dtype, jnp.floating)
    if made.ndim or not real:
        raise checks.mistyped(name, must, value)
    return float(made)


def positive(name: str, value: object, must: str = "be a number") -> float:
    """One that is positive and finite."""
    made = number(name, value, must)
    if not 0 < made < math.inf:
        raise checks.wrong(name, "be positive and finite", value)
    return made


def _kind(dtype) -> int:
    """Integers, floats, complex numbers: each can hold those before."""
    kinds = (jnp.integer, jnp.floating, jnp.complexfloating)
    return next(i for i, kind in enumerate(kinds) if jnp.issubdtype(dtype, kind))


def number_dtype(name: str, dtype: DTypeLike) -> np.dtype:
    """`dtype` as a dtype of numbers; 64 bits are 32 where JAX has no more."""
    try:
        made = jnp.dtype(dtype) if isinstance(dtype, str | type | np.dtype) else None
    except TypeError:
        made = None
    if made is None:
        raise checks.mistyped(name, "be a dtype", dtype)
    if not jnp.issubdtype(made, jnp.number):
        raise checks.mistyped(name, "be a dtype of numbers", dtype)
    return jax.dtypes.canonicalize_dtype(made)


# What kinds of numbers products of each kind may be summed in.
_SUMMED_IN = {
    jnp.bool_: (jnp.signedinteger, jnp.unsignedinteger, jnp.floating, jnp.complexfloating),
    jnp.signedinteger: (jnp.signedinteger, jnp.floating),
    jnp.unsignedinteger: (jnp.unsignedinteger, jnp.signedinteger, jnp.floating),
    jnp.floating: (jnp.floating,),
    jnp.complexfloating: (jnp.complexfloating,),
}


def preferred_dtype(dtype, preferred: DTypeLike, error: Callable[..., Exception]) -> np.dtype:
    """`preferred_element_type`, which must be able to hold sums of `dtype`."""
    made = number_dtype("preferred_element_type", preferred)
    if _family(made) not in _SUMMED_IN[_family(dtype)] or made.itemsize < dtype.itemsize:
        must = f"be no narrower than {dtype}, of its kind or, for integers, a float"
        raise error("preferred_element_type", must, preferred)
    return made


def common_dtype(*arrays: Array) -> np.dtype:
    """Where a cotangent, of the dtype of sums, meets another operand, whatever the user allows.

    JAX promotes no float of a byte to another float; bfloat16 holds each.
    """
    kinds = {a.dtype for a in arrays}
    if len(kinds) > 1:
        kinds = {jnp.dtype(jnp.bfloat16) if _is_tiny(kind) else kind for kind in kinds}
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*kinds)


def _is_tiny(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 1


def factor_dtype(dtype, preferred: np.dtype | None):
    """What factors of `dtype` are multiplied as: where sums are of another kind, as those."""
    return dtype if preferred is None or _family(dtype) == _family(preferred) else preferred


def _family(dtype) -> Any:
    return next(family for family in _SUMMED_IN if jnp.issubdtype(dtype, family))


def inexact(x: Array) -> Array:
    """Integers as the default float dtype."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def wide(dtype):
    """What sums are kept in: float32 for the half-precision floats."""
    return jnp.dtype(jnp.float32) if dtype in (jnp.bfloat16, jnp.float16) else dtype


def require_key(key: ArrayLike) -> None:
    """A JAX key, of either kind, and one."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is None or not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == jnp.uint32):
        raise checks.mistyped("key", "be a JAX key", key)
    if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        expected = jax.eval_shape(jax.random.PRNGKey, 0).shape
        if shape != expected:
            raise checks.wrong("key", f"have shape {expected} where it is raw", f"shape {shape}")
    elif shape != ():
        raise checks.wrong("key", "be one JAX key", f"keys of shape {shape}")
