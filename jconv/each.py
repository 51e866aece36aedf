"""The trilinear form with a kernel for every example: its three faces, one example at a time.

    to_kernels  x[n, i, c] y[n, o, m]    -> k[n, t, c, m]
    to_inputs   y[n, o, m] k[n, t, c, m] -> x[n, i, c]
    to_outputs  x[n, i, c] k[n, t, c, m] -> y[n, o, m]

A few examples at a time share a step, as one batched product over their patches. So nothing here
is a grouped convolution, which is what `jax.vmap` makes of a convolution whose kernels differ, and
the scratch is that of a few examples, however many there are.
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
from jconv.faces import evaluate
from jconv.geometry import Spec


class Static(NamedTuple):
    """What is static about the form, and the most examples that share a step."""

    spec: Spec
    method: str
    together: int


def prepared(spec: Spec, method: str, inputs: int, outputs: int, itemsize: int) -> Static:
    """Patches of as many examples as fit a block; any other method takes them one by one.

    Patches in blocks were the fastest method or near it on every layer tried, and are never left to
    XLA's convolution: 64 examples of 3x3 taps, 64 to 64 channels, 16x16 take 7.5 ms, where one
    gradient for all of them takes 6.6.
    """
    if method != "auto":
        return Static(spec, method, 1)
    patches = math.prod(spec.taps) * inputs * math.prod(spec.out)
    kernel = math.prod(spec.taps) * inputs // spec.groups * outputs
    return Static(spec, "patches", max(BLOCK_BYTES // ((patches + kernel) * itemsize), 1))


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
    return evaluate("kernel_adjoint", static.spec, static.method, x[None], y[None])


def input_of(static: Static, y: Array, k: Array) -> Array:
    return evaluate("input_adjoint", static.spec, static.method, y[None], k)[0]


def output_of(static: Static, x: Array, k: Array) -> Array:
    return evaluate("forward", static.spec, static.method, x[None], k)[0]


def map_examples(static: Static, f: Callable, *arrays: Array):
    """`f` of every example, a few at a time."""
    count = len(arrays[0])
    # Steps of nearly equal size, since the rest that is left over is a program of its own.
    steps = -(-count // static.together)
    together = -(-count // max(steps, 1))
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
