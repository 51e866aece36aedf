"""The mean of a window around every entry."""

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import checks
from jconv.ndimage.arguments import Axes, Modes, Output
from jconv.ndimage.passes import Run, operands, windows_along
from jconv.ndimage.sums import cast, outside, stored, unfiltered, working
from jconv.padding import padded
from jconv.pool import sum_pool


def uniform_filter(
    input: ArrayLike,
    size=3,
    output: Output = None,
    mode: Modes = "reflect",
    cval: ArrayLike = 0.0,
    origin=0,
    *,
    axes: Axes = None,
) -> Array:
    """The mean of a window around every entry.

    `y[i] = sum_t x[i + t - size // 2 - origin] / size`, one axis after the other.

    Args:
      size: a number, or one for each axis; its fraction is cut off, and 1 or less leaves an axis
        alone.
      others: as in `jconv.ndimage`.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    >>> uniform_filter(jnp.array([3.0, 0.0, 6.0]))
    Array([2., 3., 4.], dtype=float32)
    """
    x, dtype, cval = operands(input, output, cval)
    runs = windows_along(size, mode, origin, checks.distinct_axes("axes", axes, x.ndim))
    if not runs:
        return unfiltered(x, dtype)
    for run in runs:
        x = _mean(x, run, cval, stored(dtype))
    return cast(x, dtype)


def _mean(x: Array, run: Run, cval: ArrayLike, dtype) -> Array:
    kind = working(x, dtype, run.mode, cval)
    x = x.astype(kind)
    if x.size == 0:
        return cast(x, dtype)
    xp = padded(x[..., None], run.windows(x.shape), run.mode, outside(run.mode, cval, kind))
    window = [run.size if a == run.axis else 1 for a in range(x.ndim)]
    total = sum_pool(xp, window, stride=1)[..., 0]
    # Of integers, the quotient cut off toward zero.
    return cast(lax.div(total, jnp.full_like(total, run.size)), dtype)
