"""Classical filters as arrays of taps, one axis per spatial axis, and how to apply them.

They are written as `conv` reads them, unflipped: the first tap weighs the neighbour before. Most
are products of one vector an axis, or sums of such products. Where neither an argument's length nor
`n` tells the number of axes, it is two: images.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv import checks, geometry
from jconv.filtering import filtered
from jconv.geometry import Ints
from jconv.operands import array, inexact, positive

__all__ = [
    "apply",
    "box",
    "channel_mean",
    "gaussian",
    "identity",
    "laplace",
    "laplace_of_gaussian",
    "sobel",
]

_IMAGE_AXES = 2
_REACH = 4  # standard deviations that a Gaussian's taps cover
_MOST_AXES = 16
_MOST_TAPS = 2**24  # more is a slip of the pen, and would fill the memory

_KEEP, _SMOOTH = (0, 1, 0), (1, 2, 1)
_FIRST, _SECOND = (-1, 0, 1), (1, -2, 1)  # central differences


def identity(n: int) -> Array:
    """The filter that changes nothing: 1 in the middle of `3^n` taps, else 0.

    Args:
      n: the number of spatial axes.

    Returns:
      `[3, ..., 3]`, of the default float dtype, as all filters here.

    Raises:
      ValueError: `n` is not 1 to 16, TypeError: it is no int.

    >>> identity(1)
    Array([0., 1., 0.], dtype=float32)
    """
    return _taps(_product({}, _rank(n)))


def box(taps: Ints) -> Array:
    """The mean of a window: `1 / taps` everywhere.

    Args:
      taps: one int per spatial axis, or an int for both axes of images.

    Returns:
      `[*taps]`; sums to 1.

    Raises:
      ValueError, TypeError: `taps` are not positive ints.

    >>> box((4,))
    Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    size = _sizes(taps)
    return _taps(np.full(size, 1 / math.prod(size)))


def gaussian(sigma: float | Sequence[float], taps: Ints | None = None) -> Array:
    """A blur: `g[t] ~ exp(-sum_i t_i^2 / (2 sigma_i^2))`, `t` from the centre, scaled to sum 1.

    Args:
      sigma: standard deviation in pixels, one number, or one per spatial axis.
      taps: an int, or one per spatial axis; default, as SciPy, `2 round(4 sigma) + 1`: all that
        lies within four standard deviations.

    Returns:
      `[*taps]`, with as many axes as `sigma` or `taps` has entries; two where both are numbers.

    Raises:
      ValueError: `sigma` is not positive, or not of the length of `taps`; TypeError: no number.

    >>> (1000 * gaussian((1.0,), taps=3)).round()
    Array([274., 452., 274.], dtype=float32)
    """
    sigmas, sizes = _gaussian_axes(sigma, taps)
    return _taps(_outer(map(_bell, sigmas, sizes)))


def sobel(axis: int, n: int = 2) -> Array:
    """The slope along one axis, smoothed along the others: a detector of edges across `axis`.

    `(-1, 0, 1)` along `axis`, times `(1, 2, 1)` along each other axis: positive where the image
    rises, and `2 * 4^(n - 1)` on a ramp of slope 1.

    Args:
      axis: the spatial axis along which the derivative is taken; from the last if negative.
      n: the number of spatial axes.

    Returns:
      `[3, ..., 3]`; sums to 0.

    Raises:
      ValueError: there is no such axis, TypeError: `axis` or `n` is no int.

    Source: Sobel and Feldman (1968), as in Duda and Hart (1973).

    >>> sobel(1)
    Array([[-1.,  0.,  1.],
           [-2.,  0.,  2.],
           [-1.,  0.,  1.]], dtype=float32)
    """
    n, axis = _rank(n), checks.whole("axis", axis)
    if not -n <= axis < n:
        raise checks.wrong("axis", f"be one of the {n} spatial axes", axis)
    return _taps(_product({axis % n: _FIRST}, n, others=_SMOOTH))


