"""The way back from max pooling: values put where they were found."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv import adjoint, checks, geometry
from jconv.geometry import Ints
from jconv.operands import array
from jconv.placement import placed


@placed("y")
def max_unpool(y: ArrayLike, indices: ArrayLike, size: Ints) -> Array:
    """Puts `y` back at `indices`, zeros elsewhere.

    `x[indices[o]] = y[o]`, per channel; where windows that overlap share an index, the last in
    row-major order stays. An index outside `size`, such as the -1 of a window without a winner, is
    left out. The gradient reads at the indices: `y_bar[o] = x_bar[indices[o]]` (torch's, also where
    an index is shared).

    Args:
      y: `[*batch, *out, channels]`.
      indices: int32 of the shape of `y`, row-major in `size`, as `max_pool` returns them.
      size: spatial size of the result, one int per spatial axis, or an int for all axes of `y` but
        the first and the last.

    Returns:
      `[*batch, *size, channels]`.

    Raises:
      ValueError: a wrong value, TypeError: a wrong type, before anything is computed.

    Source: Zeiler, Taylor, Fergus (2011), section 2.1.

    >>> max_unpool(jnp.array([[7], [8]]), jnp.array([[1], [2]]), (4,)).ravel()
    Array([0, 7, 8, 0], dtype=int32)
    """
    y, indices = array(y, name="y"), array(indices, name="indices")
    size = checks.window_taps("size", size, y.ndim)
    geometry.split_shape("y", y.shape, len(size))
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise checks.mistyped("indices", "be an array of integers", indices.dtype)
    if indices.shape != y.shape:
        raise checks.wrong("indices", f"have the shape {y.shape} of y", f"shape {indices.shape}")
    batch, channels = y.shape[: -len(size) - 1], y.shape[-1]
    flat = (math.prod(batch), math.prod(y.shape[len(batch) : -1]), channels)
    y, indices, positions = y.reshape(flat), indices.reshape(flat), math.prod(size)
    x = adjoint.linear(_put, _take, positions, y, indices)
    return x.reshape(*batch, *size, channels)


def _put(size: int, y: Array, indices: Array) -> Array:
    """`[batch, out, c]` to `[batch, size, c]`."""
    batch, _, channels = y.shape
    x = jnp.zeros((batch, size, channels), y.dtype)
    return x.at[_batch(batch), _at(indices, size), _channel(channels)].set(y, mode="drop")


def _take(size: int, x: Array, indices: Array) -> Array:
    """What stands at the indices, 0 where one is outside."""
    batch, _, channels = x.shape
    # Called eagerly, a rule may be handed a cotangent of NumPy's.
    entries = jnp.asarray(x).at[_batch(batch), _at(indices, size), _channel(channels)]
    return entries.get(mode="fill", fill_value=0)


def _at(indices: Array, size: int) -> Array:
    """The indices, `size` in place of those outside: whatever integers they are, it must fit."""
    if indices.dtype.itemsize < 4:
        indices = indices.astype(jnp.int32)
    return jnp.where((indices >= 0) & (indices < size), indices, size).astype(jnp.int32)


def _batch(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int32)[:, None, None]


def _channel(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int32)[None, None, :]
