"""Convolution and correlation of two matrices, with a choice of what lies outside."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jconv import checks
from jconv.operands import array, is_within, is_zero
from jconv.signal.parts import Kept, cut, is_complex, kept, larger_first, one_of, operands, turned

BOUNDARIES = {
    "fill": "constant", "pad": "constant", "wrap": "wrap", "circular": "wrap",
    "symm": "symmetric", "symmetric": "symmetric",
}  # fmt: skip


def convolve2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: ArrayLike = 0,
) -> Array:
    """The convolution of two matrices, with a choice of what lies outside of the first.

    `full[f] = sum_t in1[f - t] in2[t]`, of which `mode` keeps a part.

    Args:
      in1, in2: `[height, width]` each.
      mode: as in `convolve`.
      boundary: `"fill"` or `"pad"`: `fillvalue`; `"wrap"` or `"circular"`: periodic; `"symm"` or
        `"symmetric"`: mirrored about the outer edge.
      fillvalue: a number; it is differentiable. For integers its fraction is cut off.

    Returns:
      The part of `full`, of the common dtype.

    Raises:
      ValueError: as SciPy, also for bool; and for a complex `fillvalue` of real arrays, of which
        SciPy drops the imaginary part. TypeError: no array of numbers.

    >>> convolve2d(jnp.array([[1, 2], [3, 4]]), jnp.array([[1, 10]]), "same", "wrap")
    Array([[21, 12],
           [43, 34]], dtype=int32)
    """
    in1, in2 = _matrices(in1, in2)
    in1, in2, _ = larger_first(mode, in1, in2)
    return _bounded(in1, in2, kept(mode, in1.shape, in2.shape), boundary, fillvalue)


def correlate2d(
    in1: ArrayLike,
    in2: ArrayLike,
    mode: str = "full",
    boundary: str = "fill",
    fillvalue: ArrayLike = 0,
) -> Array:
    """The cross-correlation of two matrices, with a choice of what lies outside of the first.

    `full[f] = sum_t in1[f + t - (size2 - 1)] conj(in2[t])`. As in SciPy, `"same"` keeps the entries
    from `size2 // 2` on: for even sizes one further than `correlate`.

    Args:
      in1, in2, mode, boundary, fillvalue: as in `convolve2d`.

    Returns:
      The part of `full`, of the common dtype.

    Raises:
      ValueError, TypeError: as `convolve2d`.

    >>> correlate2d(jnp.array([[1, 2], [3, 4]]), jnp.array([[1, 10]]), "same")
    Array([[21,  2],
           [43,  4]], dtype=int32)
    """
    in1, in2 = _matrices(in1, in2)
    in1, in2, swapped = larger_first(mode, in1, in2)
    in2 = turned(in2, conjugate=True)
    parts = kept(mode, in1.shape, in2.shape)
    if mode == "same":
        parts = [Kept(n // 2, size) for n, size in zip(in2.shape, in1.shape, strict=True)]
    y = _bounded(in1, in2, parts, boundary, fillvalue)
    return turned(y) if swapped else y


# ---------------------------------------------------------------- the same, checked


def _matrices(in1: ArrayLike, in2: ArrayLike) -> tuple[Array, Array]:
    in1, in2 = operands(in1, in2)
    if in1.ndim != 2:
        raise checks.wrong("in1", "be a matrix, as `in2`", f"shape {in1.shape}")
    if in1.dtype == bool:
        raise checks.wrong("in1", "not be bool, nor `in2`", in1.dtype)
    return in1, in2


def _fill(value: ArrayLike, dtype) -> ArrayLike:
    if is_zero(value):
        return 0
    if isinstance(value, str):
        raise checks.wrong("fillvalue", "be one number", repr(value))
    made = array(value, name="fillvalue", booleans=True)
    if made.size != 1:
        raise checks.wrong("fillvalue", "be one number", f"shape {made.shape}")
    if is_complex(made) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise checks.wrong("fillvalue", f"be real for arrays of {dtype}", value)
    is_known = jnp.issubdtype(dtype, jnp.integer) and not isinstance(made, Tracer)
    if is_known and not is_within(made.item(), dtype):
        raise checks.wrong("fillvalue", f"be a number that {dtype} can hold", value)
    return made.reshape(()).astype(dtype)


def _bounded(
    in1: Array, in2: Array, parts: Sequence[Kept], boundary: object, fillvalue: ArrayLike
) -> Array:
    mode = BOUNDARIES[one_of("boundary", boundary, tuple(BOUNDARIES))]
    fill = _fill(fillvalue, in1.dtype)
    if 0 in (*in1.shape, *in2.shape):
        return jnp.zeros([max(length, 0) for _, length in parts], in1.dtype)
    y = cut(
        in1[..., None], in2[..., None, None], parts, padding_mode=mode,
        padding_value=fill if mode == "constant" else 0,
    )  # fmt: skip
    return y[..., 0]
