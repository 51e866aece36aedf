"""How large is the map: the singular values of a convolution, and the largest alone.

They are those of `conv_matrix`, not of the kernel reshaped to a matrix. A periodic convolution is
diagonal in frequency, so that its singular values are those of one small matrix a frequency. The
largest needs no matrix at all: only `conv` and its adjoint.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jconv import adjoint, checks
from jconv.call import Call, check_map
from jconv.conv import conv, conv_transpose, kernel_gradient
from jconv.geometry import Ints, Padding, Window
from jconv.krylov import largest_eigenvector
from jconv.matrix import conv_matrix
from jconv.operands import inexact, positive, require_key, wide
from jconv.placement import placed, zeros

__all__ = ["operator_norm", "singular_values"]

# A residual in floating point does not fall below a few roundings of what it is a difference of.
ROUNDINGS = 32


@placed("kernel", axes=lambda kernel: (None,))
def singular_values(
    kernel: ArrayLike,
    size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    padding_mode: str = "constant",
    padding_value: ArrayLike = 0,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    groups: int = 1,
    flip: bool = False,
    method: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    custom_vjp: bool = True,
) -> Array:
    """All singular values of a convolution, descending.

    Those of `M = conv_matrix(kernel, size, ...)`, `min(rows, columns)` of them, zeros included. A
    periodic convolution (`padding_mode="wrap"`, `size / stride` outputs) is block diagonal in
    frequency: with `K(f) = sum_t kernel[t] exp(2 pi i f dilation t / size)`, the singular values
    are those of `K(f)` for every `f`; with a stride, those of the blocks
    `[K(f), K(f + size/stride), ...] / sqrt(stride)` of the frequencies that alias. Any other
    convolution is written out as its matrix.

    Args:
      kernel: `[*taps, in // groups, out]`.
      size: spatial size of `x`, one int per spatial axis, or an int for all.
      padding_value: not part of the linear map, so without effect.
      method, precision, custom_vjp: as in `conv`, for options to be shared, but without effect.
      others: as in `conv`.

    Returns:
      `[min(prod(out) * out_channels, prod(size) * in)]`, real. Differentiable where they differ.

    Raises:
      ValueError, TypeError: as `conv`.

    Source: Sedghi, Gupta, Long (2019), theorem 6.

    >>> kernel = jnp.array([1.0, 1.0]).reshape(2, 1, 1)
    >>> singular_values(kernel, 4, padding=[(0, 1)], padding_mode="wrap").round(3) + 0.0
    Array([2.   , 1.414, 1.414, 0.   ], dtype=float32)
    """
    options = {
        "stride": stride, "padding": padding, "padding_mode": padding_mode, "dilation": dilation,
        "input_dilation": input_dilation, "groups": groups, "flip": flip,
    }  # fmt: skip
    kernel, call = check_map(
        kernel, size, padding_value=padding_value, method=method, precision=precision,
        preferred_element_type=preferred_element_type, custom_vjp=custom_vjp, **options,
    )  # fmt: skip
    kernel, dtype = _floats(kernel)
    if call.mode == "wrap" and all(map(_is_periodic, call.windows)):
        blocks = _frequency_blocks(call, kernel)
    else:
        blocks = conv_matrix(kernel, size, **options)
    values = jnp.linalg.svd(blocks, compute_uv=False)
    return jnp.sort(values.ravel(), descending=True).astype(dtype)


def _floats(kernel: Array) -> tuple[Array, Any]:
    """The kernel as floats that LAPACK knows, and the real dtype of a result."""
    kernel = inexact(kernel)
    return kernel.astype(wide(kernel.dtype)), jnp.finfo(kernel.dtype).dtype


def _is_periodic(w: Window) -> bool:
    """Whether an output one period further reads the same, by the same steps, all around."""
    return w.input_dilation == 1 and w.out * w.stride == w.size


def _frequency_blocks(call: Call, kernel: Array) -> Array:
    """`[frequencies, group, out_of_group, alias * in_of_group]`.

    Where the window starts and whether it is flipped turns phases alone, and no singular value.
    """
    windows, groups = call.windows, call.spec.groups
    rank, strides = len(windows), [w.stride for w in windows]
    for axis, w in enumerate(windows):
        kernel = jnp.fft.fft(_periodized(kernel, axis, w), axis=axis)
    split = [n for w in windows for n in (w.stride, w.out)]  # frequency = alias * out + f
    *_, c, outputs = kernel.shape
    blocks = kernel.reshape(*split, c, groups, outputs // groups)
    aliases, frequencies = range(0, 2 * rank, 2), range(1, 2 * rank, 2)
    c_axis, group_axis, m_axis = 2 * rank, 2 * rank + 1, 2 * rank + 2
    blocks = jnp.transpose(blocks, (*frequencies, group_axis, m_axis, *aliases, c_axis))
    joined = blocks.reshape(-1, groups, outputs // groups, math.prod(strides) * c)
    return joined / jnp.asarray(math.sqrt(math.prod(strides)), joined.dtype)


def _periodized(kernel: Array, axis: int, w: Window) -> Array:
    """Taps along `axis`, laid out over one period; those a period apart are added."""
    laid = np.zeros((w.size, w.taps))
    laid[w.dilation * np.arange(w.taps) % w.size, np.arange(w.taps)] = 1
    table = jnp.asarray(laid, kernel.dtype)
    return jnp.moveaxis(jnp.tensordot(table, kernel, (1, axis), precision="highest"), 0, axis)


@placed("kernel", axes=lambda kernel: ())
def operator_norm(
    kernel: ArrayLike,
    size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    padding_mode: str = "constant",
    padding_value: ArrayLike = 0,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    groups: int = 1,
    flip: bool = False,
    method: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    custom_vjp: bool = True,
    key: ArrayLike,
    tol: float = 1e-6,
    max_iterations: int = 2000,
) -> Array:
    """The largest singular value of a convolution: its Lipschitz constant.

    `sigma = max |conv(x)| / |x|`, by Lanczos on `A^H A` (Golub and Kahan), `A` being `conv` and
    `A^H` its hand-derived adjoint; no matrix is formed. It stops at a unit `v` with
    `|A^H A v - sigma^2 v| <= tol * sigma^2`, `sigma = |A v|`: then a singular value of the
    convolution is within `tol * sigma` of `sigma`, and it is the largest unless the random start is
    all but orthogonal to that one's vectors. `sigma` is never more than the norm, but for rounding.

    The derivative is `d sigma = Re u^H dA v` with `u = A v / sigma`, so the gradient is
    `kernel_gradient(v, conj(u))`. `jax.hessian` goes forward over it, through the steps of Lanczos;
    reverse over reverse is not to be had. A kernel of zeros has gradient 0.

    Args:
      kernel: `[*taps, in // groups, out]`.
      size: spatial size of `x`, one int per spatial axis, or an int for all.
      padding_value: not part of the linear map, so without effect.
      custom_vjp: False differentiates the steps of Lanczos as JAX does: forward mode alone.
      key: a JAX key, for the random start.
      tol: the bound above, raised to 32 times the dtype's `eps` if it is less.
      max_iterations: at most this many products by `A` and `A^H`; then the best so far.
      others: as in `conv`.

    Returns:
      A real scalar.

    Raises:
      ValueError, TypeError: as `conv`.

    Source: Golub and Kahan (1965); Wu and Simon (2000), for the restarts; Parlett (1998), theorem
      4.5.1, for the bound.

    >>> kernel = jnp.array([1.0, 1.0]).reshape(2, 1, 1)
    >>> sigma = operator_norm(
    ...     kernel, 4, padding=[(0, 1)], padding_mode="wrap", key=jax.random.key(0)
    ... )
    >>> print(f"{sigma:.4f}")
    2.0000
    """
    options = {
        "stride": stride, "padding": padding, "padding_mode": padding_mode, "dilation": dilation,
        "input_dilation": input_dilation, "groups": groups, "flip": flip, "method": method,
        "precision": precision,
    }  # fmt: skip
    kernel, call = check_map(
        kernel, size, padding_value=padding_value, custom_vjp=custom_vjp,
        preferred_element_type=preferred_element_type, **options,
    )  # fmt: skip
    require_key(key)
    max_iterations = checks.whole("max_iterations", max_iterations, least=1)
    kernel, dtype = _floats(kernel)
    least = ROUNDINGS * float(jnp.finfo(kernel.dtype).eps)
    static = (tuple(options.items()), max(positive("tol", tol), least), max_iterations)
    shape = (*(w.size for w in call.windows), kernel.shape[-2] * call.spec.groups)
    start = jax.random.normal(key, shape, kernel.dtype) + zeros(shape, kernel.dtype, kernel)
    sigma, _, _ = adjoint.pointwise(
        _triplet, _triplet_adjoint, static, kernel, start, ruled=call.custom_vjp
    )
    return sigma.astype(dtype)


def _triplet(static, kernel: Array, start: Array) -> tuple[Array, Array, Array]:
    """The largest singular value, with its right and left vectors."""
    options, tol, max_iterations = static
    largest = jnp.max(jnp.abs(kernel))
    scale = jnp.where(largest > 0, largest, 1)  # squares of tiny or huge entries are no floats
    to_y, to_x = _products(kernel / scale.astype(kernel.dtype), start.shape[:-1], dict(options))
    v = largest_eigenvector(lambda x: to_x(to_y(x)), start, tol, max_iterations)
    y = to_y(v)
    sigma = jnp.linalg.norm(y.ravel())
    return sigma * scale, v, y / jnp.where(sigma > 0, sigma, 1).astype(y.dtype)


def _products(kernel: Array, size: Sequence[int], options: dict) -> tuple[Callable, Callable]:
    """`A` and `A^H`, the second hand-derived. JAX differentiates within the loop as it is."""
    plain = {**options, "custom_vjp": False}
    to_y = partial(conv, kernel=kernel, **plain)
    to_x = partial(conv_transpose, kernel=jnp.conj(kernel), size=size, **plain)
    return to_y, to_x


def _triplet_adjoint(static, kernel: Array, start: Array, triplet, cotangents):
    """Of the value alone: nobody is given the vectors."""
    _, v, u = triplet
    taps = kernel.shape[:-2]
    direction = kernel_gradient(v, jnp.conj(u), taps, **dict(static[0]), custom_vjp=False)
    return cotangents[0].astype(direction.dtype) * direction, jnp.zeros_like(start)
