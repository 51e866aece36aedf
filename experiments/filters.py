"""Draw what the classical filters make of a photograph. (0.1 minutes)

The photographs ship with scikit-learn. Slopes and edges are drawn by sign: red where the image
rises, or where the surroundings are brighter, blue where it is the other way round.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import jconv
from experiments import command_line
from experiments.learning import data
from jconv import filters

_BLUR = 1.5  # pixels
_COLUMNS = 4
_SHOWN = 99.5  # the percentile that is drawn in full colour


class Panel(NamedTuple):
    """A filtered image, and whether its values have signs."""

    image: np.ndarray
    signed: bool = False


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
    parser = command_line.parser(__file__, __doc__)
    add = parser.add_argument
    add("--photograph", choices=data.PHOTOGRAPHS, default="china", help="which")
    add(
        "--blur",
        type=command_line.positive,
        default=_BLUR,
        help="standard deviation of the blur, in pixels",
    )
    options = command_line.parse(parser, arguments)
    image = data.photograph(options.photograph, step=2 if options.quick else 1)
    panels = filtered(image, options.blur)
    path = options.results / "filters.png"
    draw(panels).savefig(path, dpi=150)
    print(f"The picture is {path}.")


if __name__ == "__main__":
    main()
