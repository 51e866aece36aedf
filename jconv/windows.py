"""Sliding windows as arrays: views of one tap, patches of all taps, and their adjoints.

    view(xp, t)[o]  = xp[stride*o + dilation*t]           one tap of every window
    place(v, t)     = its adjoint: v back at those positions, zeros elsewhere
    gather_patches(xp) = every view, along new taps axes; overlap_add is its adjoint

`xp` is already dilated and padded, and every step moves entries: a NaN stays where it is.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import adjoint, geometry
from jconv.geometry import Ints, Padding, Window
from jconv.operands import array, scalar
from jconv.padding import grow, padded, strided, unpadded
from jconv.placement import placed, zeros
from jconv.tables import reads


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

    >>> unfold(jnp.array([[1], [2], [3], [4]]), (3,)).squeeze(-1)
    Array([[1, 2, 3],
           [2, 3, 4]], dtype=int32)
    """
    x = array(x)
    ruled = geometry.flag("custom_vjp", custom_vjp)
    made, xp = _windows_of(
        x, taps, stride, padding, dilation, input_dilation, padding_mode, padding_value, ruled
    )
    inner = tuple(w.padded() for w in made)
    return adjoint.linear(gather_patches, overlap_add, inner, xp, ruled=ruled)


def _windows_of(x, taps, stride, amounts, dilation, input_dilation, mode, value, ruled):
    """The checked windows of `unfold` and what they slide over."""
    taps = geometry.window_taps("taps", taps, x.ndim)
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

    >>> fold(jnp.ones((2, 3, 1)), (4,)).ravel()
    Array([1., 2., 2., 1.], dtype=float32)
    """
    patches = array(patches, name="patches")
    size = geometry.window_taps("size", size, 3)
    rank = len(size)
    if patches.ndim < 2 * rank + 1:
        raise geometry.wrong(
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
        raise geometry.wrong("patches", f"have spatial size {out}", f"shape {patches.shape}")
    ruled = geometry.flag("custom_vjp", custom_vjp)
    return adjoint.linear(_fold, _unfold, (made, padding_mode), patches, ruled=ruled)


def _fold(static, patches: Array) -> Array:
    made, mode = static
    return unpadded(
        overlap_add(tuple(w.padded() for w in made), patches), made, mode, custom_vjp=False
    )


def _unfold(static, x: Array) -> Array:
    made, mode = static
    return gather_patches(tuple(w.padded() for w in made), padded(x, made, mode, custom_vjp=False))


# ---------------------------------------------------------------- one tap


def offsets(windows: Sequence[Window]) -> Iterator[tuple[int, ...]]:
    """Every tap, row-major."""
    return product(*(range(w.taps) for w in windows))


def view(xp: Array, windows: Sequence[Window], tap: Sequence[int]) -> Array:
    """`[*batch, *extent, c]` to `[*batch, *out, c]`: what tap `tap` of every window reads."""
    starts = [w.dilation * t for w, t in zip(windows, tap, strict=True)]
    counts, strides = [w.out for w in windows], [w.stride for w in windows]
    return strided(xp, xp.ndim - len(windows) - 1, starts, counts, strides)


def place(v: Array, windows: Sequence[Window], tap: Sequence[int]) -> Array:
    """Adjoint of `view`: `[*batch, *out, c]` to `[*batch, *extent, c]`."""
    config = [_placed(w, t) for w, t in zip(windows, tap, strict=True)]
    return grow(v, v.ndim - len(windows) - 1, config)


def seen(a: Array, axis: int, w: Window, tap: int) -> Array:
    """What a tap reads of one axis alone."""
    return strided(a, axis, [w.dilation * tap], [w.out], [w.stride])


def put_back(v: Array, axis: int, w: Window, tap: int) -> Array:
    """Adjoint of `seen`."""
    return grow(v, axis, [_placed(w, tap)])


def _placed(w: Window, tap: int) -> tuple[int, int, int]:
    start = w.dilation * tap
    return start, w.extent - start - (w.out - 1) * w.stride - 1, w.stride - 1


# ---------------------------------------------------------------- all taps, one axis at a time

# Taps of an axis up to which each is a slice; of more, one table. An eager call compiles every
# slice: of frames of 400 samples it took a minute.
MOST_SLICES = 64


def gather_patches(windows: Sequence[Window], xp: Array) -> Array:
    """`[*batch, *extent, c]` to `[*batch, *out, *taps, c]`."""
    rank = len(windows)
    lead = xp.ndim - rank - 1
    for axis in reversed(range(rank)):
        w = windows[axis]
        if w.taps > MOST_SLICES:
            xp = jnp.take(xp, reads(w.padded()), lead + axis, mode="clip")
            xp = jnp.moveaxis(xp, lead + axis + 1, lead + rank)
            continue
        xp = jnp.stack([seen(xp, lead + axis, w, t) for t in range(w.taps)], lead + rank)
    return xp


def overlap_add(windows: Sequence[Window], patches: Array) -> Array:
    """Adjoint of `gather_patches`: `[*batch, *out, *taps, c]` to `[*batch, *extent, c]`."""
    rank = len(windows)
    lead = patches.ndim - 2 * rank - 1
    for axis, w in enumerate(windows):
        if w.taps > MOST_SLICES:
            rows = jnp.moveaxis(patches, (lead + axis, lead + rank), (0, 1))
            sums = zeros((w.extent, *rows.shape[2:]), rows.dtype, rows)
            patches = jnp.moveaxis(sums.at[reads(w.padded())].add(rows), 0, lead + axis)
            continue
        parts = []
        for t in range(w.taps):
            part = lax.index_in_dim(patches, t, lead + rank, keepdims=False)
            parts.append(put_back(part, lead + axis, w, t))
        patches = reduce(jnp.add, parts)
    return patches
