"""What the arguments of `jax.lax`'s convolutions come to: axes, windows, groups, dtypes, checked.

Axes are named as in `jax.lax`: `lhs` is the input, `rhs` the kernel, and a `ConvDimensionNumbers`
says which axis is which.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import ConvDimensionNumbers, conv_dimension_numbers
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from jconv import checks, geometry
from jconv.conv import conv
from jconv.geometry import Window
from jconv.operands import array, factor_dtype, preferred_dtype

Layout = Sequence[str] | ConvDimensionNumbers | None
Padding = str | Sequence[tuple[int, int]]
Sharding = NamedSharding | PartitionSpec | None

WORDS = ("VALID", "SAME", "SAME_LOWER")


class LaxCall(NamedTuple):
    """Which axis is which, and the window of each spatial axis, in the order of the kernel's."""

    layout: ConvDimensionNumbers
    windows: tuple[Window, ...]

    @property
    def out(self) -> tuple[int, ...]:
        return tuple(w.out for w in self.windows)

    @property
    def options(self) -> dict[str, Any]:
        """Of `jconv.conv` and `jconv.unfold`."""
        return {
            "stride": [w.stride for w in self.windows],
            "padding": [(w.low, w.high) for w in self.windows],
            "dilation": [w.dilation for w in self.windows],
            "input_dilation": [w.input_dilation for w in self.windows],
        }

    def input(self, lhs: Array) -> Array:
        """`[batch, *size, in]`."""
        batch, channels, *spatial = self.layout.lhs_spec
        return lhs.transpose(batch, *spatial, channels)

    def kernel(self, rhs: Array) -> Array:
        """`[*taps, in // groups, out]`."""
        outputs, inputs, *spatial = self.layout.rhs_spec
        return rhs.transpose(*spatial, inputs, outputs)

    def result(self, y: Array) -> Array:
        """`[batch, *out, channels]`, as the layout has it."""
        batch, channels, *spatial = self.layout.out_spec
        return y.transpose(sorted(range(y.ndim), key=(batch, *spatial, channels).__getitem__))

    def convolved(self, x: Array, kernel: Array, **options: Any) -> Array:
        if self.windows:
            return conv(x, kernel, **self.options, **options)
        return conv(x[:, None], kernel[None], **options)[:, 0]


def check(
    layout: ConvDimensionNumbers,
    lhs_shape: Sequence[int],
    taps: Sequence[int],
    window_strides: object,
    padding: object,
    lhs_dilation: object,
    rhs_dilation: object,
) -> LaxCall:
    """The call that shapes and options make."""
    size = [lhs_shape[axis] for axis in layout.lhs_spec[2:]]
    if 0 in taps:
        raise checks.wrong("rhs", "have one or more taps", f"taps {tuple(taps)}")
    rank = len(taps)
    spacings = dilations("lhs_dilation", lhs_dilation, rank)
    made = geometry.windows(
        size, taps,
        stride=per_axis("window_strides", window_strides, rank),
        padding=_padding(padding, rank, spacings),
        dilation=dilations("rhs_dilation", rhs_dilation, rank),
        input_dilation=spacings,
    )  # fmt: skip
    if any(w.extent < 0 for w in made):
        raise checks.wrong("padding", "crop no more than there is", padding)
    return LaxCall(layout, made)


def layout_of(
    ndim: int, rhs_shape: Sequence[int], dimension_numbers: Any, name: str = "rhs"
) -> ConvDimensionNumbers:
    """Which axis is which, of arrays of `ndim` axes."""
    if ndim < 2:
        raise checks.wrong("lhs", "have a batch axis and a channel axis", f"{ndim} axes")
    if len(rhs_shape) != ndim:
        raise checks.mistyped(name, f"have {ndim - 2} spatial axes, as `lhs`", rhs_shape)
    must = (
        f"be None, three strings that name each of {ndim} axes once, such as "
        '("NHWC", "HWIO", "NHWC"), or a ConvDimensionNumbers'
    )
    try:
        layout = conv_dimension_numbers((1,) * ndim, rhs_shape, dimension_numbers)
        whole = all(sorted(spec) == list(range(ndim)) for spec in layout)
    except TypeError:
        raise checks.mistyped("dimension_numbers", must, dimension_numbers) from None
    if not whole:
        raise checks.wrong("dimension_numbers", must, dimension_numbers)
    return layout


# ---------------------------------------------------------------- options


def per_axis(name: str, value: object, rank: int, least: int | None = 1) -> tuple[int, ...]:
    if checks.entries_of(value) is None:
        raise checks.mistyped(name, f"hold one int for each of the {rank} spatial axes", value)
    return checks.per_axis(name, value, rank, least=least)


def dilations(name: str, value: object, rank: int) -> tuple[int, ...]:
    return (1,) * rank if value is None else positive(name, value, rank)


def positive(name: str, value: object, rank: int) -> tuple[int, ...]:
    made = per_axis(name, value, rank, least=None)
    if any(n < 1 for n in made):
        raise checks.mistyped(name, "hold ints of at least 1", value)
    return made


