"""Fit a kernel and a net in one, two, three and four dimensions by the same code. (1 minute)

The kernel first: filtered data are made by a random kernel, which conjugate gradients find again
from the data before and after. Then the net: convolve, pool, convolve, average, decide. The data
are signals, images of digits, and patches of a scan of a head in space and time.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.sparse.linalg import cg
from matplotlib.figure import Figure
from tqdm import tqdm

import jconv
from experiments import command_line
from experiments.learning import descent, net, samples

_TAPS, _WIDTHS = 3, (8, 16)
_BATCH = 64
_SOLVER_STEPS = 200
_SHOWN = 100  # a sample for the figure

Params = dict[str, jax.Array]


class Result(NamedTuple):
    """What came out for one number of dimensions."""

    dimensions: int
    source: str
    sample: np.ndarray
    kernel_error: float
    accuracy: float
    chance: float
    losses: list[float]


def found_again(x: np.ndarray) -> float:
    """How far a kernel is off, relative to its norm, that is found from `x` and its image.

    The normal equations need just the two faces of the convolution that are linear in the kernel.
    """
    n = x.ndim - 2
    weights = np.random.default_rng(0).standard_normal((2,) * n)  # no symmetry to hide a flip
    truth = jnp.asarray(weights, jnp.float32)[..., None, None]

    @jax.jit
    def error(x: jax.Array) -> jax.Array:
        def normal(kernel: jax.Array) -> jax.Array:
            return jconv.kernel_gradient(x, jconv.conv(x, kernel), (2,) * n)

        found, _ = cg(normal, normal(truth), tol=1e-7, maxiter=_SOLVER_STEPS)
        return jnp.linalg.norm(found - truth) / jnp.linalg.norm(truth)

    return float(error(x))


def init(key: jax.Array, dimensions: int, classes: int) -> Params:
    """Weights drawn after He et al. (2015)."""
    draw = jax.nn.initializers.he_normal()
    first, second, last = jax.random.split(key, 3)
    taps, (narrow, wide) = (_TAPS,) * dimensions, _WIDTHS
    return {
        "first": draw(first, (*taps, 1, narrow)),
        "second": draw(second, (*taps, narrow, wide)),
        "dense": draw(last, (wide, classes)),
        "bias": jnp.zeros(classes),
    }


def logits(params: Params, x: jax.Array) -> jax.Array:
    """Convolve, pool, convolve, average, decide, whatever the number of axes."""
    dimensions = params["first"].ndim - 2
    window = tuple(min(2, n) for n in x.shape[1:-1])
    x = jax.nn.relu(jconv.conv(x, params["first"], padding="same"))
    x = cast(jax.Array, jconv.max_pool(x, window))
    x = jax.nn.relu(jconv.conv(x, params["second"], padding="same"))
    x = x.mean(range(1, dimensions + 1))
    return x @ params["dense"] + params["bias"]


def trained(data: samples.Samples, steps: int) -> tuple[float, list[float]]:
    """The accuracy on the test samples, and the loss at every step."""
    dimensions, classes = data.train.ndim - 2, int(data.train_labels.max()) + 1
    begin = jax.jit(init, static_argnums=(1, 2))(jax.random.key(0), dimensions, classes)

    def loss(params: Params, x: jax.Array, labels: jax.Array) -> jax.Array:
        return net.measure(logits(params, x), labels)[0]

    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    draw = np.random.default_rng(0).integers(len(data.train), size=(steps, _BATCH))
    rows = tqdm(draw, f"{dimensions}D", unit="step", leave=False)
    batches = ((data.train[some], data.train_labels[some]) for some in rows)
    params, losses = descent.minimize(loss, begin, optimizer, batches)
    guesses = jax.jit(logits)(params, data.test).argmax(-1)
    return float((guesses == data.test_labels).mean()), losses


def fit(dimensions: int, net_steps: int) -> Result:
    """Both fits."""
    data = samples.load(dimensions)
    accuracy, losses = trained(data, net_steps)
    chance = np.bincount(data.test_labels).max() / len(data.test_labels)
    error = found_again(data.train[:_BATCH])
    return Result(
        dimensions, data.source, data.train[_SHOWN], error, accuracy, float(chance), losses
    )


def table(results: Sequence[Result]) -> str:
    """A row for each."""
    lines = [f"{'':3} {'data':20} {'size':16} {'error of the kernel':>20} {'net right':>10} chance"]
    for r in results:
        size = " x ".join(map(str, r.sample.shape[:-1]))
        lines.append(
            f"{r.dimensions}D  {r.source:20} {size:16} {r.kernel_error:>20.1e} "
            f"{r.accuracy:>10.1%} {r.chance:>6.1%}"
        )
    return "\n".join(lines)


def draw(results: Sequence[Result]) -> Figure:
    """A sample of each, and how its net learned."""
    figure = Figure(figsize=(3.2 * len(results), 5.4), layout="constrained")
    rows = figure.subplots(2, len(results), squeeze=False, height_ratios=(1.1, 1))
    above, below = rows
    for upper, lower, r in zip(above, below, results, strict=True):
        sample = r.sample[..., 0]
        if sample.ndim == 1:
            upper.plot(sample)
            upper.set(xticks=[], yticks=[])
        else:
            middle = [n // 2 for n in sample.shape[2:]]
            upper.imshow(sample[(..., *middle)], cmap="gray")
            upper.set_axis_off()
        slices = {3: "\n(its middle slice)", 4: "\n(a slice at one time)"}.get(r.dimensions, "\n")
        upper.set_title(f"{r.dimensions}D: {r.source}{slices}")
        smooth = np.convolve(r.losses, np.full(9, 1 / 9), "valid")
        lower.plot(smooth)
        lower.set(xlabel="step", ylim=(0, None))
        lower.set_title(f"{r.accuracy:.0%} right (chance {r.chance:.0%})", fontsize=10)
        lower.grid(alpha=0.3)
    below[0].set_ylabel("cross-entropy")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Fits, then reports."""
    parser = command_line.parser(__file__, __doc__)
    add = parser.add_argument
    add("--net-steps", type=command_line.count, default=500, help="of training the net")
    options = command_line.parse(parser, arguments, net_steps=20)
    results = [fit(dimensions, options.net_steps) for dimensions in (1, 2, 3, 4)]
    print(table(results))
    (options.results / "dimensions.json").write_text(
        json.dumps([result._asdict() for result in results], indent=1, default=np.shape)
    )
    draw(results).savefig(options.results / "dimensions.png", dpi=150)
    print(f"The picture and the numbers are in {options.results}.")


if __name__ == "__main__":
    main()
