"""What all of these have in common: two operands, and the part of the full convolution to keep."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jconv import checks
from jconv.conv import conv
from jconv.operands import array

MODES = ("full", "same", "valid")


def operands(in1: ArrayLike, in2: ArrayLike) -> tuple[Array, Array]:
    """Both arrays, of their common dtype and of one rank."""
    in1, in2 = array(in1, name="in1", booleans=True), array(in2, name="in2", booleans=True)
    if in1.ndim != in2.ndim:
        raise checks.wrong(
            "in2", "have as many axes as `in1`", f"shapes {in1.shape} and {in2.shape}"
        )
    with jax.numpy_dtype_promotion("standard"):
        common = jnp.result_type(in1, in2)
    return in1.astype(common), in2.astype(common)


def one_of(name: str, value: object, words: Sequence[str]) -> str:
    """A known word; SciPy raises a ValueError for anything else."""
    if not isinstance(value, str) or value not in words:
        raise checks.wrong(name, f"be one of {tuple(words)}", repr(value))
    return value


class Kept(NamedTuple):
    """The part of the full convolution that one axis keeps."""

    start: int
    length: int


def kept(mode: str, size1: Sequence[int], size2: Sequence[int]) -> list[Kept]:
    """The part that a checked `mode` keeps of each axis."""
    pairs = list(zip(size1, size2, strict=True))
    match mode:
        case "full":
            return [Kept(0, m + n - 1) for m, n in pairs]
        case "same":
            return [Kept((n - 1) // 2, m) for m, n in pairs]
    return [Kept(n - 1, m - n + 1) for m, n in pairs]


def larger_first(
    mode: object, in1: Array, in2: Array, axes: Sequence[int] | None = None
) -> tuple[Array, Array, bool]:
    """For `"valid"`, the array that holds the other first, and whether that is the second."""
    if one_of("mode", mode, MODES) != "valid":
        return in1, in2, False
    pairs = [(in1.shape[a], in2.shape[a]) for a in (range(in1.ndim) if axes is None else axes)]
    if all(m >= n for m, n in pairs):
        return in1, in2, False
    if all(n >= m for m, n in pairs):
        return in2, in1, True
    raise checks.wrong(
        "mode", "not be 'valid' unless one array is at least as large as the other on every axis",
        f"shapes {in1.shape} and {in2.shape}",
    )  # fmt: skip


def cut(x: Array, kernel: Array, parts: Sequence[Kept], **options) -> Array:
    """The kept part of the full convolution of `[*batch, *size, c]`."""
    rank = len(parts)
    padding = [
        (taps - 1 - start, start + length - size)
        for size, taps, (start, length) in zip(
            x.shape[-rank - 1 : -1], kernel.shape[:rank], parts, strict=True
        )
    ]
    return conv(x, kernel, padding=padding, flip=True, **options)


def turned(a: Array, conjugate: bool = False) -> Array:
    a = lax.rev(a, range(a.ndim))
    return jnp.conj(a) if conjugate and is_complex(a) else a


def is_complex(a: Array) -> bool:
    return bool(jnp.issubdtype(a.dtype, jnp.complexfloating))
