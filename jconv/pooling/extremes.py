"""The greatest or the least entry of every window: values, the winning taps, and the rule.

A stage keeps the tap that won each of its windows, in one or two bytes. The derivative gathers a
tangent at the winners; its adjoint, `x_bar[i] = sum_o y_bar[o] [i won o]`, is the blocked sum of
`stages`. The first of equals wins, and the first NaN wins over all; a stage takes its axis from the
last to the first, so the first is the first in row-major order. Padding is worse than anything:
where all that a window sees is the padding's value, the first entry inside the input wins, and
where nothing is inside, none does (tap -1).
"""

import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jconv.fusion import alone, kept
from jconv.geometry import Window
from jconv.operands import wide
from jconv.platforms import per_platform
from jconv.pooling.batches import BATCH_BYTES, Image, by_images, image_of, selection
from jconv.pooling.cells import (
    APART,
    NARROW,
    Layout,
    Pieces,
    all_cells,
    blocked_sum,
    blocks,
    cells_apart,
    known,
    layout_of,
    shifted,
    spread,
    taps_of,
    terms_of,
)
from jconv.pooling.reductions import reduced, serves
from jconv.pooling.stages import MANY, along, few, held, step, tight
from jconv.pooling.views import FEW, Part, Windows, cropped, laid, parts, swept, written

# Blocks of all pieces along several axes up to which one loop over them is in vectors.
AT_ONCE = 16


class Stage(NamedTuple):
    """One fused choice. `first` is per axis the first tap inside the input, None if all are."""

    windows: Windows
    first: tuple[np.ndarray, ...] | None


class Choice(NamedTuple):
    """The greatest or the least of every window."""

    windows: Windows
    least: bool

    @property
    def stages(self) -> list[Stage]:
        return _plan(self.windows)

    def ranks(self, dtype) -> bool:
        """Whether the stages choose among integers in the order of numbers of this dtype."""
        is_float = jnp.issubdtype(dtype, jnp.inexact)
        return is_float and all(w.stride == 1 for w in self.windows)

    def image(self, a: Array, more: int = 0, copies: int = 4) -> Image:
        """An image of `a`; `more` arrays like the input are held beside what the stages hold."""
        stages = held(self.windows, a.shape[-1], light=True, copies=copies)
        return image_of(a, len(self.windows), stages + more)


Winners = tuple[Array, ...]


def extremes(
    x: Array, windows: Sequence[Window], least: bool = False, custom_vjp: bool = True
) -> Array:
    """The greatest (or `least`) entry of every window."""
    y, _ = _selected(x, windows, least, custom_vjp, values_only=True)
    return y


def winners(
    x: Array,
    windows: Sequence[Window],
    places: Array,
    least: bool = False,
    custom_vjp: bool = True,
) -> tuple[Array, Array]:
    """The greatest (or `least`) entry of every window, and its entry of `places`, -1 for none."""
    y, won = _selected(x, windows, least, custom_vjp)
    choice, places = choice_of(places, windows, least)
    lead = x.ndim - len(windows) - 1
    places = jnp.broadcast_to(places, (*x.shape[:lead], *places.shape[lead:-1], x.shape[-1]))
    return y, by_images(gathered, choice, places, *won, image=choice.image(places))


def _selected(
    x: Array,
    windows: Sequence[Window],
    least: bool,
    custom_vjp: bool,
    values_only: bool = False,
) -> tuple[Array, Winners]:
    """The best entry of every window, and the taps that won at every stage if they are wanted."""
    choice, x = choice_of(x, windows, least)
    image = choice.image(x)
    values = partial(by_images, _values, image=choice.image(x, copies=1)) if values_only else None
    return selection(
        chosen, gathered, scattered, choice, x, image=image, ruled=custom_vjp, primal=values
    )


def choice_of(x: Array, windows: Sequence[Window], least: bool = False) -> tuple[Choice, Array]:
    """What is to be chosen, and what is left to choose from."""
    x, windows = cropped(x, [tight(w) for w in windows])
    return Choice(windows, least), x


