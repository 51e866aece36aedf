"""The explicit matrix: `y = M x`, backpropagation `x_bar = M^T y_bar`, kernel from the outer
product.

    forward         M[g, (o, m), (i, c)] x[n, i, g, c] -> y[n, o, g, m]
    input_adjoint   M[g, (o, m), (i, c)] y[n, o, g, m] -> x[n, i, g, c]
    kernel_adjoint  y[n, o, g, m] x[n, i, g, c] -> M_bar, whose diagonals add up to k[t, c, (g, m)]

A product with a matrix that holds zeros spreads a NaN or an inf of `x` over all outputs.
"""

import math

import jax.numpy as jnp
from jax import Array

from jconv.channels import matmul
from jconv.geometry import Spec
from jconv.tables import blocks, blocks_adjoint


def forward(spec: Spec, x: Array, k: Array) -> Array:
    m = blocks(spec.windows, k, spec.groups)
    return _from_vectors(
        spec, _product(spec, _vectors(spec, x), _matrices(spec, m), 2, 2), spec.out
    )


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    m = blocks(spec.windows, k, spec.groups)
    return _from_vectors(
        spec, _product(spec, _vectors(spec, y), _matrices(spec, m), 2, 1), spec.size
    )


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    outer = _product(spec, _vectors(spec, y), _vectors(spec, x), 1, 1)
    per_group = (y.shape[-1] // spec.groups, *spec.size, x.shape[-1] // spec.groups)
    return blocks_adjoint(spec.windows, outer.reshape(spec.groups, *spec.out, *per_group))


def _vectors(spec: Spec, a: Array) -> Array:
    """`[n, *size, groups * c]` to `[groups, n, size * c]`."""
    n, channels = a.shape[0], a.shape[-1] // spec.groups
    positions = math.prod(a.shape[1:-1])
    grouped = jnp.moveaxis(a.reshape(n, positions, spec.groups, channels), 2, 0)
    return grouped.reshape(spec.groups, n, positions * channels)


def _from_vectors(spec: Spec, a: Array, size: tuple[int, ...]) -> Array:
    """`[groups, n, size * c]` to `[n, *size, groups * c]`."""
    positions = math.prod(size)
    channels = a.shape[2] // positions
    grouped = jnp.moveaxis(a.reshape(spec.groups, a.shape[1], positions, channels), 0, 2)
    return grouped.reshape(a.shape[1], *size, spec.groups * channels)


def _matrices(spec: Spec, m: Array) -> Array:
    """`[groups, *out, m, *size, c]` to `[groups, out * m, size * c]`."""
    rows = math.prod(m.shape[1 : len(spec.out) + 2])
    return m.reshape(spec.groups, rows, math.prod(m.shape[len(spec.out) + 2 :]))


def _product(spec: Spec, a: Array, b: Array, contract_a: int, contract_b: int) -> Array:
    return matmul(spec, a, b, ((contract_a,), (contract_b,)), ((0,), (0,)))
