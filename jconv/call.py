"""Every option of a convolution, checked, and what it comes to.

Whatever takes `conv`'s options, takes them through `check`: so they mean the same everywhere, and a
wrong one raises the same error before anything is computed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from jconv import checks, geometry
from jconv.geometry import Ints, Padding, Spec, Window
from jconv.methods import METHODS
from jconv.operands import array, factor_dtype, is_zero, numbers, preferred_dtype, scalar
from jconv.padding import padded, unpadded


class Call(NamedTuple):
    """A checked call: batch axes, windows over the unpadded input, and what methods are given."""

    batch: tuple[int, ...]
    windows: tuple[Window, ...]
    mode: str
    value: ArrayLike
    spec: Spec
    method: str

    @property
    def custom_vjp(self) -> bool:
        return not self.spec.transposable

    @property
    def rank(self) -> int:
        return len(self.windows)

    @property
    def pads_outside(self) -> bool:
        """Whether padding is an operation of its own, because not zeros stand outside."""
        return self.spec.windows != self.windows

    def pad(self, x: Array) -> Array:
        if not self.pads_outside:
            return x
        return padded(x, self.windows, self.mode, self.value, self.custom_vjp)

    def unpad(self, x: Array) -> Array:
        if not self.pads_outside:
            return x
        return unpadded(x, self.windows, self.mode, self.custom_vjp)

    def require_y(self, name: str, shape: tuple[int, ...], channels: int) -> None:
        expected = (*self.batch, *self.spec.out, channels)
        if shape != expected:
            raise checks.wrong(name, f"have shape {expected}", f"shape {shape}")


def check(
    x_shape: Sequence[int],
    kernel_shape: Sequence[int],
    dtype: Any,
    *,
    sized: str = "x",
    shaped: str = "kernel",
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
) -> Call:
    """The call that shapes and options make.

    `sized` names the argument that gave the size, `shaped` the one that gave the kernel's shape.
    """
    rank = geometry.kernel_rank(kernel_shape, shaped)
    size, channels = geometry.split_shape(sized, x_shape, rank)
    geometry.require_entries(sized, size, x_shape)
    count = geometry.channel_groups(groups, channels, kernel_shape[-1])
    if kernel_shape[-2] * count != channels:
        raise checks.wrong(
            shaped, "have in // groups input channels",
            f"kernel shape {tuple(kernel_shape)}, groups={count}, x with {channels} channels",
        )  # fmt: skip
    made = geometry.windows(
        size,
        kernel_shape[:rank],
        stride=stride,
        padding=padding,
        dilation=dilation,
        input_dilation=input_dilation,
    )
    geometry.require_output(sized, made)
    value = scalar("padding_value", padding_value, dtype)
    outside = geometry.padding_mode(padding_mode) != "constant" or not is_zero(value)
    spec = Spec(
        made,
        count,
        checks.flag("flip", flip),
        checked_precision(precision),
        None
        if preferred_element_type is None
        else preferred_dtype(dtype, preferred_element_type, checks.wrong),
        transposable=not checks.flag("custom_vjp", custom_vjp),
    )
    spec = spec.padded() if outside else spec
    return Call(
        batch=tuple(x_shape[: len(x_shape) - rank - 1]),
        windows=made,
        mode=padding_mode,
        value=value,
        spec=spec,
        method=_method(method, spec, factor_dtype(dtype, spec.preferred)),
    )


def check_map(
    kernel: ArrayLike, size: Ints, *, padding_value: ArrayLike = 0, groups: int = 1, **options: Any
) -> tuple[Array, Call]:
    """The kernel, of the dtype of the result, and the call of one input of this size.

    Of the linear part of its map: zeros outside.
    """
    kernel = array(kernel, name="kernel")
    rank = geometry.kernel_rank(kernel.shape)
    size = checks.per_axis("size", size, rank, least=1)
    scalar("padding_value", padding_value, kernel.dtype)
    channels = kernel.shape[-2] * checks.whole("groups", groups, least=1)
    shape = (*size, channels)
    call = check(shape, kernel.shape, kernel.dtype, sized="size", groups=groups, **options)
    return kernel.astype(call.spec.result_dtype(kernel.dtype)), call


def check_paired(
    x: ArrayLike, y_bar: ArrayLike, taps: Ints, *, groups: int = 1, **options: Any
) -> tuple[Array, Array, Call]:
    """The arrays and the checked call of what takes `kernel_gradient`'s arguments."""
    x, y_bar = numbers(x=x, y_bar=y_bar)
    taps = checks.window_taps("taps", taps, x.ndim)
    _, inputs = geometry.split_shape("x", x.shape, len(taps))
    _, outputs = geometry.split_shape("y_bar", y_bar.shape, len(taps))
    for name, a in (("x", x), ("y_bar", y_bar)):
        if a.shape[-1] < 1:
            raise checks.wrong(name, "have one or more channels", f"shape {a.shape}")
    count = geometry.channel_groups(groups, inputs, outputs)
    kernel_shape = (*taps, inputs // count, outputs)
    call = check(x.shape, kernel_shape, x.dtype, groups=count, **options)
    call.require_y("y_bar", y_bar.shape, outputs)
    return x, y_bar, call


def _method(method: object, spec: Spec, dtype) -> str:
    method = checks.choice("method", method, ("auto", *METHODS))
    served, only = _serving(spec, dtype).get(method, (True, ""))
    if not served:
        must = f"serve this convolution, and {method!r} serves only {only}"
        raise checks.wrong("method", must, repr(method))
    return method


def _serving(spec: Spec, dtype) -> dict[str, tuple[bool, str]]:
    """Whether the methods that are not for all convolutions serve all three faces of this one."""
    inexact = jnp.issubdtype(dtype, jnp.inexact)
    few = len(spec.taps) <= 2 and all(3 <= w.taps <= 5 for w in spec.windows)
    return {
        "fourier": (inexact, "floats and complex numbers, since it rounds"),
        "kn2row": (spec.is_unit_stride and spec.groups == 1, "stride, input_dilation and groups 1"),
        "mixed": (spec.is_unit_stride and spec.groups == 1, "stride, input_dilation and groups 1"),
        "winograd": (
            inexact and spec.is_unit_stride and few and spec.groups == 1,
            "floats, one or two axes of 3 to 5 taps, and stride, input_dilation and groups 1",
        ),
    }


def checked_precision(precision: Any) -> Any:
    """What JAX's products take, and the names of it."""
    if precision is None or isinstance(precision, lax.DotAlgorithm | lax.DotAlgorithmPreset):
        return precision
    if isinstance(precision, str) and precision in lax.DotAlgorithmPreset.__members__:
        return lax.DotAlgorithmPreset[precision]
    sides = checks.entries_of(precision)
    if sides is None:
        return _side_precision(precision)
    if len(sides) != 2:
        raise checks.wrong("precision", "be one, or a pair", precision)
    return tuple(map(_side_precision, sides))


def _side_precision(precision: object) -> lax.Precision:
    must = "be None, a jax.lax.Precision or its name, or a jax.lax.DotAlgorithm"
    if not isinstance(precision, str | lax.Precision):
        raise checks.mistyped("precision", must, precision)
    try:
        return lax.Precision(precision)
    except ValueError:
        raise checks.wrong("precision", must, repr(precision)) from None
