"""Matrices by their nonzeros alone, as `jax.experimental.sparse.BCOO`.

Memory is proportional to the nonzeros: a matrix is never formed densely. Where a boundary folds
back, one input feeds one output through several taps: those entries stand side by side and mean
their sum.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO


class Reads(NamedTuple):
    """Every `(out, tap, in)` where an input is read, each row-major over the spatial axes."""

    out: np.ndarray
    tap: np.ndarray
    into: np.ndarray
    unique: bool


def all_reads(sources: Sequence[np.ndarray], size: Sequence[int]) -> Reads:
    """The reads of all axes together; `sources` are `[out, taps]` an axis, -1 where none is."""
    out = tap = into = np.zeros(1, int)
    unique = True
    for source, inputs in zip(sources, size, strict=True):
        o, t = np.nonzero(source >= 0)
        i = source[o, t]
        unique = unique and len(np.unique(o * inputs + i)) == len(o)
        outs, taps = source.shape
        out = (out[:, None] * outs + o).ravel()
        tap = (tap[:, None] * taps + t).ravel()
        into = (into[:, None] * inputs + i).ravel()
    return Reads(out, tap, into, unique or not len(out))


def conv_entries(
    reads: Reads, kernel: Array, groups: int, outs: Sequence[int], size: Sequence[int]
) -> BCOO:
    """The matrix of a convolution: a block `[in_of_group, out_of_group]` for each read and group.

    `M[(o, g, m), (i, g, c)] = kernel[t, c, g, m]`.
    """
    *taps, c, outputs = kernel.shape
    m = outputs // groups
    entries = kernel.reshape(math.prod(taps), c, groups, m)[reads.tap]
    row_channel = np.arange(outputs).reshape(1, groups, m)
    column_channel = np.arange(groups)[None, :, None] * c + np.arange(c)[:, None, None]
    rows = _numbered(reads.out, outputs, row_channel, entries.shape)
    columns = _numbered(reads.into, groups * c, column_channel, entries.shape)
    shape = math.prod(outs) * outputs, math.prod(size) * groups * c
    return _bcoo(entries.ravel(), rows, columns, shape, reads.unique)


def pool_entries(reads: Reads, weights: Array, size: Sequence[int]) -> BCOO:
    """The matrix of a pooling of one channel, with one weight for each output."""
    rows, columns = (jnp.asarray(at, jnp.int32) for at in (reads.out, reads.into))
    shape = weights.size, math.prod(size)
    return _bcoo(weights.ravel()[reads.out], rows, columns, shape, reads.unique)


def _numbered(position: np.ndarray, channels: int, channel: np.ndarray, shape) -> Array:
    """`position * channels + channel`, one for each entry; built where it runs, not a constant."""
    first = jnp.asarray(position * channels, jnp.int32).reshape(-1, 1, 1, 1)
    each = jnp.asarray(channel, jnp.int32).reshape(1, *channel.shape)
    return (jnp.broadcast_to(first, shape) + jnp.broadcast_to(each, shape)).ravel()


def _bcoo(entries: Array, rows: Array, columns: Array, shape: tuple[int, int], unique: bool):
    indices = jnp.stack([rows, columns], -1)
    return BCOO((entries, indices), shape=shape, indices_sorted=False, unique_indices=unique)
