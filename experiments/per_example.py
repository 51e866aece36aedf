"""Time kernel gradients of single examples beside jax.vmap of jax.lax's, and bounds. (2 minutes)

One bound is the product alone: of patches that are there and lie as it likes best, the fastest of
several batched products. The other adds what it takes to lay patches out. Both are of all examples
at once: jconv, which takes a few at a time, may be faster where they leave the caches.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments import command_line
from experiments.speed import convolutions, peers, timing
from experiments.speed.tables import Ints, Layer
from jconv import unfold
from jconv.curvature import per_example_kernel_gradients

# Name, channels, size, taps, stride, padding.
_ROWS = (
    ("first 5x5, 28x28", 1, 32, (28, 28), 5, 1, 2),
    ("lenet 5x5, 14x14", 6, 16, (14, 14), 5, 1, 0),
    ("5x5, 14x14", 32, 64, (14, 14), 5, 1, 2),
    ("first 8x8 stride 2, 28x28", 1, 16, (28, 28), 8, 2, 3),
    ("4x4 stride 2, 13x13", 16, 32, (13, 13), 4, 2, 0),
    ("3x3 stride 2, 16x16", 8, 16, (16, 16), 3, 2, 1),
    ("3x3 stride 2, 16x16", 32, 64, (16, 16), 3, 2, 1),
    ("rgb 3x3, 32x32", 3, 32, (32, 32), 3, 1, 1),
    ("3x3, 32x32", 16, 16, (32, 32), 3, 1, 1),
    ("3x3, 16x16", 64, 64, (16, 16), 3, 1, 1),
    ("3x3, 8x8", 128, 128, (8, 8), 3, 1, 1),
    ("1x1, 16x16", 64, 128, (16, 16), 1, 1, 0),
    ("2 words of 100", 128, 64, (100,), 2, 1, 0),
    ("3 words of 64", 100, 128, (64,), 3, 1, 1),
    ("4 words of 40", 50, 100, (40,), 4, 1, 0),
    ("5 words of 56", 300, 100, (56,), 5, 1, 0),
    ("audio, 9 taps stride 2", 16, 32, (1000,), 9, 2, 4),
    ("3x3x3, 8x8x8", 8, 16, (8, 8, 8), 3, 1, 1),
)


def layers(batch: int) -> list[Layer]:
    """The rows, with so many examples."""
    made = []
    for name, inputs, outputs, size, *window in _ROWS:
        taps, stride, padding = ((n,) * len(size) for n in window)
        name = f"{name}, {inputs} -> {outputs}"
        ones = (1,) * len(size)
        made.append(Layer(name, batch, inputs, outputs, size, taps, stride, padding, ones, 1))
    return made


def by_vmap(layer: Layer, x: Array, y: Array) -> Array:
    """`jax.vmap` of the kernel's gradient by `jax.lax`."""

    def of_one(x: Array, y: Array) -> Array:
        def conv(kernel: Array) -> Array:
            padding = [(n, n) for n in layer.padding]
            return convolutions.lax_conv(
                x[None], kernel, stride=layer.stride, padding=padding, dilation=layer.dilation,
                groups=1,
            )  # fmt: skip

        _, pull = jax.vjp(conv, jnp.zeros(layer.shapes[1]))
        return pull(y[None])[0]

    return jax.vmap(of_one)(x, y)


def by_jconv(layer: Layer, x: Array, y: Array) -> Array:
    """The same by jconv."""
    return per_example_kernel_gradients(
        x, y, layer.taps, stride=layer.stride, padding=layer.padding
    )


def products(layer: Layer) -> list[tuple[Callable[[Array, Array], Array], tuple[Ints, Ints]]]:
    """Batched products of the gradient or its transpose, and the shapes of their sides.

    As one; with the left side turned; and in two bands of positions, whose sum XLA:CPU shares among
    threads, the taps of the first axis apart or not.
    """
    _, kernel, y = layer.shapes
    gradient = math.prod(kernel[:-1]), y[-1]
    found = []
    for rows, columns in (gradient, gradient[::-1]):
        for parts, bands in {(1, 1), (1, 2), (math.gcd(rows, layer.taps[0]), 2)}:
            n = -(-math.prod(y[1:-1]) // bands)
            left, right = (rows // parts, n), (n, columns)
            lead = layer.batch, parts, bands
            found.append((_product, ((*lead, *left), (*lead, *right))))
            if bands == 1:
                found.append((_across, ((*lead, *left[::-1]), (*lead, *right))))
    return found


def _product(a: Array, b: Array) -> Array:
    return (a @ b).sum(2)


def _across(a: Array, b: Array) -> Array:
    return _product(a.mT, b)


def patches(layer: Layer, x: Array, y: Array) -> Array:
    """What every output sees; of one tap and no stride there is nothing to lay out."""
    if math.prod(layer.taps) == math.prod(layer.stride) == 1:
        return y
    return unfold(x, layer.taps, stride=layer.stride, padding=layer.padding)


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def measure(layer: Layer, rounds: int) -> list[float]:
    """Milliseconds by `vmap`, by jconv, of patches, and of the fastest product."""
    x, _, y = convolutions.arrays(layer)
    programs = [peers.compiled(partial(way, layer), x, y) for way in (by_vmap, by_jconv, patches)]
    right, ours = (program.answer()["result"] for program in programs[:2])
    np.testing.assert_allclose(ours, right, atol=1e-4 * np.abs(right).max(), err_msg=layer.name)
    for product, (left, right) in products(layer):
        programs.append(peers.compiled(product, _normal(*left), _normal(*right)))
    calls = {str(i): program.call for i, program in enumerate(programs)}
    vmap, jconv, laid, *bare = timing.alternate(calls, rounds).values()
    return [1e3 * seconds for seconds in (vmap, jconv, laid, min(bare))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each layer."""
    parser = command_line.parser(__file__, __doc__)
    parser.add_argument("--batch", type=command_line.count, default=64, help="examples")
    parser.add_argument("--rounds", type=command_line.count, default=5, help="calls of each")
    options = command_line.parse(parser, arguments, results=None, rounds=1, batch=2)
    heads = ("vmap", "jconv", "patches", "product")
    print(f"{'layer':<40}", *(f"{head:>8}" for head in heads), "  vmap over jconv, product, both")
    ratios = []
    for layer in layers(options.batch)[:: 6 if options.quick else 1]:
        times = vmap, jconv, laid, product = measure(layer, options.rounds)
        ratios.append(vmap / jconv)
        figures = [f"{ms:8.2f}" for ms in times]
        figures += [f"{vmap / ms:8.1f}" for ms in (jconv, product, laid + product)]
        print(f"{layer.name:<40}", *figures, flush=True)
    print(f"geometric mean {statistics.geometric_mean(ratios):.1f}, least {min(ratios):.1f}")


if __name__ == "__main__":
    main()