def neutral(dtype, least: bool):
    """What never wins: the worst value of the dtype."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return np.inf if least else -np.inf
    bounds = jnp.iinfo(dtype)
    return bounds.max if least else bounds.min


def positions(size: Sequence[int], ndim: int) -> Array:
    """The row-major number of every entry of a spatial size, against an array of `ndim` axes."""
    numbers = np.arange(math.prod(size), dtype=np.int32)
    return jnp.asarray(numbers.reshape((1,) * (ndim - len(size) - 1) + (*size, 1)))


# ---------------------------------------------------------------- the stages


def _plan(windows: Windows) -> list[Stage]:
    """The stages of windows. The first along an axis pads it."""
    inside = [
        (np.arange(w.extent) >= w.low) & (np.arange(w.extent) < w.low + w.size) for w in windows
    ]
    if few(windows):
        return [_stage(windows, inside)]
    plan, seen = [], [np.ones(w.size, bool) for w in windows]
    for axis in reversed(range(len(windows))):
        seen[axis], padding = inside[axis], (windows[axis].low, windows[axis].high)
        for run in _runs(*step(windows[axis])):
            size = [len(entries) for entries in seen]
            size[axis] -= sum(padding)
            made = along(size, axis, *run, padding)
            plan.append(_stage(made, seen))
            seen[axis], padding = np.asarray(_sees(made[axis], seen[axis]).any(1)), (0, 0)
    return plan


def _runs(taps: int, stride: int, dilation: int) -> list[tuple[int, int, int]]:
    """`(taps, stride, dilation)` of stages that compose to one: runs of runs, which may overlap."""
    if taps <= FEW:
        return [(taps, stride or (taps - 1) * dilation + 1, dilation)]
    spacings = [(count, taps // count) for count in range(2, FEW)]
    count, spacing = min(spacings, key=lambda s: s[0] + taps - (s[0] - 1) * s[1])
    run, apart = taps - (count - 1) * spacing, spacing * dilation
    if stride % apart:
        return [*_runs(run, 1, dilation), *_runs(count, stride, apart)]
    return [*_runs(run, apart, dilation), *_runs(count, stride // apart, 1)]


def _sees(w: Window, inside: np.ndarray) -> np.ndarray:
    """`[out, taps]`: whether a tap reads inside the input."""
    return inside[w.stride * np.arange(w.out)[:, None] + w.dilation * np.arange(w.taps)]


def _stage(windows: Windows, inside: Sequence[np.ndarray]) -> Stage:
    sees = [_sees(w, entries) for w, entries in zip(windows, inside, strict=True)]
    if all(seen.all() for seen in sees):
        return Stage(windows, None)
    first = tuple(np.where(seen.any(1), seen.argmax(1), -1) for seen in sees)
    return Stage(windows, first)


# ---------------------------------------------------------------- all stages


def chosen(choice: Choice, x: Array) -> tuple[Array, Winners]:
    """The best entry of every window, and the tap that won at every stage."""
    won, y = [], _ranked(choice, x)
    for stage in choice.stages:
        y = written(y, [(0, 0)] * len(stage.windows)) if won else y
        y, taps = _best(stage, y)
        # XLA:CPU would choose in a loop of tests, were parts put together where they are read, and
        # XLA:GPU again for every reader.
        several = len(parts(stage.windows)) > 1
        won.append((alone(lax.optimization_barrier) if several else lax.optimization_barrier)(taps))
    return _unranked(choice, y, x.dtype), tuple(won)


def _values(choice: Choice, x: Array) -> Array:
    """The best entry of every window alone."""
    if not serves(choice.windows):
        return _chosen_values(choice, x)
    return per_platform(_chosen_values, _reduced, choice, x)


def _chosen_values(choice: Choice, x: Array) -> Array:
    values, _ = chosen(choice, x)
    return values


def _reduced(choice: Choice, x: Array) -> Array:
    best = lax.min if choice.least else lax.max
    return reduced(choice.windows, best, neutral(x.dtype, choice.least), x)


def gathered(choice: Choice, x: Array, *won: Array) -> Array:
    """The entries of `x` at the winners; where there is none 0, and -1 of integers."""
    missing = 0 if jnp.issubdtype(x.dtype, jnp.inexact) else -1
    for stage, taps in zip(choice.stages, won, strict=True):
        x = _taken(stage, taps, x, missing)
    return x


def scattered(choice: Choice, y: Array, *won: Array) -> Array:
    """Adjoint of `gathered`: every entry takes what the windows that it won hold."""
    for stage, taps in reversed(list(zip(choice.stages, won, strict=True))):
        y = _given(stage, taps, y, single=len(won) == 1)
    return y


# ---------------------------------------------------------------- ranks


def _ranked(choice: Choice, x: Array) -> Array:
    """What the stages choose the greatest of.

    Of floats that several windows read, integers in their order, or in the opposite, of which NaN
    is the greatest. Two integers are compared by one instruction, floats for the sake of NaN by
    several: 31x31 maxima of 128x128x16 and their gradient took 0.77 ms, and take 0.57.
    """
    if not choice.ranks(x.dtype):
        return opposite(x) if choice.least else x
    bits = lax.bitcast_convert_type(x, np.dtype(f"int{jnp.finfo(x.dtype).bits}"))
    most = jnp.iinfo(bits.dtype).max
    size = bits & most
    return jnp.where(x == x, jnp.where((bits < 0) != choice.least, -size, size), most)


def _unranked(choice: Choice, y: Array, dtype) -> Array:
    """What `_ranked` made this of; of ranks, zeros without a sign. Padding is what never wins."""
    if not choice.ranks(dtype):
        return opposite(y) if choice.least else y
    worst = _ranked(choice, jnp.asarray(neutral(dtype, choice.least), dtype))
    y = lax.max(y, worst)
    size = lax.bitcast_convert_type(lax.abs(y), dtype)
    return jnp.where(y > 0 if choice.least else y < 0, -size, size)


def opposite(x: Array) -> Array:
    """The same entries in the opposite order."""
    return -x if jnp.issubdtype(x.dtype, jnp.inexact) else ~x


# ---------------------------------------------------------------- one stage


def _best(stage: Stage, x: Array) -> tuple[Array, Array]:
    """The best entry of every window, and its tap."""

    def choice(part: Part, seen: Sequence[Array]) -> tuple[Array, Array]:
        return reduce(lax.max, seen), _winners(stage, part, seen)

    return swept(choice, stage.windows, (x, neutral(x.dtype, least=False)))


def _winners(stage: Stage, part: Part, seen: Sequence[Array]) -> Array:
    """The tap of the best entry; of nothing but padding, the first inside the input."""
    best, chosen = best_of(seen)
    if stage.first is not None:
        worst = best == jnp.asarray(neutral(best.dtype, least=False), best.dtype)
        chosen = jnp.where(worst, _first(stage.first, part, best.ndim), chosen)
    return chosen.astype(jnp.int8) if _reads_again(stage, seen) else _tap(chosen)


def _reads_again(stage: Stage, seen: Sequence[Array]) -> bool:
    """Whether the loop that reads the choice should choose, for every entry of a window.

    Beyond the cache that is one pass over the input and its gradient, and not two: with their
    gradient, 19 drawn maxima of 2 to 4 taps over 25 to 70 MB took 0.77 of the time. Few channels
    are not in vectors then.
    """
    read_once = blocks(stage.windows) == 1 and len(seen) <= 4
    n = len(seen) * math.prod(seen[0].shape) * seen[0].dtype.itemsize
    return read_once and seen[0].shape[-1] >= NARROW and isinstance(n, int) and n > BATCH_BYTES


def first_best(seen: Sequence[Array]) -> Array:
    """The first tap that none is greater than, or that is NaN."""
    return _tap(best_of(seen)[1])


def best_of(seen: Sequence[Array]) -> tuple[Array, Array]:
    """The best entry and its tap: of neighbours, of pairs, and so on."""
    taps = [jnp.full(seen[0].shape, tap, jnp.int32) for tap in range(len(seen))]
    left = list(zip(seen, taps, strict=True))
    while len(left) > 1:
        odd = left[len(left) & ~1 :]
        left = [_better(*pair) for pair in zip(left[::2], left[1::2], strict=False)] + odd
    return left[0]


def _better(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """The better of two entries with their taps, the first of equals."""
    better = ~(b[0] <= a[0]) & (a[0] == a[0])
    return jnp.where(better, b[0], a[0]), jnp.where(better, b[1], a[1])


def _tap(chosen: Array) -> Array:
    """In a byte, which is kept: XLA:CPU would choose again for every entry that reads a choice."""
    return kept(chosen.astype(jnp.int8))


def _first(firsts: Sequence[np.ndarray], part: Part, ndim: int) -> Array:
    """The first tap inside the input, or -1, against an output of `ndim` axes."""
    rank = len(firsts)
    tap, inside = np.zeros((1,) * ndim, np.int32), np.ones((1,) * ndim, bool)
    for axis, (start, w) in enumerate(zip(part.starts, part.windows, strict=True)):
        first = firsts[axis][start : start + w.out]
        tap = tap * np.int32(w.taps) + laid(first.astype(np.int32), axis, rank, ndim)
        inside = inside & laid(first >= 0, axis, rank, ndim)
    return jnp.where(inside, tap, -1)


def _taken(stage: Stage, winners: Array, x: Array, missing: int) -> Array:
    """The entries of `x` at the winners; `missing` where there is none."""

    def taken(part: Part, seen: Sequence[Array]) -> Array:
        return picked(part.of(winners), seen, missing)

    return swept(taken, stage.windows, (x, missing))


def picked(winners: Array, seen: Sequence[Array], missing=0) -> Array:
    """What the winning tap reads; `missing` where there is none."""
    y = jnp.full(winners.shape, missing, seen[0].dtype)
    for tap, entry in enumerate(seen):
        y = jnp.where(winners == tap, entry, y)
    return y


def _given(stage: Stage, winners: Array, y: Array, single: bool) -> Array:
    """Adjoint of `_taken`, of a `single` stage from windows as they lie.

    3x3 maxima of stride 2 over 4x64x64x64 so take 0.135 ms back, and from padded copies 0.167;
    what another stage leaves would be computed again for every block. Of more blocks, or beside
    cells that no window reaches, several axes are in no vectors: 4x4 of stride 2 over 4x65x65x64
    would take 0.79 ms, and take 0.16.
    """
    windows = stage.windows
    padded, pieces = partial(_won_of_padded, windows), cells_apart(windows)
    reached = all(piece.blocks for axis in pieces for piece in axis)
    along_one = sum(w.taps > 1 or w.stride > 1 for w in windows) == 1
    gains = 0 < terms_of(pieces) <= MANY if along_one else reached and terms_of(pieces) <= AT_ONCE
    if not (single and gains and y.shape[-1] >= NARROW):
        return padded(winners, y)
    at_once = partial(_won, windows, pieces, APART)
    return lax.platform_dependent(winners, y, cpu=at_once, default=padded)


def _won_of_padded(windows: Windows, winners: Array, y: Array) -> Array:
    layout = layout_of(windows, y.shape[-1], tested=True)
    winners, y = spread(winners, windows, -1, layout), spread(y, windows, layout=layout)
    return _won(windows, all_cells(windows), layout, winners, y)


def _won(windows: Windows, pieces: Pieces, layout: Layout, winners: Array, y: Array) -> Array:
    """What every entry takes of the windows that it won."""
    dtype = wide(y.dtype)
    zero = jnp.zeros((), dtype)

    def term(block):
        won = shifted(winners, windows, block)
        won = won == known(block, taps_of(block, won.ndim, winners.dtype))
        return jnp.where(won, shifted(y, windows, block).astype(dtype), zero)

    return blocked_sum(windows, term, 3 * blocks(windows), layout, pieces).astype(y.dtype)
