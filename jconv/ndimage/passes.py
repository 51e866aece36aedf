"""Filters that go axis by axis, as a list of passes that is checked before the first is made."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv.geometry import Window
from jconv.ndimage.arguments import constant, each, low_end, padding_mode, real, result_dtype
from jconv.ndimage.sums import along, cast, stored, unfiltered
from jconv.operands import array


class Pass(NamedTuple):
    """One axis summed under weights."""

    axis: int
    weights: np.ndarray
    mode: str


class Run(NamedTuple):
    """A window of `size` along one axis, `low` of it below its position."""

    axis: int
    size: int
    low: int
    mode: str

    def windows(self, shape: Sequence[int]) -> tuple[Window, ...]:
        """The window of every axis of an array, for `padded`."""
        alone = [Window(n, 1) for n in shape]
        n, high = shape[self.axis], self.size - 1 - self.low
        alone[self.axis] = Window(n, self.size, low=self.low, high=high)
        return tuple(alone)


def windows_along(size, mode, origin, axes: Sequence[int]) -> list[Run]:
    """The windows of a filter that goes axis by axis; a size of 1 or less leaves an axis alone."""
    given = zip(
        axes, each("size", size, len(axes)), each("origin", origin, len(axes)),
        each("mode", mode, len(axes)), strict=True,
    )  # fmt: skip
    sizes = [(a, int(real("size", s)), real("size", s) > 1, o, m) for a, s, o, m in given]
    return [Run(a, s, low_end(o, s), padding_mode(m)) for a, s, wide, o, m in sizes if wide]


def operands(input, output, cval):
    """The array, the dtype of the result and the constant outside."""
    x = array(input, name="input", booleans=True)
    return x, result_dtype(output, x.dtype, jnp.iscomplexobj(x)), constant(cval, x.dtype)


def passed(x: Array, passes: Sequence[Pass], cval: ArrayLike, dtype) -> Array:
    """One pass after the other; the result of each has the dtype of the last."""
    if not passes:
        return unfiltered(x, dtype)
    for p in passes:
        x = along(x, p.weights, p.axis, p.mode, cval, stored(dtype))
    return cast(x, dtype)


def total(x: Array, terms: Sequence[Sequence[Pass]], cval: ArrayLike, dtype) -> Array:
    """The sum of several filters; the input itself if there are none."""
    if not terms:
        return unfiltered(x, dtype)
    total, *rest = (passed(x, passes, cval, dtype) for passes in terms)
    for term in rest:
        total = total + term
    return total
