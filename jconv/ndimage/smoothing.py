"""Filters that go axis by axis: means, Gaussians, and differences."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import geometry
from jconv.geometry import Window
from jconv.ndimage.arguments import (
    Axes,
    Output,
    constant,
    each,
    low_end,
    one_axis,
    padding_mode,
    real,
    result_dtype,
    some_axes,
)
from jconv.ndimage.correlation import along, outside
from jconv.ndimage.sums import cast, is_whole, stored, working
from jconv.operands import array
from jconv.padding import padded
from jconv.pool import sum_pool

Modes = str | Sequence[str]
NEGLIGIBLE = 1e-15  # a sigma up to this leaves its axis alone


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
    x, dtype, cval = _operands(input, output, cval)
    for run in windows_along(size, mode, origin, some_axes(axes, x.ndim)):
        x = _mean(x, run, cval, stored(dtype))
    return cast(x, dtype)


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

    `y[i] = sum_t x[i - t] g(t)` for `-radius <= t <= radius`, one axis after the other, where `g` is
    the derivative of order `order` of `exp(-t^2 / (2 sigma^2))`, over the sum of that exponential.

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

    >>> gaussian_filter(jnp.array([0, 0, 1000, 0, 0]), 1.0, radius=1)
    Array([  0, 274, 451, 274,   0], dtype=int32)
    """
    x, dtype, cval = _operands(input, output, cval)
    taken = some_axes(axes, x.ndim)
    return _passed(x, _gaussians(sigma, order, mode, truncate, radius, taken), cval, dtype)


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

    >>> gaussian_laplace(jnp.array([0, 0, 1000, 0, 0]), 1.0, radius=1)
    Array([   0,    0, -451,    0,    0], dtype=int32)
    """
    x, dtype, cval = _operands(input, output, cval)
    taken = some_axes(axes, x.ndim)
    sigmas: list = [0] * x.ndim
    for a, s in zip(taken, each("sigma", sigma, len(taken)), strict=True):
        sigmas[a] = s
    terms = [
        _gaussians(
            sigmas, [2 if a == b else 0 for b in range(x.ndim)], m, truncate, radius, range(x.ndim)
        )
        for a, m in zip(taken, each("mode", mode, len(taken)), strict=True)
    ]
    return _total(x, terms, cval, dtype)


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

    >>> laplace(jnp.array([1, 2, 5]))
    Array([ 1,  2, -3], dtype=int32)
    """
    x, dtype, cval = _operands(input, output, cval)
    taken = some_axes(axes, x.ndim)
    modes = each("mode", mode, len(taken))
    weights = np.array([1, -2, 1])
    terms = [[Pass(a, weights, padding_mode(m))] for a, m in zip(taken, modes, strict=True)]
    return _total(x, terms, cval, dtype)


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

    >>> sobel(jnp.array([[1, 2, 5], [1, 2, 5]]))
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

    >>> prewitt(jnp.array([[1, 2, 5], [1, 2, 5]]))
    Array([[ 3, 12,  9],
           [ 3, 12,  9]], dtype=int32)
    """
    return _difference(input, axis, output, mode, cval, [1, 1, 1])


# ---------------------------------------------------------------- passes


class Pass(NamedTuple):
    """One axis summed under weights."""

    axis: int
    weights: np.ndarray
    mode: str


class Run(NamedTuple):
    """A window of `size` along one axis, `low` of it below its position."""

    axis: int
    size: int
    low: int
    mode: str

    def windows(self, shape: Sequence[int]) -> tuple[Window, ...]:
        """The window of every axis of an array, for `padded`."""
        alone = [Window(n, 1) for n in shape]
        n, high = shape[self.axis], self.size - 1 - self.low
        alone[self.axis] = Window(n, self.size, low=self.low, high=high)
        return tuple(alone)


def windows_along(size, mode, origin, axes: Sequence[int]) -> list[Run]:
    """The windows of a filter that goes axis by axis; a size of 1 or less leaves an axis alone."""
    given = zip(
        axes, each("size", size, len(axes)), each("origin", origin, len(axes)),
        each("mode", mode, len(axes)), strict=True,
    )  # fmt: skip
    sizes = [(a, int(real("size", s)), real("size", s) > 1, o, m) for a, s, o, m in given]
    return [Run(a, s, low_end(o, s), padding_mode(m)) for a, s, wide, o, m in sizes if wide]


def _operands(input, output, cval):
    x = array(input, name="input", booleans=True)
    return x, result_dtype(output, x.dtype, jnp.iscomplexobj(x)), constant(cval, x.dtype)


def _passed(x: Array, passes: Sequence[Pass], cval: ArrayLike, dtype) -> Array:
    """One pass after the other; the result of each has the dtype of the last."""
    for p in passes:
        x = along(x, p.weights, p.axis, p.mode, cval, stored(dtype))
    return cast(x, dtype)


def _total(x: Array, terms: Sequence[Sequence[Pass]], cval: ArrayLike, dtype) -> Array:
    """The sum of several filters; the input itself if there are none."""
    if not terms:
        return cast(x, dtype)
    total, *rest = (_passed(x, passes, cval, dtype) for passes in terms)
    for term in rest:
        total = total + term
    return total


def _mean(x: Array, run: Run, cval: ArrayLike, dtype) -> Array:
    kind = working(x, dtype, is_whole(*([cval] if run.mode == "constant" else [])))
    x = x.astype(kind)
    if x.size == 0:
        return cast(x, dtype)
    xp = padded(x[..., None], run.windows(x.shape), run.mode, outside(run.mode, cval, kind))
    window = [run.size if a == run.axis else 1 for a in range(x.ndim)]
    total = sum_pool(xp, window, stride=1)[..., 0]
    size = jnp.asarray(run.size, kind)
    is_int = jnp.issubdtype(kind, jnp.integer)
    return cast(lax.div(total, jnp.broadcast_to(size, total.shape)) if is_int else total / size, dtype)


def _difference(input, axis, output, mode, cval, smoothing: Sequence[int]) -> Array:
    x, dtype, cval = _operands(input, output, cval)
    axis = one_axis(axis, x.ndim)
    modes = [padding_mode(m) for m in each("mode", mode, x.ndim)]
    others = [a for a in range(x.ndim) if a != axis]
    passes = [
        Pass(axis, np.array([-1, 0, 1]), modes[axis]),
        *(Pass(a, np.array(smoothing), modes[a]) for a in others),
    ]
    return _passed(x, passes, cval, dtype)


# ---------------------------------------------------------------- the Gaussian


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
        return _at_least_0("radius", geometry.whole("radius", radius))
    except TypeError as error:  # SciPy's type of error
        raise ValueError(str(error)) from None


def _at_least_0(name: str, radius: int) -> int:
    if radius < 0:
        raise geometry.wrong(name, "give a radius of at least 0", radius)
    return radius


def gaussian_weights(sigma: float, order: object, radius: int) -> np.ndarray:
    """What to correlate with, so as to convolve with a Gaussian's derivative.

    `d^n/dt^n exp(-t^2 / (2 sigma^2)) = (-1 / sigma)^n He_n(t / sigma) exp(-t^2 / (2 sigma^2))`, with
    `He_n` the Hermite polynomial, even or odd as `n` is: turned round, the sign is gone.
    """
    degree = geometry.whole("order", order, least=0)
    t = np.arange(-radius, radius + 1) / sigma
    bell = np.exp(-0.5 * t**2)
    hermite = np.polynomial.hermite_e.hermeval(t, [0.0] * degree + [1.0])
    return hermite / sigma**degree * bell / bell.sum()
