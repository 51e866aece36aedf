"""A function of every image, a few images at a time where its scratch would be too much."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array, lax

from jconv import adjoint
from jconv.blocks import at_once, split
from jconv.pooling.views import written

# Scratch from which on images take turns. Beyond 32 MiB its pages are mapped anew at every call,
# and beyond the cache each pass over them is slow: 3x3 windows of stride 2 over 8x112x112x64 and
# their gradient took 14 ms at once, and 5 image by image.
BATCH_BYTES = 24 * 2**20


class Turns(NamedTuple):
    """`f(static, ...)`, over arrays of so many leading axes, of so many images at a time."""

    f: Callable
    static: Any
    lead: int
    images: int


class Image(NamedTuple):
    """What follows so many batch axes, and how many bytes a function of it holds at once."""

    lead: int
    bytes: int


def image_of(x: Array, rank: int, held: int) -> Image:
    """An image of `[*batch, *size, c]`, of a function that holds `held` arrays like it."""
    lead = x.ndim - rank - 1
    return Image(lead, held * math.prod(x.shape[lead:]) * x.dtype.itemsize)


def by_images(f: Callable, static: Any, *arrays: Array, image: Image) -> Any:
    """`f(static, *arrays)` of arrays `[*batch, ...]`."""
    turns = _turns(f, static, arrays[0], image)
    return at_once(_each, turns, *arrays) if turns else f(static, *arrays)


def selection(
    choose: Callable, gather: Callable, scatter: Callable, static: Any, x: Array, *,
    image: Image, ruled: bool, primal: Callable | None = None,
):  # fmt: skip
    """`adjoint.selection` of `choose(static, x)`, `gather(static, x, *winners)` and
    `scatter(static, y, *winners)` in turns, and of `primal(static, x)`.
    """

    def gathered(static: Any, winners: tuple[Array, ...], x: Array) -> Array:
        return by_images(gather, static, x, *winners, image=image)

    def scattered(static: Any, winners: tuple[Array, ...], y: Array) -> Array:
        return by_images(scatter, static, y, *winners, image=image)

    chosen = partial(by_images, choose, image=image)
    return adjoint.selection(chosen, gathered, scattered, static, x, ruled=ruled, primal=primal)


def in_turns(f: Callable, static: Any, x: Array, *, image: Image, custom_vjp: bool) -> Array:
    """`f(static, x)` of `[*batch, *size, c]`.

    Its rule computes `f` again, turn by turn, rather than keep what it held.
    """
    turns = _turns(f, static, x, image)
    if turns is None:
        return f(static, x)
    plain, backward = partial(at_once, _each), partial(at_once, _backward)
    return adjoint.pointwise(plain, backward, turns, x, ruled=custom_vjp)


def _turns(f: Callable, static: Any, x: Array, image: Image) -> Turns | None:
    """None where all images may go at once, or have to: an exported batch may be of any size."""
    n = math.prod(x.shape[: image.lead])
    if not isinstance(n, int) or n < 2 or n * image.bytes <= BATCH_BYTES:
        return None
    return Turns(f, static, image.lead, split(n, 1, image.bytes, BATCH_BYTES).images)


def _each(turns: Turns, *arrays: Array) -> Any:
    return _taken(turns, partial(turns.f, turns.static), *arrays)


def _backward(turns: Turns, x: Array, _: Array, y_bar: Array) -> tuple[Array, ...]:
    def pull(x: Array, y_bar: Array) -> tuple[Array, ...]:
        return jax.vjp(partial(turns.f, turns.static), x)[1](y_bar)

    return _taken(turns, pull, x, y_bar)


def _taken(turns: Turns, f: Callable, *arrays: Array) -> Any:
    """`f(*arrays)`; on CPU in turns."""
    batch = arrays[0].shape[: turns.lead]
    # A turn of one image in an axis of its own would make XLA:CPU copy whole arrays.
    images = () if turns.images == 1 else (turns.images,)
    rank = arrays[0].ndim - turns.lead - 1

    def one(step: tuple[Array, ...]) -> Any:
        # Straight from a batch XLA:CPU would find the place of each entry anew for every tap:
        # windows of 11x11 over 8x112x112x64 take 9 ms and not 5, and their gradient 42 and not 16.
        first, *others = step
        return f(written(first, [(0, 0)] * rank), *others)

    def joined(parts: Array) -> Array:
        return parts.reshape(*batch, *parts.shape[1 + len(images) :])

    def by_turns(*arrays: Array) -> Any:
        steps = [a.reshape(-1, *images, *a.shape[turns.lead :]) for a in arrays]
        return jax.tree.map(joined, lax.map(one, tuple(steps)))

    return lax.platform_dependent(*arrays, cpu=by_turns, default=f)
