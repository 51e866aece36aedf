"""The trilinear form with a kernel for every example: its three faces, one example at a time.

    to_kernels  x[n, i, c] y[n, o, m]    -> k[n, t, c, m]
    to_inputs   y[n, o, m] k[n, t, c, m] -> x[n, i, c]
    to_outputs  x[n, i, c] k[n, t, c, m] -> y[n, o, m]

A few examples at a time share a step, as one batched product over their patches. So nothing here
is a grouped convolution, which is what `jax.vmap` makes of a convolution whose kernels differ, and
the scratch is that of a few examples, however many there are.

A kernel's gradient is one of three products, the one that copies least: by patches of `x`, by
patches of `y`, or by halves of either.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jconv import adjoint
from jconv.blocks import BLOCK_BYTES, at_once
from jconv.channels import by_group, matmul, transposed_kernel
from jconv.faces import evaluate
from jconv.geometry import Spec, Window, transposed
from jconv.padding import embed, grow
from jconv.windows import gather_patches


class Static(NamedTuple):
    """What is static about the form, and the most examples that share a step.

    `product` says how a kernel's gradient is computed, a key of `PRODUCTS` or else by the method,
    as the other two faces are.
    """

    spec: Spec
    method: str
    together: int
    product: str = ""


def prepared(spec: Spec, method: str, x: Array, outputs: int, written: bool = True) -> Static:
    """The product that copies least; the method, one by one, where one example is too large.

    A step holds its kernels beside its copies, unless all are `written` at once as the result.
    """
    count, inputs, itemsize = len(x), x.shape[-1], x.dtype.itemsize
    kernel = math.prod(spec.taps) * inputs // spec.groups * outputs
    copied = _copied(spec, inputs, outputs, kernel)
    product = min(copied, key=copied.__getitem__)
    together = fitting(copied[product], itemsize)
    if not written or together < count:
        together = fitting(copied[product] + kernel, itemsize)
    if method != "auto" or not together:
        return Static(spec, "patches" if method == "auto" else method, 1)
    return Static(spec, "patches", together, product)


def fitting(entries: int, itemsize: int) -> int:
    """How many examples of so many entries share a step: what fits two blocks.

    All 64 at once of 64 channels, 3x3 taps in 8x8 take 1.0 ms, in four steps 1.8: XLA:CPU puts the
    results of steps together with one thread.
    """
    return 2 * BLOCK_BYTES // (entries * itemsize)


def _copied(spec: Spec, inputs: int, outputs: int, kernel: int) -> dict[str, int]:
    """Entries that each product copies of one example: both its operands, and a turned result.

    Batch 64, 3x3 taps, of_x, of_y and by_halves: 64 to 4 channels in 16x16 take 2.2, 0.5 and 3.3
    ms, 16 to 16 in 28x28 take 2.6, 2.4 and 1.6, 3 to 16 in 32x32 take 0.9, 4.1 and 1.2.
    """
    taps, first = math.prod(spec.taps), spec.windows[0]
    size, out = math.prod(spec.size), math.prod(spec.out)
    copied = {"of_x": size * inputs + out * (taps * inputs + outputs)}
    if size <= 2 * out:  # else the product sums over too many positions
        copied["of_y"] = out * outputs + size * (taps * outputs + inputs) + kernel
    if spec.groups == first.stride == 1 and first.taps > 1:
        rows = out // first.out * first.extent
        copied["by_halves"] = rows * (taps // first.taps * inputs + first.taps * outputs) + kernel
    return copied


def kernels(static: Static, x: Array, y: Array, custom_vjp: bool) -> Array:
    """The kernel adjoint of every example."""
    plain = partial(at_once, to_kernels)
    if not custom_vjp:
        return plain(static, x, y)
    return adjoint.bilinear(plain, _to_x, _to_y, static, x, y)


def to_kernels(static: Static, x: Array, y: Array) -> Array:
    return map_examples(static, partial(kernel_of, static), x, y)


def kernel_of(static: Static, x: Array, y: Array) -> Array:
    """The kernel adjoint of one example, `[*taps, in // groups, out]`."""
    if static.product:
        k = PRODUCTS[static.product](static.spec, x, y)
        return k.astype(x.dtype if static.spec.preferred is None else static.spec.preferred)
    return evaluate("kernel_adjoint", static.spec, static.method, x[None], y[None])


def _of_x(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `x` in rows of positions, so that no side of the product is read across."""
    k = matmul(spec, _rows(spec, x), by_group(spec, y), ((2,), (1,)), ((0,), (0,)))
    return jnp.moveaxis(k, 0, 1).reshape(*spec.taps, -1, y.shape[-1])


