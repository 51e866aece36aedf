"""The trilinear form with a kernel for every example: its three faces, one example at a time.

    to_kernels  x[n, i, c] y[n, o, m]    -> k[n, t, c, m]
    to_inputs   y[n, o, m] k[n, t, c, m] -> x[n, i, c]
    to_outputs  x[n, i, c] k[n, t, c, m] -> y[n, o, m]

A few examples at a time share a step, as one batched product over their patches. So nothing here
is a grouped convolution, which is what `jax.vmap` makes of a convolution whose kernels differ, and
the scratch is that of a few examples, however many there are. Only where the kernel itself has
groups they are grouped convolutions on accelerators, whose libraries have them.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax

from jconv import adjoint, products
from jconv.blocks import BLOCK_BYTES, at_once, known
from jconv.faces import evaluate
from jconv.geometry import Spec
from jconv.operands import common_dtype
from jconv.planner import choose
from jconv.platforms import per_platform
from jconv.problem import Problem


class Static(NamedTuple):
    """What is static about the form, and the most examples that share a step.

    `product` says how a kernel's gradient is computed, one of `products` or else by the method, as
    the other two faces are. All that a CPU alone is to do so if `native`.
    """

    spec: Spec
    method: str
    together: int
    product: str = ""
    native: bool = False


def prepared(spec: Spec, method: str, x: Array, outputs: int, written: bool = True) -> Static:
    """The fastest product; the method, one by one, where one example is too large.

    All examples are one step where they copy little beside the result, if that is `written`. 64 of
    64 channels, 3x3 taps in 8x8 take 1.6 ms at once and 2.1 in two steps, as XLA:CPU puts results
    of steps together with one thread; but 16 channels in 28x28 3.2 and, in steps of 16, 1.4.
    """
    if method != "auto":
        return Static(spec, method, 1)
    product, copied = products.fastest(spec, x.shape[-1], outputs)
    kernel = math.prod(spec.taps) * x.shape[-1] // spec.groups * outputs
    read = math.prod(x.shape[1:]) + math.prod(spec.out) * outputs
    fit = partial(fitting, x.dtype.itemsize)
    all_at_once = min(fit(copied, 4), fit(copied - kernel if written else copied + kernel, 1.75))
    n = x.shape[0]
    is_little = isinstance(n, int) and n <= all_at_once
    together = n if is_little else fit(read + copied + kernel, 1.5)
    native = _is_native(spec, x, outputs)
    if not together:
        return Static(spec, "patches", 1, native=native)
    return Static(spec, "patches", together, product, native)


def _is_native(spec: Spec, x: Array, outputs: int) -> bool:
    """Whether accelerators are given the convolution that `jax.vmap` makes: of groups.

    On an H200 these take 0.2 to 0.6 ms so and 0.3 to 3.3 as products (3x3 taps, 4 to 64 groups of
    64 to 2 channels, 64 images of 28x28), depthwise ones 0.12 and 2.4, dense ones 1.3 to 10 times
    as long.
    """
    problem = Problem("kernel_adjoint", spec, x.shape[0], x.shape[-1], outputs, x.dtype)
    # How many groups there are is part of the program, and unknown of an exported batch.
    is_counted = isinstance(problem.batch, int) and problem.batch > 0
    return not problem.is_dense and is_counted and choose(problem, "default").method == "direct"


def fitting(itemsize: int, entries: int, blocks: float) -> int:
    """How many examples of so many entries fit so many blocks."""
    return int(blocks * BLOCK_BYTES) // (max(entries, 1) * itemsize)


def kernels(static: Static, x: Array, y: Array, custom_vjp: bool) -> Array:
    """The kernel adjoint of every example."""
    return adjoint.bilinear(
        partial(at_once, to_kernels), _to_x, _to_y, static, x, y, ruled=custom_vjp
    )


def to_kernels(static: Static, x: Array, y: Array) -> Array:
    return map_examples(static, kernel_of, x, y)


def kernel_of(static: Static, x: Array, y: Array) -> Array:
    """The kernel adjoint of one example, `[*taps, in // groups, out]`."""
    if static.product:
        k = products.PRODUCTS[static.product](static.spec, x, y)
        return k.astype(static.spec.result_dtype(x.dtype))
    return evaluate("kernel_adjoint", static.spec, static.method, x[None], y[None])


def input_of(static: Static, y: Array, k: Array) -> Array:
    return evaluate("input_adjoint", static.spec, static.method, y[None], k)[0]


def output_of(static: Static, x: Array, k: Array) -> Array:
    return evaluate("forward", static.spec, static.method, x[None], k)[0]


def map_examples(static: Static, f: Callable, *arrays: Array) -> Any:
    """`f(static, *example)` of every example."""
    each = (static._replace(native=False), f)
    if not static.native:
        return _few_at_a_time(each, *arrays)
    return per_platform(_few_at_a_time, _all_at_once, each, *arrays)


def _all_at_once(each: tuple[Static, Callable], *arrays: Array) -> Any:
    """As the convolutions that `jax.vmap` makes of XLA's own."""
    static, f = each
    return jax.vmap(partial(f, static._replace(method="direct", product="")))(*arrays)


def _few_at_a_time(each: tuple[Static, Callable], *arrays: Array) -> Any:
    """One by one, where they are exported for any number."""
    static, f = each
    count, most = known(arrays[0].shape[0]), static.together
    # Equal steps where there are: a rest is a program of its own, put together by a copy of all.
    equal = [d for d in range(most // 2 + 1, min(most, count) + 1) if count % d == 0]
    together = max(equal, default=min(most, count))
    # Steps of one example in an axis of their own would make XLA:CPU copy whole arrays.
    batch_size = together if together > 1 else None
    return lax.map(lambda example: f(static, *example), arrays, batch_size=batch_size)


def of_cotangents(static: Static, *arrays: Array) -> tuple[Static, list[Array]]:
    """A face within a rule: its dtype follows the cotangent, not `preferred_element_type`."""
    common = common_dtype(*arrays)
    static = static._replace(spec=replace(static.spec, preferred=None))
    return static, [a.astype(common) for a in arrays]


def _to_x(static: Static, k: Array, y: Array) -> Array:
    static, (k, y) = of_cotangents(static, k, y)
    return at_once(_to_inputs, static, y, k)


def _to_y(static: Static, x: Array, k: Array) -> Array:
    static, (x, k) = of_cotangents(static, x, k)
    return at_once(_to_outputs, static, x, k)


def _to_inputs(static: Static, y: Array, k: Array) -> Array:
    return map_examples(static, input_of, y, k)


def _to_outputs(static: Static, x: Array, k: Array) -> Array:
    return map_examples(static, output_of, x, k)
