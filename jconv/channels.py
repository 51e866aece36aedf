"""The channel part of every face: products over a group's channels, and what they add up in.

    mix        x[..., in],  k[in // groups, out]  ->  y[..., out]
    mix_input  y[..., out], k[in // groups, out]  ->  x[..., in]
    mix_kernel x[..., in],  y[..., out]           ->  k[in // groups, out]

Groups are an axis of a batched product, never a grouped convolution.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jconv.geometry import Spec
from jconv.operands import wide

# Terms of a sum from which one after the other rounds too much: the gradient of 1x1 taps from 300
# to 1 channels on 200x200 was 31 times as far off as XLA's own, and is 2.9 times.
MOST_CHAINED = 2**10


def accumulator(spec: Spec, dtype) -> jnp.dtype:
    """The dtype that sums are kept in: at least float32 for the half-precision floats."""
    return wide(jnp.dtype(spec.result_dtype(dtype)))


def mix(spec: Spec, x: Array, k: Array) -> Array:
    """`y[..., o] = sum_c x[..., c of o's group] k[c, o]`."""
    out = k.shape[-1]
    if spec.groups == 1:
        return matmul(spec, _rows(x), k, ((1,), (0,))).reshape(*x.shape[:-1], out)
    acc = accumulator(spec, x.dtype)
    if k.shape[0] == 1:
        per_group = (spec.groups, out // spec.groups)
        k = lax.expand_dims(k.astype(acc).reshape(per_group), range(x.ndim - 1))
        return (x.astype(acc)[..., None] * k).reshape(*x.shape[:-1], out)
    return mix_rows(spec, by_group(spec, x), k, x.shape[:-1])


def mix_rows(spec: Spec, rows: Array, k: Array, lead: tuple[int, ...]) -> Array:
    """The same of what is turned already, `[groups, rows, c]` to `[*lead, out]`."""
    y = matmul(spec, rows, by_group(spec, k), ((2,), (1,)), ((0,), (0,)))
    return _from_groups(y, lead)


def mix_input(spec: Spec, y: Array, k: Array) -> Array:
    """`x[..., c] = sum_o y[..., o of c's group] k[c, o]`."""
    if spec.groups == 1:
        return matmul(spec, _rows(y), k, ((1,), (1,))).reshape(*y.shape[:-1], k.shape[0])
    acc = accumulator(spec, y.dtype)
    if k.shape[0] == 1:
        per_group = (spec.groups, k.shape[-1] // spec.groups)
        y = y.reshape(*y.shape[:-1], *per_group).astype(acc)
        return (y * lax.expand_dims(k.astype(acc).reshape(per_group), range(y.ndim - 2))).sum(-1)
    x = matmul(spec, by_group(spec, y), by_group(spec, k), ((2,), (2,)), ((0,), (0,)))
    return _from_groups(x, y.shape[:-1])


def mix_kernel(spec: Spec, x: Array, y: Array) -> Array:
    """`k[c, o] = sum_... x[..., c of o's group] y[..., o]`."""
    if spec.groups == 1:
        return _turned(spec, _rows(x), _rows(y))
    k = matmul(spec, by_group(spec, x), by_group(spec, y), ((1,), (1,)), ((0,), (0,)))
    return jnp.moveaxis(k, 0, 1).reshape(k.shape[1], -1)


def _turned(spec: Spec, x: Array, y: Array) -> Array:
    """`x' y`, of which the fewer columns come first: XLA:CPU is up to twice as fast that way.

    The barrier keeps it from swapping the two.
    """
    if x.shape[1] <= y.shape[1]:
        return matmul(spec, x, y, ((0,), (0,)))
    return lax.optimization_barrier(matmul(spec, y, x, ((0,), (0,)))).T


def transposed_kernel(k: Array, groups: int) -> Array:
    """The kernel of the input's adjoint: taps reversed, `[*taps, out // groups, in]`."""
    return jnp.swapaxes(turned_kernel(k, groups), -1, -2)


