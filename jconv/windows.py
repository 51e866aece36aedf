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

from jconv.geometry import Window
from jconv.padding import grow, strided
from jconv.placement import zeros
from jconv.tables import reads

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
