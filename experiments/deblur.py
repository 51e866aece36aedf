"""Restore a blurred photograph by solving the normal equations. (0.5 minutes)

`A` blurs and `A^T` is its adjoint, by `conv` and `conv_transpose`. The restored image solves
`(A^T A + ridge) x = A^T y`, by lineax and by `jax.scipy.sparse.linalg.cg`, and both agree.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jax import Array
from jax.scipy.sparse.linalg import cg
from matplotlib.figure import Figure

import jconv
from experiments import command_line
from experiments.learning import data
from jconv import filters

_TAPS = 9
_NOISE = 0.002
_RIDGE = 1e-3
_CLOSE, _STEPS = 1e-8, 1000  # of the solvers
_BOUNDARY: dict[str, Any] = {"padding": "same", "padding_mode": "symmetric"}


class Solutions(NamedTuple):
    """Images `[height, width, 1]` in [0, 1]."""

    sharp: Array
    blurred: Array
    by_lineax: Array
    by_cg: Array


def photograph(side: int) -> Array:
    """Part of a photograph that ships with scikit-learn, grey, at a quarter of its resolution."""
    small = jnp.asarray(data.photograph("china", step=4)[:side, :side])
    return small.mean(-1, keepdims=True).astype(float)


def solve(sharp: Array, sigma: float) -> Solutions:
    """Blurs, adds noise, and restores twice."""
    kernel = filters.gaussian(sigma, _TAPS)[..., None, None]
    noise = _NOISE * jax.random.normal(jax.random.key(0), sharp.shape)
    blurred = jconv.conv(sharp, kernel, **_BOUNDARY) + noise
    return Solutions(sharp, blurred, *_restored(blurred, kernel))


@jax.jit
def _restored(blurred: Array, kernel: Array) -> tuple[Array, Array]:
    """By lineax and by JAX."""

    def adjoint(y: Array) -> Array:
        return jconv.conv_transpose(y, kernel, size=y.shape[:-1], **_BOUNDARY)

    def normal(x: Array) -> Array:
        return adjoint(jconv.conv(x, kernel, **_BOUNDARY)) + _RIDGE * x

    right = adjoint(blurred)
    like = jax.ShapeDtypeStruct(right.shape, right.dtype)
    operator = lineax.FunctionLinearOperator(normal, like, lineax.positive_semidefinite_tag)
    solver = lineax.CG(rtol=_CLOSE, atol=_CLOSE, max_steps=_STEPS)
    by_lineax = lineax.linear_solve(operator, right, solver).value
    return by_lineax, cg(normal, right, tol=_CLOSE, maxiter=_STEPS)[0]


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Restores, reports and draws."""
    parser = command_line.parser(__file__, __doc__)
    parser.add_argument(
        "--sigma", type=command_line.positive, default=1.5, help="of the blur, in pixels"
    )
    options = command_line.parse(parser, arguments)
    with jax.enable_x64(True):  # float32 rounds away what hundreds of steps gain
        found = solve(photograph(48 if options.quick else 106), options.sigma)
        print(f"rms error, blurred:  {rms(found.blurred, found.sharp):.4f}")
        print(f"rms error, restored: {rms(found.by_lineax, found.sharp):.4f}")
        print(f"the two solvers differ by {rms(found.by_lineax, found.by_cg):.1e}")
        draw(found).savefig(options.results / "deblur.png", dpi=150)
    print(f"The picture is in {options.results}.")


if __name__ == "__main__":
    main()
