"""How a hand-derived rule is attached to a function: the one place that names `jax.custom_vjp`.

The backward pass of a rule calls the *plain* adjoint, not another ruled function. So forward mode
over the rule (a Hessian-vector product) works, and a second reverse pass differentiates the
hand-derived adjoint, which is again made of slices, sums and products that JAX differentiates well.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from jconv.placement import varying


def bilinear(plain: Callable, left: Callable, right: Callable, static: Any, a: Array, b: Array):
    """`plain(static, a, b)`, linear in `a` and in `b`, with its two adjoints as its rule.

    <plain(a, b), c> == <a, left(c, b)> == <b, right(a, c)>
    """

    @jax.custom_vjp
    def ruled(a, b):
        return plain(static, a, b)

    def forward(a, b):
        return plain(static, a, b), (a, b)

    def backward(saved, c):
        a, b = saved
        return _cotangent(left(static, c, b), a), _cotangent(right(static, a, c), b)

    ruled.defvjp(forward, backward)
    return ruled(a, b)


def linear(plain: Callable, adjoint: Callable, static: Any, a: Array, *indices: Array):
    """`plain(static, a, *indices)`, linear in `a`, with its adjoint as its rule.

    <plain(a), c> == <a, adjoint(c)>, for the same arrays of integers
    """

    @jax.custom_vjp
    def ruled(a, *indices):
        return plain(static, a, *indices)

    def forward(a, *indices):
        # Nothing of `a` is needed but its type; an empty slice carries that and frees the rest.
        type_of_a = lax.slice(a, (0,) * a.ndim, (0,) * a.ndim)
        return plain(static, a, *indices), (type_of_a, indices)

    def backward(saved, c):
        type_of_a, indices = saved
        return _cotangent(adjoint(static, c, *indices), type_of_a), *(None,) * len(indices)

    ruled.defvjp(forward, backward)
    return ruled(a, *indices)


def selection(
    choose: Callable, gather: Callable, scatter: Callable, static: Any, a: Array, *indices: Array,
    reverse: bool = True, alone: Callable | None = None,
):  # fmt: skip
    """`choose(static, a) -> (values, winners)`: entries of `a`, and integers that say which ones.

    values == gather(static, winners, a);  <values, c> == <a, scatter(static, winners, c)>,
    for the same `indices`, which come last

    A small change of `a` changes no winner. So forward mode gathers the tangent at the winners, and
    the rule, left out where `reverse` is False, scatters the cotangent there; neither
    differentiates the choice.

    Where no winners are wanted, `alone(static, a)` are the values, and None takes their place.
    """

    @jax.custom_jvp
    def chosen(a, *indices):
        return choose(static, a, *indices)

    @chosen.defjvp
    def tangent(primals, tangents):
        values, winners = chosen(*primals)
        moved = gather(static, winners, tangents[0], *primals[1:])
        none = jax.tree.map(lambda won: np.zeros(won.shape, jax.dtypes.float0), winners)
        return (values, winners), (moved, none)

    if not reverse:
        return chosen(a, *indices)

    @jax.custom_vjp
    def ruled(a, *indices):
        return (alone(static, a, *indices), None) if alone else chosen(a, *indices)

    def forward(a, *indices):
        values, winners = chosen(a, *indices)
        type_of_a = lax.slice(a, (0,) * a.ndim, (0,) * a.ndim)
        return (values, None if alone else winners), (type_of_a, winners, indices)

    def backward(saved, cotangents):
        type_of_a, winners, indices = saved
        x = scatter(static, winners, cotangents[0], *indices)
        return _cotangent(x, type_of_a), *(None,) * len(indices)

    ruled.defvjp(forward, backward)
    return ruled(a, *indices)


def pointwise(
    plain: Callable, adjoint: Callable, static: Any, *arrays: Array, alone: Callable | None = None
):
    """`plain(static, *arrays)`, nonlinear, with the adjoints of its derivatives as its rule.

    <d plain(a, ...)[da, ...], c> == sum <da, adjoint(static, a, ..., plain(static, a, ...), c)>

    where `adjoint` gives one cotangent for each array.

    Where no derivative is wanted, `alone(static, *arrays)` are the values.
    """

    @jax.custom_vjp
    def ruled(*arrays):
        return (alone or plain)(static, *arrays)

    def forward(*arrays):
        values = plain(static, *arrays)
        return values, (arrays, values)

    def backward(saved, c):
        arrays, values = saved
        return tuple(map(_cotangent, adjoint(static, *arrays, values, c), arrays))

    ruled.defvjp(forward, backward)
    return ruled(*arrays)


def _cotangent(c: Array, primal: Array) -> Array:
    """`c` as a cotangent of `primal`: its dtype, and summed over the mesh axes it alone varies on.

    Inside `shard_map`, a primal that every device shares gets one cotangent, the sum over the
    devices.
    """
    surplus = varying(c) - varying(primal)
    if surplus:
        c = lax.psum(c, tuple(surplus))
    return c.astype(primal.dtype)
