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
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from experiments import command_line
from experiments.learning import clipping, data, descent, net, training
from experiments.speed import peers, timing

_DELTA = 1e-5


class Way(NamedTuple):
    """What a way costs, and its largest difference from the last way over the largest entry."""

    seconds: float
    scratch_mib: float
    difference: float


def compare(dataset: data.Dataset, options: argparse.Namespace) -> dict[str, Way]:
    """Every way on one batch, timed in alternation."""
    first = slice(options.batch)
    batch = jax.device_put((dataset.train_images[first], dataset.train_labels[first]))
    args = training.weights(dataset), *batch, options.clip
    made = {n: peers.compiled_ahead(jax.jit(way), *args) for n, way in clipping.WAYS.items()}
    calls = {name: functools.partial(call, *args) for name, (call, *_) in made.items()}
    seconds = timing.alternate(calls, options.rounds)
    flat = {name: ravel_pytree(call())[0] for name, call in calls.items()}
    *_, right = flat.values()
    found = {}
    for name, (*_, scratch) in made.items():
        difference = jnp.abs(flat[name] - right).max() / jnp.abs(right).max()
        mebibytes = math.nan if scratch is None else scratch / 2**20
        found[name] = Way(seconds[name], mebibytes, float(difference))
    return found


def epsilon(epochs: int, noise: float) -> float:
    """The privacy lost, where `delta` is `_DELTA`."""
    if not noise:
        return math.inf
    rho = epochs / (2 * noise**2)
    return rho + 2 * math.sqrt(rho * math.log(1 / _DELTA))


def fit(dataset: data.Dataset, options: argparse.Namespace, noise: float) -> float:
    """Trains by clipped gradients with noise, and returns the share of test images right."""

    @jax.jit
    def step(params: net.Params, images: Array, labels: Array, key: Array) -> net.Params:
        clipped = clipping.by_norms(params, images, labels, options.clip)
        gradients, unravel = ravel_pytree(clipped)
        noisy = gradients + noise * options.clip * jax.random.normal(key, gradients.shape)
        rate = options.learning_rate / len(images)
        return jax.tree.map(lambda p, g: p - rate * g, params, unravel(noisy))

    params = training.weights(dataset)
    steps = options.epochs * descent.batches_of(dataset, options.batch)
    for example in descent.examples(dataset, options.batch, steps, f"noise {noise:g}"):
        params = step(params, *example)
    return training.accuracy(params, dataset)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", default="mnist", help=data.SOURCES)
    add("--epochs", type=command_line.count, default=20, help="how often training sees every image")
    add("--batch", type=command_line.count, default=200, help="images a step")
    add(
        "--learning-rate",
        type=command_line.positive,
        default=0.5,
        help="of the mean of clipped gradients",
    )
    add(
        "--clip",
        type=command_line.positive,
        default=1.0,
        help="the largest norm of an image's gradient",
    )
    add(
        "--noises",
        type=command_line.not_negative,
        nargs="+",
        default=[0.0, 2.0, 4.0, 8.0],
        help="in units of CLIP",
    )
    add("--rounds", type=command_line.count, default=7, help="calls timed for the comparison")
    quick: dict[str, Any] = {"data": "digits", "epochs": 2, "rounds": 2, "noises": [0.0, 2.0]}
    return command_line.parse(parser, arguments, **quick)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares the three ways, trains, and reports."""
    options = _options(arguments)
    with command_line.refusal():
        dataset = data.load(options.data)
        descent.batches_of(dataset, options.batch)
    ways = compare(dataset, options)
    for name, way in ways.items():
        cost = f"{way.seconds * 1e3:6.1f} ms, {way.scratch_mib:6.1f} MiB of scratch"
        print(f"{name:<22} {cost}, differs by {way.difference:.0e}")
    accuracy = {noise: fit(dataset, options, noise) for noise in options.noises}
    for noise, share in accuracy.items():
        lost = epsilon(options.epochs, noise)
        privacy = f"epsilon {lost:.1f} at delta {_DELTA:g}" if noise else "no privacy"
        print(f"noise {noise:<4g} test accuracy {share:.1%}, {privacy}")
    content = {"ways": {name: way._asdict() for name, way in ways.items()}, "accuracy": accuracy}
    (options.results / "private_sgd.json").write_text(json.dumps(content, indent=1))
    print(f"Figures are in {options.results}.")


if __name__ == "__main__":
    main()
