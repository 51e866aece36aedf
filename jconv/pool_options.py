"""What the options of a pooling come to: its windows, and how much each of them counts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import Array

from jconv import checks, geometry
from jconv.geometry import Ints, Padding, Window
from jconv.operands import number
from jconv.padding import crop
from jconv.pooling.views import left, over


class Pooling(NamedTuple):
    """The windows of a checked call, over what negative padding leaves of its input."""

    windows: tuple[Window, ...]
    kept: tuple[tuple[int, int], ...]  # the bounds of what is left of each axis
    explicit: tuple[Window, ...]  # over the input as it came, without what `ceil_mode` adds

    @property
    def rank(self) -> int:
        return len(self.windows)

    def counts(self, include_pad: bool, divisor: float | None) -> list[np.ndarray]:
        """Per axis, how many taps of each window count; their product divides the sum of all."""
        if divisor is not None:
            return [np.asarray([_divisor(divisor)])]
        return [
            _count(w, m.out, *((-w.low, w.size + w.high) if include_pad else bounds))
            for w, m, bounds in zip(self.explicit, self.windows, self.kept, strict=True)
        ]


class Call(NamedTuple):
    """A checked call: `x` cropped by negative padding, and what slides over it."""

    x: Array
    pooling: Pooling
    custom_vjp: bool

    @property
    def windows(self) -> tuple[Window, ...]:
        return self.pooling.windows


def called(x: Array, window, stride, padding, dilation, ceil_mode, custom_vjp) -> Call:
    """The call of these arguments, checked."""
    pooling = pooling_of(x, window, stride, padding, dilation, ceil_mode)
    x = crop(x, x.ndim - pooling.rank - 1, pooling.kept)
    return Call(x, pooling, checks.flag("custom_vjp", custom_vjp))


def pooling_of(x: Array, window, stride, padding, dilation, ceil_mode) -> Pooling:
    """The windows over the spatial axes of `x`."""
    taps = checks.window_taps("window", window, x.ndim)
    size, _ = geometry.split_shape("x", x.shape, len(taps))
    return resolved(
        "x", size, taps, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )


def resolved(
    name: str,
    size: Sequence[int],
    taps: Sequence[int],
    *,
    stride: Ints | None,
    padding: Padding,
    dilation: Ints,
    ceil_mode: bool,
) -> Pooling:
    """The windows of `taps` over an input of `size`, which the errors call `name`."""
    options = {
        "stride": taps if stride is None else stride, "padding": padding, "dilation": dilation,
    }  # fmt: skip
    explicit = geometry.windows(size, taps, **options)
    made = geometry.windows(size, taps, ceil_mode=ceil_mode, **options)
    geometry.require_output(name, made)
    # What padding crops stays out, also where a partial window of `ceil_mode` would reach it again.
    kept = tuple(map(left, explicit))
    return Pooling(tuple(map(over, made, kept)), kept, explicit)


def _divisor(divisor: object) -> float:
    made = number("divisor", divisor, "be a number or None")
    if not abs(made) > 0:  # nor NaN
        raise checks.wrong("divisor", "be a number other than 0", divisor)
    return made


def _count(w: Window, out: int, start: int, stop: int) -> np.ndarray:
    """How many taps of each window read from `start` to `stop`, at least 1."""
    at = w.stride * np.arange(out)[:, None] + w.dilation * np.arange(w.taps) - w.low
    return np.maximum(((at >= start) & (at < stop)).sum(1), 1)
