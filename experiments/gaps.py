"""Ask jax.lax and jconv for the same, where jax.lax has no answer or a wrong one. (0.2 minutes)

An answer is right if it agrees with float64, or, where a NaN goes in, if it comes out just where
the definition has it.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import jconv
from experiments import command_line
from jconv.matrix import toeplitz

_TOLERANCE = 1e-4
_WINDOW = (3, 2)
_CALLS = 50


class Gap(NamedTuple):
    """What is asked of both, and the right answer."""

    question: str
    by_lax: Callable[[], Array]
    by_jconv: Callable[[], Array]
    right: np.ndarray


def dense(*shape: int) -> np.ndarray:
    """Random entries."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def slope(function: Callable[[Array], Array], x: np.ndarray) -> Array:
    """The gradient of a sum of squares, so that no cotangent is like another."""
    return jax.grad(lambda x: jnp.sum(function(x) ** 2))(jnp.asarray(x))


def in_windows(reduce: Callable, x: np.ndarray, dilation: int) -> np.ndarray:
    """The gradient for a window of `_WINDOW`, by JAX's derivative of a reduction over slices."""

    def reduced(x: Array) -> Array:
        rows, columns = (n - dilation * (w - 1) for n, w in zip(x.shape[:2], _WINDOW, strict=True))
        taps = np.ndindex(*_WINDOW)
        starts = [(dilation * i, dilation * j) for i, j in taps]
        return reduce(jnp.stack([x[i : i + rows, j : j + columns] for i, j in starts]))

    with jax.enable_x64(True):
        return np.asarray(slope(reduced, x.astype(np.float64)))


def pooling(question: str, start: float, combine, reduce: Callable, pool: str, dilation=1) -> Gap:
    """The gradient of a pooling with stride 1."""
    x = dense(7, 6, 2)

    def by_lax(x: Array) -> Array:
        return lax.reduce_window(
            x, start, combine, (*_WINDOW, 1), (1, 1, 1), "VALID",
            window_dilation=(dilation, dilation, 1),
        )  # fmt: skip

    def by_jconv(x: Array) -> Array:
        return getattr(jconv, pool)(x, _WINDOW, stride=1, dilation=dilation)

    right = in_windows(reduce, x, dilation)
    return Gap(question, lambda: slope(by_lax, x), lambda: slope(by_jconv, x), right)


def conv_by_lax(x: Array, kernel: Array, padding: str | Sequence[tuple[int, int]]) -> Array:
    """Of a signal, channels last."""
    layout = "NWC", "WIO", "NWC"
    return lax.conv_general_dilated(x, kernel, (1,), padding, dimension_numbers=layout)


def padded_far() -> Gap:
    """The gradient in the input, padded by more than the kernel reaches."""
    x, kernel = dense(2, 16, 3), dense(3, 3, 32)

    def by_lax(x: Array) -> Array:
        return conv_by_lax(x, jnp.asarray(kernel, x.dtype), [(4, 0)])

    with jax.enable_x64(True):
        right = np.asarray(slope(by_lax, x.astype(np.float64)))

    def worst() -> Array:  # what lies out of bounds differs from call to call
        answers = [slope(by_lax, x) for _ in range(_CALLS)]
        return max(answers, key=lambda given: float(jnp.abs(given - right).max()))

    return Gap(
        "gradient with padding beyond the kernel's reach, float32",
        worst,
        lambda: slope(lambda x: jconv.conv(x, kernel, padding=((4, 0),)), x),
        right,
    )