def laplace(n: int = 2, weights: str = "isotropic") -> Array:
    """The sum of the second derivatives: how far the surroundings exceed the middle.

    With `d_i` the second difference `(1, -2, 1)` along axis `i`, `"axis"` is `sum_i d_i`, and
    `"isotropic"` is `6 sum_i d_i + sum_(i<j) d_i d_j`: six times the Laplacian, whose error,
    `1/2 (Laplacian)^2` in leading order, is the same in every direction.

    Args:
      n: the number of spatial axes.
      weights: `"isotropic"` (in two dimensions the centre is -20, and in three -24), or `"axis"`
        (`-2n`).

    Returns:
      `[3, ..., 3]`; sums to 0.

    Raises:
      ValueError, TypeError: `n` is not 1 to 16, or `weights` not one of the two.

    Source: Collatz (1960), two dimensions; Kumar (2004), three.

    >>> laplace()
    Array([[  1.,   4.,   1.],
           [  4., -20.,   4.],
           [  1.,   4.,   1.]], dtype=float32)
    """
    n = _rank(n)
    checks.choice("weights", weights, ("isotropic", "axis"))
    along = sum(_product({i: _SECOND}, n) for i in range(n))
    if weights == "axis":
        return _taps(along)
    across = (_product({i: _SECOND, j: _SECOND}, n) for i, j in combinations(range(n), 2))
    return _taps(6 * along + sum(across))


def laplace_of_gaussian(sigma: float | Sequence[float]) -> Array:
    """The Laplacian of a blurred image in one filter: edges of the size of `sigma` and above.

    `l[t] = sum_i (t_i^2 - m_i) / sigma_i^4 g[t]`, where `g` is `gaussian(sigma)` and `m_i` its
    variance along axis `i`. That is `sigma_i^2` but for the sampling, so that the sum is 0.

    Args:
      sigma: as in `gaussian`.

    Returns:
      `[*taps]`, of the shape of `gaussian(sigma)`; sums to 0.

    Raises:
      ValueError, TypeError: as `gaussian`.

    Source: Marr and Hildreth (1980).

    >>> (1000 * laplace_of_gaussian((0.5,))).round()
    Array([   16.,  1337., -2706.,  1337.,    16.], dtype=float32)
    """
    sigmas, sizes = _gaussian_axes(sigma, None)
    bells = [_bell(s, size) for s, size in zip(sigmas, sizes, strict=True)]
    curved = [_curvature(s, bell) for s, bell in zip(sigmas, bells, strict=True)]
    return _taps(
        sum(_outer([*bells[:i], curve, *bells[i + 1 :]]) for i, curve in enumerate(curved))
    )


def channel_mean(channels: int, n: int = 2) -> Array:
    """Colour to grey: the kernel whose one output channel is the mean of the input channels.

    It mixes channels, which `apply` never does, so it is a kernel of `conv`.

    Args:
      channels: how many the input has.
      n: the number of spatial axes.

    Returns:
      `[1, ..., 1, channels, 1]`; every entry is `1 / channels`.

    Raises:
      ValueError: `channels` is less than 1, or `n` is not 1 to 16; TypeError: one is no int.

    >>> from jconv import conv
    >>> conv(jnp.array([[[3.0, 6.0, 9.0]]]), channel_mean(3))
    Array([[[6.]]], dtype=float32)
    """
    channels = checks.whole("channels", channels, least=1)
    return _taps(np.full((*[1] * _rank(n), channels, 1), 1 / channels))


