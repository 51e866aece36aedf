"""Differences of neighbours: the Laplacian, Sobel's and Prewitt's filters."""

from collections.abc import Sequence

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv import checks
from jconv.ndimage.arguments import Axes, Modes, Output, each, one_axis, padding_mode
from jconv.ndimage.passes import Pass, operands, passed, total


def laplace(
    input: ArrayLike,
    output: Output = None,
    mode: Modes = "reflect",
    cval: ArrayLike = 0.0,
    *,
    axes: Axes = None,
) -> Array:
    """The Laplacian by second differences.

    `y[i] = sum_a x[i - e_a] - 2 x[i] + x[i + e_a]` over the axes, `e_a` a step along axis `a`.

    Args:
      all: as in `jconv.ndimage`.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    >>> laplace([1, 2, 5])
    Array([ 1,  2, -3], dtype=int32)
    """
    x, dtype, cval = operands(input, output, cval)
    taken = checks.distinct_axes("axes", axes, x.ndim)
    modes = each("mode", mode, len(taken))
    weights = np.array([1, -2, 1])
    terms = [[Pass(a, weights, padding_mode(m))] for a, m in zip(taken, modes, strict=True)]
    return total(x, terms, cval, dtype)


def sobel(
    input: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: Modes = "reflect",
    cval: ArrayLike = 0.0,
) -> Array:
    """Differences along an axis, smoothed along the others.

    `correlate1d` by `[-1, 0, 1]` along `axis` and by `[1, 2, 1]` along every other.

    Args:
      axis: an int.
      others: as in `jconv.ndimage`; a `mode` for each axis of `input`, if several.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    Source: Duda and Hart (1973), after Sobel and Feldman.

    >>> sobel([[1, 2, 5], [1, 2, 5]])
    Array([[ 4, 16, 12],
           [ 4, 16, 12]], dtype=int32)
    """
    return _difference(input, axis, output, mode, cval, [1, 2, 1])


def prewitt(
    input: ArrayLike,
    axis: int = -1,
    output: Output = None,
    mode: Modes = "reflect",
    cval: ArrayLike = 0.0,
) -> Array:
    """Differences along an axis, added up along the others.

    `correlate1d` by `[-1, 0, 1]` along `axis` and by `[1, 1, 1]` along every other.

    Args:
      all: as in `sobel`.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    Source: Prewitt (1970).

    >>> prewitt([[1, 2, 5], [1, 2, 5]])
    Array([[ 3, 12,  9],
           [ 3, 12,  9]], dtype=int32)
    """
    return _difference(input, axis, output, mode, cval, [1, 1, 1])


def _difference(input, axis, output, mode, cval, smoothing: Sequence[int]) -> Array:
    x, dtype, cval = operands(input, output, cval)
    axis = one_axis(axis, x.ndim)
    modes = [padding_mode(m) for m in each("mode", mode, x.ndim)]
    others = [a for a in range(x.ndim) if a != axis]
    passes = [
        Pass(axis, np.array([-1, 0, 1]), modes[axis]),
        *(Pass(a, np.array(smoothing), modes[a]) for a in others),
    ]
    return passed(x, passes, cval, dtype)
