"""Set natural-gradient steps by Kronecker factors (K-FAC) beside gradient steps. (1 minute)

`kronecker_factors` give the Fisher matrix of each layer, whose inverse a gradient is multiplied by.
Gradient descent with momentum sees the same images, at several rates.
"""

import functools
import json
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from matplotlib.figure import Figure

from experiments import command_line
from experiments.learning import data, descent, kfac, net, training

Step = Callable[..., tuple[net.Params, Any, Array]]
Ways = dict[str, tuple[Step, Any]]


class Run(NamedTuple):
    """The loss of each step's images, the median seconds of a step, and the test images right."""

    loss: list[float]
    seconds: float
    accuracy: float


def ways(dataset: data.Dataset, options: Namespace) -> Ways:
    """How to step, and the state before the first: K-FAC, and gradient descent at each rate."""
    params = training.weights(dataset)
    limits = {"rate": options.rate, "damping": options.damping, "change": options.change}
    begin = kfac.start(params, jnp.asarray(dataset.train_images[:1]))
    found: Ways = {"K-FAC": (functools.partial(kfac.step, **limits), begin)}
    for rate in options.rates:
        optimizer = optax.sgd(rate, momentum=0.9)
        step = functools.partial(descend, optimizer=optimizer)
        found[f"SGD, rate {rate:g}"] = step, optimizer.init(params)
    return found


def descend(
    params: net.Params,
    state: optax.OptState,
    images: Array,
    labels: Array,
    key: Array,
    *,
    optimizer: optax.GradientTransformation,
) -> tuple[net.Params, optax.OptState, Array]:
    """A step of an optimizer of optax, which needs no key."""
    measured = jax.value_and_grad(net.loss, has_aux=True)
    (loss, _), gradients = measured(params, images, labels, net.HAND_DERIVED)
    updates, state = optimizer.update(gradients, state)
    return cast(net.Params, optax.apply_updates(params, updates)), state, loss


def fit(dataset: data.Dataset, name: str, step: Step, state: Any, options: Namespace) -> Run:
    """The same net and the same images for every way to step."""
    params, step = training.weights(dataset), jax.jit(step)
    losses, seconds = [], []
    for images, labels, key in descent.examples(dataset, options.batch, options.steps, name):
        begun = time.perf_counter()
        params, state, loss = jax.block_until_ready(step(params, state, images, labels, key))
        seconds.append(time.perf_counter() - begun)
        losses.append(float(loss))
    return Run(losses, statistics.median(seconds), training.accuracy(params, dataset))


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


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = command_line.parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", default="digits", help=data.SOURCES)
    add("--steps", type=command_line.count, default=120, help="of each way")
    add("--batch", type=command_line.count, default=256, help="images a step")
    add("--rate", type=command_line.positive, default=0.3, help="of the natural gradient")
    add("--damping", type=command_line.positive, default=1e-2, help="added to the Fisher matrix")
    add(
        "--change",
        type=command_line.positive,
        default=1e-2,
        help="the most a step changes the predictions",
    )
    add(
        "--rates",
        type=command_line.positive,
        nargs="+",
        default=[0.03, 0.1, 0.3],
        help="of gradient descent",
    )
    return command_line.parse(parser, arguments, steps=30, batch=128, rates=[0.1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains by each way, reports and draws."""
    options = _options(arguments)
    with command_line.refusal():
        dataset = data.load(options.data)
        descent.batches_of(dataset, options.batch)
    found = {
        name: fit(dataset, name, step, state, options)
        for name, (step, state) in ways(dataset, options).items()
    }
    for name, run in found.items():
        last, each = _smooth(run.loss)[-1], 1e3 * run.seconds
        print(f"{name:<16} loss {last:.4f}, test accuracy {run.accuracy:.1%}, {each:.1f} ms a step")
    content = {name: run._asdict() for name, run in found.items()}
    (options.results / "natural_gradient.json").write_text(json.dumps(content, indent=1))
    draw(found).savefig(options.results / "natural_gradient.png", dpi=150)
    print(f"The picture is in {options.results}.")


if __name__ == "__main__":
    main()
