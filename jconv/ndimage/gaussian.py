"""The Gaussian and its derivatives, as separable filters."""

from collections.abc import Sequence

import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv import checks
from jconv.ndimage.arguments import Axes, Modes, Output, each, padding_mode, real, spread_over
from jconv.ndimage.passes import Pass, operands, passed, total

NEGLIGIBLE = 1e-15  # a sigma up to this leaves its axis alone


def gaussian_filter(
    input: ArrayLike,
    sigma,
    order=0,
    output: Output = None,
    mode: Modes = "reflect",
    cval: ArrayLike = 0.0,
    truncate: float = 4.0,
    *,
    radius=None,
    axes: Axes = None,
) -> Array:
    """The convolution with a Gaussian, or with a derivative of it.

    `y[i] = sum_t x[i - t] g(t)` for `-radius <= t <= radius`, one axis after the other, where `g`
    is the derivative of order `order` of `exp(-t^2 / (2 sigma^2))`, over the sum of that
    exponential.

    Args:
      sigma: a number, or one for each axis; 1e-15 or less leaves an axis alone.
      order: an int of at least 0, or one for each axis.
      truncate: how many `sigma` the radius is, rounded.
      radius: an int of at least 0, or one for each axis; in place of `truncate`.
      others: as in `jconv.ndimage`.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    Source: Lindeberg (1990), for the sampled Gaussian.

    >>> gaussian_filter([0, 0, 1000, 0, 0], 1.0, radius=1)
    Array([  0, 274, 451, 274,   0], dtype=int32)
    """
    x, dtype, cval = operands(input, output, cval)
    taken = checks.distinct_axes("axes", axes, x.ndim)
    return passed(x, _gaussians(sigma, order, mode, truncate, radius, taken), cval, dtype)


def gaussian_laplace(
    input: ArrayLike,
    sigma,
    output: Output = None,
    mode: Modes = "reflect",
    cval: ArrayLike = 0.0,
    *,
    axes: Axes = None,
    truncate: float = 4.0,
    radius=None,
) -> Array:
    """The Laplacian of Gaussian: second derivatives of `gaussian_filter`, added over the axes.

    `y = sum_a gaussian_filter(x, sigma, order=2 on axis a and 0 on the others)`.

    Args:
      mode: one for the term of each axis, if several.
      sigma, truncate, radius: as in `gaussian_filter`.
      others: as in `jconv.ndimage`.

    Returns:
      The shape of `input`.

    Raises:
      RuntimeError, ValueError, TypeError: as `jconv.ndimage` says.

    Source: Marr and Hildreth (1980).

    >>> gaussian_laplace([0, 0, 1000, 0, 0], 1.0, radius=1)
    Array([   0,    0, -451,    0,    0], dtype=int32)
    """
    x, dtype, cval = operands(input, output, cval)
    taken = checks.distinct_axes("axes", axes, x.ndim)
    sigmas = spread_over("sigma", sigma, taken, x.ndim)
    terms = [
        _gaussians(
            sigmas, [2 if a == b else 0 for b in range(x.ndim)], m, truncate, radius, range(x.ndim)
        )
        for a, m in zip(taken, each("mode", mode, len(taken)), strict=True)
    ]
    return total(x, terms, cval, dtype)


# ---------------------------------------------------------------- its passes and weights


def _gaussians(sigma, order, mode, truncate, radius, axes: Sequence[int]) -> list[Pass]:
    """The passes of a Gaussian over `axes`."""
    count = len(axes)
    sigmas = [real("sigma", s) for s in each("sigma", sigma, count)]
    orders, modes = each("order", order, count), each("mode", mode, count)
    radii = each("radius", radius, count)
    return [
        Pass(a, gaussian_weights(s, o, _radius(s, truncate, r)), padding_mode(m))
        for a, s, o, m, r in zip(axes, sigmas, orders, modes, radii, strict=True)
        if s > NEGLIGIBLE
    ]


def _radius(sigma: float, truncate: object, radius: object) -> int:
    if radius is None:
        return _at_least_0("truncate", int(real("truncate", truncate) * sigma + 0.5))
    try:
        return _at_least_0("radius", checks.whole("radius", radius))
    except TypeError as error:  # SciPy's type of error
        raise ValueError(str(error)) from None


def _at_least_0(name: str, radius: int) -> int:
    if radius < 0:
        raise checks.wrong(name, "give a radius of at least 0", radius)
    return radius


def gaussian_weights(sigma: float, order: object, radius: int) -> np.ndarray:
    """What to correlate with, so as to convolve with a Gaussian's derivative.

    `d^n/dt^n exp(-t^2 / (2 sigma^2)) = (-1 / sigma)^n He_n(t / sigma) exp(-t^2 / (2 sigma^2))`,
    with `He_n` the Hermite polynomial, even or odd as `n` is: turned round, the sign is gone.
    """
    degree = checks.whole("order", order, least=0)
    t = np.arange(-radius, radius + 1) / sigma
    bell = np.exp(-0.5 * t**2)
    hermite = np.polynomial.hermite_e.hermeval(t, [0.0] * degree + [1.0])
    return hermite / sigma**degree * bell / bell.sum()
