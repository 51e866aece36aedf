"""A pooling as a few stages, each one fused reduction over shifted views of its input.

    y[o] = combine_t x[stride*o + dilation*t]

Every combination here is associative, so a long window is combined axis by axis, and a long axis
from combinations of shorter runs: 31 taps are 6 taps, then 6 taps of dilation 5. Each stage has its
own rule: `views` has what its taps read, `cells` its adjoint.
"""

import dataclasses
import math
from collections.abc import Sequence

from jconv.geometry import Window
from jconv.pooling.cells import APART, Layout, layout_of, row_of
from jconv.pooling.views import FEW, Windows, ends_apart, taps_in

# As many taps as one fused loop reads of windows so far apart that they read an entry only so
# often: 4x4 maxima of stride 4 over 8x64x64x64 and their gradient take 0.23 ms, axis by axis 0.90.
MANY, OFTEN = 64, 8


def along(
    size: Sequence[int], axis: int, taps: int, stride: int, dilation: int, padding=(0, 0)
) -> Windows:
    """A window along one axis of an input of this size, and single entries along the others."""
    still = [Window(n, 1) for n in size]
    low, high = padding
    still[axis] = Window(size[axis], taps, stride, low, high, dilation)
    return tuple(still)


def few(windows: Sequence[Window]) -> bool:
    """Whether one fused loop over all the taps is best."""
    taps = taps_in(windows)
    return taps <= FEW or taps <= min(MANY, OFTEN * math.prod(w.stride for w in windows))


def tight(w: Window) -> Window:
    """The window; where there is but one, of any stride, without the tail it does not cover."""
    if w.out > 1:
        return w
    return dataclasses.replace(w, high=w.high + w.covered - w.extent, stride=w.reach + 1)


def step(w: Window) -> tuple[int, int, int]:
    """`(taps, stride, dilation)`; the stride of a single window is any, which 0 says."""
    return w.taps, w.stride if w.out > 1 else 0, w.dilation


def held(windows: Sequence[Window], channels: int, light: bool = False, copies: int = 4) -> int:
    """About how many arrays as large as the input a pooling and its gradient hold at once.

    Where few taps read a padded copy, so many `copies`. A `light` gradient reads neither the input
    nor the output.
    """
    if few(windows):
        copied = any(w.low or w.high for w in windows) and not (light and ends_apart(windows))
        layout = layout_of(windows, channels) if light else Layout(row_of(windows, channels))
        return max(copies if copied else 0, 0 if layout == APART else 2)
    return 4 * sum(w.taps.bit_length() for w in windows)
