"""What each layer of the net reads, and the cotangents of what it makes, for every example.

The dense layer counts as a convolution: one tap, at one position.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from experiments.learning import net


class Layer(NamedTuple):
    """A convolution with padding "same": `x` `[batch, *size, in]`, `y_bar` `[batch, *size, out]`.

    `y_bar[n]` is the cotangent of the loss of example `n` alone.
    """

    x: Array
    y_bar: Array
    taps: tuple[int, ...]


def trace(params: net.Params, images: Array, labels: Array) -> dict[str, Layer]:
    """Every layer by its name."""

    def total(offsets):
        # With a bias for each example and position, its gradient is the cotangent there.
        moved = jax.tree.map(jnp.add, params, offsets)
        maps = net.feature_maps(moved, images, net.HAND_DERIVED)
        scores = net.readout(moved, maps[-1])
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).sum(), maps

    bars, maps = jax.grad(total, has_aux=True)(_offsets(params, images))
    reads = [images, *maps[1::2]]
    found = {}
    for name, x in zip(params, reads, strict=True):
        y_bar, taps = bars[name]["bias"], params[name]["kernel"].shape[:-2]
        if not taps:
            x, y_bar, taps = x.reshape(len(x), 1, -1), y_bar[:, None], (1,)
        found[name] = Layer(x, y_bar, taps)
    return found


def _offsets(params: net.Params, images: Array) -> net.Params:
    """Zeros, of the shape of what each layer makes."""
    maps = jax.eval_shape(lambda: net.feature_maps(params, images, net.HAND_DERIVED))
    made = [*maps[::2], jax.eval_shape(lambda m: net.readout(params, m), maps[-1])]
    return {
        name: {"kernel": jnp.zeros(()), "bias": jnp.zeros(like.shape)}
        for name, like in zip(params, made, strict=True)
    }
