"""The sum of a batch's gradients, each scaled down to a norm of at most `clip`, in three ways.

Abadi et al. (2016) need it for training with differential privacy.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

import jconv
from experiments.learning import layerwise, net
from jconv.curvature import per_example_kernel_gradients, per_example_kernel_norms

Clipped = Callable[[net.Params, Array, Array, float], net.Params]


def by_norms(params: net.Params, images: Array, labels: Array, clip: float) -> net.Params:
    """The sum of clipped gradients, from norms and one gradient of weighted cotangents."""
    layers = layerwise.trace(params, images, labels)
    squared = jnp.zeros(len(images))
    for x, y_bar, taps in layers.values():
        squared += per_example_kernel_norms(x, y_bar, taps, padding="same") ** 2
        squared += (_bias_gradients(y_bar) ** 2).sum(-1)
    weights = _weights(squared, clip)
    found = {}
    for name, (x, y_bar, taps) in layers.items():
        y_bar = y_bar * weights.reshape(-1, *(1,) * (y_bar.ndim - 1))
        kernel = jconv.kernel_gradient(x, y_bar, taps, padding="same")
        shape = params[name]["kernel"].shape
        found[name] = {"kernel": kernel.reshape(shape), "bias": _bias_gradients(y_bar).sum(0)}
    return found


def by_gradients(params: net.Params, images: Array, labels: Array, clip: float) -> net.Params:
    """The same with the gradient of every example written out."""
    found = {}
    for name, (x, y_bar, taps) in layerwise.trace(params, images, labels).items():
        kernels = per_example_kernel_gradients(x, y_bar, taps, padding="same")
        shape = params[name]["kernel"].shape
        found[name] = {
            "kernel": kernels.reshape(-1, *shape),
            "bias": _bias_gradients(y_bar),
        }
    return _clipped_sum(found, clip)


def by_vmap(params: net.Params, images: Array, labels: Array, clip: float) -> net.Params:
    """The same by `jax.vmap` of the gradient of `jax.lax`."""

    def loss(params, image, label):
        return net.loss(params, image[None], label[None], net.AUTODIFF)[0]

    gradients = jax.vmap(jax.grad(loss), (None, 0, 0))(params, images, labels)
    return _clipped_sum(gradients, clip)


WAYS: dict[str, Clipped] = {
    "norms alone": by_norms,
    "gradients of jconv": by_gradients,
    "vmap(grad) of jax.lax": by_vmap,
}


def _bias_gradients(y_bar: Array) -> Array:
    """`[batch, *size, out]` to `[batch, out]`."""
    return y_bar.sum(range(1, y_bar.ndim - 1))


def _weights(squared: Array, clip: float) -> Array:
    """What scales vectors of these squared norms down to a norm of at most `clip`."""
    return clip / jnp.sqrt(jnp.maximum(squared, clip**2))


def _clipped_sum(gradients: net.Params, clip: float) -> net.Params:
    parts = [(g.reshape(len(g), -1) ** 2).sum(1) for g in jax.tree.leaves(gradients)]
    weights = _weights(jnp.stack(parts).sum(0), clip)
    return jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), gradients)
