"""Fit a kernel and a net in one, two, three and four dimensions by the same code. (1 minute)

The kernel first: filtered data are made by a random kernel, which conjugate gradients find again
from the data before and after. Then the net: convolve, pool, convolve, average, decide. The data
are signals of MNIST-1D (Greydanus and Kobak 2024; generated here), real digits (2D), and a real
magnetic resonance scan that ships with nibabel: patches of a head in space (3D) and time (4D). In
1D and 2D the classes are the digits; in 3D and 4D the question is whether a patch's slices are in
order.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import optax
from jax.scipy.sparse.linalg import cg
from matplotlib.figure import Figure
from mnist1d.data import get_dataset_args, make_dataset
from sklearn.datasets import load_digits
from tqdm import tqdm

import jconv
from experiments.learning import net

_RESULTS = Path(__file__).parent / "results"
_SCAN = Path(nibabel.__file__).parent / "tests" / "data" / "example4d.nii.gz"
_PATCH, _STEP = (12, 12, 6), (6, 6, 3)
_SHUFFLED = [2, 0, 4, 1, 5, 3]
_HELD_OUT = 4  # of the scan, every fourth block of the first axis is for testing
_TAPS, _WIDTHS = 3, (8, 16)
_BATCH = 64
_SOLVER_STEPS = 200
_SHOWN = 100  # a sample for the figure

Params = dict[str, jax.Array]


class Samples(NamedTuple):
    """`[count, *size, 1]` of mean 0 and variance 1, and their classes, in training and test."""

    source: str
    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


class Result(NamedTuple):
    """What came out for one number of dimensions."""

    dimensions: int
    source: str
    sample: np.ndarray
    kernel_error: float
    accuracy: float
    chance: float
    losses: list[float]


def samples(dimensions: int) -> Samples:
    """The data of so many dimensions."""
    return (_signals, _digits, _volumes, _films)[dimensions - 1]()


def _signals() -> Samples:
    made = make_dataset(get_dataset_args())
    return _samples("MNIST-1D, generated", made["x"], made["y"], made["x_test"], made["y_test"])


def _digits() -> Samples:
    images, labels = load_digits().images, load_digits().target  # type: ignore[attr-defined]
    test = np.arange(len(images)) % 5 == 0
    return _samples(
        "handwritten digits", images[~test], labels[~test], images[test], labels[test]
    )


def _volumes() -> Samples:
    return _patches("scan of a head", _scan()[..., :1], squeeze=True)


def _films() -> Samples:
    return _patches("the scan in time", _scan(), squeeze=False)


def _scan() -> np.ndarray:
    return np.asarray(nibabel.load(_SCAN).dataobj, np.float32)  # type: ignore[attr-defined]


def _patches(source: str, scan: np.ndarray, squeeze: bool) -> Samples:
    """Patches of the head, as they are and with slices in disorder; whole blocks are held out."""
    starts = [range(0, n - p + 1, s) for n, p, s in zip(scan.shape, _PATCH, _STEP, strict=False)]
    threshold = np.median(scan[scan > 0])
    parts: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for i, j, k in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3):
        patch = scan[i : i + _PATCH[0], j : j + _PATCH[1], k : k + _PATCH[2]]
        block, last = (at // _PATCH[0] % _HELD_OUT == 0 for at in (i, i + _PATCH[0] - 1))
        if block == last and patch.mean() > threshold / 2:  # no voxel is in both sets
            parts[block].append(patch[..., 0] if squeeze else patch)

    def with_disorder(patches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        stacked = np.stack(patches)
        disorder = stacked[:, :, :, _SHUFFLED]
        return np.concatenate([stacked, disorder]), np.repeat([0, 1], len(stacked))

    return _samples(source, *with_disorder(parts[False]), *with_disorder(parts[True]))


def _samples(source: str, train, train_labels, test, test_labels) -> Samples:
    mean, deviation = np.mean(train), np.std(train)

    def scaled(x: np.ndarray) -> np.ndarray:
        return ((x - mean) / deviation).astype(np.float32)[..., None]

    labels = (np.asarray(each, np.int32) for each in (train_labels, test_labels))
    first, second = labels
    return Samples(source, scaled(train), first, scaled(test), second)


# ---------------------------------------------------------------- the kernel, found again


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


# ---------------------------------------------------------------- the net


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


def trained(data: Samples, steps: int) -> tuple[float, list[float]]:
    """The accuracy on the test samples, and the loss at every step."""
    classes = int(data.train_labels.max()) + 1
    params = jax.jit(init, static_argnums=(1, 2))(jax.random.key(0), data.train.ndim - 2, classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))
    moments = jax.jit(optimizer.init)(params)

    def loss(params: Params, x: jax.Array, labels: jax.Array) -> jax.Array:
        return net.measure(logits(params, x), labels)[0]

    @jax.jit
    def step(params: Params, moments, x: jax.Array, labels: jax.Array):
        value, gradient = jax.value_and_grad(loss)(params, x, labels)
        updates, moments = optimizer.update(gradient, moments)
        return optax.apply_updates(params, updates), moments, value

    losses, draw = [], np.random.default_rng(0)
    for _ in tqdm(range(steps), desc=f"{data.train.ndim - 2}D", unit="step", leave=False):
        rows = draw.integers(len(data.train), size=_BATCH)
        params, moments, value = step(params, moments, data.train[rows], data.train_labels[rows])
        losses.append(float(value))
    guesses = jax.jit(logits)(params, data.test).argmax(-1)
    return float((guesses == data.test_labels).mean()), losses


# ---------------------------------------------------------------- the report


def fit(dimensions: int, net_steps: int) -> Result:
    """Both fits."""
    data = samples(dimensions)
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
    parser = argparse.ArgumentParser(
        prog="python -m experiments.dimensions",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--net-steps", type=int, default=500, help="of training the net")
    add("--results", type=Path, default=_RESULTS, help="where the figure and the numbers go")
    add("--quick", action="store_true", help="few steps, in seconds")
    if parser.parse_args(arguments).quick:
        parser.set_defaults(net_steps=20, results=_RESULTS / "quick")
    options = parser.parse_args(arguments)
    results = [fit(dimensions, options.net_steps) for dimensions in (1, 2, 3, 4)]
    print(table(results))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "dimensions.json").write_text(
        json.dumps([result._asdict() for result in results], indent=1, default=np.shape)
    )
    draw(results).savefig(options.results / "dimensions.png", dpi=150)
    print(f"The picture and the numbers are in {options.results}.")


if __name__ == "__main__":
    main()
