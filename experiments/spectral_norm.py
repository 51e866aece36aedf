"""Set the norm of a convolution beside that of its reshaped kernel, in training. (0.5 minutes)

Spectral normalization of flax, equinox and haiku divides a kernel by the largest singular value of
the kernel reshaped to a matrix `[taps * in, out]`. That is not the norm of the map. Three small
nets learn scikit-learn's digits: as they are, divided by the reshaped norm, and divided by the norm
of the map. Where each layer has norm 1, the net's bound is 1; the reshaped norm promises no such
thing.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from tqdm import tqdm

import jconv
from experiments.learning import data
from jconv.spectrum import operator_norm

_RESULTS = Path(__file__).parent / "results"
_WIDTHS = (1, 16, 16, 16)
_KEY = jax.random.key(1)
Kernels = list[Array]


def map_norm(kernel: Array) -> Array:
    """Of what the layer does to an image of 8 by 8."""
    return operator_norm(kernel, 8, padding="same", key=_KEY, tol=1e-3, max_iterations=48)


def reshaped_norm(kernel: Array) -> Array:
    """Of the kernel as a matrix, as other libraries have it."""
    return jnp.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)


_DIVISORS: dict[str, Callable[[Array], Array] | None] = {
    "as it is": None,
    "reshaped norm 1": reshaped_norm,
    "norm of the map 1": map_norm,
}


def layers(kernels: Kernels, divisor: Callable[[Array], Array] | None) -> Kernels:
    """The kernels that the net really applies."""
    return [k / divisor(k) for k in kernels] if divisor else kernels


def logits(params: dict, images: Array, divisor: Callable[[Array], Array] | None) -> Array:
    """Convolutions with ReLU, then a linear readout."""
    x = images
    for kernel in layers(params["kernels"], divisor):
        x = jax.nn.relu(jconv.conv(x, kernel, padding="same"))
    return x.reshape(len(x), -1) @ params["readout"]


def fit(dataset: data.Dataset, divisor: Callable[[Array], Array] | None, steps: int) -> dict:
    """Trains, and returns both norms of each layer and the accuracy."""
    keys = jax.random.split(jax.random.key(0), len(_WIDTHS))
    initial = jax.nn.initializers.he_normal()
    kernels = [
        initial(key, (3, 3, c, m))
        for key, c, m in zip(keys, _WIDTHS[:-1], _WIDTHS[1:], strict=False)
    ]
    params = {"kernels": kernels, "readout": jnp.zeros((64 * _WIDTHS[-1], 10))}
    optimizer = optax.adam(3e-3)
    images, labels = jnp.asarray(dataset.train_images), jnp.asarray(dataset.train_labels)

    def loss(params, rows):
        scores = logits(params, images[rows], divisor)
        return optax.losses.softmax_cross_entropy_with_integer_labels(scores, labels[rows]).mean()

    @jax.jit
    def step(params, state, key):
        rows = jax.random.randint(key, (128,), 0, len(images))
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for key in tqdm(jax.random.split(jax.random.key(2), steps), unit="step", leave=False):
        params, state = step(params, state, key)
    scores = jax.jit(logits, static_argnums=2)(params, dataset.test_images, divisor)
    applied = jax.jit(layers, static_argnums=1)(params["kernels"], divisor)
    return {
        "accuracy": float((scores.argmax(-1) == dataset.test_labels).mean()),
        "map": [float(jax.jit(map_norm)(k)) for k in applied],
        "reshaped": [float(jax.jit(reshaped_norm)(k)) for k in applied],
    }


def draw(found: dict[str, dict]) -> Figure:
    """Both norms of each layer, a panel each net."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True)
    for axes, (name, net) in zip(panels, found.items(), strict=True):
        at = np.arange(len(net["map"]))
        axes.bar(at - 0.2, net["reshaped"], 0.38, label="reshaped kernel", color="tab:orange")
        axes.bar(at + 0.2, net["map"], 0.38, label="the map", color="tab:blue")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xticks(at, [f"layer {i + 1}" for i in at])
        bound = np.prod(net["map"])
        axes.set_title(f"{name}\nproduct of map norms {bound:.2f}, accuracy {net['accuracy']:.1%}",
                       fontsize=10)  # fmt: skip
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("largest singular value")
    panels[0].legend(frameon=False)
    return figure


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.spectral_norm",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a few steps")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="where the results go")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the three, reports and draws."""
    options = _options(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    dataset, steps = data.load("digits"), 20 if options.quick else 300
    found = {name: fit(dataset, divisor, steps) for name, divisor in _DIVISORS.items()}
    for name, net in found.items():
        norms = ", ".join(
            f"{a:.2f} / {b:.2f}" for a, b in zip(net["map"], net["reshaped"], strict=True)
        )
        print(f"{name:<18} accuracy {net['accuracy']:.1%}, map / reshaped by layer: {norms}")
    (options.results / "spectral_norm.json").write_text(json.dumps(found, indent=1))
    draw(found).savefig(options.results / "spectral_norm.png", dpi=150)
    print(f"The picture is in {options.results}.")


if __name__ == "__main__":
    main()
