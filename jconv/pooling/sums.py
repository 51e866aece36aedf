"""Windows summed, with a rule that keeps nothing: by stages on a CPU, elsewhere at once.

    y = sum_t x_t        x_bar[i] = sum_o y_bar[o]

where `o` runs over the windows that see entry `i`.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jconv import adjoint
from jconv.fusion import added
from jconv.geometry import Window
from jconv.placement import zeros
from jconv.platforms import per_platform
from jconv.pooling import reductions
from jconv.pooling.batches import by_images, image_of
from jconv.pooling.cells import blocked_sum, known, layout_of, shifted, spread, taps_of
from jconv.pooling.folds import Entry, Fold, over
from jconv.pooling.stages import held, tight
from jconv.pooling.views import Windows, cropped, laid, swept


def summed(x: Array, windows: Sequence[Window], custom_vjp: bool = True) -> Array:
    """The sum of every window."""
    x, windows = cropped(x, [tight(w) for w in windows])
    image = image_of(x, len(windows), held(windows, x.shape[-1], light=True, copies=1))
    in_turns = partial(by_images, image=image)
    plain = partial(in_turns, _sum if custom_vjp else _staged)
    return adjoint.linear(plain, partial(in_turns, _adjoint), windows, x, ruled=custom_vjp)


def divided(total: Array, counts: Sequence[np.ndarray]) -> Array:
    """Sums by how many entries each is of, the product of a count an axis."""
    for axis, count in enumerate(counts):
        # One number where all are alike: then no entry looks up its own.
        count = count[:1] if (count == count[0]).all() else count
        total = total / jnp.asarray(laid(count, axis, len(counts), total.ndim), total.dtype)
    return total


def _sum(windows: Windows, x: Array) -> Array:
    if not reductions.serves(windows):
        return _staged(windows, x)
    return per_platform(_staged, reductions.summed, windows, x)


def _adjoint(windows: Windows, y: Array) -> Array:
    if not reductions.serves_adjoint(windows):
        return _staged_adjoint(windows, y)
    return per_platform(_staged_adjoint, reductions.summed_adjoint, windows, y)


def _staged(windows: Windows, x: Array, custom_vjp: bool = False) -> Array:
    (y,) = over(SUM, (x,), windows, custom_vjp)
    return y


def _staged_adjoint(windows: Windows, y: Array) -> Array:
    """Adjoint of `_staged`, which is linear: those of the stages, from the last to the first."""
    shape = (*y.shape[: -len(windows) - 1], *(w.size for w in windows), y.shape[-1])
    staged = partial(_staged, windows, custom_vjp=True)
    _, transpose = jax.vjp(staged, zeros(shape, y.dtype, y))
    return transpose(y)[0]


# ---------------------------------------------------------------- one stage


def _stage(windows: Windows, entry: Entry, custom_vjp: bool) -> Entry:
    (x,) = entry

    def plain(windows: Windows, x: Array) -> Array:
        return swept(lambda part, seen: added(seen), windows, (x, 0))

    return (adjoint.linear(plain, _stage_adjoint, windows, x, ruled=custom_vjp),)


def _stage_adjoint(windows: Windows, y: Array) -> Array:
    layout = layout_of(windows, y.shape[-1], whole=True)
    y, zero = spread(y, windows, layout=layout), jnp.zeros((), y.dtype)

    def term(block):
        seen = shifted(y, windows, block)
        return jnp.where(known(block, taps_of(block, seen.ndim, np.int32) >= 0), seen, zero)

    return blocked_sum(windows, term, layout=layout)


def _joined(a: Entry, b: Entry) -> Entry:
    return (a[0] + b[0],)


SUM = Fold(_stage, _joined, lambda dtype: (0,))