def grouped_adjoint() -> Gap:
    """The transposed convolution with groups."""
    y, kernel = dense(1, 5, 4), dense(3, 2, 4)

    def by_lax() -> Array:
        if "feature_group_count" not in inspect.signature(lax.conv_transpose).parameters:
            raise NotImplementedError("no groups")
        return lax.conv_transpose(y, kernel, (1,), "VALID", feature_group_count=2)  # type: ignore

    groups = [jconv.matrix.conv_matrix(kernel[..., i : i + 2], 7) for i in (0, 2)]
    parts = [np.asarray(m).T @ y[0, :, 2 * i : 2 * i + 2].ravel() for i, m in enumerate(groups)]
    right = np.concatenate([part.reshape(1, 7, 2) for part in parts], -1)
    return Gap(
        "transposed convolution with groups",
        by_lax,
        lambda: jconv.conv_transpose(y, kernel, groups=2),
        right,
    )


def poisoned_patches() -> Gap:
    """Patches of an input that has one NaN."""
    x = dense(1, 6, 1)
    x[0, 2] = np.nan
    return Gap(
        "patches of an input with one NaN",
        lambda: lax.conv_general_dilated_patches(
            x, (3,), (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        ),
        lambda: jconv.unfold(x, (3,))[..., 0],
        np.stack([x[:, i : i + 3, 0] for i in range(4)], 1),
    )


def poisoned_toeplitz() -> Gap:
    """A Toeplitz matrix with one NaN."""
    column, row = dense(4), dense(5)
    row[2] = np.nan
    both = np.concatenate([column[:0:-1], column[:1], row[1:]])
    right = np.stack([both[3 - i : 8 - i] for i in range(4)])
    return Gap(
        "Toeplitz matrix with one NaN",
        lambda: jax.scipy.linalg.toeplitz(column, row),
        lambda: toeplitz(column, row),
        right,
    )


def constant_integers() -> Gap:
    """Integers that a program holds, and sums of which wrap around."""
    rng = np.random.default_rng(0)
    x, kernel = (rng.integers(200, 256, shape, np.uint8) for shape in ((1, 6, 2), (3, 2, 4)))
    seen = np.lib.stride_tricks.sliding_window_view(x.astype(int), 3, 1)

    def held(conv: Callable[[Array, Array], Array]) -> Callable[[], Array]:
        return lambda: jax.jit(lambda: conv(jnp.asarray(x), jnp.asarray(kernel)))().astype(int)

    return Gap(
        "convolution of constant integers in a jit, sums that wrap",
        held(lambda x, kernel: conv_by_lax(x, kernel, "VALID")),
        held(jconv.conv),
        np.einsum("noct,tcm->nom", seen, kernel.astype(int)) % 256,
    )


def gaps() -> list[Gap]:
    """All of them."""
    return [
        pooling("gradient of dilated max pooling", -np.inf, lax.max, lambda x: x.max(0),
                "max_pool", dilation=2),
        pooling("gradient of product pooling", 1.0, lax.mul, lambda x: x.prod(0), "prod_pool"),
        pooling("gradient of log-sum-exp pooling", -np.inf, jnp.logaddexp,
                lambda x: jax.nn.logsumexp(x, 0), "logsumexp_pool"),
        padded_far(), constant_integers(), grouped_adjoint(), poisoned_patches(),
        poisoned_toeplitz(),
    ]  # fmt: skip


def answer(ask: Callable[[], Array], right: np.ndarray) -> str:
    """`right`, how far off, or the error's type."""
    try:
        given = np.asarray(ask())
    except (NotImplementedError, TypeError, ValueError) as error:
        return type(error).__name__
    if (astray := int((np.isnan(given) & ~np.isnan(right)).sum())) or given.shape != right.shape:
        return f"{astray} NaNs too many"
    off = np.nanmax(np.abs(given - right)) / np.nanmax(np.abs(right))
    return "right" if off < _TOLERANCE else f"off by {off:.0e}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Asks, and prints a table."""
    command_line.parse(command_line.parser(__file__, __doc__), arguments, results=None)
    print(f"{'':58} {'jax.lax':>22} {'jconv':>8}")
    for gap in gaps():
        found = (answer(ask, gap.right) for ask in (gap.by_lax, gap.by_jconv))
        print("{:58} {:>22} {:>8}".format(gap.question, *found))


if __name__ == "__main__":
    main()
