"""A function of every image, a few images at a time where its scratch would be too much."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jconv import adjoint
from jconv.blocks import at_once, split

# Scratch from which on images take turns. Beyond 32 MiB its pages are mapped anew at every call,
# and beyond the cache each pass over them is slow: 3x3 windows of stride 2 over 8x112x112x64 and
# their gradient took 14 ms at once, and 5 image by image.
BATCH_BYTES = 24 * 2**20


class Static(NamedTuple):
    """`f(static, x)`, of so many images at a time."""

    f: Callable[[Any, Array], Array]
    static: Any
    images: int


def in_batches(
    f: Callable[[Any, Array], Array], static: Any, x: Array, rank: int, held: int, custom_vjp: bool
) -> Array:
    """`f(static, x)`, of `[*batch, *size, c]`, where `f` holds `held` arrays as large as `x`.

    The rule computes `f` again, a few images at a time, so that nothing held is kept but `x`.
    """
    lead = x.ndim - rank - 1
    n, size = math.prod(x.shape[:lead]), x.shape[lead:]
    image_bytes = held * math.prod(size) * x.dtype.itemsize
    if n * image_bytes <= BATCH_BYTES or n == 1:
        return f(static, x)
    made = Static(f, static, split(n, 1, image_bytes, BATCH_BYTES).images)
    plain, flat = partial(at_once, _forward), x.reshape(n, *size)
    if custom_vjp and jnp.issubdtype(x.dtype, jnp.inexact):
        y = adjoint.pointwise(plain, partial(at_once, _backward), made, flat)
    else:
        y = plain(made, flat)
    return y.reshape(*x.shape[:lead], *y.shape[1:])


def _forward(made: Static, x: Array) -> Array:
    return _by_turns(partial(made.f, made.static), made.images, x)


def _backward(made: Static, x: Array, y: Array, y_bar: Array) -> list[Array]:
    def pull(x: Array, y_bar: Array) -> Array:
        return jax.vjp(partial(made.f, made.static), x)[1](y_bar)[0]

    return [_by_turns(pull, made.images, x, y_bar)]


def _by_turns(f: Callable[..., Array], images: int, *arrays: Array) -> Array:
    """`f(*arrays)`; on CPU, of a few images at a time."""

    def mapped(*arrays: Array) -> Array:
        # Steps of one image in an axis of their own would make XLA:CPU copy whole arrays.
        if images == 1:
            return lax.map(lambda image: f(*image), arrays)
        steps = [a.reshape(-1, images, *a.shape[1:]) for a in arrays]
        parts = lax.map(lambda step: f(*step), steps)
        return parts.reshape(-1, *parts.shape[2:])

    return lax.platform_dependent(*arrays, cpu=mapped, default=f)
