"""Draws how many times as long as jconv its peers take."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.speed.bench import Measurement

_MARKERS = "os^Dv"
_ROW_INCHES = 0.24
_FINE_RANGE = 2000


def ratios(measurements: Sequence[Measurement], peers: Sequence[str]) -> Figure:
    """A panel for each peer, a row for each layer, a mark for each face, on a log scale."""
    names = list(dict.fromkeys(m.name for m in measurements))
    shown = [peer for peer in peers if any(m.ratio(peer) for m in measurements)] or peers[:1]
    size = (3 + 4 * len(shown), 1.6 + _ROW_INCHES * len(names))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, peer in zip(panels, shown, strict=True):
        _panel(axes, measurements, names, peer)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def _panel(axes: Axes, measurements: Sequence[Measurement], names: list[str], peer: str) -> None:
    for face, marker in zip(dict.fromkeys(m.face for m in measurements), _MARKERS, strict=False):
        found = [(m.ratio(peer), names.index(m.name)) for m in measurements if m.face == face]
        points = [(ratio, row) for ratio, row in found if ratio is not None]
        axes.plot(*np.reshape(points, (-1, 2)).T, marker, label=face, markersize=5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_title(f"time of {peer} / time of jconv")
    axes.set_xlabel("right of the line, jconv is faster")
    _scale(axes, [ratio for m in measurements if (ratio := m.ratio(peer)) is not None])
    axes.grid(alpha=0.3)


def _scale(axes: Axes, shown: Sequence[float]) -> None:
    """Logarithmic with a margin, from at least 1/2 to 2, and labels that do not overlap."""
    low, high = min([0.5, *shown]) / 1.2, max([2, *shown]) * 1.2
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    steps = (1, 2, 5) if high / low < _FINE_RANGE else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
