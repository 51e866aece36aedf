"""The outputs of an axis in runs that the same taps reach: whoever goes by them pads no input.

Output `o` reads position `stride*o + dilation*t - low` by tap `t`, and an input where that is
`input_dilation` times an index inside. Outputs `phases` apart read inputs a whole `step` apart.
"""

import dataclasses
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from jconv.geometry import Window


class Run(NamedTuple):
    """`length` outputs: what the first reads by each tap that reaches it; the next, `step` on."""

    length: int
    step: int
    starts: Mapping[int, int]


def natural(w: Window) -> int:
    """How many outputs in a row read by different taps, for the zeros between the inputs."""
    return w.input_dilation // math.gcd(w.stride, w.input_dilation)


def runs(w: Window, phases: int) -> list[list[Run]]:
    """Outputs `phase`, `phase + phases`, ... for every phase; of each as many, if beyond the last.

    `phases` is a multiple of the window's own.
    """
    return [_runs(w, phases, phase) for phase in range(phases)]


def _runs(w: Window, phases: int, phase: int) -> list[Run]:
    count, step = -(-w.out // phases), w.stride * phases // w.input_dilation
    starts, spans, ends = {}, {}, {0, count}
    for tap in range(w.taps):
        at, between = divmod(w.stride * phase + w.dilation * tap - w.low, w.input_dilation)
        if not between:
            span = -(at // step), -((at - w.size) // step)
            starts[tap], spans[tap] = at, [min(max(end, 0), count) for end in span]
            ends.update(spans[tap])
    found = []
    for first, last in pairwise(sorted(ends)):
        reached = [t for t, (low, high) in spans.items() if low <= first < high]
        found.append(Run(last - first, step, {t: starts[t] + step * first for t in reached}))
    return found


def room(w: Window, phases: int) -> tuple[int, int]:
    """How many zeros before and behind the input make one run of each phase."""
    outputs = -(-w.out // phases) * phases
    last = (w.stride * (outputs - 1) + w.reach - w.low) // w.input_dilation
    return max(w.low // w.input_dilation, 0), max(last - w.size + 1, 0)


def roomy(w: Window, phases: int) -> Window:
    """The same window over an input that has this room."""
    before, behind = room(w, phases)
    spread = w.input_dilation
    return dataclasses.replace(
        w, size=before + w.size + behind, low=w.low - spread * before, high=w.high - spread * behind
    )
