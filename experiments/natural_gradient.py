"""Set natural-gradient steps by Kronecker factors (K-FAC) beside gradient steps. (1 minute)

The Fisher matrix of each kernel is taken as `kron(A, G)` from `kronecker_factors`, with labels
drawn from the net, so that its inverse times a gradient is `inv(A) gradient inv(G)`. Each bias has
its Fisher matrix whole. The factors are damped after Martens and Grosse (2015), and a step is cut
where it would change the net's predictions too much (Ba, Grosse and Martens, 2017). Gradient
descent with momentum sees the same images, at several rates.
"""

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure
from tqdm import tqdm

from experiments.learning import data, layerwise, net, training
from jconv.curvature import KroneckerFactors, kronecker_factors

_RESULTS = Path(__file__).parent / "results"
_QUICK = {"steps": 30, "batch": 128, "rates": [0.1]}
_DECAY = 0.9  # of the factors of earlier steps

Factors = dict[str, dict[str, Any]]
Step = Callable[..., tuple[net.Params, Any, Array]]


class Run(NamedTuple):
    """The loss of each step's images, the median seconds of a step, and the test images right."""

    loss: list[float]
    seconds: float
    accuracy: float


def factors(params: net.Params, images: Array, key: Array) -> Factors:
    """Of the Fisher matrix of every layer: `A` and `G` of its kernel, and that of its bias."""
    labels = jax.random.categorical(key, net.logits(params, images, net.HAND_DERIVED))
    found = {}
    for name, (x, y_bar, taps) in layerwise.trace(params, images, labels).items():
        both = functools.partial(kronecker_factors, x, y_bar, taps, padding="same")
        found[name] = {"kernel": both(), "bias": both(approximation="reduce").output}
    return found


def natural(gradients: net.Params, fisher: Factors, damping: float) -> net.Params:
    """The gradients times the inverse of the damped Fisher matrix."""
    return {
        name: {
            "kernel": _divided(layer["kernel"], fisher[name]["kernel"], damping),
            "bias": _solve(fisher[name]["bias"], layer["bias"], damping),
        }
        for name, layer in gradients.items()
    }


def _divided(gradient: Array, factors: KroneckerFactors, damping: float) -> Array:
    """`inv(A) gradient inv(G)`, with the damping shared out by their mean eigenvalues."""
    a, g = factors
    root = jnp.sqrt(damping)
    share = jnp.sqrt((jnp.trace(a) / len(a)) / (jnp.trace(g) / len(g)))
    rows = gradient.reshape(len(a), len(g))
    left = _solve(a, rows, root * share)
    return _solve(g, left.T, root / share).T.reshape(gradient.shape)


def _solve(matrix: Array, right: Array, damping: Array | float) -> Array:
    damped = matrix + damping * jnp.eye(len(matrix))
    return jax.scipy.linalg.solve(damped, right, assume_a="pos")


def kfac(rate: float, damping: float, change: float) -> Step:
    """A step of natural gradient, which may change the predictions by `change` (a divergence)."""

    @jax.jit
    def step(params, state, images, labels, key):
        value, gradients = _loss(params, images, labels)
        new = factors(params, images, key)
        # As far into the mean as it has come, so that the first factors count in full.
        count, old = state
        weight = jnp.maximum(1 - _DECAY, 1 / (count + 1))
        fisher = jax.tree.map(lambda old, new: old + weight * (new - old), old, new)
        steps = natural(gradients, fisher, damping)
        slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, steps, gradients)))
        size = jnp.minimum(rate, jnp.sqrt(change / slope))
        params = jax.tree.map(lambda p, s: p - size * s, params, steps)
        return params, (count + 1, fisher), value

    return step


def descent(optimizer: optax.GradientTransformation) -> Step:
    """A step of an optimizer of optax."""

    @jax.jit
    def step(params, state, images, labels, key):
        value, gradients = _loss(params, images, labels)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    return step


def _loss(params: net.Params, images: Array, labels: Array) -> tuple[Array, net.Params]:
    def loss(params):
        return net.loss(params, images, labels, net.HAND_DERIVED)[0]

    return jax.value_and_grad(loss)(params)


