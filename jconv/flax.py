"""The poolings of `flax.nnx`, by name, signature and result, each computed by `jconv`'s own.

They need no flax. What differs: the derivative is the hand-derived rule, so there is no `jax.jvp`;
the dtype of floats is kept; a window that counts nothing has the average 0, not NaN; and one that
is larger than the padded input is a ValueError, not an empty result. (`flax.linen` has the same
functions, but for `min_pool`.)
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax import Array
from jax.typing import ArrayLike

from jconv import checks, geometry, pool
from jconv.operands import array
from jconv.pool_options import resolved

__all__ = ["avg_pool", "max_pool", "min_pool"]

Padding = str | Sequence[tuple[int, int]]


def max_pool(
    inputs: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Array:
    """`flax.nnx.max_pool`: the greatest entry of every window.

    `y[o] = max_t inputs[strides*o + t - low]`; ties, NaN and padding as in `jconv.max_pool`.

    Args:
      inputs: `[*batch, *size, channels]`; no, one or many batch axes.
      window_shape: one int per spatial axis.
      strides: one int per spatial axis; default all ones.
      padding: `"VALID"`, `"SAME"`, or one `(low, high)` pair per spatial axis.

    Returns:
      `[*batch, *out, channels]`.

    Raises:
      ValueError, TypeError: as `jconv.max_pool`.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.array([[1], [3], [3], [2]]), (2,)).ravel()
    Array([3, 3, 3], dtype=int32)
    """
    return _pooled(pool.max_pool, inputs, window_shape, strides, padding)


def min_pool(
    inputs: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Array:
    """`flax.nnx.min_pool`: the least entry of every window.

    `y[o] = min_t inputs[strides*o + t - low]`; all else as in `max_pool`.

    >>> import jax.numpy as jnp
    >>> min_pool(jnp.array([[1], [3], [3], [2]]), (2,), (2,)).ravel()
    Array([1, 2], dtype=int32)
    """
    return _pooled(pool.min_pool, inputs, window_shape, strides, padding)


def avg_pool(
    inputs: ArrayLike,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> Array:
    """`flax.nnx.avg_pool`: the mean of every window.

    `y[o] = sum_t inputs[strides*o + t - low] / count[o]`, where `count[o]` is the size of the
    window, or, without `count_include_pad`, how much of it is no padding. Integers give the default
    float dtype.

    Args:
      inputs, window_shape, strides, padding: as in `max_pool`.
      count_include_pad: whether padding counts.

    Returns, Raises: as `max_pool`.

    >>> import jax.numpy as jnp
    >>> avg_pool(jnp.array([[1.0], [3.0], [3.0], [2.0]]), (2,)).ravel()
    Array([2. , 3. , 2.5], dtype=float32)
    """
    options = {"count_include_pad": count_include_pad}
    return _pooled(pool.avg_pool, inputs, window_shape, strides, padding, **options)


def _pooled(
    pooling: Callable, x: ArrayLike, window_shape: Any, strides: Any, padding: Any, **options: Any
) -> Array:
    for name, value in (("window_shape", window_shape), ("strides", strides)):
        if checks.entries_of(value) is None and not (name == "strides" and value is None):
            raise checks.mistyped(name, "hold one int per spatial axis", value)
    x = array(x, name="inputs", real=pooling is not pool.avg_pool)
    taps = checks.window_taps("window_shape", window_shape, x.ndim)
    size, _ = geometry.split_shape("inputs", x.shape, len(taps))
    stride = 1 if strides is None else checks.per_axis("strides", strides, len(taps), least=1)
    resolved("inputs", size, taps, stride=stride, padding=padding, dilation=1, ceil_mode=False)
    return pooling(x, taps, stride=stride, padding=padding, **options)
