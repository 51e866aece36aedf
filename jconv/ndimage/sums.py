"""The dtypes of a pass over an array: what it is computed in, and how its result is cut off."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jconv.operands import wide


def working(x: Array, dtype, whole: bool):
    """What a pass from `x` to `dtype` is computed in; `whole`: it needs no fractions."""
    kinds = (jnp.integer, jnp.bool_)
    if whole and all(any(jnp.issubdtype(d, kind) for kind in kinds) for d in (x.dtype, dtype)):
        return jnp.result_type(int)
    inexact = [d for d in (x.dtype, dtype) if jnp.issubdtype(d, jnp.inexact)]
    with jax.numpy_dtype_promotion("standard"):
        return wide(jnp.result_type(*inexact or [float]))


def is_whole(*values: ArrayLike) -> bool:
    """Whether these are integers: dtypes of arrays, and Python numbers."""
    return all(
        float(v).is_integer() if isinstance(v, bool | int | float)
        else not jnp.issubdtype(jnp.result_type(v), jnp.inexact)
        for v in values
    )  # fmt: skip


def stored(dtype):
    """What holds the results of all passes but the last: SciPy's bool is a byte until then."""
    return jnp.dtype(jnp.uint8) if dtype == bool else dtype


def cast(y: Array, dtype) -> Array:
    """`y` in `dtype`; integers are cut off toward zero and wrap around, as a cast in C."""
    if dtype == bool:
        return cast(y, stored(dtype)) != 0
    if jnp.issubdtype(dtype, jnp.integer) and jnp.issubdtype(y.dtype, jnp.inexact):
        y = y.astype(jnp.result_type(int))
    return y.astype(dtype)
