"""One pass over an array: sums under weights, and the dtypes of sums and results."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv.filtering import filtered
from jconv.operands import is_zero, wide


def working(x: Array, dtype, mode: str, cval: ArrayLike, *weights: Array):
    """What a pass from `x` to `dtype` is computed in: integers, if nothing has fractions."""
    values = (*weights, cval) if mode == "constant" else weights
    if _holds_integers(x.dtype) and _holds_integers(dtype) and all(map(_is_whole, values)):
        return jnp.result_type(int)
    inexact = [d for d in (x.dtype, dtype) if jnp.issubdtype(d, jnp.inexact)]
    with jax.numpy_dtype_promotion("standard"):
        return wide(jnp.result_type(*inexact or [float]))


def _is_whole(value: ArrayLike) -> bool:
    """Whether this is an integer: a Python number, or an array by its dtype."""
    if isinstance(value, bool | int | float):
        return float(value).is_integer()
    return _holds_integers(jnp.result_type(value))


def _holds_integers(dtype) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_))


def stored(dtype):
    """What holds the results of all passes but the last: SciPy's bool is a byte until then."""
    return jnp.dtype(jnp.uint8) if jnp.issubdtype(dtype, jnp.bool_) else dtype


def cast(y: Array, dtype) -> Array:
    """`y` in `dtype`; integers are cut off toward zero and wrap around, as a cast in C."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return cast(y, stored(dtype)) != 0
    if jnp.issubdtype(dtype, jnp.integer) and jnp.issubdtype(y.dtype, jnp.inexact):
        y = _settled(y)
        whole = y.astype(jnp.result_type(int))
        if jnp.issubdtype(dtype, jnp.unsignedinteger):  # it holds more, but nothing below 0
            most = jax.dtypes.canonicalize_dtype(jnp.uint64)
            whole = jnp.where(y < 0, whole.astype(most), y.astype(most))
        y = whole
    return y.astype(dtype)


def unfiltered(x: Array, dtype) -> Array:
    """The input where no axis is filtered, converted as NumPy does."""
    return x != 0 if jnp.issubdtype(dtype, jnp.bool_) else cast(x, dtype)


def _settled(y: Array) -> Array:
    """`y`, but an integer where only rounding says it is none: flat images stay as they are."""
    nearest = jnp.round(y)
    rounding = 32 * float(jnp.finfo(y.dtype).eps)
    return jnp.where(jnp.abs(y - nearest) <= rounding * jnp.maximum(jnp.abs(y), 8), nearest, y)


# ---------------------------------------------------------------- the pass


def along(
    x: Array,
    weights: Array | np.ndarray,
    axis: int,
    mode: str,
    cval: ArrayLike,
    dtype,
    low: int | None = None,
    flip: bool = False,
) -> Array:
    """One axis summed under weights, of which `low` read lower positions, by default half."""
    kernel = jnp.asarray(weights).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    lows = [(len(weights) // 2 if low is None else low) if a == axis else 0 for a in range(x.ndim)]
    return summed(x, kernel, lows, mode, cval, dtype, flip)


def summed(
    x: Array, kernel: Array, low: list[int], mode: str, cval: ArrayLike, dtype, flip: bool = False
) -> Array:
    """`x` summed under a kernel of as many axes, in one pass."""
    kind = working(x, dtype, mode, cval, kernel)
    x, kernel = x.astype(kind), kernel.astype(kind)
    if x.ndim == 0 or x.size == 0:
        return cast(x * kernel if x.ndim == 0 else x, dtype)
    padding = tuple((n, size - 1 - n) for n, size in zip(low, kernel.shape, strict=True))
    y = filtered(
        x[..., None], kernel[..., None, None], padding=padding, padding_mode=mode,
        padding_value=outside(mode, cval, kind), flip=flip,
    )  # fmt: skip
    return cast(y[..., 0], dtype)


def outside(mode: str, cval: ArrayLike, dtype) -> ArrayLike:
    """The value of a padding by `mode`: a Python 0 unless another constant is asked for."""
    return 0 if is_zero(cval) or mode != "constant" else jnp.asarray(cval).astype(dtype)