def turned_kernel(k: Array, groups: int) -> Array:
    """The same, its channels in each other's place: `[*taps, in, out // groups]`."""
    *taps, inputs, out = k.shape
    if groups > 1:
        k = jnp.swapaxes(k.reshape(*taps, inputs, groups, out // groups), -2, -3)
        k = k.reshape(*taps, groups * inputs, out // groups)
    return lax.rev(k, range(len(taps)))


def _rows(a: Array) -> Array:
    """`[..., c]` as a matrix: one plain product instead of one with several free axes."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


def in_groups(a: Array, groups: int) -> Array:
    """`[..., groups * c]` to `[..., groups, c]`."""
    return a.reshape(*a.shape[:-1], groups, a.shape[-1] // groups)


def by_group(spec: Spec, a: Array) -> Array:
    """`[..., groups * c]` to `[groups, rows, c]`."""
    return groups_first(spec, _rows(a))


def groups_first(spec: Spec, a: Array) -> Array:
    """`[..., groups * c]` to `[groups, ..., c]`."""
    return jnp.moveaxis(in_groups(a, spec.groups), -2, 0)


def grouped(spec: Spec, a: Array) -> Array:
    """`[..., groups * c]` to `[..., groups, c]`, of the dtype that sums are kept in."""
    return in_groups(a.astype(accumulator(spec, a.dtype)), spec.groups)


def groups_last(spec: Spec, a: Array) -> Array:
    """`[..., groups * c]` to `[..., c, groups]`, likewise."""
    return jnp.swapaxes(grouped(spec, a), -1, -2)


def _from_groups(a: Array, lead: tuple[int, ...]) -> Array:
    """`[groups, rows, c]` to `[*lead, groups * c]`."""
    return jnp.moveaxis(a, 0, 1).reshape(*lead, a.shape[0] * a.shape[2])


def matmul(spec: Spec, a: Array, b: Array, contract, batch=((), ())) -> Array:
    """A product at the asked precision, summed in the accumulator's dtype.

    Where XLA:CPU would add up a long sum term by term, there are zeros beside a factor's columns.
    """
    a, b = factors(spec, a, b)
    free = [_free(f.ndim, *axes) for f, *axes in zip((a, b), contract, batch, strict=True)]
    columns = [math.prod(f.shape[i] for i in axes) for f, axes in zip((a, b), free, strict=True)]
    least = _least_columns(*columns) if _is_long(a.shape[i] for i in contract[0]) else (0, 0)
    c = lax.dot_general(
        _widened(a, free[0], columns[0], least[0]),
        _widened(b, free[1], columns[1], least[1]),
        (contract, batch),
        precision=precision_of(spec, a.dtype),
        preferred_element_type=accumulator(spec, a.dtype),
    )
    sizes = [a.shape[i] for i in (*batch[0], *free[0])] + [b.shape[i] for i in free[1]]
    return c if c.shape == tuple(sizes) else lax.slice(c, [0] * c.ndim, sizes)


def _free(ndim: int, *others: Sequence[int]) -> list[int]:
    """The axes of a factor that its product keeps for itself."""
    return [axis for axis in range(ndim) if all(axis not in axes for axes in others)]


def _is_long(sizes: Iterable[int]) -> bool:
    """A sum of so many terms; of an exported batch it is unknown."""
    terms = math.prod(sizes)
    return isinstance(terms, int) and terms >= MOST_CHAINED


def _least_columns(a: int, b: int) -> tuple[int, int]:
    """How many columns XLA:CPU wants of both factors to add up in blocks.

    Two beside four, else four; a product of two vectors it adds up in vectors.
    """
    if max(a, b) == 1:
        return 1, 1
    least = 2 if max(a, b) >= 4 else 4
    return (least, b) if a <= b else (a, least)


def _widened(a: Array, free: Sequence[int], columns: int, least: int) -> Array:
    """`a` with zeros beside its columns, where there are fewer."""
    if not free or columns >= least:
        return a
    at = max(free, key=lambda axis: a.shape[axis])
    behind = [(0, least - columns if axis == at else 0, 0) for axis in range(a.ndim)]
    return lax.pad(a, jnp.zeros((), a.dtype), behind)


def precision_of(spec: Spec, dtype) -> Any:
    """The asked precision, for a product of arrays of `dtype`.

    Algorithms are for real floats: in one, JAX (0.10.2) drops the imaginary part of complex factors
    and rounds integers, without a word.
    """
    asked = spec.precision
    if asked is None:  # then JAX takes what the user set, by name
        asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    algorithms = lax.DotAlgorithmPreset.__members__
    by_algorithm = isinstance(asked, lax.DotAlgorithm | lax.DotAlgorithmPreset) or (
        isinstance(asked, str) and asked in algorithms
    )
    exact = by_algorithm and not jnp.issubdtype(dtype, jnp.floating)
    return lax.Precision.HIGHEST if exact else spec.precision


def factors(spec: Spec, a: Array, b: Array) -> tuple[Array, Array]:
    """`a` and `b` in the dtype that their products are summed in.

    XLA:GPU (jaxlib 0.11.2) sums float32 in float32 whatever is preferred, and gives twice the
    product of int8 matrices as int32. Half floats it sums in float32 as they are.
    """
    acc = accumulator(spec, a.dtype)
    return (a, b) if acc == jnp.float32 else (a.astype(acc), b.astype(acc))
