"""Toom and Cook's minimal filtering F(size, taps) of one axis, as three matrices.

    y = a' [(g k) . (b x)]      `size` outputs by `reach = size + taps - 1` products, not
                                `size * taps`

Polynomials of degree `reach - 1` are known by their values at `reach - 1` points and at infinity.
With the six below, the error of float32 is a fourth of that with 0, +-1, +-2.
Source: Lavin and Gray (2016), eq. 8; Barabasz, Anderson, Soodhalter, Gregg (2020).
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

POINTS = {4: (0, 1, -1), 6: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)}


class Tile(NamedTuple):
    """F(size, taps) on one axis: what turns `y`, `x` and `k` into products."""

    size: int
    reach: int
    a: np.ndarray
    b: np.ndarray
    g: np.ndarray


def tile(reach: int, taps: int) -> Tile:
    """The Toom-Cook matrices, `[reach, size]`, `[reach, reach]` and `[reach, taps]`."""
    points = np.array(POINTS[reach])
    size = reach + 1 - taps
    others = [np.delete(points, i) for i in range(len(points))]
    scale = [np.prod(p - q) for p, q in zip(points, others, strict=True)]
    a = np.vander(points, size, increasing=True)
    g = np.vander(points, taps, increasing=True) / np.array(scale)[:, None]
    b = [[*np.poly(q)[::-1], 0] for q in others]
    return Tile(
        size,
        reach,
        np.vstack([a, np.eye(size)[-1]]),
        np.array([*b, np.poly(points)[::-1]]),
        np.vstack([g, np.eye(taps)[-1]]),
    )


def views(
    a: Array, axis: int, starts: Iterable[int], count: int, stride: int, run: int = 1
) -> list[Array]:
    """`count` entries of an axis, `stride` apart, from each of the `starts` on.

    Or runs of so many entries, all in units of runs, which have an axis of their own behind it.
    """
    a = a.reshape(*a.shape[:axis], -1, run, *a.shape[axis + 1 :]) if run > 1 else a
    last = stride * (count - 1) + 1
    return [lax.slice_in_dim(a, i, i + last, stride, axis) for i in starts]


def entries(a: Array, axis: int) -> list[Array]:
    return [lax.index_in_dim(a, i, axis, keepdims=False) for i in range(a.shape[axis])]


def combined(matrix: np.ndarray, parts: list[Array], axis: int) -> Array:
    """`matrix @ parts` along a new `axis`."""
    return jnp.stack([weighted(row, parts) for row in matrix], axis)


def applied(matrices: Sequence[np.ndarray], a: Array) -> Array:
    """A matrix on each of the first axes, by one small product.

    Both axes of 3x3 taps, 64 -> 64 channels, compile in 0.04 s, and in 0.14 as sums of `entries`.
    """
    if not matrices:
        return a
    matrix = jnp.asarray(reduce(np.kron, matrices), a.dtype)
    flat = a.reshape(matrix.shape[1], -1)
    product = lax.dot(matrix, flat, precision=lax.Precision.HIGHEST)
    sizes = (m.shape[0] for m in matrices)
    return product.reshape(*sizes, *a.shape[len(matrices) :])


def weighted(row: np.ndarray, parts: list[Array]) -> Array:
    """`row @ parts` without the products by 0 and 1."""
    terms = [
        p if w == 1 else -p if w == -1 else p * float(w)
        for w, p in zip(row, parts, strict=True)
        if w
    ]
    return sum(terms[1:], terms[0])
