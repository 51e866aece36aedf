"""The linear map, written out.

One axis of a convolution is the pattern `P[tap, out, in]`, 1 where input `in` feeds output `out` through
`tap`. Its matrix is `sum_tap P[tap] k[tap]`: Toeplitz in one dimension, blocks of Toeplitz blocks in two, and
so on. Every matrix here is gathered, not multiplied: a NaN in a kernel stays where it is.
"""

import math
from collections.abc import Sequence
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import geometry
from jconv.geometry import Ints, Padding, Window
from jconv.operands import array, scalar
from jconv.padding import sources


def toeplitz(column: ArrayLike, row: ArrayLike | None = None) -> Array:
    """The Toeplitz matrix of a first column and a first row.

    `T[i, j] = column[i - j]` for `i >= j`, else `row[j - i]`. As in SciPy, `row[0]` is not read, and `row`
    defaults to the conjugate of `column`. By gather: a NaN stays on its diagonal.

    Args:
      column: `[m]`.
      row: `[n]`.

    Returns:
      `[m, n]`.

    Raises:
      ValueError: `column` or `row` is not a vector.

    >>> toeplitz(jnp.array([1, 2, 3]), jnp.array([0, 8, 9, 7]))
    Array([[1, 8, 9, 7],
           [2, 1, 8, 9],
           [3, 2, 1, 8]], dtype=int32)
    """
    column = array(column, name="column")
    row = jnp.conj(column) if row is None else array(row, name="row")
    for name, vector in (("column", column), ("row", row)):
        if vector.ndim != 1:
            raise geometry.wrong(name, "be a vector", f"shape {vector.shape}")
    diagonals = jnp.concatenate([row[:0:-1], column])
    m, n = len(column), len(row)
    return diagonals[np.arange(m)[:, None] - np.arange(n) + max(n - 1, 0)]


def index_pattern(
    size: Ints, taps: Ints, *, stride: Ints = 1, padding: Padding = "valid", dilation: Ints = 1
) -> tuple[Array, ...]:
    """Per axis, which input feeds which output through which tap.

    `P[t, o, i] = 1` where `i == stride*o + dilation*t - low`, else 0, so that a convolution in one
    dimension is `einsum("toi,i,t->o", P, x, kernel)`, and in more the same with one pattern an axis.

    Args:
      size, taps: one int per spatial axis (an int: one axis).
      stride, padding, dilation: as in `conv`.

    Returns:
      One `[taps, out, size]` of int32 per axis.

    Raises:
      ValueError, TypeError: as `conv`.

    >>> index_pattern(3, 2)[0][1]
    Array([[0, 1, 0],
           [0, 0, 1]], dtype=int32)
    """
    taps = geometry.window_taps("taps", taps, 3)
    size = geometry.per_axis("size", size, len(taps), least=1)
    made = geometry.windows(size, taps, stride=stride, padding=padding, dilation=dilation)
    geometry.require_output("size", made)
    return tuple(jnp.asarray(_pattern(w), jnp.int32) for w in made)


def _pattern(w: Window) -> np.ndarray:
    return reads(w).T[:, :, None] == np.arange(w.size)


def conv_matrix(
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
) -> Array:
    """The matrix that a convolution multiplies by.

    `conv(x, kernel) == M @ x` with `x` and the result as vectors; `M.T @ y_bar` is backpropagation.
    `M[(o, m), (i, c)] = sum_t kernel[t, c, m]` over the taps through which `i` feeds `o`.

    Args:
      kernel: `[*taps, in // groups, out]`.
      size: spatial size of `x`, one int per spatial axis, or an int for all.
      stride, padding, padding_mode, dilation, input_dilation, groups, flip: as in `conv`.
      padding_value: only 0; any other value makes the map affine, and no matrix is that.

    Returns:
      `[prod(out) * out_channels, prod(size) * in]`.

    Raises:
      ValueError, TypeError: as `conv`.

    >>> conv_matrix(jnp.array([1, 2, 3]).reshape(3, 1, 1), 4)
    Array([[1, 2, 3, 0],
           [0, 1, 2, 3]], dtype=int32)
    """
    kernel = array(kernel, name="kernel")
    rank = geometry.kernel_rank(kernel.shape)
    size = geometry.per_axis("size", size, rank, least=1)
    scalar("padding_value", padding_value, kernel.dtype)
    if not (isinstance(padding_value, int | float) and padding_value == 0):
        raise geometry.wrong("padding_value", "be 0 for the map to be linear", padding_value)
    count = geometry.whole("groups", groups, least=1)
    geometry.channel_groups(count, kernel.shape[-2] * count, kernel.shape[-1])
    made = geometry.windows(
        size,
        kernel.shape[:rank],
        stride=stride,
        padding=padding,
        dilation=dilation,
        input_dilation=input_dilation,
    )
    geometry.require_output("size", made)
    if geometry.flag("flip", flip):
        kernel = lax.rev(kernel, range(rank))
    return _dense(blocks(made, kernel, count, geometry.padding_mode(padding_mode)), rank)


