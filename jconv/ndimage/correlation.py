"""An array filtered by weights, all axes at once or one."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jconv import checks
from jconv.ndimage.arguments import (
    Axes,
    Output,
    constant,
    low_end,
    low_ends,
    one_axis,
    one_mode,
    padding_mode,
    result_dtype,
    unfit,
)
from jconv.ndimage.sums import along, summed
from jconv.operands import array


def correlate(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: str = "reflect",
    cval: ArrayLike = 0.0,
    origin=0,
    *,
    axes: Axes = None,
) -> Array:
    """The cross-correlation of an array with weights.

    `y[i] = sum_t x[i + t - size // 2 - origin] conj(weights[t])`.

    Args:
      weights: as many axes as `axes`, in the order in which `input` has them.
      others: as in `jconv.ndimage`; one `mode` for all axes.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    >>> correlate(jnp.array([1, 2, 5]), jnp.array([10, 1]))
    Array([11, 12, 25], dtype=int32)
    """
    return _whole(input, weights, output, mode, cval, origin, axes, flip=False)


def convolve(
    input: ArrayLike,
    weights: ArrayLike,
    output: Output = None,
    mode: str = "reflect",
    cval: ArrayLike = 0.0,
    origin=0,
    *,
    axes: Axes = None,
) -> Array:
    """The convolution of an array with weights.

    `y[i] = sum_t x[i - t + size // 2 + origin] weights[t]`.

    Args:
      weights, others: as in `correlate`.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    >>> convolve(jnp.array([1, 2, 5]), jnp.array([10, 1]))
    Array([21, 52, 55], dtype=int32)
    """
    return _whole(input, weights, output, mode, cval, origin, axes, flip=True)


def correlate1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: str = "reflect",
    cval: ArrayLike = 0.0,
    origin: int = 0,
) -> Array:
    """The cross-correlation of one axis with weights: `correlate` with `axes=axis`.

    Args:
      weights: `[size]`.
      axis: an int.
      others: as in `correlate`.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    >>> correlate1d(jnp.array([[1, 2, 5]]), jnp.array([10, 1]))
    Array([[11, 12, 25]], dtype=int32)
    """
    return _one(input, weights, axis, output, mode, cval, origin, flip=False)


def convolve1d(
    input: ArrayLike,
    weights: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: str = "reflect",
    cval: ArrayLike = 0.0,
    origin: int = 0,
) -> Array:
    """The convolution of one axis with weights: `convolve` with `axes=axis`.

    Args:
      weights, axis, others: as in `correlate1d`.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    >>> convolve1d(jnp.array([[1, 2, 5]]), jnp.array([10, 1]))
    Array([[21, 52, 55]], dtype=int32)
    """
    return _one(input, weights, axis, output, mode, cval, origin, flip=True)


def _whole(input, weights, output, mode, cval, origin, axes, flip: bool) -> Array:
    x, weights, dtype, cval = _operands(input, weights, output, cval, conjugate=not flip)
    taken = checks.distinct_axes("axes", axes, x.ndim)
    if weights.ndim != len(taken) or 0 in weights.shape:
        raise unfit(
            "weights", f"have {len(taken)} axes, one for each that is filtered, none empty",
            f"shape {weights.shape}",
        )  # fmt: skip
    kernel = jnp.expand_dims(weights, [a for a in range(x.ndim) if a not in taken])
    low = low_ends(origin, kernel.shape, taken, flip)
    return summed(x, kernel, low, one_mode(mode), cval, dtype, flip)


def _one(input, weights, axis, output, mode, cval, origin, flip: bool) -> Array:
    x, weights, dtype, cval = _operands(input, weights, output, cval, conjugate=not flip)
    if weights.ndim != 1 or not len(weights):
        raise unfit("weights", "be a vector of one or more", f"shape {weights.shape}")
    axis = one_axis(axis, x.ndim)
    low = low_end(origin, len(weights), flip)
    return along(x, weights, axis, padding_mode(mode), cval, dtype, low, flip)


def _operands(input, weights, output, cval, conjugate: bool):
    """Both arrays, the dtype of the result and the constant outside."""
    x = array(input, name="input", booleans=True)
    weights = array(weights, name="weights", booleans=True)
    complex_weights = jnp.iscomplexobj(weights)
    if complex_weights and not jnp.iscomplexobj(x) and jnp.iscomplexobj(cval):
        raise checks.wrong("cval", f"be real for an input of {x.dtype}", cval)
    dtype = result_dtype(output, x.dtype, jnp.iscomplexobj(x) or complex_weights)
    weights = jnp.conj(weights) if complex_weights and conjugate else weights
    return x, weights, dtype, constant(cval, x.dtype)
