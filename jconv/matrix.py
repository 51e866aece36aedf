"""The linear map, written out.

One axis of a convolution is the pattern `P[tap, out, in]`, 1 where input `in` feeds output `out`
through `tap`. Its matrix is `sum_tap P[tap] k[tap]`: Toeplitz in one dimension, blocks of Toeplitz
blocks in two, and so on. Every matrix here is gathered, not multiplied: a NaN in a kernel stays
where it is.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jconv import checks, geometry
from jconv.call import check_map
from jconv.geometry import Ints, Padding, Window
from jconv.operands import array
from jconv.placement import placed
from jconv.pool_options import Pooling, resolved
from jconv.sparse import all_reads, conv_entries, pool_entries
from jconv.tables import blocks, reads

__all__ = ["conv_matrix", "index_pattern", "pool_matrix", "toeplitz"]


@placed(axes=tuple)  # not cut
def toeplitz(column: ArrayLike, row: ArrayLike | None = None) -> Array:
    """The Toeplitz matrix of a first column and a first row.

    `T[i, j] = column[i - j]` for `i >= j`, else `row[j - i]`. As in SciPy, `row[0]` is not read,
    and `row` defaults to the conjugate of `column`. By gather: a NaN stays on its diagonal.

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
            raise checks.wrong(name, "be a vector", f"shape {vector.shape}")
    diagonals = jnp.concatenate([row[:0:-1], column])
    m, n = len(column), len(row)
    return diagonals[np.arange(m)[:, None] - np.arange(n) + max(n - 1, 0)]


def index_pattern(
    size: Ints, taps: Ints, *, stride: Ints = 1, padding: Padding = "valid", dilation: Ints = 1
) -> tuple[Array, ...]:
    """Per axis, which input feeds which output through which tap.

    `P[t, o, i] = 1` where `i == stride*o + dilation*t - low`, else 0, so that a convolution in one
    dimension is `einsum("toi,i,t->o", P, x, kernel)`, and in more the same with one pattern an
    axis.

    Args:
      size, taps: one int per spatial axis, or an int for all. Two ints: one axis.
      stride, padding, dilation: as in `conv`.

    Returns:
      One `[taps, out, size]` of int32 per axis.

    Raises:
      ValueError, TypeError: as `conv`.

    >>> index_pattern(3, 2)[0][1]
    Array([[0, 1, 0],
           [0, 0, 1]], dtype=int32)
    """
    taps, size = _matched("taps", taps, size)
    made = geometry.windows(size, taps, stride=stride, padding=padding, dilation=dilation)
    geometry.require_output("size", made)
    return tuple(jnp.asarray(_pattern(w), jnp.int32) for w in made)


def _pattern(w: Window) -> np.ndarray:
    return reads(w).T[:, :, None] == np.arange(w.size)