def _padding(padding: object, rank: int, spacings: Sequence[int]) -> Any:
    must = f"be one of {WORDS} or hold one (low, high) pair for each of the {rank} spatial axes"
    if not isinstance(padding, str):
        entries = checks.entries_of(padding)
        if entries is None or any(checks.entries_of(entry) is None for entry in entries):
            raise checks.wrong("padding", must, padding)
        if len(entries) != rank:
            raise checks.mistyped("padding", must, padding)
        try:
            return geometry.pairs("padding", entries, rank)
        except TypeError:
            raise checks.wrong("padding", must, padding) from None
    if padding.upper() not in WORDS:
        raise checks.wrong("padding", must, repr(padding))
    if any(spacing != 1 for spacing in spacings):
        raise checks.wrong("padding", "hold pairs where `lhs_dilation` is not 1", repr(padding))
    return padding


def transposed_padding(
    padding: Any, taps: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """What `lhs`, spread by the strides, is padded by, from the padding of what is transposed."""
    reach = [(t - 1) * d for t, d in zip(taps, dilations, strict=True)]
    if not isinstance(padding, str):
        amounts = _padding(padding, len(taps), (1,) * len(taps))
        return [(r - low, r - high) for r, (low, high) in zip(reach, amounts, strict=True)]
    if padding not in WORDS[:2]:
        raise checks.wrong("padding", f"be one of {WORDS[:2]} or hold pairs", repr(padding))
    if padding == "VALID":
        return [(r, max(r, s - 1)) for r, s in zip(reach, strides, strict=True)]
    # In all `reach + stride - 1`, of which the low end gets the greater half, at most the reach.
    lows = [min(r, (r + s) // 2) for r, s in zip(reach, strides, strict=True)]
    return [(low, r + s - 1 - low) for low, r, s in zip(lows, reach, strides, strict=True)]


def groups_of(
    layout: ConvDimensionNumbers,
    lhs_shape: Sequence[int],
    rhs_shape: Sequence[int],
    batches: object,
    groups: object,
) -> tuple[int, int]:
    """`batch_group_count` and `feature_group_count`."""
    batches = checks.whole("batch_group_count", batches, least=1)
    groups = checks.whole("feature_group_count", groups, least=1)
    if batches > 1 and groups > 1:
        raise checks.wrong("batch_group_count", "be 1 where `feature_group_count` is not",
                             f"{batches} and {groups}")  # fmt: skip
    batch, channels = (lhs_shape[axis] for axis in layout.lhs_spec[:2])
    outputs, inputs = (rhs_shape[axis] for axis in layout.rhs_spec[:2])
    for name, count, divided, number in (
        ("batch_group_count", batches, "batch", batch),
        ("batch_group_count", batches, "output channels", outputs),
        ("feature_group_count", groups, "input channels", channels),
        ("feature_group_count", groups, "output channels", outputs),
    ):
        if number % count:
            raise checks.wrong(name, f"divide the {divided}", f"{count} for {number}")
    if inputs * groups != channels:
        raise checks.wrong(
            "rhs", "have as many input channels as `lhs`, over `feature_group_count`",
            f"{inputs} for {channels} // {groups}",
        )  # fmt: skip
    return batches, groups


def batches_as_groups(x: Array, count: int) -> Array:
    """`[count * batch, *size, in]` to `[batch, *size, count * in]`: groups of channels instead."""
    if count == 1:
        return x
    x = jnp.moveaxis(x.reshape(count, -1, *x.shape[1:]), 0, -2)
    return x.reshape(*x.shape[:-2], -1)


# ---------------------------------------------------------------- dtypes and devices


def operand(name: str, value: ArrayLike) -> Array:
    """An array of numbers, or of bools."""
    return jnp.asarray(value) if _is_bool(value) else array(value, name=name)


def _is_bool(value: object) -> bool:
    return getattr(value, "dtype", None) == jnp.bool_


def dtypes_of(operand: Array, preferred: DTypeLike | None) -> tuple[Any, Any]:
    """Of what is summed, and of the result. Bools sum to whether any is true."""
    if preferred is None or (_is_bool(operand) and operand.dtype == preferred):
        return (jnp.int32 if _is_bool(operand) else operand.dtype), operand.dtype
    result = preferred_dtype(operand.dtype, preferred, checks.mistyped)
    return factor_dtype(operand.dtype, result), result


def require_sharding(sharding: Any, call: LaxCall, shape: Sequence[int], dtype: Any) -> None:
    if sharding is None:
        return
    must = "be a NamedSharding, or a PartitionSpec over Explicit axes of the current mesh"
    if not isinstance(sharding, NamedSharding | PartitionSpec):
        raise checks.mistyped("out_sharding", must, sharding)
    try:
        jax.eval_shape(lambda: jax.sharding.reshard(call.result(jnp.zeros(shape, dtype)), sharding))
    except ValueError as error:
        raise checks.wrong("out_sharding", must, sharding) from error
