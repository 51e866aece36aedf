"""The trilinear form with a kernel for every example: its three faces, one example at a time.

    to_kernels  x[n, i, c] y[n, o, m]    -> k[n, t, c, m]
    to_inputs   y[n, o, m] k[n, t, c, m] -> x[n, i, c]
    to_outputs  x[n, i, c] k[n, t, c, m] -> y[n, o, m]

A few examples at a time share a step, as one batched product over their patches. So nothing here
is a grouped convolution, which is what `jax.vmap` makes of a convolution whose kernels differ, and
the scratch is that of a few examples, however many there are.

A kernel's gradient takes patches by halves: the taps of the first axis as shifted copies of `y`,
those of the other axes as patches of `x`. Of `t` taps an axis, each is then copied `t` times, where
patches of `x` alone would be `t**n` copies, and the product is nearly square.
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
from jconv.channels import matmul
from jconv.faces import evaluate
from jconv.geometry import Spec, Window
from jconv.padding import embed, grow
from jconv.windows import gather_patches


class Static(NamedTuple):
    """What is static about the form, and the most examples that share a step.

    `by_halves` says how a kernel's gradient is computed; the other two faces are by the method.
    """

    spec: Spec
    method: str
    together: int
    by_halves: bool = False


def prepared(spec: Spec, method: str, inputs: int, outputs: int, itemsize: int) -> Static:
    """Patches of as many examples as fit a block; any other method takes them one by one.

    By halves where that copies no more than whole patches do. 64 examples of 3x3 taps, 64 to 64
    channels, 16x16 take 5.8 ms so and 8.0 by whole patches, of 16 channels in 28x28 1.5 and 3.9;
    but of one channel, 5x5 taps to 32 channels, 1.8 and 1.2. XLA's convolution is slower in all.
    """
    if method != "auto":
        return Static(spec, method, 1)
    first, positions = spec.windows[0], math.prod(spec.out)
    column = math.prod(spec.taps) * inputs
    whole = positions * (column + outputs)
    rows = positions // first.out * first.extent
    halves = rows * (column // first.taps + first.taps * outputs)
    by_halves = spec.groups == first.stride == 1 and halves <= whole
    example = (halves if by_halves else whole) + column // spec.groups * outputs
    return Static(spec, "patches", max(BLOCK_BYTES // (example * itemsize), 1), by_halves)


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
    if static.by_halves:
        return _by_halves(static.spec, x, y)
    return evaluate("kernel_adjoint", static.spec, static.method, x[None], y[None])


def _by_halves(spec: Spec, x: Array, y: Array) -> Array:
    """The taps of the first axis as copies of `y`, the others as patches of `x`: fewer of both.

    k[(i, j), c, m] = sum_(o, p) x[o, p + j, c] y[o - i, p, m]
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
    k = lax.rev(jnp.moveaxis(k, -2, 0), (0,))
    return k.astype(x.dtype if spec.preferred is None else spec.preferred)


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
