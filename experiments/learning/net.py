"""A small convolutional net as pure functions, over any two layers that convolve and pool.

image -> conv 5x5, relu, max pool 2x2 -> conv 5x5, relu, max pool 2x2 -> dense -> logits
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jconv

Params = dict[str, dict[str, jax.Array]]

_TAPS = (5, 5)
_WIDTHS = (16, 32)


class Layers(NamedTuple):
    """Where the net takes its convolution and its pooling from."""

    conv: Callable[[jax.Array, jax.Array], jax.Array]
    max_pool: Callable[[jax.Array], Any]


def _lax_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _lax_max_pool(x: jax.Array) -> jax.Array:
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


HAND_DERIVED = Layers(
    conv=functools.partial(jconv.conv, padding="same"),
    max_pool=functools.partial(jconv.max_pool, window=2),
)
AUTODIFF = Layers(_lax_conv, _lax_max_pool)


def init(key: jax.Array, image_shape: tuple[int, ...], classes: int) -> Params:
    """Weights drawn after He et al. (2015), for images `[height, width, channels]`."""
    *size, channels = image_shape
    shapes = {}
    for number, width in enumerate(_WIDTHS, start=1):
        shapes[f"conv{number}"] = (*_TAPS, channels, width)
        channels = width
        size = [length // 2 for length in size]
    shapes["dense"] = (size[0] * size[1] * channels, classes)

    draw = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, len(shapes))
    return {
        name: {"kernel": draw(key, shape), "bias": jnp.zeros(shape[-1])}
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def feature_maps(params: Params, images: jax.Array, layers: Layers) -> list[jax.Array]:
    """What each convolution and each pooling hands on, in the order of the net."""
    maps, x = [], images
    for number in range(1, len(_WIDTHS) + 1):
        layer = params[f"conv{number}"]
        convolved = jax.nn.relu(layers.conv(x, layer["kernel"]) + layer["bias"])
        x = layers.max_pool(convolved)
        maps += [convolved, x]
    return maps


def logits(params: Params, images: jax.Array, layers: Layers) -> jax.Array:
    """`[batch, classes]` for images `[batch, height, width, channels]`."""
    return readout(params, feature_maps(params, images, layers)[-1])


def readout(params: Params, maps: jax.Array) -> jax.Array:
    """The dense layer, which makes logits of the last maps."""
    return maps.reshape(len(maps), -1) @ params["dense"]["kernel"] + params["dense"]["bias"]


def measure(scores: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy of logits, and the share of them that guess the class."""
    entropy = optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
    return entropy, (scores.argmax(-1) == labels).mean()


def loss(
    params: Params, images: jax.Array, labels: jax.Array, layers: Layers
) -> tuple[jax.Array, jax.Array]:
    """`measure` of the net: what training makes small, and the accuracy beside it."""
    return measure(logits(params, images, layers), labels)
