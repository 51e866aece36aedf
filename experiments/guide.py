"""Draw the pictures of the guide, which is read in guide.md. (0.2 minutes)

They are small, since they are kept beside the guide: where they are in the way, draw elsewhere by
`--results`.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import jconv
from experiments import command_line, filters
from experiments.learning import data
from jconv.matrix import conv_matrix

PICTURES = Path(__file__).parent / "guide_pictures"

_DOTS = 110  # per inch
_COLOURS = 64
_POOL_COLOURS = ("#cfe3f5", "#fbdcc4", "#d5efd3", "#e6d9f2")
_TAP_COLOURS = ("#cfe3f5", "#fbdcc4", "#d5efd3", "#e6d9f2")
_PLAIN, _PADDED = "white", "#e4e4e4"
_IMAGE = np.array([[1, 3, 2, 0], [5, 7, 1, 1], [4, 0, 8, 6], [2, 2, 6, 4]], np.float32)


def draw() -> dict[str, Figure]:
    """All of them, by the names of their files."""
    return {
        "window.png": _window(),
        "dice.png": _dice(),
        "matrices.png": _matrices(),
        "padding.png": _padding(),
        "filters.jpg": _filters(),
        "pooling.png": _pooling(),
        "backward.png": _backward(),
        "pooling_backward.png": _pooling_backward(),
    }


def _window() -> Figure:
    """A kernel at each of its three positions, and what it gives."""
    x, kernel = np.array([1, 2, 4, 7, 11]), np.array([1, 0, 2])
    y = _correlated(x, kernel)
    figure, panels = _row(3, (9.6, 2.3))
    for at, axes in enumerate(panels):
        below = [_TAP_COLOURS[i - at] if 0 <= i - at < 3 else _PLAIN for i in range(5)]
        shown = [str(y[i]) if i <= at else "" for i in range(len(y))]
        _strip(axes, x, 2, below)
        _strip(axes, kernel, 1, _TAP_COLOURS, first=at, before="×")
        _strip(axes, shown, 0, [_PADDED if i == at else _PLAIN for i in range(3)], first=1)
        terms = " + ".join(f"{x[at + t]}·{kernel[t]}" for t in range(3))
        axes.set_title(f"{terms} = {y[at]}", fontsize=11)
        _frame(axes, (-0.6, 5), (0, 3))
    for height, name in ((2, "input"), (1, "kernel"), (0, "output")):
        panels[0].text(-0.7, height + 0.5, name, ha="right", va="center")
    return figure


def _padding() -> Figure:
    """The windows of four ways to lay a kernel of three taps on six entries."""
    ways = {
        "valid": {}, "padding 1": {"padding": 1}, "stride 2": {"stride": 2},
        "padding 1, stride 2": {"padding": 1, "stride": 2},
    }  # fmt: skip
    x, ones = np.arange(1, 7), np.ones(3, int)
    figure, panels = _row(len(ways), (10.4, 2.9))
    for axes, (title, options) in zip(panels, ways.items(), strict=True):
        amount, stride = options.get("padding", 0), options.get("stride", 1)
        padded = np.pad(x, amount)
        is_outside = np.pad(np.zeros(6, bool), amount, constant_values=True)
        first, y = 1 - amount, _correlated(x, ones, **options)
        _strip(axes, padded, 0, np.where(is_outside, _PADDED, "#cfe3f5"), first=first)
        for row, total in enumerate(y):
            start = first + row * stride
            height = -0.85 - 0.8 * row
            axes.hlines(height, start + 0.08, start + 2.92, color="tab:orange", linewidth=4)
            axes.text(start + 1.5, height + 0.04, str(total), ha="center", va="bottom", fontsize=9)
        axes.set_title(f"{title}\n{len(y)} outputs", fontsize=11)
        _frame(axes, (0, 8), (-5, 1))
    return figure


def _dice() -> Figure:
    """The distributions of two loaded dice, of their sum and of their difference."""
    first, second = np.array([1, 1, 1, 1, 2, 4]) / 10, np.array([3, 2, 2, 1, 1, 1]) / 10
    shown = {
        "X": (np.arange(1, 7), first),
        "Y": (np.arange(1, 7), second),
        "X + Y: convolution": (
            np.arange(2, 13), _correlated(first, second, padding="full", flip=True)
        ),
        "X − Y: cross-correlation": (
            np.arange(-5, 6), _correlated(first, second, padding="full")
        ),
    }  # fmt: skip
    figure, panels = _row(4, (10.4, 2.2), width_ratios=(1, 1, 1.7, 1.7))
    for axes, (title, (values, chances)) in zip(panels, shown.items(), strict=True):
        axes.bar(values, chances, color="tab:blue" if len(title) == 1 else "tab:orange")
        axes.set_title(title, fontsize=11)
        axes.set_xticks(values)
        axes.set_yticks([])
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.tick_params("x", length=0)
    return figure


def _matrices() -> Figure:
    """A colour a weight: the same few everywhere."""
    line = jnp.arange(1, 4).reshape(3, 1, 1)
    square = jnp.arange(1, 10).reshape(3, 3, 1, 1)
    shown = {
        "1D, valid": conv_matrix(line, 12),
        "1D, full": conv_matrix(line, 12, padding="full"),
        "2D, same: 3 × 3 taps on 6 × 6 pixels": conv_matrix(square, (6, 6), padding="same"),
    }
    figure, panels = _row(3, (9.6, 3.6), width_ratios=(1, 1, 1.5))
    for axes, (title, matrix) in zip(panels, shown.items(), strict=True):
        values = np.ma.masked_equal(np.asarray(matrix), 0)
        axes.imshow(values, cmap="Paired" if values.max() > 3 else "viridis", vmin=1)
        axes.set_title(f"{title}\n{matrix.shape[0]} × {matrix.shape[1]} entries", fontsize=11)
        axes.set(xticks=[], yticks=[])
    return figure


def _filters() -> Figure:
    image = data.photograph("china", 3)[20:, 20:170]
    return filters.draw(filters.filtered(image, blur=1.0), width=6.9)


def _pooling() -> Figure:
    """The same image by four poolings."""
    image = _IMAGE[..., None]
    pools = (jconv.max_pool, jconv.min_pool, jconv.avg_pool, jconv.drop)
    figure, panels = _row(5, (9.6, 2.3), width_ratios=(2, 1, 1, 1, 1))
    _table(panels[0], _IMAGE, "image")
    for axes, pool in zip(panels[1:], pools, strict=True):
        _table(axes, np.asarray(pool(image, (2, 2)))[..., 0], pool.__name__, tile=1)
    return figure


def _pooling_backward() -> Figure:
    """Where a maximum comes from, and where its gradient goes."""
    y, transpose = jax.vjp(lambda x: jconv.max_pool(x, (2, 2)), jnp.asarray(_IMAGE[..., None]))
    y_bar = np.array([[4, 8], [3, 5]], np.float32)
    (x_bar,) = transpose(jnp.asarray(y_bar[..., None]))
    figure, panels = _row(4, (9.6, 2.4), width_ratios=(2, 1, 1, 2))
    winners = np.asarray(x_bar)[..., 0] != 0
    _table(panels[0], _IMAGE, "image", bold=winners)
    _table(panels[1], np.asarray(y)[..., 0], "max_pool", tile=1)
    _table(panels[2], y_bar, "its gradient", tile=1)
    _table(panels[3], np.asarray(x_bar)[..., 0], "the image's gradient", bold=winners)
    return figure


def _backward() -> Figure:
    """The three products of a layer, as matrices."""
    x, y_bar, taps = np.array([1, 2, 3, 4]), np.array([1, 0, 10]), jnp.array([1, 2])
    matrix = np.asarray(conv_matrix(taps.reshape(2, 1, 1), 4))
    shades = np.where(matrix > 0, np.array(_TAP_COLOURS)[matrix - 1], _PLAIN)
    figure, panels = _row(3, (9.6, 2.8), width_ratios=(4, 3, 4))
    _colour_table(panels[0], matrix, shades, "feedforward: M x")
    _colour_table(panels[1], matrix.T, shades.T, "backpropagation: Mᵀ ȳ")
    _colour_table(panels[2], np.outer(y_bar, x), shades, "update: ȳ xᵀ, a colour summed up")
    sums = [np.trace(np.outer(y_bar, x), tap) for tap in (0, 1)]
    for tap, total in enumerate(sums):
        panels[2].text(
            0.9 + 2.2 * tap, -0.6, f"sum {total}", ha="center", va="center", fontsize=11,
            bbox={"facecolor": _TAP_COLOURS[tap], "edgecolor": "none"},
        )  # fmt: skip
    return figure


# ---------------------------------------------------------------- cells with numbers


def _correlated(x: np.ndarray, kernel: np.ndarray, **options) -> np.ndarray:
    return np.asarray(jconv.conv(x[:, None], kernel[:, None, None], **options))[:, 0]


def _row(count: int, size: tuple[float, float], **options) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False, gridspec_kw=options)[0])


def _strip(axes: Axes, values, height: float, colours, first: int = 0, before: str = "") -> None:
    """A row of cells."""
    axes.text(first - 0.25, height + 0.5, before, ha="center", va="center")
    for at, (value, colour) in enumerate(zip(values, colours, strict=False), first):
        _cell(axes, at, height, str(value), colour)


def _table(axes: Axes, values: np.ndarray, title: str, tile: int = 2, bold=None) -> None:
    """A matrix whose tiles have a colour each."""
    rows, columns = np.indices(values.shape) // tile
    _colour_table(axes, values, np.array(_POOL_COLOURS)[2 * rows + columns], title, bold)


def _colour_table(axes: Axes, values: np.ndarray, colours, title: str, bold=None) -> None:
    height, width = values.shape
    for (row, column), value in np.ndenumerate(values):
        strong = bold is not None and bold[row, column]
        _cell(axes, column, height - 1 - row, f"{value:g}", colours[row, column], strong)
    axes.set_title(title, fontsize=11)
    _frame(axes, (0, width), (-1 if bold is None and height > 2 else 0, height))


def _cell(axes: Axes, x: float, y: float, text: str, colour: str, strong: bool = False) -> None:
    square = ([x, x + 1, x + 1, x], [y, y, y + 1, y + 1])
    axes.fill(*square, facecolor=colour, edgecolor="black", linewidth=0.8)
    axes.text(
        x + 0.5, y + 0.47, text, ha="center", va="center", fontsize=12,
        weight="bold" if strong else "normal", color="tab:red" if strong else "black",
    )  # fmt: skip


def _frame(axes: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    margin = 0.06
    axes.set_xlim(across[0] - margin, across[1] + margin)
    axes.set_ylim(up[0] - margin, up[1] + margin)
    axes.set_aspect("equal")
    axes.set_axis_off()


# ---------------------------------------------------------------- small files


def save(figure: Figure, path: Path) -> None:
    """Small: a PNG has few colours, which for diagrams is a third of the size."""
    content = io.BytesIO()
    figure.savefig(content, dpi=_DOTS)
    with Image.open(content) as image:
        image = image.convert("RGB")
        if path.suffix == ".png":
            image = image.quantize(_COLOURS, dither=Image.Dither.NONE)
        image.save(path, optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws them."""
    parser = command_line.parser(__file__, __doc__)
    results = command_line.parse(parser, arguments, results=PICTURES).results
    for name, figure in draw().items():
        save(figure, results / name)
    print(f"The pictures are in {results}.")


if __name__ == "__main__":
    main()
