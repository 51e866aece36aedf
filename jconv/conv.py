"""Convolution and its adjoints.

    <conv(x, kernel), y> == <x, conv_transpose(y, kernel)> == <kernel, kernel_gradient(x, y)>

Each public function resolves its options to a static `Spec`, lets padding vanish by composition
where zeros outside do not say it, merges the batch axes, and calls its face; each face has the
other two as its rule.
"""

from dataclasses import replace
from typing import Any

from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from jconv import adjoint, checks, geometry
from jconv.call import Call, check, check_paired
from jconv.faces import evaluate
from jconv.geometry import Ints, Padding
from jconv.operands import common_dtype, factor_dtype, merged, numbers, scalar
from jconv.placement import placed


@placed("x", "kernel", axes=lambda x, kernel: (*x[:-1], kernel[-1]))
def conv(
    x: ArrayLike,
    kernel: ArrayLike,
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
    """Convolution of any rank.

    `y[o] = sum_t x[stride*o + dilation*t - low] . kernel[t]`, where `.` contracts the input
    channels of a group, and `x` outside its size is what `padding_mode` says.

    Args:
      x: `[*batch, *size, in]`; no, one or many batch axes.
      kernel: `[*taps, in // groups, out]`; its rank less 2 is the number of spatial axes.
      stride, dilation: int, or one int per spatial axis.
      padding: `"valid"` (none), `"same"` (`ceil(size / stride)` outputs; an odd amount goes to the
        high end), `"same_lower"` (to the low end), `"full"` (every partial overlap), `"causal"`
        (low end only); or an int, one int per axis, or one `(low, high)` pair per axis. Negative
        amounts crop.
      padding_mode: `"constant"`, `"reflect"`, `"symmetric"`, `"edge"` or `"wrap"`, as in `pad`.
      padding_value: what `"constant"` puts outside.
      input_dilation: `input_dilation - 1` zeros go between the entries of `x`, before any padding.
      groups: splits the channels of both sides; the groups do not mix.
      flip: False is cross-correlation, True is convolution proper (taps reversed).
      method: `"auto"`, or a key of `jconv.methods.METHODS`. How, never what; but only `"direct"`,
        `"patches"` and `"shifts"` are sure to keep a NaN or an inf to the windows that hold it.
      precision: as in `jax.lax.dot_general`.
      preferred_element_type: dtype of sums and result; default the common dtype of `x` and
        `kernel`.
      custom_vjp: False lets JAX differentiate the same computation, which also gives `jax.jvp` and
        `jax.linear_transpose`.

    Returns:
      `[*batch, *out, out_channels]`,
      `out = (low + size + high - dilation*(taps - 1) - 1) // stride + 1`.

    Raises:
      ValueError: a wrong value, TypeError: a wrong type, before anything is computed.

    Source: Goodfellow, Bengio, Courville (2016), eq. 9.6 and 9.7; LeCun et al. (1998).

    >>> import jax.numpy as jnp
    >>> conv(jnp.array([[1], [2], [3], [4]]), jnp.array([1, 0, -1]).reshape(3, 1, 1)).ravel()
    Array([-2, -2], dtype=int32)
    """
    x, kernel = numbers(x=x, kernel=kernel)
    call = check(
        x.shape, kernel.shape, x.dtype, stride=stride, padding=padding, padding_mode=padding_mode,
        padding_value=padding_value, dilation=dilation, input_dilation=input_dilation,
        groups=groups, flip=flip, method=method, precision=precision,
        preferred_element_type=preferred_element_type, custom_vjp=custom_vjp,
    )  # fmt: skip
    xp = merged(call.pad(x), call.rank)
    y = _apply(call, "forward", xp, kernel)
    return y.reshape(*call.batch, *y.shape[1:])


@placed("y", "kernel", axes=lambda y, kernel: (*y[:-1], kernel[-2]))
def conv_transpose(
    y: ArrayLike,
    kernel: ArrayLike,
    *,
    size: Ints | None = None,
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
    """The adjoint of `conv` in `x`, with the same arguments: transposed convolution.

    `<conv(x, kernel), y> == <x, conv_transpose(y, kernel, size=size of x)>`, bilinear also for
    complex numbers (no conjugate), so `x[i] = sum_(o, t) y[o] . kernel[t]` over
    `stride*o + dilation*t - low == i`. With a `padding_value`, `conv` is affine in `x`, and this is
    the adjoint of its linear part, whatever the value.

    Args:
      y: `[*batch, *out, out_channels]`.
      kernel: `[*taps, in // groups, out_channels]`, of the convolution that is transposed.
      size: spatial size of the result, an int or one per axis: which of the sizes that a stride
        leaves open. Default the smallest.
      others: as in `conv`.

    Returns:
      `[*batch, *size, in]`.

    Raises:
      ValueError, TypeError: as `conv`; and where `conv` of `size` has not the size of `y`.

    Source: Dumoulin and Visin (2016), section 4.

    >>> import jax.numpy as jnp
    >>> conv_transpose(jnp.array([[1], [2]]), jnp.array([1, 0, -1]).reshape(3, 1, 1)).ravel()
    Array([ 1,  2, -1, -2], dtype=int32)
    """
    y, kernel = numbers(y=y, kernel=kernel)
    rank = geometry.kernel_rank(kernel.shape)
    out, _ = geometry.split_shape("y", y.shape, rank)
    geometry.require_entries("y", out, y.shape)
    if size is None:
        size = geometry.smallest_size(
            out, kernel.shape[:rank], stride=stride, padding=padding, dilation=dilation,
            input_dilation=input_dilation,
        )  # fmt: skip
    size = checks.per_axis("size", size, rank, least=1)
    batch = y.shape[: y.ndim - rank - 1]
    channels = kernel.shape[-2] * checks.whole("groups", groups, least=1)
    scalar("padding_value", padding_value, y.dtype)
    call = check(
        (*batch, *size, channels), kernel.shape, y.dtype, sized="size",
        stride=stride, padding=padding, padding_mode=padding_mode,
        padding_value=0, dilation=dilation, input_dilation=input_dilation,
        groups=groups, flip=flip, method=method, precision=precision,
        preferred_element_type=preferred_element_type, custom_vjp=custom_vjp,
    )  # fmt: skip
    call.require_y("y", y.shape, kernel.shape[-1])
    x = _apply(call, "input_adjoint", merged(y, rank), kernel)
    return call.unpad(x.reshape(*batch, *x.shape[1:]))


@placed("y_bar", axes=lambda y_bar: (None, y_bar[-1]))
def kernel_gradient(
    x: ArrayLike,
    y_bar: ArrayLike,
    taps: Ints,
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
    """The adjoint of `conv` in `kernel`: the input correlated with the incoming gradient.

    `<conv(x, kernel), y_bar> == <kernel, kernel_gradient(x, y_bar, taps)>`, so
    `kernel[t] = sum_(batch, o) x[stride*o + dilation*t - low] y_bar[o]`, an outer product over the
    channels.

    Args:
      x: `[*batch, *size, in]`.
      y_bar: `[*batch, *out, out_channels]`.
      taps: one int per spatial axis, or an int for all axes of `x` but the first and the last.
      others: as in `conv`.

    Returns:
      `[*taps, in // groups, out_channels]`.

    Raises:
      ValueError, TypeError: as `conv`; and where `y_bar` has not the shape that `conv` gives.

    Source: LeCun et al. (1998); Goodfellow, Bengio, Courville (2016), eq. 9.11.

    >>> import jax.numpy as jnp
    >>> kernel_gradient(jnp.array([[1], [2], [3], [4]]), jnp.array([[1], [10]]), (3,)).ravel()
    Array([21, 32, 43], dtype=int32)
    """
    x, y_bar, call = check_paired(
        x, y_bar, taps, stride=stride, padding=padding, padding_mode=padding_mode,
        padding_value=padding_value, dilation=dilation, input_dilation=input_dilation,
        groups=groups, flip=flip, method=method, precision=precision,
        preferred_element_type=preferred_element_type, custom_vjp=custom_vjp,
    )  # fmt: skip
    return _apply(call, "kernel_adjoint", merged(call.pad(x), call.rank), merged(y_bar, call.rank))


# ---------------------------------------------------------------- the trilinear form


def _apply(call: Call, face: str, a: Array, b: Array) -> Array:
    """One face, with the other two as its rule."""
    static = (call.spec, call.method)
    plain, left, right = _RULES[face]
    return adjoint.bilinear(plain, left, right, static, a, b, ruled=call.custom_vjp)


def _face(face: str, static, a: Array, b: Array) -> Array:
    spec, method = static
    common = factor_dtype(common_dtype(a, b), spec.preferred)
    a, b = a.astype(common), b.astype(common)
    return evaluate(face, spec, method, a, b)


def _forward(static, x: Array, kernel: Array) -> Array:
    return _face("forward", static, x, _flipped(static, kernel))


def _input_adjoint(static, y: Array, kernel: Array) -> Array:
    return _face("input_adjoint", static, y, _flipped(static, kernel))


def _kernel_adjoint(static, x: Array, y: Array) -> Array:
    return _flipped(static, _face("kernel_adjoint", static, x, y))


def _flipped(static, kernel: Array) -> Array:
    spec, _ = static
    return lax.rev(kernel, range(len(spec.taps))) if spec.flip else kernel


def _cotangent_face(face):
    """A face within a rule: its dtype follows the cotangent, not `preferred_element_type`."""

    def evaluate(static, a: Array, b: Array) -> Array:
        spec, method = static
        return face((replace(spec, preferred=None), method), a, b)

    return evaluate


_to_y, _to_x, _to_kernel = map(_cotangent_face, (_forward, _input_adjoint, _kernel_adjoint))

# <forward(x, k), y> == <x, input_adjoint(y, k)> == <k, kernel_adjoint(x, y)>: each face, and the
# cotangents of its two arguments in the other two. `left(c, b)` and `right(a, c)` take the output's
# cotangent `c`.
_RULES = {
    "forward": (_forward, _to_x, _to_kernel),
    "input_adjoint": (_input_adjoint, _to_y, lambda static, y, x: _to_kernel(static, x, y)),
    "kernel_adjoint": (
        _kernel_adjoint,
        lambda static, kernel, y: _to_x(static, y, kernel),
        lambda static, x, kernel: _to_y(static, x, kernel),
    ),
}
