"""Set the norm of a convolution beside that of its reshaped kernel, in training. (0.5 minutes)

Spectral normalization of flax, equinox and haiku divides a kernel by the largest singular value of
the kernel reshaped to a matrix `[taps * in, out]`. That is not the norm of the map. Three small
nets learn scikit-learn's digits: as they are, divided by the reshaped norm, and divided by the norm
of the map. Where each layer has norm 1, the net's bound is 1; the reshaped norm promises no such
thing.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure

import jconv
from experiments import command_line
from experiments.learning import data, descent, net
from jconv.spectrum import operator_norm

_SIZE, _WIDTHS, _BATCH = 8, (1, 16, 16, 16), 128
_KEY = jax.random.key(1)
Kernels = list[Array]
Divisor = Callable[[Array], Array] | None


class Fitted(NamedTuple):
    """The share of test images that a net has right, and both norms of each of its layers."""

    accuracy: float
    map: list[float]
    reshaped: list[float]


def map_norm(kernel: Array) -> Array:
    """Of what the layer does to an image of 8 by 8."""
    return operator_norm(kernel, _SIZE, padding="same", key=_KEY, tol=1e-3, max_iterations=48)


def reshaped_norm(kernel: Array) -> Array:
    """Of the kernel as a matrix, as other libraries have it."""
    return jnp.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)


DIVISORS: dict[str, Divisor] = {
    "as it is": None,
    "reshaped norm 1": reshaped_norm,
    "norm of the map 1": map_norm,
}


def layers(kernels: Kernels, divisor: Divisor) -> Kernels:
    """The kernels that the net really applies."""
    return [k / divisor(k) for k in kernels] if divisor else kernels


def logits(params: dict, images: Array, divisor: Divisor) -> Array:
    """Convolutions with ReLU, then a linear readout."""
    x = images
    for kernel in layers(params["kernels"], divisor):
        x = jax.nn.relu(jconv.conv(x, kernel, padding="same"))
    return x.reshape(len(x), -1) @ params["readout"]


def init() -> dict:
    """Kernels drawn after He et al. (2015), and a readout of zeros."""
    draw, steps = jax.nn.initializers.he_normal(), list(itertools.pairwise(_WIDTHS))
    keys = jax.random.split(jax.random.key(0), len(steps))
    kernels = [draw(key, (3, 3, *widths)) for key, widths in zip(keys, steps, strict=True)]
    return {"kernels": kernels, "readout": jnp.zeros((_SIZE**2 * _WIDTHS[-1], 10))}


def fit(dataset: data.Dataset, name: str, steps: int) -> Fitted:
    """Trains a net whose kernels are divided as `name` says."""
    divisor = DIVISORS[name]

    def loss(params: dict, images: Array, labels: Array, _: Array) -> Array:
        return net.measure(logits(params, images, divisor), labels)[0]

    examples = descent.examples(dataset, _BATCH, steps, name)
    params, _ = descent.minimize(loss, init(), optax.adam(3e-3), examples)
    scores = jax.jit(logits, static_argnums=2)(params, dataset.test_images, divisor)
    applied = jax.jit(layers, static_argnums=1)(params["kernels"], divisor)
    return Fitted(
        float((scores.argmax(-1) == dataset.test_labels).mean()),
        [float(jax.jit(map_norm)(k)) for k in applied],
        [float(jax.jit(reshaped_norm)(k)) for k in applied],
    )


def draw(found: dict[str, Fitted]) -> Figure:
    """Both norms of each layer, a panel each net."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True)
    for axes, (name, fitted) in zip(panels, found.items(), strict=True):
        at = np.arange(len(fitted.map))
        axes.bar(at - 0.2, fitted.reshaped, 0.38, label="reshaped kernel", color="tab:orange")
        axes.bar(at + 0.2, fitted.map, 0.38, label="the map", color="tab:blue")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xticks(at, [f"layer {i + 1}" for i in at])
        bound = np.prod(fitted.map)
        reached = f"product of map norms {bound:.2f}, accuracy {fitted.accuracy:.1%}"
        axes.set_title(f"{name}\n{reached}", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("largest singular value")
    panels[0].legend(frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the three, reports and draws."""
    parser = command_line.parser(__file__, __doc__)
    parser.add_argument("--steps", type=command_line.count, default=300, help="of each net")
    options = command_line.parse(parser, arguments, steps=20)
    dataset = data.load("digits")
    found = {name: fit(dataset, name, options.steps) for name in DIVISORS}
    for name, fitted in found.items():
        both = zip(fitted.map, fitted.reshaped, strict=True)
        norms = ", ".join(f"{whole:.2f} / {reshaped:.2f}" for whole, reshaped in both)
        print(f"{name:<18} accuracy {fitted.accuracy:.1%}, map / reshaped by layer: {norms}")
    content = {name: fitted._asdict() for name, fitted in found.items()}
    (options.results / "spectral_norm.json").write_text(json.dumps(content, indent=1))
    draw(found).savefig(options.results / "spectral_norm.png", dpi=150)
    print(f"The picture is in {options.results}.")


if __name__ == "__main__":
    main()
