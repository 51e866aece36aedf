"""Five nets as pure functions over any operations that convolve and pool.

A layer is a kernel `[*taps, in, out]` with a bias, or a scale with a bias. A net's parameters are
a pytree of layers, a list of blocks where it stacks them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Layer = dict[str, Any]
Params = Any
Shape = tuple[int, ...]

CLASSES = 10
CARDINALITY = 32
NORM_EPSILON = 1e-6
LEARNING_RATE = 1e-3


class Operations(NamedTuple):
    """Where a net takes its convolution and its pooling from.

    `conv(x, kernel, padding=, dilation=, groups=)` is given a `(low, high)` pair and a dilation for
    each axis; `max_pool(x, window)` has its window as its stride.
    """

    conv: Callable[..., jax.Array]
    max_pool: Callable[..., Any]


class Net(NamedTuple):
    """What is computed, the shapes of the kernels and scales, and of what is learned from.

    Outputs are learned if they have a shape; else classes are.
    """

    name: str
    apply: Callable[[Params, jax.Array, Operations], jax.Array]
    layers: Any
    inputs: Shape
    outputs: Shape | None = None

    def init(self) -> Params:
        """Kernels drawn after He et al. (2015)."""
        rng = np.random.default_rng(0)
        return jax.tree.map(lambda shape: _init(rng, shape), self.layers, is_leaf=_is_shape)

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Random inputs, and random outputs or classes to learn."""
        rng = np.random.default_rng(1)
        x = rng.standard_normal(self.inputs, np.float32)
        if self.outputs is None:
            return x, rng.integers(0, CLASSES, len(x), np.int32)
        return x, rng.standard_normal(self.outputs, np.float32)

    def loss(self, params: Params, x: jax.Array, target: jax.Array, using: Operations) -> jax.Array:
        """The mean cross-entropy of classes, or the mean square of what outputs miss."""
        y = self.apply(params, x, using)
        if self.outputs is None:
            return optax.softmax_cross_entropy_with_integer_labels(y, target).mean()
        return jnp.square(y - target).mean()


def all_nets(quick: bool) -> list[Net]:
    """All five, of the size that is compared or of one that runs at once."""
    if quick:
        return [
            mnist_cnn(batch=4, size=8),
            convnext_stack(batch=1, size=8, channels=32, blocks=1),
            resnext_stack(batch=1, size=8, channels=64, blocks=1),
            wavenet_stack(batch=1, samples=64, channels=8, blocks=2),
            volume_net(batch=1, size=8),
        ]
    return [
        mnist_cnn(batch=64, size=28),
        convnext_stack(batch=4, size=56, channels=96, blocks=2),
        resnext_stack(batch=4, size=28, channels=256, blocks=2),
        wavenet_stack(batch=8, samples=4096, channels=64, blocks=4),
        volume_net(batch=2, size=32),
    ]


