"""One shifted view of the input a tap: `y = sum_t x[stride*o + dilation*t] . k[t]`.

forward         view_t(x) k[t] -> y, added over the taps
input_adjoint   y k[t] -> view_t, placed back and added over the taps
kernel_adjoint  view_t(x) y -> k[t]
"""

from functools import reduce

import jax.numpy as jnp
from jax import Array

from jconv.channels import mix, mix_input, mix_kernel
from jconv.geometry import Spec
from jconv.padding import embed, extract
from jconv.windows import offsets, place, view


def forward(spec: Spec, x: Array, k: Array) -> Array:
    inner = spec.padded().windows
    xp = embed(x, spec.windows)
    return reduce(jnp.add, (mix(spec, view(xp, inner, t), k[t]) for t in offsets(inner)))


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    inner = spec.padded().windows
    parts = (place(mix_input(spec, y, k[t]), inner, t) for t in offsets(inner))
    return extract(reduce(jnp.add, parts), spec.windows)


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    inner = spec.padded().windows
    xp = embed(x, spec.windows)
    parts = [mix_kernel(spec, view(xp, inner, t), y) for t in offsets(inner)]
    return jnp.stack(parts).reshape(*spec.taps, *parts[0].shape)