def fit(dataset: data.Dataset, step: Step, state: Any, steps: int, batch: int, bar: tqdm) -> Run:
    """The same net and the same images for every way to step."""
    params = start(dataset)
    order = training.batches(len(dataset.train_images), batch, seed=0, first=0)
    losses, seconds = [], []
    for number, rows in enumerate(itertools.islice(order, steps)):
        images, labels = dataset.train_images[rows], dataset.train_labels[rows]
        key = jax.random.fold_in(jax.random.key(1), number)
        begun = time.perf_counter()
        params, state, loss = jax.block_until_ready(step(params, state, images, labels, key))
        seconds.append(time.perf_counter() - begun)
        losses.append(float(loss))
        bar.update()
    guesses = training.scores(params, dataset.test_images).argmax(-1)
    return Run(losses, statistics.median(seconds), float((guesses == dataset.test_labels).mean()))


def start(dataset: data.Dataset) -> net.Params:
    """The weights before the first step."""
    return net.init(jax.random.key(0), dataset.train_images.shape[1:], len(dataset.names))


def no_factors(dataset: data.Dataset) -> Factors:
    """Zeros, of the shape of the factors."""
    shapes = jax.eval_shape(factors, start(dataset), dataset.train_images[:1], jax.random.key(0))
    return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)


def compare(dataset: data.Dataset, options: argparse.Namespace) -> dict[str, Run]:
    """K-FAC, and gradient descent at each rate."""
    ways: dict[str, tuple[Step, Any]] = {
        "K-FAC": (
            kfac(options.rate, options.damping, options.change),
            (jnp.int32(0), no_factors(dataset)),
        )
    }
    for rate in options.rates:
        optimizer = optax.sgd(rate, momentum=0.9)
        ways[f"SGD, rate {rate:g}"] = descent(optimizer), optimizer.init(start(dataset))
    with tqdm(total=options.steps * len(ways), unit=" steps") as bar:
        return {
            name: fit(dataset, step, state, options.steps, options.batch, bar)
            for name, (step, state) in ways.items()
        }


def draw(found: dict[str, Run]) -> Figure:
    """The loss by step and by time."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, run in found.items():
        label = f"{name}: {run.accuracy:.1%} of test images"
        style = {"linewidth": 2.0} if name == "K-FAC" else {"linewidth": 1.0}
        smooth = _smooth(run.loss)
        steps = np.arange(1, 1 + len(smooth))
        left.plot(steps, smooth, label=label, **style)
        right.plot(steps * run.seconds, smooth, **style)
    left.set(xlabel="steps", ylabel="cross-entropy (mean of the last 5 steps)", yscale="log")
    right.set(xlabel="seconds, at the median of a step", xscale="log")
    left.legend(frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _smooth(loss: Sequence[float]) -> np.ndarray:
    return np.array([np.mean(loss[max(at - 4, 0) : at + 1]) for at in range(len(loss))])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.natural_gradient",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", default="digits", help="mnist, digits, idx:DIRECTORY or cifar10:DIRECTORY")
    add("--steps", type=int, default=120, help="of each way")
    add("--batch", type=int, default=256, help="images a step")
    add("--rate", type=float, default=0.3, help="of the natural gradient")
    add("--damping", type=float, default=1e-2, help="added to the Fisher matrix")
    add("--change", type=float, default=1e-2, help="the most a step changes the predictions")
    add("--rates", type=float, nargs="+", default=[0.03, 0.1, 0.3], help="of gradient descent")
    add("--results", type=Path, default=_RESULTS, help="where the results go")
    add("--quick", action="store_true", help="a few steps")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**_QUICK)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains by each way, reports and draws."""
    options = _options(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    found = compare(data.load(options.data), options)
    for name, run in found.items():
        last, each = _smooth(run.loss)[-1], 1e3 * run.seconds
        print(f"{name:<16} loss {last:.4f}, test accuracy {run.accuracy:.1%}, {each:.1f} ms a step")
    content = {name: run._asdict() for name, run in found.items()}
    (options.results / "natural_gradient.json").write_text(json.dumps(content, indent=1))
    draw(found).savefig(options.results / "natural_gradient.png", dpi=150)
    print(f"The picture is in {options.results}.")


if __name__ == "__main__":
    main()
