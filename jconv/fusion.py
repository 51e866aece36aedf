"""Arrays that XLA:CPU computes once, itself, and in vectors; else its fusions undo what a method
gains. Other compilers are left to fuse as they like.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata

from jconv.placement import varied

# Sums side by side in one loop, as one alone waits at every term for the one before: 15x15 taps on
# 512x512 take 2.6 ms with 2 and 1.2 with 4.
SUMS = 4


def added(terms: Sequence[Array]) -> Array:
    """The sum of all terms, in one loop."""
    return reduce(jnp.add, [reduce(jnp.add, terms[i::SUMS]) for i in range(min(SUMS, len(terms)))])


def row_major(a: Array, axes: int | None = None) -> Array:
    """`a` with its first `axes`, or all, in order in memory: XLA would leave a transpose undone.

    All entries in a row have one layout only. (A layout constraint is nothing `jax.export` saves.)
    """
    rows = math.prod(a.shape[:axes]), *(() if axes is None else a.shape[axes:])
    return barrier(a.reshape(rows)).reshape(a.shape)


def barrier(x: Array) -> Array:
    """`x` itself, which XLA:CPU computes apart from what reads it."""
    return _on_cpu(lax.optimization_barrier, x)


def _on_cpu(f: Callable[[Array], Array], x: Array) -> Array:
    """`f(x)`, which is `x` itself in another guise; elsewhere `x` as it is."""
    return lax.platform_dependent(x, cpu=f, default=lambda x: x)


def kept(x: Array) -> Array:
    """`x` itself, which several readers share as one array.

    XLA:CPU computes what is cheap again in every loop that reads it, but never a division. (Of
    integers LLVM leaves none.) As written it is not linear, so JAX transposes no such step.
    """
    if not (jnp.issubdtype(x.dtype, jnp.integer) or jnp.issubdtype(x.dtype, jnp.floating)):
        return x
    return _on_cpu(_divided, x)


def _divided(x: Array) -> Array:
    one = jnp.ones((), x.dtype)
    if jnp.issubdtype(x.dtype, jnp.integer):
        return lax.div(x, (x | one) & one)
    return x / jnp.where(x == x, one, one + float(jnp.finfo(x.dtype).eps))


def finished(y: Array) -> Array:
    """`y` itself, which a reduction reads as an array.

    XLA:CPU hands a reduction over to a library, together with all the sums and maxima that lead to
    it and a copy of every view that they read, and barriers are gone by then: 7x7 taps of
    4x56x56x96, then a mean over channels, took 76 ms and not 1.4. It hands over no choice, not even
    one that is none.
    """
    return _on_cpu(_finished, y)


def _finished(y: Array) -> Array:
    return jnp.where(lax.optimization_barrier(jnp.ones((), bool)), y, jnp.zeros((), y.dtype))


def in_vectors(y: Array, terms: int = 1) -> Array:
    """`finished(y)` of `[..., channels]`, of so many terms, by a loop of vectors.

    LLVM unrolls a loop over channels of up to 300 instructions, all trips together, before it would
    make vectors of it, and what it unrolls stays scalar: the adjoint of 2x2x2 maxima over
    2x32x32x32x16 took 0.32 ms on one core, and takes 0.08. So the choice takes what few terms of
    few channels lack, as tests of bytes, two instructions each and next to nothing in vectors.
    """
    axis = max((axis for axis, n in enumerate(y.shape) if n != 1), default=y.ndim - 1)
    channels = y.shape[axis]
    tests = 180 // max(channels, 1) - terms
    if channels < 8 or tests < 1:
        return finished(y)
    return _on_cpu(partial(_tested, axis, tests), y)


def _tested(axis: int, tests: int, y: Array) -> Array:
    channels = y.shape[axis]
    bytes = jnp.asarray(np.arange(tests * channels).reshape(tests, channels) % 100, jnp.int8)
    bytes = varied(bytes, y)

    def chosen(y: Array) -> Array:
        # Behind one barrier, or XLA would take the tests out of a loop over images: 5x5 maxima over
        # 8x128x128x16 took 5.8 ms, and take 2.1.
        y, tested = lax.optimization_barrier((y, bytes))
        always = reduce(jnp.logical_and, [row >= 0 for row in tested])
        always = lax.broadcast_in_dim(always, y.shape, (axis,))
        return jnp.where(always, y, jnp.zeros((), y.dtype))

    if not jnp.issubdtype(y.dtype, jnp.inexact):
        return chosen(y)
    # JAX takes bytes behind the barrier of what is linear to be so, too, and must be told that this
    # is its own transpose.
    return lax.custom_linear_solve(lambda x: x, y, lambda _, y: chosen(y), symmetric=True)


def single(y: Array) -> Array:
    """`[..., 1]`, reshaped, in the order of `[...]`.

    XLA:CPU lays an axis of one entry out as the slowest, and copies such an array entry by entry to
    where a caller wants it.
    """
    return _on_cpu(_single, y) if y.shape[-1] == 1 else y


def _single(y: Array) -> Array:
    return lax.optimization_barrier(jnp.broadcast_to(y, (*y.shape[:-1], 2)))[..., :1]


def alone(f: Callable[..., Array], inlined: bool = False) -> Callable[..., Array]:
    """`f`, of which XLA computes what a call gives apart from all that reads it.

    Of parts of what `f` gives it would compute each alone: 7x7 taps in complex pairs took 8.4 ms
    and not 0.7. Barriers are gone before it fuses loops, but a call that is not inlined stays one.
    So do the calls that `f` makes itself, unless they are `inlined`.
    """

    def inside(*arrays: Array) -> Array:
        with set_xla_metadata(inlineable=None):
            return f(*arrays)

    traced_once = jax.jit(inside if inlined else f)

    def called(*arrays: Array) -> Array:
        with set_xla_metadata(inlineable="false"):
            return traced_once(*arrays)

    return lambda *arrays: lax.platform_dependent(*arrays, cpu=called, default=f)