def _rows(spec: Spec, x: Array) -> Array:
    """`[*size, groups * c]` to `[groups, taps * c, positions]`, by copies of whole rows.

    Turned and padded at once: 7x7 taps of stride 2 take 1.1 ms so, and 1.7 one after the other.
    """
    turned = lax.optimization_barrier(embed(jnp.moveaxis(x, -1, 0)[..., None], spec.windows))
    rows = turned.reshape(spec.groups, -1, *turned.shape[1:-1])
    for axis, w in reversed([*enumerate(spec.padded().windows, 2)]):
        last = (w.out - 1) * w.stride + 1
        starts = [t * w.dilation for t in range(w.taps)]
        views = [lax.slice_in_dim(rows, s, s + last, w.stride, axis) for s in starts]
        stacked = lax.optimization_barrier(jnp.stack(views, 1))
        rows = stacked.reshape(spec.groups, -1, *stacked.shape[3:])
    return rows.reshape(spec.groups, -1, math.prod(spec.out))


def _of_y(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `y`: the same of the transposed convolution, whose kernel is the transposed."""
    return transposed_kernel(_of_x(transposed(spec), y, x), spec.groups)


def _by_halves(spec: Spec, x: Array, y: Array) -> Array:
    """The taps of the first axis as shifted copies of `y`, the others as patches of `x`.

    k[(i, j), c, m] = sum_(o, p) x[o, p + j, c] y[o - i, p, m]

    Of `t` taps an axis, each is copied `t` times, where patches of `x` alone are `t**n` copies.
    """
    first, *others = spec.padded().windows
    of_x = (replace(first, taps=1), *others)
    of_y = (
        replace(first, size=first.out + 2 * first.reach),
        *(Window(w.out, 1) for w in others),
    )
    positions = first.extent * math.prod(w.out for w in others)
    x = gather_patches(of_x, embed(x, spec.windows)).reshape(positions, -1)
    y = gather_patches(of_y, grow(y, 0, [(first.reach, first.reach, 0)])).reshape(positions, -1)
    x, y = lax.optimization_barrier((x, y))
    k = matmul(spec, x, y, ((0,), (0,)))
    k = k.reshape(*spec.taps[1:], -1, first.taps, y.shape[-1] // first.taps)
    return lax.rev(jnp.moveaxis(k, -2, 0), (0,))


PRODUCTS = {"of_x": _of_x, "of_y": _of_y, "by_halves": _by_halves}


def input_of(static: Static, y: Array, k: Array) -> Array:
    return evaluate("input_adjoint", static.spec, static.method, y[None], k)[0]


def output_of(static: Static, x: Array, k: Array) -> Array:
    return evaluate("forward", static.spec, static.method, x[None], k)[0]


def map_examples(static: Static, f: Callable, *arrays: Array):
    """`f` of every example, a few at a time."""
    count, most = len(arrays[0]), static.together
    # Equal steps where there are: a rest is a program of its own, put together by a copy of all.
    equal = [d for d in range(most // 2 + 1, min(most, count) + 1) if count % d == 0]
    together = max(equal, default=min(most, count))
    # Steps of one example in an axis of their own would make XLA:CPU copy whole arrays.
    batch_size = together if together > 1 else None
    return lax.map(lambda example: f(*example), arrays, batch_size=batch_size)


def of_cotangents(static: Static, *arrays: Array) -> tuple[Static, list[Array]]:
    """A face within a rule: its dtype follows the cotangent, not `preferred_element_type`."""
    with jax.numpy_dtype_promotion("standard"):
        common = jnp.result_type(*arrays)
    static = static._replace(spec=replace(static.spec, preferred=None))
    return static, [a.astype(common) for a in arrays]


def _to_x(static: Static, k: Array, y: Array) -> Array:
    static, (k, y) = of_cotangents(static, k, y)
    return at_once(_to_inputs, static, y, k)


def _to_y(static: Static, x: Array, k: Array) -> Array:
    static, (x, k) = of_cotangents(static, x, k)
    return at_once(_to_outputs, static, x, k)


def _to_inputs(static: Static, y: Array, k: Array) -> Array:
    return map_examples(static, partial(input_of, static), y, k)


def _to_outputs(static: Static, x: Array, k: Array) -> Array:
    return map_examples(static, partial(output_of, static), x, k)
