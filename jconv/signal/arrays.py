"""Convolution and correlation of two arrays of any rank."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jconv import checks
from jconv.operands import inexact
from jconv.padding import crop
from jconv.signal.parts import MODES, Kept, cut, kept, larger_first, one_of, operands, turned

METHODS = {"auto": "auto", "direct": "direct", "fft": "fourier"}


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
      ValueError: as SciPy, and for an array without entries, unless `in1` has none and `mode` is
        `"same"`. TypeError: no array of numbers.

    >>> convolve(jnp.array([1, 2, 3]), jnp.array([0, 1, 5]), "same")
    Array([ 1,  7, 13], dtype=int32)
    """
    return _convolve(*operands(in1, in2), mode, method)


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
    in1, in2 = operands(in1, in2)
    return _convolve(in1, turned(in2, conjugate=True), mode, method)


def fftconvolve(
    in1: ArrayLike, in2: ArrayLike, mode: str = "full", axes: int | Sequence[int] | None = None
) -> Array:
    """The convolution of two arrays along some axes, by the Fourier transform.

    `full[f, b] = sum_t in1[f - t, b] in2[t, b]` with `f` and `t` over `axes`, and `b` over the
    others, on which the arrays broadcast.

    Args:
      in1, in2: `[*size]` each, as many axes. Integers and bool become the default float dtype,
        unless no axis is longer than 1 in both, and products are all there is.
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
    return _along(*operands(in1, in2), mode, axes, "fourier")


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
    return _along(*operands(in1, in2), mode, axes, "auto")


# ---------------------------------------------------------------- along some axes


def _convolve(in1: Array, in2: Array, mode: str, method: str) -> Array:
    """`convolve` of arrays of one dtype and rank."""
    in1, in2, _ = larger_first(mode, in1, in2)
    method = METHODS[one_of("method", method, tuple(METHODS))]
    if in1.size == 0 and in2.size and mode == "same":
        return in1
    for name, a in (("in1", in1), ("in2", in2)):
        if a.size == 0:
            raise checks.wrong(name, "have entries", f"shape {a.shape}")
    axes, is_inexact = list(range(in1.ndim)), jnp.issubdtype(in1.dtype, jnp.inexact)
    method = method if is_inexact or method != "fourier" else "auto"
    if in1.dtype == bool:
        return _broadcast(in1.astype(jnp.int32), in2.astype(jnp.int32), mode, axes, method) != 0
    return _broadcast(in1, in2, mode, axes, method)


def _along(in1: Array, in2: Array, mode: str, axes: object, method: str) -> Array:
    one_of("mode", mode, MODES)
    if in1.ndim == 0:
        return in1 * in2
    if in1.size == 0 or in2.size == 0:
        return jnp.zeros((0,), inexact(in1).dtype)
    taken = [a for a in _axes(axes, in1.ndim) if 1 not in (in1.shape[a], in2.shape[a])]
    pairs = zip(in1.shape, in2.shape, strict=True)
    if any(1 not in (m, n) and m != n for a, (m, n) in enumerate(pairs) if a not in taken):
        raise checks.wrong(
            "in2", "broadcast with `in1` on the axes that are not convolved",
            f"shapes {in1.shape} and {in2.shape}",
        )  # fmt: skip
    in1, in2, _ = larger_first(mode, in1, in2, taken)
    if taken:
        in1, in2 = inexact(in1), inexact(in2)
    return _broadcast(in1, in2, mode, taken, method)


def _axes(axes: object, ndim: int) -> list[int]:
    """Axes from 0 up; SciPy raises a ValueError for anything else."""
    try:
        made = checks.distinct_axes("axes", axes, ndim)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if axes is not None and not made:
        raise checks.wrong("axes", "not be empty", axes)
    return made


def _broadcast(in1: Array, in2: Array, mode: str, axes: Sequence[int], method: str) -> Array:
    """Convolution along `axes`, and products on the others, on which the arrays broadcast."""
    axes = [a for a in axes if 1 not in (in1.shape[a], in2.shape[a])]
    parts = kept(mode, [in1.shape[a] for a in axes], [in2.shape[a] for a in axes])
    larger, smaller = (in2, in1) if in2.size > in1.size else (in1, in2)
    y = _by_roles(larger, smaller, axes, parts, method) if axes else in1 * in2
    if mode != "same":
        return y
    starts = [(n - m) // 2 for n, m in zip(y.shape, in1.shape, strict=True)]
    return crop(y, 0, [(start, start + m) for start, m in zip(starts, in1.shape, strict=True)])


def _by_roles(
    x: Array, kernel: Array, axes: Sequence[int], parts: Sequence[Kept], method: str
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
    y = cut(xs, kernels, parts, groups=shared, method=method)
    sizes = y.shape[len(batch) : len(batch) + len(axes)]
    y = y.reshape(*lead[: len(batch)], *sizes, *last)
    return y.transpose([order.index(a) for a in range(x.ndim)])
