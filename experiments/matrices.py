"""Draw convolutions and poolings as the matrices that they are. (0.2 minutes)

A colour is a tap of the kernel: the same tap runs down a diagonal, so the matrix is Toeplitz.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import command_line
from jconv.matrix import conv_matrix, pool_matrix

_KERNEL = jnp.arange(1.0, 4).reshape(3, 1, 1)
_SQUARE = jnp.arange(1.0, 10).reshape(3, 3, 1, 1)


def _amounts(size: int) -> dict[str, np.ndarray]:
    paddings = {"full": 1, "same": 1, "valid": 1, "same, stride 2": 2}
    return {
        name: _dense(_KERNEL, size, padding=name.split(",")[0], stride=stride)
        for name, stride in paddings.items()
    }


def _boundaries(size: int) -> dict[str, np.ndarray]:
    modes = ("constant", "reflect", "symmetric", "edge", "wrap")
    return {mode: _dense(_KERNEL, size, padding="same", padding_mode=mode) for mode in modes}


def _blocks(size: int) -> dict[str, np.ndarray]:
    side = max(size // 2, 4)
    return {
        "2D, full": _dense(_SQUARE, side, padding="full"),
        "2D, same": _dense(_SQUARE, side, padding="same"),
        "2D, same, wrap": _dense(_SQUARE, side, padding="same", padding_mode="wrap"),
        "2D, valid": _dense(_SQUARE, side),
    }


def _poolings(size: int) -> dict[str, np.ndarray]:
    side = max(size // 2, 4)
    return {
        "average of 3, stride 2": _array(pool_matrix((3,), (size,), stride=2)),
        "every second": _array(pool_matrix((2,), (size,), kind="drop")),
        "2D, average of 2 × 2": _array(pool_matrix(2, side)),
        "2D, every second": _array(pool_matrix((2, 2), (side, side), kind="drop")),
    }


def _dense(kernel, size: int, **options) -> np.ndarray:
    return _array(conv_matrix(kernel, size, **options))


def _array(matrix) -> np.ndarray:
    return np.asarray(matrix)


def draw(title: str, matrices: dict[str, np.ndarray]) -> Figure:
    """A panel a matrix; white is a structural zero."""
    figure = Figure(figsize=(3.2 * len(matrices), 3.9), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(matrices))
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        shown = np.ma.masked_equal(matrix, 0)
        axes.imshow(shown, cmap="viridis", vmin=0, vmax=matrix.max(), interpolation="nearest")
        axes.set_title(f"{name}\n{matrix.shape[0]} × {matrix.shape[1]}", fontsize=10)
        axes.set(xticks=[], yticks=[], xlabel="input", ylabel="output")
        axes.spines[:].set_color("0.7")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws them."""
    options = command_line.parse(command_line.parser(__file__, __doc__), arguments)
    size = 8 if options.quick else 12
    figures = {
        "toeplitz": ("Convolution by 3 taps: a Toeplitz matrix", _amounts(size)),
        "boundaries": ("What lies outside changes the first and last rows", _boundaries(size)),
        "blocks": ("Two axes, 3 × 3 taps: Toeplitz blocks in a Toeplitz pattern", _blocks(size)),
        "poolings": ("Pooling is a matrix as well", _poolings(size)),
    }
    for name, (title, matrices) in figures.items():
        draw(title, matrices).savefig(options.results / f"matrices_{name}.png", dpi=150)
    print(f"{len(figures)} pictures are in {options.results}.")


if __name__ == "__main__":
    main()
