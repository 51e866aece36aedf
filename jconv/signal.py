"""SciPy's convolutions of two whole arrays, `scipy.signal`, with hand-derived rules.

    full[f] = sum_t in1[f - t] in2[t]

`mode` keeps a part of each axis: `"full"` all of it, `"same"` the middle, as long as `in1`, and
`"valid"` what reads no padding. Names, order of arguments, results and the types of errors are
SciPy's; dtypes are what JAX promotes them to. Everything is `conv` of one channel, so gradients to
both arrays are its other two faces.
"""

import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import geometry
from jconv.operands import array, inexact
from jconv.padding import crop
from jconv.single import filtered

__all__ = ["convolve", "convolve2d", "correlate", "correlate2d", "fftconvolve", "oaconvolve"]

MODES = ("full", "same", "valid")
METHODS = {"auto": "auto", "direct": "direct", "fft": "fourier"}
BOUNDARIES = {
    "fill": "constant", "pad": "constant", "wrap": "wrap", "circular": "wrap",
    "symm": "symmetric", "symmetric": "symmetric",
}  # fmt: skip


def convolve(in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto") -> Array:
    """The convolution of two arrays of one rank, any rank.

    `full[f] = sum_t in1[f - t] in2[t]`, of which `mode` keeps a part.

    Args:
      in1, in2: `[*size]` each, as many axes. Integers are summed exactly, wrapping around; for bool
        the sum is "or".
      mode: `"full"` keeps all `size1 + size2 - 1` entries of an axis, `"same"` the `size1` entries
        from `(size2 - 1) // 2` on, `"valid"` those that read no padding; then one array must be at
        least as large as the other on every axis.
      method: `"direct"`, `"fft"`, or `"auto"` for jconv's choice. Integers and bool, which a
        transform would round, are summed directly whatever it is.

    Returns:
      The part of `full`, of the common dtype.

    Raises:
      ValueError: as SciPy, and for an array without entries. TypeError: no array of numbers.

    >>> convolve(jnp.array([1, 2, 3]), jnp.array([0, 1, 5]), "same")
    Array([ 1,  7, 13], dtype=int32)
    """
    return _convolve(*_operands(in1, in2), mode, method)


def correlate(in1: ArrayLike, in2: ArrayLike, mode: str = "full", method: str = "auto") -> Array:
    """The cross-correlation of two arrays of one rank, any rank.

    `full[f] = sum_t in1[f + t - (size2 - 1)] conj(in2[t])`: `convolve` by `in2` reversed and
    conjugated.

    Args:
      in1, in2, mode, method: as in `convolve`.

    Returns:
      The part of `full`, of the common dtype.

    Raises:
      ValueError, TypeError: as `convolve`.

    >>> correlate(jnp.array([1, 2, 3]), jnp.array([0, 1, 5]), "same")
    Array([11, 17,  3], dtype=int32)
    """
    in1, in2 = _operands(in1, in2)
    return _convolve(in1, _reversed(in2, conjugate=True), mode, method)


def fftconvolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None
) -> Array:
    """The convolution of two arrays along some axes, by the Fourier transform.

    `full[f, b] = sum_t in1[f - t, b] in2[t, b]` with `f` and `t` over `axes`, and `b` over the
    others, on which the arrays broadcast.

    Args:
      in1, in2: `[*size]` each, as many axes. Integers and bool become the default float dtype.
      mode: as in `convolve`; `"same"` keeps the middle of the other axes too.
      axes: an int, or ints; None for all.

    Returns:
      The part of `full`; `[0]` if `in1` or `in2` has no entries.

    Raises:
      ValueError: as SciPy. TypeError: no array of numbers.

    Source: Stockham (1966).

    >>> fftconvolve(jnp.ones((2, 3)), jnp.ones((1, 2)), "valid", axes=1).shape
    (2, 2)
    """
    return _along(*_operands(in1, in2), mode, axes, "fourier")


def oaconvolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None
) -> Array:
    """The convolution of two arrays along some axes, where one may be much the longer.

    `fftconvolve`, by whichever method jconv picks: SciPy's overlap-add is one way to be fast for
    unequal lengths, and says nothing of the result.

    Args:
      in1, in2, mode, axes: as in `fftconvolve`.

    Returns:
      As `fftconvolve`.

    Raises:
      ValueError, TypeError: as `fftconvolve`.

    >>> oaconvolve(jnp.arange(5.0), jnp.array([1.0, -1.0]))
    Array([ 0.,  1.,  1.,  1.,  1., -4.], dtype=float32)
    """
    return _along(*_operands(in1, in2), mode, axes, "auto")


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
    in1, in2, _ = _larger_first(mode, in1, in2)
    return _bounded(in1, in2, _kept(mode, in1.shape, in2.shape), boundary, fillvalue)


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
    in1, in2, swapped = _larger_first(mode, in1, in2)
    in2 = _reversed(in2, conjugate=True)
    kept = _kept(mode, in1.shape, in2.shape)
    if mode == "same":
        kept = [Kept(n // 2, length) for n, (_, length) in zip(in2.shape, kept, strict=True)]
    y = _bounded(in1, in2, kept, boundary, fillvalue)
    return _reversed(y) if swapped else y


# ---------------------------------------------------------------- arguments


def _operands(in1: ArrayLike, in2: ArrayLike) -> tuple[Array, Array]:
    """Both arrays, of their common dtype and of one rank."""
    in1, in2 = array(in1, name="in1", booleans=True), array(in2, name="in2", booleans=True)
    if in1.ndim != in2.ndim:
        raise geometry.wrong(
            "in2", "have as many axes as `in1`", f"shapes {in1.shape} and {in2.shape}"
        )
    with jax.numpy_dtype_promotion("standard"):
        common = jnp.result_type(in1, in2)
    return in1.astype(common), in2.astype(common)


def _matrices(in1: ArrayLike, in2: ArrayLike) -> tuple[Array, Array]:
    in1, in2 = _operands(in1, in2)
    if in1.ndim != 2:
        raise geometry.wrong("in1", "be a matrix, as `in2`", f"shape {in1.shape}")
    if in1.dtype == bool:
        raise geometry.wrong("in1", "not be bool, nor `in2`", in1.dtype)
    return in1, in2


def _one_of(name: str, value: object, words: Sequence[str]) -> str:
    """A known word; SciPy raises a ValueError for anything else."""
    if not isinstance(value, str) or value not in words:
        raise geometry.wrong(name, f"be one of {tuple(words)}", repr(value))
    return value


def _axes(axes: object, ndim: int) -> list[int]:
    """Distinct axes from 0 up; SciPy raises a ValueError for anything else."""
    if axes is None:
        return list(range(ndim))
    entries = geometry.entries_of(axes)
    try:
        made = [operator.index(a) for a in ((axes,) if entries is None else entries)]
    except TypeError:
        raise geometry.wrong("axes", "be an int or hold ints", repr(axes)) from None
    if not made:
        raise geometry.wrong("axes", "not be empty", axes)
    if any(not -ndim <= a < ndim for a in made):
        raise geometry.wrong("axes", f"be axes of arrays of {ndim}", axes)
    made = [a % ndim for a in made]
    if len(set(made)) != len(made):
        raise geometry.wrong("axes", "be distinct", axes)
    return made


def _fill(value: ArrayLike, dtype) -> ArrayLike:
    if type(value) in (int, float) and value == 0:
        return 0
    if isinstance(value, str):
        raise geometry.wrong("fillvalue", "be one number", repr(value))
    made = array(value, name="fillvalue", booleans=True)
    if made.size != 1:
        raise geometry.wrong("fillvalue", "be one number", f"shape {made.shape}")
    if _complex(made) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise geometry.wrong("fillvalue", f"be real for arrays of {dtype}", value)
    return made.reshape(()).astype(dtype)


# ---------------------------------------------------------------- which part of each axis


class Kept(NamedTuple):
    """The part of the full convolution that one axis keeps."""

    start: int
    length: int


def _kept(mode: str, size1: Sequence[int], size2: Sequence[int]) -> list[Kept]:
    """The part that a checked `mode` keeps of each axis."""
    pairs = list(zip(size1, size2, strict=True))
    match mode:
        case "full":
            return [Kept(0, m + n - 1) for m, n in pairs]
        case "same":
            return [Kept((n - 1) // 2, m) for m, n in pairs]
    return [Kept(n - 1, m - n + 1) for m, n in pairs]


def _larger_first(
    mode: object, in1: Array, in2: Array, axes: Sequence[int] | None = None
) -> tuple[Array, Array, bool]:
    """For `"valid"`, the array that holds the other first, and whether that is the second."""
    if _one_of("mode", mode, MODES) != "valid":
        return in1, in2, False
    pairs = [(in1.shape[a], in2.shape[a]) for a in (range(in1.ndim) if axes is None else axes)]
    if all(m >= n for m, n in pairs):
        return in1, in2, False
    if all(n >= m for m, n in pairs):
        return in2, in1, True
    raise geometry.wrong(
        "mode", "not be 'valid' unless one array is at least as large as the other on every axis",
        f"shapes {in1.shape} and {in2.shape}",
    )  # fmt: skip


# ---------------------------------------------------------------- as `conv`


def _convolve(in1: Array, in2: Array, mode: str, method: str) -> Array:
    """`convolve` of arrays of one dtype and rank."""
    in1, in2, _ = _larger_first(mode, in1, in2)
    method = METHODS[_one_of("method", method, tuple(METHODS))]
    if in1.size == 0 and in2.size and mode == "same":
        return in1
    for name, a in (("in1", in1), ("in2", in2)):
        if a.size == 0:
            raise geometry.wrong(name, "have entries", f"shape {a.shape}")
    if in1.dtype == bool:
        counts = _convolve(in1.astype(jnp.int32), in2.astype(jnp.int32), mode, method)
        return counts != 0
    if not jnp.issubdtype(in1.dtype, jnp.inexact) and method == "fourier":
        method = "auto"
    return _broadcast(in1, in2, mode, list(range(in1.ndim)), method)


def _along(in1: Array, in2: Array, mode: str, axes: object, method: str) -> Array:
    in1, in2 = inexact(in1), inexact(in2)
    if in1.ndim == 0:
        return in1 * in2
    if in1.size == 0 or in2.size == 0:
        return jnp.zeros((0,), in1.dtype)
    taken = [a for a in _axes(axes, in1.ndim) if 1 not in (in1.shape[a], in2.shape[a])]
    pairs = zip(in1.shape, in2.shape, strict=True)
    if any(1 not in (m, n) and m != n for a, (m, n) in enumerate(pairs) if a not in taken):
        raise geometry.wrong(
            "in2", "broadcast with `in1` on the axes that are not convolved",
            f"shapes {in1.shape} and {in2.shape}",
        )  # fmt: skip
    in1, in2, _ = _larger_first(mode, in1, in2, taken)
    return _broadcast(in1, in2, mode, taken, method)


def _broadcast(
    in1: Array, in2: Array, mode: str, axes: Sequence[int], method: str
) -> Array:
    """Convolution along `axes`, and products on the others, on which the arrays broadcast."""
    axes = [a for a in axes if 1 not in (in1.shape[a], in2.shape[a])]
    kept = _kept(mode, [in1.shape[a] for a in axes], [in2.shape[a] for a in axes])
    larger, smaller = (in2, in1) if in2.size > in1.size else (in1, in2)
    y = _by_roles(larger, smaller, axes, kept, method)
    if mode != "same":
        return y
    starts = [(n - m) // 2 for n, m in zip(y.shape, in1.shape, strict=True)]
    return crop(y, 0, [(start, start + m) for start, m in zip(starts, in1.shape, strict=True)])


def _by_roles(
    x: Array, kernel: Array, axes: Sequence[int], kept: Sequence[Kept], method: str
) -> Array:
    """What only `x` has is a batch, what only `kernel` has is output channels, both is groups."""
    others = [a for a in range(x.ndim) if a not in axes]
    batch = [a for a in others if kernel.shape[a] == 1]
    outputs = [a for a in others if x.shape[a] == 1 and a not in batch]
    groups = [a for a in others if a not in (*batch, *outputs)]
    order = [*batch, *axes, *groups, *outputs]
    last = [x.shape[a] for a in groups] + [kernel.shape[a] for a in outputs]
    shared = math.prod(x.shape[a] for a in groups)

    lead = [x.shape[a] for a in (*batch, *axes)]
    xs = x.transpose(order).reshape(*lead, shared)
    taps = [kernel.shape[a] for a in axes]
    kernels = kernel.transpose(order).reshape(*taps, 1, -1)
    if not axes:  # one tap of one axis
        xs, kernels, kept = xs[..., None, :], kernels[None], [Kept(0, 1)]
    y = _cut(xs, kernels, kept, groups=shared, method=method)
    sizes = y.shape[len(batch) : len(batch) + len(axes)]
    y = y.reshape(*lead[: len(batch)], *sizes, *last)
    return y.transpose([order.index(a) for a in range(x.ndim)])


def _bounded(in1: Array, in2: Array, kept, boundary: object, fillvalue: ArrayLike) -> Array:
    mode = BOUNDARIES[_one_of("boundary", boundary, tuple(BOUNDARIES))]
    fill = _fill(fillvalue, in1.dtype)
    if 0 in (*in1.shape, *in2.shape):
        return jnp.zeros([max(length, 0) for _, length in kept], in1.dtype)
    y = _cut(
        in1[..., None], in2[..., None, None], kept, padding_mode=mode,
        padding_value=fill if mode == "constant" else 0,
    )  # fmt: skip
    return y[..., 0]


def _cut(x: Array, kernel: Array, kept: Sequence[Kept], **options) -> Array:
    """The kept part of the full convolution of `[*batch, *size, c]`."""
    rank = len(kept)
    padding = [
        (taps - 1 - start, start + length - size)
        for size, taps, (start, length) in zip(
            x.shape[-rank - 1 : -1], kernel.shape[:rank], kept, strict=True
        )
    ]
    return filtered(x, kernel, padding, flip=True, **options)


def _reversed(a: Array, conjugate: bool = False) -> Array:
    a = lax.rev(a, range(a.ndim))
    return jnp.conj(a) if conjugate and _complex(a) else a


def _complex(a: Array) -> bool:
    return bool(jnp.issubdtype(a.dtype, jnp.complexfloating))
