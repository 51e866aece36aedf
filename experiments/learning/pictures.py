"""Pictures of a trained net: how it learned, what it learned, what it sees, what it confuses."""

from collections.abc import Sequence

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix

from experiments.learning import net
from experiments.learning.checkpoints import Checkpoint
from experiments.learning.training import Trainer, scores

_COLUMNS = 8
_TRAIN, _TEST = "tab:blue", "tab:orange"


def draw(trainer: Trainer, run: Checkpoint) -> dict[str, Figure]:
    """All of them, by name."""
    dataset, params = trainer.dataset, run.state.params
    guesses = scores(params, dataset.test_images).argmax(-1)
    return {
        "loss": loss_curves(run.history, trainer.steps_per_epoch),
        "kernels": kernels(np.asarray(params["conv1"]["kernel"])),
        "feature_maps": feature_maps(params, dataset.test_images[0]),
        "confusion": confusion(dataset.test_labels, guesses, dataset.names),
    }


def loss_curves(history: dict[str, list[float]], steps_per_epoch: int) -> Figure:
    """Loss and error over the epochs, in training and on the test images."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    loss, accuracy, test_loss, test_accuracy = (
        np.array(history[name]) for name in ("loss", "accuracy", "test_loss", "test_accuracy")
    )
    steps = np.arange(1, len(loss) + 1) / steps_per_epoch
    left.plot(steps, loss, color=_TRAIN, alpha=0.25, linewidth=0.7)
    _by_epoch(left, loss.reshape(-1, steps_per_epoch).mean(1), test_loss)
    left.set(title="Cross-entropy", yscale="log")
    _by_epoch(right, 1 - accuracy.reshape(-1, steps_per_epoch).mean(1), 1 - test_accuracy)
    right.set_title("Share of images mistaken")
    right.set_yscale("log", nonpositive="clip", subs=(2, 5))
    right.yaxis.set_major_formatter(_percent)
    right.yaxis.set_minor_formatter(_percent)
    return figure


def _percent(share: float, _: int) -> str:
    return f"{100 * share:g} %"


def _by_epoch(axes: Axes, train: np.ndarray, test: np.ndarray) -> None:
    epochs = np.arange(1, len(test) + 1)
    axes.plot(epochs, train, ".-", color=_TRAIN, label="training (mean of the epoch)")
    axes.plot(epochs, test, ".-", color=_TEST, label="test (after the epoch)")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def kernels(kernel: np.ndarray) -> Figure:
    """The kernels `[height, width, in, out]`: in colour for images in colour, else by sign."""
    *_, channels, count = kernel.shape
    rows = -(-count // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS + 0.6, rows + 0.5), layout="constrained")
    figure.suptitle("Kernels of the first layer")
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    reach = np.abs(kernel).max()
    for axes, taps in zip(_bare(grid), np.moveaxis(kernel, -1, 0), strict=False):
        if channels == 3:
            axes.imshow(0.5 + taps / (2 * reach))
        else:
            signed = axes.imshow(taps.mean(-1), cmap="RdBu_r", vmin=-reach, vmax=reach)
            if axes is grid.flat[0]:
                figure.colorbar(signed, ax=grid, aspect=30, pad=0.02)
    return figure


def feature_maps(params: net.Params, image: np.ndarray) -> Figure:
    """One image, and the maps that respond to it most, before and after each pooling."""
    trace = jax.jit(net.feature_maps, static_argnames="layers")
    stages = [np.asarray(maps[0]) for maps in trace(params, image[None], layers=net.HAND_DERIVED)]
    figure = Figure(figsize=(12, 1.2 * len(stages) + 0.4), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 3)).flat
    (axes,) = _bare(left.subplots(squeeze=False))
    axes.imshow(image.squeeze(), cmap="gray")
    axes.set_title("the image")
    right.suptitle("the maps that respond most")
    grid = right.subplots(len(stages), _COLUMNS, squeeze=False)
    _bare(grid)
    for number, (convolved, pooled) in enumerate(zip(stages[::2], stages[1::2], strict=True)):
        strongest = np.argsort(-convolved.mean((0, 1)))[:_COLUMNS]
        brightest = convolved.max()
        for row, maps, kind in ((0, convolved, "conv"), (1, pooled, "pool")):
            height, width, _ = maps.shape
            row_axes = grid[2 * number + row]
            row_axes[0].set_ylabel(f"{kind} {number + 1}\n{height} × {width}")
            for axes, index in zip(row_axes, strongest, strict=True):
                axes.imshow(maps[..., index], cmap="magma", vmin=0, vmax=brightest)
    return figure


def confusion(labels: np.ndarray, guesses: np.ndarray, names: Sequence[str]) -> Figure:
    """How many images of each class were taken for which: blue is right, red is mistaken."""
    counts = confusion_matrix(labels, guesses, labels=range(len(names)))
    right = np.eye(len(names), dtype=bool)
    mistakes = np.where(right, 0, counts)
    shades = np.where(right, -0.2, 0.6 * mistakes / max(4, mistakes.max()))
    side = 0.5 * len(names) + 1.2
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shades, cmap="RdBu_r", vmin=-1, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, str(count), ha="center", va="center")
    axes.set_xticks(range(len(names)), names)
    if max(map(len, names)) > 2:
        axes.tick_params("x", rotation=45, rotation_mode="xtick")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="guess", ylabel="class")
    axes.set_title(f"{mistakes.sum()} of {counts.sum()} test images are mistaken")
    edges = np.arange(len(names) + 1) - 0.5
    axes.hlines(edges, edges[0], edges[-1], color="white")
    axes.vlines(edges, edges[0], edges[-1], color="white")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _bare(grid: np.ndarray) -> list[Axes]:
    """The axes of a grid, row by row, without ticks or frames."""
    every = list(grid.flat)
    for axes in every:
        axes.set(xticks=[], yticks=[], frame_on=False)
    return every
