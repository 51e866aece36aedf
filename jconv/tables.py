"""Which input each tap of each window reads, as tables, and the matrices gathered by them."""

from collections.abc import Sequence
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.channels import in_groups
from jconv.geometry import Window
from jconv.padding import sources


def reads(w: Window, mode: str = "constant") -> np.ndarray:
    """`[out, taps]`: the input index that each tap of each window reads, -1 for a zero."""
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
    by_group = in_groups(kernel, groups)
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
    return jnp.where(
        lax.expand_dims(fed, (-3, -2, -1)), by_group[tuple(index)], jnp.zeros((), by_group.dtype)
    )


def blocks_adjoint(windows: Sequence[Window], grouped: Array) -> Array:
    """Adjoint of `blocks`, zeros outside: `[groups, *out, m, *size, c]` to `[*taps, c, out]`."""
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
