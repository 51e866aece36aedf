"""Shifted views times taps, added in one fused loop over all channels: no matrix product.

    forward         x[n, i, g, c] k[t, c, g, m] -> y[n, o, g, m]
                    x[n, i, c, g] k[t, c, m, g] -> y[n, o, g, m], a sum for each of a few m
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  x[n, i, c, g] y[n, o, m, g] -> k[t, c, m, g], in `correlations`

Few channels a group (depthwise, ResNeXt) leave a matrix product nothing to do. Where taps are few,
`x` is read where it is, the outputs near its ends by fewer taps. Else it is padded once and kept
from being fused (the barrier): the bounds tests of a fused pad cost more than the arithmetic.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import jax.numpy as jnp
from jax import Array, lax

from jconv import runs
from jconv.channels import grouped, groups_last, transposed_kernel
from jconv.fusion import added, alone, finished, row_major
from jconv.geometry import Spec, Window, transposed
from jconv.methods.correlations import kernel_adjoint as kernel_adjoint
from jconv.padding import crop, grow, strided
from jconv.placement import zeros
from jconv.runs import Run

# Products of all runs of outputs up to which none is padded, past which compiling costs too much.
MOST_TERMS = 128
# Products of each of two outputs that one loop adds up.
PAIRED = range(25, 129)


def forward(spec: Spec, x: Array, k: Array, backwards: bool = False) -> Array:
    """`backwards` reads the taps last to first, where a reversed copy would only be another array.

    Longer than the first cache, what the same program wrote is slow to read again and again: 7x7
    taps of 384 channels on 8x14x14 take 1.2 ms instead of 0.85.
    """
    c, m = k.shape[-2], k.shape[-1] // spec.groups
    turned, paired = _has_groups_last(spec, c, m), _is_paired(spec, c, m)
    arranged = groups_last if turned else grouped
    xs, ks = arranged(spec, x), arranged(spec, k)
    windows, phases = spec.windows, [runs.natural(w) for w in spec.windows]
    if not is_in_place(spec, c, m):
        phases[0] *= 1 + paired
        windows, xs = _with_room(windows, phases, xs)
    parts = [runs.runs(w, p) for w, p in zip(windows, phases, strict=True)]
    outputs = partial(_outputs, -2 if turned else -1, backwards)
    paired = paired and jnp.issubdtype(xs.dtype, jnp.floating)
    compute = _in_pairs(outputs, parts) if paired else partial(outputs, parts)
    if turned:
        ks = row_major(ks)
        y = jnp.stack([compute(xs, ks[..., o : o + 1, :])[..., 0, :] for o in range(m)], -1)
    else:
        y = compute(xs, ks)
    return finished(crop(y.reshape(*y.shape[:-2], -1), 1, [(0, n) for n in spec.out]))


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    spec = transposed(spec)
    if k.shape[-2] == 1 and k.shape[-1] == spec.groups:
        return forward(spec, y, k, backwards=True)
    return forward(spec, y, row_major(transposed_kernel(k, spec.groups)))


def is_in_place(spec: Spec, c: int, m: int) -> bool:
    """Whether `forward`, of `c` to `m` channels a group, reads its input where it is.

    It took 3x3 taps on 8x56x56x96 from 0.59 to 0.37 ms, of stride 2 their input's adjoint from 0.83
    to 0.20. Of more than seven runs XLA:CPU makes two loops.
    """
    if not _fills(spec, m) or _has_groups_last(spec, c, m) or _is_paired(spec, c, m):
        return False
    parts = [runs.runs(w, runs.natural(w)) for w in spec.windows]
    products = math.prod(sum(len(run.starts) for phase in part for run in phase) for part in parts)
    return products * c <= MOST_TERMS and all(len(phase) <= 7 for part in parts for phase in part)


def _has_groups_last(spec: Spec, c: int, m: int) -> bool:
    """Whether vectors run over the groups, as the outputs of one would not fill them.

    It took grouped3x3 from 2.2 to 1.8 ms, and 2 to 2 channels of 64 groups from 1.1 to 0.5.
    """
    return spec.groups >= 4 and 1 < m < 8 and math.prod(spec.taps) * c * m <= 256


def _is_paired(spec: Spec, c: int, m: int) -> bool:
    """Whether sharing what two sums read is worth one more copy, and not too long to compile.

    It took 7x7 taps on 4x56x56x96 from 1.1 to 0.77 ms, but 3x3 on 8x56x56x96 from 0.59 to 0.84.
    """
    simple = all(w.input_dilation == 1 for w in spec.windows)
    many = math.prod(spec.taps) * c in PAIRED
    return simple and many and _fills(spec, m) and m <= 8 and spec.out[0] > 1


def _fills(spec: Spec, m: int) -> bool:
    """Whether the channels fill vectors: of fewer, positions do, in long rows of padded inputs.

    3x3 taps of 8 channels on 64x64 take 0.14 ms padded and 0.30 in place, of 24 0.21 and 0.16.
    """
    return spec.groups >= 4 and spec.groups * m >= 16


def _with_room(windows: Sequence[Window], phases: Sequence[int], x: Array):
    """`x` padded so that each phase is one run, and the windows over it."""
    pairs = list(zip(windows, phases, strict=True))
    room = [(*runs.room(w, p), 0) for w, p in pairs]
    tail = x.shape[-2:]
    xp = lax.optimization_barrier(grow(x.reshape(*x.shape[:-2], -1), 1, room))
    return [runs.roomy(w, p) for w, p in pairs], xp.reshape(*xp.shape[:-1], *tail)


def _in_pairs(outputs: Callable, parts: Sequence) -> Callable[[Array, Array], Array]:
    """Two rows of outputs as real and imaginary part, so that one loop adds up both.

    It reads a tap once for the two, and most inputs: 105 loads for the 98 products of 7x7 taps.
    """

    @alone
    def both(x: Array, k: Array) -> Array:
        return lax.complex(*(outputs([[phase], *parts[1:]], x, k) for phase in parts[0]))

    def compute(x: Array, k: Array) -> Array:
        z = both(x, k)
        return _interleaved([z.real, z.imag], 1)

    return compute


def _outputs(
    channel: int, backwards: bool, parts: Sequence, x: Array, k: Array, chosen: tuple[Run, ...] = ()
) -> Array:
    """The outputs of every phase and run, put together axis by axis."""
    axis = len(chosen)
    if axis == len(parts):
        return _sum(channel, backwards, chosen, x, k)

    def of(run: Run) -> Array:
        return _outputs(channel, backwards, parts, x, k, (*chosen, run))

    phases = [lax.concatenate([of(run) for run in phase], axis + 1) for phase in parts[axis]]
    return _interleaved(phases, axis + 1)


def _interleaved(phases: Sequence[Array], axis: int) -> Array:
    """An entry of each in turn."""
    y = jnp.stack(phases, axis + 1)
    return y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])


def _sum(channel: int, backwards: bool, chosen: Sequence[Run], x: Array, k: Array) -> Array:
    """A run of outputs on every axis: the taps that reach it, times what they read."""
    counts, strides = [run.length for run in chosen], [run.step for run in chosen]
    terms = []
    for tap in product(*(run.starts for run in chosen)):
        starts = [run.starts[t] for run, t in zip(chosen, tap, strict=True)]
        view = strided(x, 1, starts, counts, strides)
        if backwards:
            tap = tuple(n - 1 - t for n, t in zip(k.shape, tap, strict=False))
        for c in range(x.shape[channel]):
            seen = lax.slice_in_dim(view, c, c + 1, axis=channel)
            terms.append(seen * lax.expand_dims(k[tap][c], range(x.ndim - 2)))
    return added(terms) if terms else zeros((len(x), *counts, *k.shape[-2:]), x.dtype, x, k)
