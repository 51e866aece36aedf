"""Draw what the classical filters make of a photograph. (0.1 minutes)

The photographs ship with scikit-learn. Slopes and edges are drawn by sign: red where the image
rises, or where the surroundings are brighter, blue where it is the other way round.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import jconv
from jconv import filters

_RESULTS = Path(__file__).parent / "results"
_BLUR = 1.5  # pixels
_COLUMNS = 4
_SHOWN = 99.5  # the percentile that is drawn in full colour


class Panel(NamedTuple):
    """A filtered image, and whether its values have signs."""

    image: np.ndarray
    signed: bool = False


def photograph(name: str, step: int = 1) -> np.ndarray:
    """`china` or `flower` in [0, 1], `[height, width, 3]`, by averages of `step` pixels a side."""
    image = load_sample_image(f"{name}.jpg").astype(np.float32) / 255
    return np.asarray(jconv.avg_pool(image, (step, step)))


def filtered(image: np.ndarray, blur: float = _BLUR) -> dict[str, Panel]:
    """Every filter of a lecture, by title; edges and slopes are those of the grey image."""
    grey = np.asarray(jconv.conv(image, filters.channel_mean(image.shape[-1])))
    blurred = filters.apply(grey, filters.gaussian(blur))

    def signed(pixels, taps) -> Panel:
        return Panel(np.asarray(filters.apply(pixels, taps)), signed=True)

    return {
        "the photograph": Panel(image),
        "identity": Panel(np.asarray(filters.apply(image, filters.identity(2)))),
        "blur": Panel(np.asarray(filters.apply(image, filters.gaussian(blur)))),
        "channel average": Panel(grey),
        "Sobel, across": signed(grey, filters.sobel(1)),
        "Sobel, down": signed(grey, filters.sobel(0)),
        "Laplace": signed(grey, filters.laplace()),
        "blur, then Laplace": signed(blurred, filters.laplace()),
    }


def draw(panels: Mapping[str, Panel], width: float = 14) -> Figure:
    """A grid of them."""
    rows = -(-len(panels) // _COLUMNS)
    height, breadth, _ = next(iter(panels.values())).image.shape
    across = width / _COLUMNS
    figure = Figure(
        figsize=(width, rows * (across * height / breadth + 0.35)), layout="constrained"
    )
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (title, panel) in zip(grid.flat, panels.items(), strict=False):
        reach = np.percentile(np.abs(panel.image), _SHOWN)
        if panel.signed:
            axes.imshow(panel.image, cmap="RdBu_r", vmin=-reach, vmax=reach)
        else:
            axes.imshow(panel.image.clip(0, 1), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Filters, then draws."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.filters",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--photograph", choices=("china", "flower"), default="china", help="which")
    add("--blur", type=float, default=_BLUR, help="standard deviation of the blur, in pixels")
    add("--results", type=Path, default=_RESULTS, help="where the picture goes")
    add("--quick", action="store_true", help="a quarter of the pixels")
    options = parser.parse_args(arguments)
    panels = filtered(photograph(options.photograph, 2 if options.quick else 1), options.blur)
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / "filters.png"
    draw(panels).savefig(path, dpi=150)
    print(f"The picture is {path}.")


if __name__ == "__main__":
    main()