def _dense(grouped: Array, rank: int) -> Array:
    """`[groups, *out, m, *size, c]` as one matrix, with zeros between the groups."""
    groups = grouped.shape[0]
    by_out = jnp.expand_dims(jnp.moveaxis(grouped, 0, rank), -2)  # [*out, group, m, *size, 1, c]
    same_group = np.eye(groups, dtype=bool).reshape(groups, 1, *(1,) * rank, groups, 1)
    full = jnp.where(lax.expand_dims(same_group, range(rank)), by_out, jnp.zeros((), by_out.dtype))
    rows = math.prod(full.shape[: rank + 2])
    return full.reshape(rows, math.prod(full.shape[rank + 2 :]))


# ---------------------------------------------------------------- tables of one axis


def reads(w: Window, mode: str = "constant") -> np.ndarray:
    """`[out, taps]`: the input index that each tap of each window reads, -1 where it reads a zero."""
    at = w.stride * np.arange(w.out)[:, None] + w.dilation * np.arange(w.taps)
    if mode == "constant":
        spread_at = at - w.low
        inside = (spread_at >= 0) & (spread_at < w.spread)
    else:
        spread_at = sources(w.spread, w.low, w.high, mode)[at]
        inside = np.ones_like(spread_at, bool)
    return np.where(inside & (spread_at % w.input_dilation == 0), spread_at // w.input_dilation, -1)


def tap_tables(w: Window, mode: str = "constant") -> np.ndarray:
    """`[slot, out, in]`: the taps through which `in` feeds `out`, -1 for none.

    With zeros outside one slot is enough; a boundary that folds back reads an entry more than once.
    """
    source = reads(w, mode)
    filled = np.zeros((w.out, w.size), int)
    table = np.full((w.taps, w.out, w.size), -1)
    for tap in range(w.taps):
        (out,) = np.nonzero(source[:, tap] >= 0)
        entry = source[out, tap]
        table[filled[out, entry], out, entry] = tap
        filled[out, entry] += 1
    return table[: max(int(filled.max(initial=0)), 1)]


def blocks(windows: Sequence[Window], kernel: Array, groups: int, mode: str = "constant") -> Array:
    """The matrix of each group, `[groups, *out, out_of_group, *size, in_of_group]`."""
    rank = len(windows)
    tables = [tap_tables(w, mode) for w in windows]
    by_group = kernel.reshape(*kernel.shape[:-1], groups, kernel.shape[-1] // groups)
    total = sum(
        _gathered(by_group, [table[slot] for table, slot in zip(tables, slots, strict=True)])
        for slots in product(*(range(len(table)) for table in tables))
    )
    outs, ins = range(0, 2 * rank, 2), range(1, 2 * rank, 2)
    in_axis, group_axis, out_axis = 2 * rank, 2 * rank + 1, 2 * rank + 2
    return jnp.transpose(total, (group_axis, *outs, out_axis, *ins, in_axis))


def _gathered(by_group: Array, tables: list[np.ndarray]) -> Array:
    """`[out_1, in_1, out_2, in_2, ..., c, g, m]`: the kernel's entry at each pair, 0 where none."""
    rank = len(tables)
    index, fed = [], np.ones((1,) * (2 * rank), bool)
    for axis, table in enumerate(tables):
        shape = (1,) * (2 * axis) + table.shape + (1,) * (2 * (rank - axis - 1))
        index.append(np.maximum(table, 0).reshape(shape))
        fed = fed & (table >= 0).reshape(shape)
    return jnp.where(lax.expand_dims(fed, (-3, -2, -1)), by_group[tuple(index)], jnp.zeros((), by_group.dtype))


def blocks_adjoint(windows: Sequence[Window], grouped: Array) -> Array:
    """Adjoint of `blocks` with zeros outside: `[groups, *out, m, *size, c]` to `[*taps, c, out]`."""
    rank = len(windows)
    for axis, w in enumerate(windows):
        # The first remaining out axis and size axis give way to a taps axis at the end.
        pair = jnp.moveaxis(grouped, (1, rank - axis + 2), (-2, -1))
        source = reads(w)
        at = jnp.broadcast_to(np.maximum(source, 0), (*pair.shape[:-1], w.taps))
        read = jnp.take_along_axis(pair, at, -1)
        fed = jnp.broadcast_to(source >= 0, read.shape)
        grouped = jnp.where(fed, read, jnp.zeros((), read.dtype)).sum(-2)
    groups, m, c, *taps = grouped.shape
    return jnp.moveaxis(grouped, (0, 1, 2), (-2, -1, -3)).reshape(*taps, c, groups * m)
