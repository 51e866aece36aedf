"""The patches under every window, and their adjoint: public, with each other as their rule."""

from jax import Array
from jax.typing import ArrayLike

from jconv import adjoint, checks, geometry
from jconv.geometry import Ints, Padding
from jconv.operands import array, scalar
from jconv.padding import padded, unpadded
from jconv.placement import placed
from jconv.windows import gather_patches, overlap_add


@placed("x")
def unfold(
    x: ArrayLike,
    taps: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    padding_mode: str = "constant",
    padding_value: ArrayLike = 0,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    custom_vjp: bool = True,
) -> Array:
    """The patch under every window (im2col).

    `patches[o, t] = x[stride*o + dilation*t - low]`, so that `conv(x, kernel)` is
    `tensordot(unfold(x, taps), kernel, n + 1)`. Exact: a NaN or an inf stays where it is.

    Args:
      x: `[*batch, *size, in]`.
      taps: one int per spatial axis, or an int for all axes of `x` but the first and the last.
      stride, padding, padding_mode, padding_value, dilation, input_dilation, custom_vjp: as in
        `conv`.

    Returns:
      `[*batch, *out, *taps, in]`.

    Raises:
      ValueError, TypeError: as `conv`.

    >>> import jax.numpy as jnp
    >>> unfold(jnp.array([[1], [2], [3], [4]]), (3,)).squeeze(-1)
    Array([[1, 2, 3],
           [2, 3, 4]], dtype=int32)
    """
    x = array(x)
    ruled = checks.flag("custom_vjp", custom_vjp)
    made, xp = _windows_of(
        x, taps, stride, padding, dilation, input_dilation, padding_mode, padding_value, ruled
    )
    inner = tuple(w.padded() for w in made)
    return adjoint.linear(gather_patches, overlap_add, inner, xp, ruled=ruled)


def _windows_of(x, taps, stride, amounts, dilation, input_dilation, mode, value, ruled):
    """The checked windows of `unfold` and what they slide over."""
    taps = checks.window_taps("taps", taps, x.ndim)
    size, _ = geometry.split_shape("x", x.shape, len(taps))
    geometry.require_entries("x", size, x.shape)
    geometry.padding_mode(mode)
    made = geometry.windows(
        size,
        taps,
        stride=stride,
        padding=amounts,
        dilation=dilation,
        input_dilation=input_dilation,
    )
    geometry.require_output("x", made)
    return made, padded(x, made, mode, scalar("padding_value", value, x.dtype), ruled)


@placed("patches")
def fold(
    patches: ArrayLike,
    size: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    padding_mode: str = "constant",
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    custom_vjp: bool = True,
) -> Array:
    """Overlapping patches added up (col2im): the adjoint of `unfold`.

    `x[i] = sum_(o, t) patches[o, t] over stride*o + dilation*t - low == i`.

    Args:
      patches: `[*batch, *out, *taps, in]`; the taps are read from it.
      size: the spatial size of the result, one int per spatial axis (an int: one axis).
      stride, padding, padding_mode, dilation, input_dilation, custom_vjp: as in `unfold`.

    Returns:
      `[*batch, *size, in]`.

    Raises:
      ValueError, TypeError: as `unfold`; and where `patches` has not the `out` of these options.

    >>> import jax.numpy as jnp
    >>> fold(jnp.ones((2, 3, 1)), (4,)).ravel()
    Array([1., 2., 2., 1.], dtype=float32)
    """
    patches = array(patches, name="patches")
    size = checks.window_taps("size", size, 3)
    rank = len(size)
    if patches.ndim < 2 * rank + 1:
        raise checks.wrong(
            "patches",
            f"have shape [*batch, *out, *taps, in] with {rank} spatial axes",
            f"shape {patches.shape}",
        )
    geometry.padding_mode(padding_mode)
    made = geometry.windows(
        size,
        patches.shape[-rank - 1 : -1],
        stride=stride,
        padding=padding,
        dilation=dilation,
        input_dilation=input_dilation,
    )
    geometry.require_output("size", made)
    out = tuple(w.out for w in made)
    if patches.shape[-2 * rank - 1 : -rank - 1] != out:
        raise checks.wrong("patches", f"have spatial size {out}", f"shape {patches.shape}")
    ruled = checks.flag("custom_vjp", custom_vjp)
    return adjoint.linear(_fold, _unfold, (made, padding_mode), patches, ruled=ruled)


def _fold(static, patches: Array) -> Array:
    made, mode = static
    return unpadded(
        overlap_add(tuple(w.padded() for w in made), patches), made, mode, custom_vjp=False
    )


def _unfold(static, x: Array) -> Array:
    made, mode = static
    return gather_patches(tuple(w.padded() for w in made), padded(x, made, mode, custom_vjp=False))