def apply(image: ArrayLike, taps: ArrayLike, *, mode: str = "reflect") -> Array:
    """Every channel filtered by the same taps; the size is kept.

    `y[o, c] = sum_t image[o + t - (taps - 1) // 2, c] taps[t]`. Of more than 240 taps `conv` is
    faster on a CPU, where it transforms, and one NaN spreads.

    Args:
      image: `[*batch, *size, channels]`.
      taps: `[*taps]`; it has one axis per spatial axis of `image`.
      mode: what lies outside the image, as in `pad`.

    Returns:
      The shape and dtype of `image`; integers become the default float.

    Raises:
      ValueError, TypeError: `image` has too few axes or an empty one, `taps` has none or an empty
        one, or either is no array of numbers; `taps` are complex; `mode` is unknown.

    >>> apply(jnp.array([[1], [2], [6]]), sobel(0, 1), mode="edge").ravel()
    Array([1., 5., 4.], dtype=float32)
    """
    image = inexact(array(image, name="image"))
    taps = array(taps, real=True, name="taps").astype(image.dtype)
    if not taps.size or not taps.ndim:
        raise checks.wrong("taps", "have one or more axes, none empty", f"shape {taps.shape}")
    size, channels = geometry.split_shape("image", image.shape, taps.ndim)
    if not math.prod(size) * channels:
        raise checks.wrong("image", "have no empty spatial or channel axis", f"shape {image.shape}")
    kernel = jnp.broadcast_to(taps[..., None, None], (*taps.shape, 1, channels))
    mode = geometry.padding_mode(mode, "mode")
    return filtered(image, kernel, padding="same", padding_mode=mode, groups=channels)


# ---------------------------------------------------------------- products of one vector an axis


def _taps(values: np.ndarray | int) -> Array:
    return jnp.asarray(values, jnp.result_type(float))


def _outer(vectors) -> np.ndarray:
    return functools.reduce(np.multiply.outer, vectors)


def _product(
    special: Mapping[int, Sequence[int]], n: int, others: Sequence[int] = _KEEP
) -> np.ndarray:
    """The vectors of some axes, and `others` along the rest."""
    return _outer(np.array(special.get(axis, others), float) for axis in range(n))


def _bell(sigma: float, size: int) -> np.ndarray:
    squares = _centred(size) ** 2
    with np.errstate(over="ignore"):  # the far tail of a narrow one is 0
        values = np.exp((squares.min() - squares) / sigma / sigma / 2)
    return values / values.sum()


def _curvature(sigma: float, bell: np.ndarray) -> np.ndarray:
    """The second derivative of a Gaussian; sums to 0."""
    squares = _centred(len(bell)) ** 2
    curved = (squares - squares @ bell) * bell
    return curved / sigma**4 if curved.any() else curved


def _centred(size: int) -> np.ndarray:
    return np.arange(size) - (size - 1) / 2


# ---------------------------------------------------------------- arguments


def _rank(n: int) -> int:
    n = checks.whole("n", n, least=1)
    if n > _MOST_AXES:
        raise checks.wrong("n", f"be at most {_MOST_AXES}", n)
    return n


def _sizes(taps: Ints, rank: int = _IMAGE_AXES) -> tuple[int, ...]:
    """One size per axis; a number stands for `rank` axes."""
    entries = checks.entries_of(taps)
    if entries is not None and not entries:
        raise checks.wrong("taps", "hold one int for each of one or more spatial axes", taps)
    sizes = checks.per_axis("taps", taps, rank if entries is None else len(entries), least=1)
    if math.prod(sizes) > _MOST_TAPS:
        raise checks.wrong("taps", f"be {_MOST_TAPS} or fewer in all", taps)
    return sizes


def _gaussian_axes(
    sigma: float | Sequence[float], taps: Ints | None
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The standard deviation and the size of every axis."""
    entries = checks.entries_of(sigma)
    if entries is not None and not entries:
        raise checks.wrong("sigma", "hold one number for each spatial axis", sigma)
    must = "be a number, or one per spatial axis"
    each = (sigma,) if entries is None else entries
    sigmas = tuple(positive("sigma", s, must) for s in each)
    if entries is None:
        rank = _IMAGE_AXES if taps is None else len(_sizes(taps))
        sigmas *= rank
    if taps is None:
        sizes = tuple(2 * int(_REACH * s + 0.5) + 1 for s in sigmas)
    else:
        sizes = _sizes(taps, len(sigmas))
    if len(sizes) != len(sigmas):
        raise checks.wrong("taps", f"hold one int for each of {len(sigmas)} axes", taps)
    if math.prod(sizes) > _MOST_TAPS:
        raise checks.wrong("sigma", f"be small enough for {_MOST_TAPS} taps in all", sigma)
    return sigmas, sizes
