"""Convolution of few channels by few taps: filters, where the planner knows layers of networks."""

import math

from jax import Array
from jax.typing import ArrayLike

from jconv.conv import conv
from jconv.geometry import Padding

# Taps up to which one loop over all of them compiles in a second or two. For them a 512 x 512 image
# takes 0.1 to 2.5 ms by "lanes" and 2 to 110 ms by "auto" (two cores, 3 to 225 taps).
FEW_TAPS = 256


def filtered(
    x: Array,
    kernel: Array,
    padding: Padding,
    padding_mode: str = "constant",
    padding_value: ArrayLike = 0,
    *,
    groups: int = 1,
    flip: bool = False,
    method: str = "auto",
) -> Array:
    """`conv` with stride 1, and `"auto"` for a filter."""
    if method == "auto" and math.prod(kernel.shape[:-1]) <= FEW_TAPS:
        method = "lanes"
    return conv(
        x, kernel, padding=padding, padding_mode=padding_mode, padding_value=padding_value,
        groups=groups, flip=flip, method=method,
    )  # fmt: skip