def mnist_cnn(batch: int, size: int) -> Net:
    """Twice a convolution and a pooling, in 2D, after LeCun et al. (1998)."""
    layers = {
        "conv1": (5, 5, 1, 32),
        "conv2": (5, 5, 32, 64),
        "dense": ((size // 4) ** 2 * 64, CLASSES),
    }
    return Net("mnist_cnn", _cnn, layers, (batch, size, size, 1))


def volume_net(batch: int, size: int) -> Net:
    """The same in 3D."""
    layers = {
        "conv1": (3, 3, 3, 1, 16),
        "conv2": (3, 3, 3, 16, 32),
        "dense": ((size // 4) ** 3 * 32, CLASSES),
    }
    return Net("volume_net", _cnn, layers, (batch, size, size, size, 1))


def convnext_stack(batch: int, size: int, channels: int, blocks: int) -> Net:
    """Blocks of Liu et al. (2022), without their scale at the end."""
    block = {
        "depthwise": (7, 7, 1, channels),
        "norm": (channels,),
        "expand": (channels, 4 * channels),
        "contract": (4 * channels, channels),
    }
    shape = (batch, size, size, channels)
    return Net("convnext_stack", _convnext, [block] * blocks, shape, shape)


def resnext_stack(batch: int, size: int, channels: int, blocks: int) -> Net:
    """Blocks of Xie et al. (2017), without normalization."""
    width = channels // 2
    block = {
        "reduce": (1, 1, channels, width),
        "grouped": (3, 3, width // CARDINALITY, width),
        "expand": (1, 1, width, channels),
    }
    shape = (batch, size, size, channels)
    return Net("resnext_stack", _resnext, [block] * blocks, shape, shape)


def wavenet_stack(batch: int, samples: int, channels: int, blocks: int) -> Net:
    """Gated residual blocks of van den Oord et al. (2016), each dilated twice as much."""
    block = {"gated": (3, channels, 2 * channels), "mix": (1, channels, channels)}
    layers = {"first": (3, 1, channels), "blocks": [block] * blocks, "last": (1, channels, 1)}
    shape = (batch, samples, 1)
    return Net("wavenet_stack", _wavenet, layers, shape, shape)


def answer(loss: Any, gradient: Params) -> dict[str, np.ndarray]:
    """The loss and each layer's gradient, by name."""
    leaves, _ = jax.tree.flatten_with_path(gradient)
    return {"loss": np.asarray(loss)} | {
        jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves
    }


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple)


def _init(rng: np.random.Generator, shape: Shape) -> Layer:
    bias = np.zeros(shape[-1], np.float32)
    if len(shape) == 1:
        return {"scale": np.ones(shape, np.float32), "bias": bias}
    kernel = rng.standard_normal(shape, np.float32) * np.sqrt(2 / math.prod(shape[:-1]))
    return {"kernel": kernel.astype(np.float32), "bias": bias}


def _cnn(params: Params, x: jax.Array, using: Operations) -> jax.Array:
    for name in ("conv1", "conv2"):
        x = jax.nn.relu(_conv(params[name], x, using))
        x = using.max_pool(x, (2,) * (x.ndim - 2))
    return _dense(params["dense"], x.reshape(len(x), -1))


def _convnext(params: Params, x: jax.Array, using: Operations) -> jax.Array:
    for block in params:
        y = _norm(block["norm"], _conv(block["depthwise"], x, using, groups=x.shape[-1]))
        y = _gelu(_dense(block["expand"], y))
        x = x + _dense(block["contract"], y)
    return x


@jax.checkpoint
def _gelu(x: jax.Array) -> jax.Array:
    """Keeps nothing but its input for the gradient, as torch's does, instead of three arrays."""
    return jax.nn.gelu(x, approximate=False)


def _resnext(params: Params, x: jax.Array, using: Operations) -> jax.Array:
    for block in params:
        y = jax.nn.relu(_conv(block["reduce"], x, using))
        y = jax.nn.relu(_conv(block["grouped"], y, using, groups=CARDINALITY))
        x = jax.nn.relu(x + _conv(block["expand"], y, using))
    return x


def _wavenet(params: Params, x: jax.Array, using: Operations) -> jax.Array:
    x = _causal_conv(params["first"], x, using)
    for number, block in enumerate(params["blocks"]):
        gated = _causal_conv(block["gated"], x, using, dilation=2**number)
        signal, gate = jnp.split(gated, 2, axis=-1)
        x = x + _conv(block["mix"], jnp.tanh(signal) * jax.nn.sigmoid(gate), using)
    return _conv(params["last"], jax.nn.relu(x), using)


def _conv(layer: Layer, x: jax.Array, using: Operations, groups: int = 1) -> jax.Array:
    """Of odd taps, and centred."""
    taps = layer["kernel"].shape[:-2]
    padding = [(count // 2, count // 2) for count in taps]
    dilation = (1,) * len(taps)
    y = using.conv(x, layer["kernel"], padding=padding, dilation=dilation, groups=groups)
    return y + layer["bias"]


def _causal_conv(layer: Layer, x: jax.Array, using: Operations, dilation: int = 1) -> jax.Array:
    """In 1D, over the past."""
    past = dilation * (len(layer["kernel"]) - 1)
    y = using.conv(x, layer["kernel"], padding=[(past, 0)], dilation=(dilation,), groups=1)
    return y + layer["bias"]


def _dense(layer: Layer, x: jax.Array) -> jax.Array:
    rows = x.reshape(-1, x.shape[-1])
    return (rows @ layer["kernel"] + layer["bias"]).reshape(*x.shape[:-1], -1)


def _norm(layer: Layer, x: jax.Array) -> jax.Array:
    """Over the channels, after Ba et al. (2016)."""
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + NORM_EPSILON) * layer["scale"] + layer["bias"]
