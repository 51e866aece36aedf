"""How a hand-derived rule is attached to a function: the one place that names `jax.custom_vjp`.

The backward pass of a rule calls the *plain* adjoint, not another ruled function. So forward mode
over the rule (a Hessian-vector product) works, and a second reverse pass differentiates the
hand-derived adjoint, which is again made of slices, sums and products that JAX differentiates well.

Not `ruled`, a function is left to JAX.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from jconv.placement import varying


def bilinear(
    plain: Callable, left: Callable, right: Callable, static: Any, a: Array, b: Array, *,
    ruled: bool = True,
):  # fmt: skip
    """`plain(static, a, b)`, linear in `a` and in `b`, with its two adjoints as its rule.

    <plain(a, b), c> == <a, left(c, b)> == <b, right(a, c)>
    """
    if not ruled:
        return plain(static, a, b)

    @jax.custom_vjp
    def product(a, b):
        return plain(static, a, b)

    def forward(a, b):
        return plain(static, a, b), (a, b)

    def backward(saved, c):
        a, b = saved
        return _cotangent(left(static, c, b), a), _cotangent(right(static, a, c), b)

    product.defvjp(forward, backward)
    return product(a, b)


def linear(
    plain: Callable, adjoint: Callable, static: Any, a: Array, *indices: Array, ruled: bool = True
):
    """`plain(static, a, *indices)`, linear in `a`, with its adjoint as its rule.

    <plain(a), c> == <a, adjoint(c)>, for the same arrays of integers
    """
    if not ruled:
        return plain(static, a, *indices)

    @jax.custom_vjp
    def mapped(a, *indices):
        return plain(static, a, *indices)

    def forward(a, *indices):
        # Nothing of `a` is needed but its type; an empty slice carries that and frees the rest.
        type_of_a = lax.slice(a, (0,) * a.ndim, (0,) * a.ndim)
        return plain(static, a, *indices), (type_of_a, indices)

    def backward(saved, c):
        type_of_a, indices = saved
        return _cotangent(adjoint(static, c, *indices), type_of_a), *(None,) * len(indices)

    mapped.defvjp(forward, backward)
    return mapped(a, *indices)


def selection(
    choose: Callable, gather: Callable, scatter: Callable, static: Any, a: Array, *indices: Array,
    ruled: bool = True, primal: Callable | None = None,
):  # fmt: skip
    """`choose(static, a) -> (values, winners)`: entries of `a`, and integers that say which ones.

    values == gather(static, winners, a);  <values, c> == <a, scatter(static, winners, c)>,
    for the same `indices`, which come last

    A small change of `a` changes no winner. So forward mode gathers the tangent at the winners, and
    the rule, if there is one, scatters the cotangent there; neither differentiates the choice.

    Where no winners are wanted, `primal(static, a)` are the values, and None takes their place.
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

    if not ruled:
        return chosen(a, *indices)

    @jax.custom_vjp
    def selected(a, *indices):
        return (primal(static, a, *indices), None) if primal else chosen(a, *indices)

    def forward(a, *indices):
        values, winners = chosen(a, *indices)
        type_of_a = lax.slice(a, (0,) * a.ndim, (0,) * a.ndim)
        return (values, None if primal else winners), (type_of_a, winners, indices)

    def backward(saved, cotangents):
        type_of_a, winners, indices = saved
        x = scatter(static, winners, cotangents[0], *indices)
        return _cotangent(x, type_of_a), *(None,) * len(indices)

    selected.defvjp(forward, backward)
    return selected(a, *indices)


def pointwise(
    plain: Callable, adjoint: Callable, static: Any, *arrays: Array,
    ruled: bool = True, primal: Callable | None = None,
):  # fmt: skip
    """`plain(static, *arrays)`, nonlinear, with the adjoints of its derivatives as its rule.

    <d plain(a, ...)[da, ...], c> == sum <da, adjoint(static, a, ..., plain(static, a, ...), c)>

    where `adjoint` gives one cotangent for each array.

    Where no derivative is wanted, `primal(static, *arrays)` are the values.
    """
    if not ruled:
        return plain(static, *arrays)

    @jax.custom_vjp
    def function(*arrays):
        return (primal or plain)(static, *arrays)

    def forward(*arrays):
        values = plain(static, *arrays)
        return values, (arrays, values)

    def backward(saved, c):
        arrays, values = saved
        return tuple(map(_cotangent, adjoint(static, *arrays, values, c), arrays))

    function.defvjp(forward, backward)
    return function(*arrays)


def _cotangent(c: Array, primal: Array) -> Array:
    """`c` as a cotangent of `primal`: its dtype, and summed over the mesh axes it alone varies on.

    Inside `shard_map`, a primal that every device shares gets one cotangent, the sum over the
    devices.
    """
    surplus = varying(c) - varying(primal)
    if surplus:
        c = lax.psum(c, tuple(surplus))
    return c.astype(primal.dtype)
