"""The convolutions of `jax.lax`, by name, signature and result, each computed by `jconv.conv`.

Axes in any order are permuted to channels last, and back. What differs from `jax.lax`:

- the derivative is the hand-derived rule, so there is no `jax.jvp` and no
  `jax.linear_transpose` (`jconv.conv` has both with `custom_vjp=False`);
- gradients are right also where padding is wider than the kernel reaches;
- in patches, a NaN stays where it is; elsewhere it may spread, where the method that is picked adds
  outputs up together (by Fourier or Winograd transforms, as `jconv.plan` says);
- a wrong argument is named before anything is computed.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jconv import checks
from jconv.call import checked_precision
from jconv.layouts import (
    WORDS,
    Layout,
    Padding,
    Sharding,
    batches_as_groups,
    check,
    dilations,
    dtypes_of,
    groups_of,
    layout_of,
    operand,
    per_axis,
    positive,
    require_sharding,
    transposed_padding,
)
from jconv.unfold import unfold

__all__ = [
    "conv",
    "conv_general_dilated",
    "conv_general_dilated_patches",
    "conv_transpose",
    "conv_with_general_padding",
]

# The layout of `conv_transpose` if none is given, by the number of spatial axes.
DEFAULTS = ("NC IO NC", "NHC HIO NHC", "NHWC HWIO NHWC", "NHWDC HWDIO NHWDC")


def conv_general_dilated(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Layout = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Sharding = None,
) -> Array:
    """`jax.lax.conv_general_dilated`: convolution in any order of axes.

    `y[n, k, o] = sum_(c, t) lhs[n, c, window_strides*o + rhs_dilation*t - low] rhs[k, c, t]`, where
    `lhs_dilation - 1` zeros went between the entries of `lhs`.

    Args:
      lhs, rhs: input and kernel, each of `n + 2` axes, `n >= 0`, and of one dtype.
      window_strides, lhs_dilation, rhs_dilation: one int per spatial axis; None is all ones.
      padding: `"VALID"`, `"SAME"` or `"SAME_LOWER"` (any case; only without `lhs_dilation`), or one
        `(low, high)` pair per spatial axis. Negative amounts crop.
      dimension_numbers: which axis is which, as three strings such as `("NHWC", "HWIO", "NHWC")`,
        or a `jax.lax.ConvDimensionNumbers`; None is `("NCHW", "OIHW", "NCHW")`, for any rank.
      feature_group_count: splits the channels; `rhs` has `c // feature_group_count` of them.
      batch_group_count: splits the batch instead: the outputs of group `g`, of as many equal parts,
        see the part `g` of the batch alone.
      precision: as in `jconv.conv`.
      preferred_element_type: dtype of sums and result; default that of `lhs` and `rhs`.
      out_sharding: how the result lies over the `Explicit` axes of the mesh.

    Returns:
      The result, its axes in the order that `dimension_numbers` asks for.

    Raises:
      ValueError, TypeError: of the type that `jax.lax` raises; but a ValueError where that is a
        RuntimeError or an AssertionError, and a TypeError for a `precision` of a wrong type.

    >>> x, kernel = jnp.arange(4.0).reshape(1, 1, 4), jnp.array([[[1.0, -1.0]]])
    >>> conv_general_dilated(x, kernel, (1,), "VALID")
    Array([[[-1., -1., -1.]]], dtype=float32)
    """
    lhs, rhs = operand("lhs", lhs), operand("rhs", rhs)
    layout = layout_of(lhs.ndim, rhs.shape, dimension_numbers)
    taps = [rhs.shape[axis] for axis in layout.rhs_spec[2:]]
    call = check(layout, lhs.shape, taps, window_strides, padding, lhs_dilation, rhs_dilation)
    if lhs.dtype != rhs.dtype:
        raise checks.mistyped("rhs", f"have the dtype of `lhs`, {lhs.dtype}", rhs.dtype)
    batches, groups = groups_of(
        layout, lhs.shape, rhs.shape, batch_group_count, feature_group_count
    )
    operands, result = dtypes_of(lhs, preferred_element_type)
    precision = checked_precision(precision)
    batch, outputs = lhs.shape[layout.lhs_spec[0]], rhs.shape[layout.rhs_spec[0]]
    shape = (batch // batches, *call.out, outputs)
    require_sharding(out_sharding, call, shape, result)
    if 0 in (lhs.size, rhs.size, *shape):  # nothing to sum
        y = jnp.zeros(shape, result)
    else:
        x, kernel = call.input(lhs.astype(operands)), call.kernel(rhs.astype(operands))
        y = call.convolved(
            batches_as_groups(x, batches), kernel,
            groups=batches * groups, precision=precision,
            preferred_element_type=None if result == jnp.bool_ else result,
        )  # fmt: skip
    y = call.result(y.astype(result))
    return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)


def conv(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """`jax.lax.conv`: `conv_general_dilated` without its other options.

    Args, Returns, Raises: as `conv_general_dilated`.

    >>> conv(jnp.ones((1, 1, 4)), jnp.ones((1, 1, 3)), (1,), "SAME")
    Array([[[2., 3., 3., 2.]]], dtype=float32)
    """
    return conv_general_dilated(
        lhs, rhs, window_strides, padding,
        precision=precision, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def conv_with_general_padding(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """`jax.lax.conv_with_general_padding`: `conv_general_dilated` without groups or layouts.

    Args, Returns, Raises: as `conv_general_dilated`.

    >>> conv_with_general_padding(jnp.ones((1, 1, 2)), jnp.ones((1, 1, 2)), (1,), [(1, 1)], (2,), None)
    Array([[[1., 1., 1., 1.]]], dtype=float32)
    """  # noqa: E501
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation,
        precision=precision, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def conv_transpose(
    lhs: ArrayLike,
    rhs: ArrayLike,
    strides: Sequence[int],
    padding: Padding,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Layout = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    use_consistent_padding: bool = False,
) -> Array:
    """`jax.lax.conv_transpose`: convolution with a fractional stride.

    `conv_general_dilated` of `lhs` with `lhs_dilation=strides`. The exact adjoint of a convolution
    is `jconv.conv_transpose`.

    Args:
      lhs, rhs, rhs_dilation, precision, preferred_element_type: as in `conv_general_dilated`.
      strides: one int per spatial axis.
      padding: `"SAME"` or `"VALID"`, which are those of the convolution that is transposed, or one
        `(low, high)` pair per spatial axis: amounts to add to `lhs`, or, with
        `use_consistent_padding`, those of the convolution that is transposed.
      dimension_numbers: as in `conv_general_dilated`; None is channels last, for up to three axes.
      transpose_kernel: takes the kernel of the convolution that is transposed: its taps are
        reversed, its channels change sides.
      use_consistent_padding: what pairs mean.

    Returns, Raises: as `conv_general_dilated`; a ValueError for a wrong number of strides or
    dilations.

    >>> conv_transpose(jnp.array([[[1.0], [2.0]]]), jnp.ones((2, 1, 1)), (2,), "VALID").ravel()
    Array([1., 1., 2., 2.], dtype=float32)
    """
    lhs, rhs = operand("lhs", lhs), operand("rhs", rhs)
    if dimension_numbers is None:
        if not 2 <= lhs.ndim < len(DEFAULTS) + 2:
            raise checks.wrong(
                "dimension_numbers", "be given for other than 0 to 3 spatial axes", "None"
            )
        dimension_numbers = DEFAULTS[lhs.ndim - 2].split()
    layout = layout_of(lhs.ndim, rhs.shape, dimension_numbers)
    strides = positive("strides", strides, lhs.ndim - 2)
    is_word = isinstance(padding, str) and padding in WORDS[:2]
    if checks.flag("use_consistent_padding", use_consistent_padding) or is_word:
        taps = [rhs.shape[axis] for axis in layout.rhs_spec[2:]]
        spacings = dilations("rhs_dilation", rhs_dilation, lhs.ndim - 2)
        padding = transposed_padding(padding, taps, strides, spacings)
    if checks.flag("transpose_kernel", transpose_kernel):
        outputs, inputs, *spatial = layout.rhs_spec
        rhs = jax.lax.rev(rhs, spatial).swapaxes(outputs, inputs)
    return conv_general_dilated(
        lhs, rhs, (1,) * len(strides), padding, strides, rhs_dilation, layout,
        precision=precision, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def conv_general_dilated_patches(
    lhs: ArrayLike,
    filter_shape: Sequence[int],
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Layout = None,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """`jax.lax.conv_general_dilated_patches`: the patch under every window, as channels.

    `y[n, (c, t), o] = lhs[n, c, window_strides*o + rhs_dilation*t - low]`. Exact: a NaN or an inf
    stays where it is. Channels last and unmerged, this is `jconv.unfold`.

    Args:
      lhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers: as in
        `conv_general_dilated`.
      filter_shape: the taps, in the order of the kernel's spatial axes in `dimension_numbers`.
      precision: None, or one precision. Nothing is rounded, whichever it is.
      preferred_element_type: dtype of the result; default that of `lhs`.

    Returns, Raises: as `conv_general_dilated`.

    >>> conv_general_dilated_patches(jnp.arange(4.0).reshape(1, 1, 4), (3,), (1,), "VALID")
    Array([[[0., 1.],
            [1., 2.],
            [2., 3.]]], dtype=float32)
    """
    lhs = operand("lhs", lhs)
    taps = per_axis("filter_shape", filter_shape, len(checks.entries_of(filter_shape) or ()))
    layout = layout_of(lhs.ndim, (1, 1, *taps), dimension_numbers, name="filter_shape")
    call = check(layout, lhs.shape, taps, window_strides, padding, lhs_dilation, rhs_dilation)
    if checks.entries_of(precision) is not None:
        raise checks.wrong("precision", "be None or one precision", precision)
    operands, result = dtypes_of(lhs, preferred_element_type)
    checked_precision(precision)
    x = call.input(lhs).astype(operands)
    shape = (x.shape[0], *call.out, x.shape[-1] * math.prod(taps))
    if 0 in (x.size, *shape):
        return call.result(jnp.zeros(shape, result))
    patches = unfold(x, taps, **call.options) if taps else x
    patches = jnp.moveaxis(patches, -1, len(shape) - 1).reshape(shape)
    return call.result(patches.astype(result))
