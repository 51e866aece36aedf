"""Patches and one matrix product (im2col): `y = unfold(x) . kernel`.

    forward         patches[n, o, t, c] k[t, c, m] -> y[n, o, m]
    input_adjoint   y[n, o, m] k[t, c, m] -> patches[n, o, t, c], overlapping ones added up
    kernel_adjoint  patches[n, o, t, c] y[n, o, m] -> k[t, c, m]

Taps and the channels of a group are one axis of the product.
"""

import math

import jax.numpy as jnp
from jax import Array

from jconv.channels import mix, mix_input, mix_kernel
from jconv.geometry import Spec
from jconv.padding import embed, extract
from jconv.windows import gather_patches, overlap_add


def forward(spec: Spec, x: Array, k: Array) -> Array:
    return mix(spec, _columns(spec, x), k.reshape(-1, k.shape[-1]))


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    columns = mix_input(spec, y, k.reshape(-1, k.shape[-1]))
    patches = _from_columns(spec, columns)
    inner = spec.padded().windows
    return extract(overlap_add(inner, patches), spec.windows)


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    k = mix_kernel(spec, _columns(spec, x), y)
    return k.reshape(*spec.taps, -1, y.shape[-1])


def _columns(spec: Spec, x: Array) -> Array:
    """`[n, *size, c]` to `[n, *out, groups * taps * c_of_group]`."""
    patches = gather_patches(spec.padded().windows, embed(x, spec.windows))
    lead = patches.shape[: 1 + len(spec.out)]
    taps = math.prod(spec.taps)
    grouped = patches.reshape(*lead, taps, spec.groups, x.shape[-1] // spec.groups)
    return jnp.moveaxis(grouped, -2, -3).reshape(*lead, taps * x.shape[-1])


def _from_columns(spec: Spec, columns: Array) -> Array:
    """Adjoint of the last step of `_columns`: `[n, *out, ...]` to `[n, *out, *taps, c]`."""
    lead, taps = columns.shape[:-1], math.prod(spec.taps)
    channels = columns.shape[-1] // taps
    grouped = columns.reshape(*lead, spec.groups, taps, channels // spec.groups)
    return jnp.moveaxis(grouped, -3, -2).reshape(*lead, *spec.taps, channels)