def _matched(name: str, taps: Ints, size: Ints) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The argument `name` and `size`, an int for each axis: as many as one of the two holds."""
    given = [entries for entries in map(checks.entries_of, (taps, size)) if entries is not None]
    rank = len(given[0]) if given else 1
    if not rank:
        raise checks.wrong(name, "hold one int for each of one or more spatial axes", taps)
    return (
        checks.per_axis(name, taps, rank, least=1),
        checks.per_axis("size", size, rank, least=1),
    )


@placed(axes=tuple)  # not cut
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
    method: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    custom_vjp: bool = True,
    sparse: bool = False,
) -> Any:  # a BCOO where `sparse`, else an Array
    """The matrix that a convolution multiplies by.

    `conv(x, kernel) == M @ x` with `x` and the result as vectors; `M.T @ y_bar` is backpropagation.
    `M[(o, m), (i, c)] = sum_t kernel[t, c, m]` over the taps through which `i` feeds `o`.

    Args:
      kernel: `[*taps, in // groups, out]`.
      size: spatial size of `x`, one int per spatial axis, or an int for all.
      stride, padding, padding_mode, dilation, input_dilation, groups, flip: as in `conv`.
      padding_value: only 0 where it pads; else the map is affine, and no matrix is that.
      preferred_element_type: the dtype of the matrix.
      method, precision, custom_vjp: as in `conv`, for options to be shared, but without effect:
        entries are laid out here, and nothing is multiplied.
      sparse: True keeps the nonzeros alone, and never takes the memory of the dense matrix. Where a
        boundary folds back, an entry may be stored as several that sum to it.

    Returns:
      `[prod(out) * out_channels, prod(size) * in]`; where `sparse`, a `BCOO`.

    Raises:
      ValueError, TypeError: as `conv`.

    >>> conv_matrix(jnp.array([1, 2, 3]).reshape(3, 1, 1), 4)
    Array([[1, 2, 3, 0],
           [0, 1, 2, 3]], dtype=int32)
    """
    kernel, call = check_map(
        kernel, size, stride=stride, padding=padding, padding_mode=padding_mode,
        padding_value=padding_value, dilation=dilation, input_dilation=input_dilation,
        groups=groups, flip=flip, method=method, precision=precision,
        preferred_element_type=preferred_element_type, custom_vjp=custom_vjp,
    )  # fmt: skip
    reads_it = call.mode == "constant" and any(max(w.low, w.high) > 0 for w in call.windows)
    if reads_it and (isinstance(padding_value, Tracer) or np.asarray(padding_value) != 0):
        raise checks.wrong("padding_value", "be 0 for the map to be linear", padding_value)
    kernel = lax.rev(kernel, range(call.rank)) if flip else kernel
    if checks.flag("sparse", sparse):
        size = tuple(w.size for w in call.windows)
        every = all_reads([reads(w, call.mode) for w in call.windows], size)
        return conv_entries(every, kernel, call.spec.groups, call.spec.out, size)
    return _dense(blocks(call.windows, kernel, call.spec.groups, call.mode), call.rank)


def _dense(grouped: Array, rank: int) -> Array:
    """`[groups, *out, m, *size, c]` as one matrix, with zeros between the groups."""
    groups = grouped.shape[0]
    by_out = jnp.expand_dims(jnp.moveaxis(grouped, 0, rank), -2)  # [*out, group, m, *size, 1, c]
    same_group = np.eye(groups, dtype=bool).reshape(groups, 1, *(1,) * rank, groups, 1)
    full = jnp.where(lax.expand_dims(same_group, range(rank)), by_out, jnp.zeros((), by_out.dtype))
    rows = math.prod(full.shape[: rank + 2])
    return full.reshape(rows, math.prod(full.shape[rank + 2 :]))


def pool_matrix(
    window: Ints,
    size: Ints,
    *,
    kind: str = "avg",
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: float | None = None,
    sparse: bool = False,
) -> Any:  # a BCOO where `sparse`, else an Array
    """The matrix that a linear pooling multiplies each channel by.

    `M @ x[..., c] == pool(x, window, ...)[..., c]` with both sides as vectors. `M[o, i]` is 1 for
    `"sum"`, and 1 over the count of the window for `"avg"`, where window `o` reads input `i`.
    `"drop"` reads the first tap alone: it is the matrix of `drop(x, stride)`, `window` gives only
    the default of `stride`, and `padding=[(-offset, 0)]` is `drop`'s `offset`.

    Args:
      window: one int per spatial axis, or an int for all.
      size: spatial size of `x`, one int per spatial axis, or an int for all. Two ints: one axis.
      kind: `"avg"`, `"sum"` or `"drop"`.
      stride, padding, dilation, ceil_mode: as in `avg_pool`.
      count_include_pad, divisor: as in `avg_pool`, and of no other kind.
      sparse: as in `conv_matrix`.

    Returns:
      `[prod(out), prod(size)]`, of the default float dtype; where `sparse`, a `BCOO`.

    Raises:
      ValueError, TypeError: as `avg_pool`; an unknown `kind`, or an option that it does not have.

    >>> pool_matrix(2, 4)
    Array([[0.5, 0.5, 0. , 0. ],
           [0. , 0. , 0.5, 0.5]], dtype=float32)
    """
    checks.choice("kind", kind, ("avg", "sum", "drop"))
    include = checks.flag("count_include_pad", count_include_pad)
    if kind != "avg" and not include:
        raise checks.wrong("count_include_pad", f"be True where `kind` is {kind!r}", include)
    if kind != "avg" and divisor is not None:
        raise checks.wrong("divisor", f"be None where `kind` is {kind!r}", divisor)
    taps, size = _matched("window", window, size)
    rank = len(size)
    pooling = resolved(
        "size", size, (1,) * rank if kind == "drop" else taps,
        stride=taps if stride is None else stride, padding=padding, dilation=dilation,
        ceil_mode=ceil_mode,
    )  # fmt: skip
    weights = np.ones((1,) * (2 * rank))
    for axis, count in enumerate(pooling.counts(include, divisor) if kind == "avg" else ()):
        weights = weights / _spaced(count, axis, rank)
    weights = jnp.asarray(weights, jnp.result_type(float))
    if checks.flag("sparse", sparse):
        outs = tuple(w.out for w in pooling.windows)
        each = jnp.broadcast_to(weights.reshape(weights.shape[:rank]), outs)
        return pool_entries(all_reads(_pool_reads(pooling), size), each, size)
    full = jnp.where(_reach(pooling, size), weights, jnp.zeros((), weights.dtype))
    return full.reshape(-1, math.prod(size))


def _pool_reads(pooling: Pooling) -> list[np.ndarray]:
    """An axis each, `[out, taps]`: the input that each tap of each window reads, -1 for none."""
    kept = [(reads(w), start) for w, (start, _) in zip(pooling.windows, pooling.kept, strict=True)]
    return [np.where(source >= 0, source + start, -1) for source, start in kept]


def _reach(pooling: Pooling, size: tuple[int, ...]) -> Array:
    """`[*out, *size]`: whether a window reads an input."""
    rank = len(size)
    reach = jnp.ones((1,) * (2 * rank), bool)
    for axis, source in enumerate(_pool_reads(pooling)):
        table = (source[:, :, None] == np.arange(size[axis])).any(1)
        reach = reach & _spaced(table, axis, rank)
    return reach


def _spaced(table: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """`[out]` or `[out, in]` of one axis, laid out against `[*out, *size]`."""
    shape = [1] * (2 * rank)
    for place, count in zip((axis, rank + axis), table.shape, strict=False):
        shape[place] = count
    return table.reshape(shape)
