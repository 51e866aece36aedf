"""Train with differential privacy: gradients clipped one by one, by their norms alone. (3 minutes)

DP-SGD (Abadi et al., 2016) scales the gradient of every example down to a norm of at most `clip`
and adds Gaussian noise to their sum. `per_example_kernel_norms` gives the norms without the
gradients, and one kernel gradient of weighted cotangents is the sum. Two other ways must agree:
the gradients written out, and `jax.vmap` of a gradient of `jax.lax`. Then nets are trained with
more and more noise.

Each epoch an image is in one batch, so that `E` epochs at noise `s` (in units of `clip`) are
`E / (2 s^2)`-zCDP, where two sets differ by one image blanked. `epsilon` follows at the `delta`
printed: Bun and Steinke (2016), proposition 1.3. The amplification by random batches that sharper
accounts have is not in it.
"""

import argparse
import functools
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

import jconv
from experiments.learning import data, layerwise, net, training
from experiments.speed import timing
from jconv.curvature import per_example_kernel_gradients, per_example_kernel_norms

_RESULTS = Path(__file__).parent / "results"
_QUICK = {"data": "digits", "epochs": 2, "rounds": 2, "noises": [0.0, 2.0]}
_DELTA = 1e-5

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


class Way(NamedTuple):
    """What a way costs, and its largest difference from the last way over the largest entry."""

    seconds: float
    scratch_mib: float
    difference: float


def compare(
    params: net.Params, images: Array, labels: Array, clip: float, rounds: int
) -> dict[str, Way]:
    """Every way on one batch, timed in alternation."""
    args = params, images, labels, clip
    compiled = {name: jax.jit(way).lower(*args).compile() for name, way in WAYS.items()}
    calls = {name: functools.partial(way, *args) for name, way in compiled.items()}
    seconds = timing.alternate(calls, rounds)
    flat = {name: ravel_pytree(call())[0] for name, call in calls.items()}
    *_, right = flat.values()
    found = {}
    for name, gradients in flat.items():
        difference = float(jnp.abs(gradients - right).max() / jnp.abs(right).max())
        memory = compiled[name].memory_analysis()
        scratch = memory.temp_size_in_bytes / 2**20 if memory else math.nan
        found[name] = Way(seconds[name], scratch, difference)
    return found


def epsilon(epochs: int, noise: float) -> float:
    """The privacy lost, where `delta` is `_DELTA`."""
    if not noise:
        return math.inf
    rho = epochs / (2 * noise**2)
    return rho + 2 * math.sqrt(rho * math.log(1 / _DELTA))


def fit(dataset: data.Dataset, options: argparse.Namespace, noise: float, bar: tqdm) -> float:
    """Trains by clipped gradients with noise, and returns the share of test images right."""

    @jax.jit
    def step(params, images, labels, key):
        gradients, unravel = ravel_pytree(by_norms(params, images, labels, options.clip))
        noisy = gradients + noise * options.clip * jax.random.normal(key, gradients.shape)
        rate = options.learning_rate / len(images)
        return jax.tree.map(lambda p, g: p - rate * g, params, unravel(noisy))

    count, batch = len(dataset.train_images), options.batch
    params = net.init(jax.random.key(0), dataset.train_images.shape[1:], len(dataset.names))
    order = training.batches(count, batch, seed=0, first=0)
    for number, rows in enumerate(itertools.islice(order, options.epochs * (count // batch))):
        key = jax.random.fold_in(jax.random.key(1), number)
        params = step(params, dataset.train_images[rows], dataset.train_labels[rows], key)
        bar.update(batch)
    scores = training.scores(params, dataset.test_images)
    return float((scores.argmax(-1) == dataset.test_labels).mean())


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.private_sgd",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", default="mnist", help="mnist, digits, idx:DIRECTORY or cifar10:DIRECTORY")
    add("--epochs", type=int, default=20, help="how often training sees every image")
    add("--batch", type=int, default=200, help="images a step")
    add("--learning-rate", type=float, default=0.5, help="of the mean of clipped gradients")
    add("--clip", type=float, default=1.0, help="the largest norm of an image's gradient")
    add("--noises", type=float, nargs="+", default=[0.0, 2.0, 4.0, 8.0], help="in units of CLIP")
    add("--rounds", type=int, default=7, help="calls timed for the comparison")
    add("--results", type=Path, default=_RESULTS, help="where the figures go")
    add("--quick", action="store_true", help="a small run, in seconds")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**_QUICK)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares the three ways, trains, and reports."""
    options = _options(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    dataset = data.load(options.data)
    params = net.init(jax.random.key(0), dataset.train_images.shape[1:], len(dataset.names))
    first = slice(options.batch)
    images, labels = map(jnp.asarray, (dataset.train_images[first], dataset.train_labels[first]))
    ways = compare(params, images, labels, options.clip, options.rounds)
    for name, way in ways.items():
        cost = f"{way.seconds * 1e3:6.1f} ms, {way.scratch_mib:6.1f} MiB of scratch"
        print(f"{name:<22} {cost}, differs by {way.difference:.0e}")
    seen = len(dataset.train_images) // options.batch * options.batch * options.epochs
    with tqdm(total=seen * len(options.noises), unit=" images", unit_scale=True) as bar:
        accuracy = {noise: fit(dataset, options, noise, bar) for noise in options.noises}
    for noise, share in accuracy.items():
        lost = epsilon(options.epochs, noise)
        privacy = f"epsilon {lost:.1f} at delta {_DELTA:g}" if noise else "no privacy"
        print(f"noise {noise:<4g} test accuracy {share:.1%}, {privacy}")
    content = {
        "ways": {name: way._asdict() for name, way in ways.items()},
        "accuracy": accuracy,
    }
    (options.results / "private_sgd.json").write_text(json.dumps(content, indent=1))
    print(f"Figures are in {options.results}.")


if __name__ == "__main__":
    main()
