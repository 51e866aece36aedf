"""Restore a blurred photograph by solving the normal equations. (0.5 minutes)

`A` blurs and `A^T` is its adjoint, by `conv` and `conv_transpose`. The restored image solves
`(A^T A + ridge) x = A^T y`, by lineax and by `jax.scipy.sparse.linalg.cg`, and both agree.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jax import Array
from jax.scipy.sparse.linalg import cg
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import jconv

_RESULTS = Path(__file__).parent / "results"
_STRIDE = 4
_NOISE = 0.002
_RIDGE = 1e-3
_BOUNDARY: dict[str, Any] = {"padding": "same", "padding_mode": "symmetric"}


class Solutions(NamedTuple):
    """Images `[height, width, 1]` in [0, 1]."""

    sharp: Array
    blurred: Array
    by_lineax: Array
    by_cg: Array


def photograph(side: int) -> Array:
    """Part of a photograph that ships with scikit-learn, grey, at a quarter of its resolution."""
    grey = jnp.asarray(load_sample_image("china.jpg").mean(-1) / 255)[..., None]
    small = jconv.avg_pool(grey, (_STRIDE, _STRIDE))
    return small[:side, :side]


def gaussian(sigma: float, taps: int) -> Array:
    """`[taps, taps, 1, 1]`, of sum 1."""
    at = jnp.arange(taps) - taps // 2
    line = jnp.exp(-((at / sigma) ** 2) / 2)
    return (jnp.outer(line, line) / line.sum() ** 2)[..., None, None]


def solve(sharp: Array, kernel: Array) -> Solutions:
    """Blurs, adds noise, and restores twice."""
    size = sharp.shape[:-1]
    noise = _NOISE * jax.random.normal(jax.random.key(0), sharp.shape)
    blurred = jconv.conv(sharp, kernel, **_BOUNDARY) + noise

    def normal(x: Array) -> Array:
        y = jconv.conv(x, kernel, **_BOUNDARY)
        return jconv.conv_transpose(y, kernel, size=size, **_BOUNDARY) + _RIDGE * x

    @jax.jit
    def restore(blurred: Array) -> tuple[Array, Array]:
        right = jconv.conv_transpose(blurred, kernel, size=size, **_BOUNDARY)
        operator = lineax.FunctionLinearOperator(
            normal,
            jax.ShapeDtypeStruct(right.shape, right.dtype),
            lineax.positive_semidefinite_tag,
        )
        solver = lineax.CG(rtol=1e-8, atol=1e-8, max_steps=1000)
        solution = lineax.linear_solve(operator, right, solver).value
        return solution, cg(normal, right, tol=1e-8, maxiter=1000)[0]

    return Solutions(sharp, blurred, *restore(blurred))


def rms(a: Array, b: Array) -> float:
    """Root of the mean square of their difference."""
    return float(jnp.sqrt(jnp.mean((a - b) ** 2)))


def draw(found: Solutions) -> Figure:
    """Side by side, each with its error."""
    titles = {
        "the photograph": found.sharp,
        "blurred": found.blurred,
        "restored, lineax": found.by_lineax,
        "restored, jax's cg": found.by_cg,
    }
    figure = Figure(figsize=(13, 3.75), layout="constrained")
    for axes, (title, image) in zip(figure.subplots(1, 4), titles.items(), strict=True):
        axes.imshow(np.asarray(image[..., 0]), cmap="gray", vmin=0, vmax=1)
        error = rms(image, found.sharp)
        axes.set_title(f"{title}\nrms error {error:.3f}" if error else f"{title}\n")
        axes.set_axis_off()
    return figure


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.deblur",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a part of the photograph")
    parser.add_argument("--sigma", type=float, default=1.5, help="of the blur, in pixels")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="where the picture goes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Restores, reports and draws."""
    options = _options(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    with jax.enable_x64(True):  # float32 rounds away what hundreds of steps gain
        found = solve(photograph(48 if options.quick else 106), gaussian(options.sigma, 9))
        print(f"rms error, blurred:  {rms(found.blurred, found.sharp):.4f}")
        print(f"rms error, restored: {rms(found.by_lineax, found.sharp):.4f}")
        print(f"the two solvers differ by {rms(found.by_lineax, found.by_cg):.1e}")
        draw(found).savefig(options.results / "deblur.png", dpi=150)
    print(f"The picture is in {options.results}.")


if __name__ == "__main__":
    main()
