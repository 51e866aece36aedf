"""Shifted views times taps, added in one fused loop over all channels: no matrix product.

    forward         x[n, i, g, c] k[t, c, g, m] -> y[n, o, g, m]
                    x[n, i, c, g] k[t, c, m, g] -> y[n, o, g, m], a sum for each of a few m
    input_adjoint   the forward of `y` by the reversed kernel
    kernel_adjoint  x[n, i, c, g] y[n, o, m, g] -> k[t, c, m, g], accumulated over rows of positions

Few channels a group (depthwise, ResNeXt) leave a matrix product nothing to do. Where taps are few,
`x` is read where it is, the outputs near its ends by fewer taps. Else it is padded once and kept
from being fused (the barrier): the bounds tests of a fused pad cost more than the arithmetic.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from itertools import product
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv import runs
from jconv.channels import accumulator, transposed_kernel
from jconv.fusion import alone, finished
from jconv.geometry import Spec, Window, transposed
from jconv.padding import crop, cut, embed, grow
from jconv.placement import zeros
from jconv.runs import Run

# How many numbers an accumulator of the kernel's adjoint holds, so that a few stay in the first
# cache.
ACCUMULATOR = 8192
# Sums side by side in one loop, as one alone waits at every term for the one before: 15x15 taps on
# 512x512 take 2.6 ms with 2 and 1.2 with 4.
SUMS = 4
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
    arranged = _lanes if turned else _groups
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
        ks = _row_major(ks)
        y = jnp.stack([compute(xs, ks[..., o : o + 1, :])[..., 0, :] for o in range(m)], -1)
    else:
        y = compute(xs, ks)
    return finished(crop(y.reshape(*y.shape[:-2], -1), 1, [(0, n) for n in spec.out]))


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    spec = transposed(spec)
    if k.shape[-2] == 1 and k.shape[-1] == spec.groups:
        return forward(spec, y, k, backwards=True)
    return forward(spec, y, _row_major(transposed_kernel(k, spec.groups)))


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    if _is_depthwise(spec, x, y):
        return _depthwise(spec, x, y)
    last = spec.windows[-1]
    count = last.taps * (x.shape[-1] // spec.groups)
    rows = _rows(spec, x.shape[0], y.shape[-1], count)
    xp, y = _lanes(spec, embed(x, spec.windows)), _lanes(spec, y)
    xp = grow(xp, len(spec.taps), [(0, max(rows.reach - last.extent, 0), 0)])
    y = grow(y, len(spec.taps), [(0, rows.blocks * rows.length - last.out, 0)])
    xp, y = _row_major(xp), _row_major(y)
    nothing = (zeros((rows.length, *y.shape[-2:]), y.dtype, xp, y),) * count

    def at_leading_taps(_, tap):
        def step(index, sums):
            for row in range(rows.unroll):
                at = jnp.unravel_index(index * rows.unroll + row, rows.positions)
                terms = _terms(spec, rows, xp, y, at, tap)
                sums = tuple(s + term for s, term in zip(sums, terms, strict=True))
            return sums

        sums = lax.fori_loop(0, rows.steps, step, nothing)
        return None, jnp.stack([s.sum(0) for s in sums])

    taps = list(product(*map(range, spec.taps[:-1])))
    taps = jnp.asarray(taps, jnp.int32).reshape(len(taps), len(spec.taps) - 1)
    _, k = lax.scan(at_leading_taps, None, taps)
    return _channels(k.reshape(*spec.taps, -1, *k.shape[-2:]))


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
        view = _strided(x, starts, counts, strides)
        if backwards:
            tap = tuple(n - 1 - t for n, t in zip(k.shape, tap, strict=False))
        for c in range(x.shape[channel]):
            seen = lax.slice_in_dim(view, c, c + 1, axis=channel)
            terms.append(seen * lax.expand_dims(k[tap][c], range(x.ndim - 2)))
    return _added(terms) if terms else zeros((len(x), *counts, *k.shape[-2:]), x.dtype, x, k)


def _added(terms: Sequence[Array]) -> Array:
    return reduce(jnp.add, [reduce(jnp.add, terms[i::SUMS]) for i in range(min(SUMS, len(terms)))])


def _is_depthwise(spec: Spec, x: Array, y: Array) -> bool:
    """One channel a group and taps so few that one loop is worth unrolling for all of them.

    It took 3x3 taps on 8x56x56x96 from 2.6 to 1.9 ms, but 5x5 on 8x28x28x192 from 2.3 to 4.0.
    """
    return (
        8 <= spec.groups == x.shape[-1] == y.shape[-1]
        and len(spec.taps) > 1
        and math.prod(spec.taps) <= 9
    )


def _depthwise(spec: Spec, x: Array, y: Array) -> Array:
    """One loop adds up `side` neighbouring outputs at every tap, on every thread; then the rest."""
    last = spec.windows[-1]
    side = _side_by_side(last.out)
    axis, blocks = len(spec.taps), -(-last.out // side)
    more = blocks * side - last.out
    xp, y = (a.astype(accumulator(spec, a.dtype)) for a in (embed(x, spec.windows), y))
    high = max(more * last.stride + last.covered - last.extent, 0)
    xp = lax.optimization_barrier(grow(xp, axis, [(0, high, 0)]))
    y = grow(y, axis, [(0, more, 0)]).reshape(*y.shape[:axis], blocks, side, -1)
    strides = [*(w.stride for w in spec.windows[:-1]), last.stride * side]
    counts = (*spec.out[:-1], blocks)

    def products(tap):
        for at in range(side):
            starts = [w.dilation * t for w, t in zip(spec.windows, tap, strict=True)]
            starts[-1] += at * last.stride
            yield _strided(xp, starts, counts, strides) * y[..., at, :]

    def sums(*tap):
        if len(tap) == axis:
            return _added(list(products(tap)))
        return jnp.stack([sums(*tap, t) for t in range(spec.taps[len(tap)])], len(tap) - axis - 1)

    k = lax.optimization_barrier(sums())
    return k.sum(range(axis + 1)).reshape(*spec.taps, 1, -1)


def _side_by_side(size: int) -> int:
    """How many neighbouring outputs are added up at once: all, or those that fill up rows best."""
    return size if size <= 16 else min(range(8, 17), key=lambda n: (-size % n, -n))


class _Rows(NamedTuple):
    """The last axis in `blocks` rows of `length` outputs; `positions` counts all rows."""

    blocks: int
    length: int
    reach: int
    positions: tuple[int, ...]
    unroll: int

    @property
    def steps(self) -> int:
        return math.prod(self.positions) // self.unroll


def _rows(spec: Spec, n: int, lanes: int, sums: int) -> _Rows:
    last = spec.windows[-1]
    blocks = -(-last.out * lanes // ACCUMULATOR)
    length = -(-last.out // blocks)
    reach = (blocks * length - 1) * last.stride + last.reach + 1
    positions = (n, *spec.out[:-1], blocks)
    # A few rows a step hide what a step costs; more terms would only compile longer.
    total = math.prod(positions)
    unroll = max(u for u in (4, 3, 2, 1) if total % u == 0 and (u == 1 or u * sums <= 24))
    return _Rows(blocks, length, reach, positions, unroll)


def _terms(spec: Spec, rows: _Rows, xp: Array, y: Array, at, tap) -> Iterator[Array]:
    """A row of outputs times what each tap of the last axis reads, `[length, m, g]` each."""
    image, *leading, block = at
    last = spec.windows[-1]
    at_x = [
        o * w.stride + t * w.dilation for o, w, t in zip(leading, spec.windows, tap, strict=False)
    ]
    read = (rows.length - 1) * last.stride + 1
    x_row = _row(xp, (image, *at_x, block * rows.length * last.stride), read + last.reach)
    y_row = _row(y, (image, *leading, block * rows.length), rows.length)
    for t in range(last.taps):
        view = lax.slice_in_dim(x_row, t * last.dilation, t * last.dilation + read, last.stride, 0)
        for c in range(xp.shape[-2]):
            yield view[:, c : c + 1, :] * y_row


def _row(a: Array, at, length: int) -> Array:
    """`[length, c, g]` from position `at` of `[n, *size, c, g]`."""
    ones = (1,) * (len(at) - 1)
    row = cut(a, (*at, 0, 0), (*ones, length, *a.shape[-2:]))
    return row.reshape(length, *a.shape[-2:])


def _strided(xp: Array, starts: Sequence[int], counts: Sequence[int], strides: Sequence[int]):
    """`counts` entries of each spatial axis from `starts` on, `strides` apart."""
    bounds = [(s, s + (n - 1) * d + 1) for s, n, d in zip(starts, counts, strides, strict=True)]
    return crop(xp, 1, bounds, strides)


def _lanes(spec: Spec, a: Array) -> Array:
    """`[..., groups * c]` to `[..., c, groups]`."""
    return jnp.swapaxes(_groups(spec, a), -1, -2)


def _groups(spec: Spec, a: Array) -> Array:
    """`[..., groups * c]` to `[..., groups, c]`, of the dtype that sums are kept in."""
    a = a.astype(accumulator(spec, a.dtype))
    return a.reshape(*a.shape[:-1], spec.groups, -1)


def _channels(a: Array) -> Array:
    """`[..., m, groups]` to `[..., groups * m]`."""
    return jnp.swapaxes(a, -1, -2).reshape(*a.shape[:-2], -1)


def _row_major(a: Array) -> Array:
    """`a` with its last axis next to itself in memory: XLA would leave a transpose undone.

    All entries in a row have one layout only. (A layout constraint is nothing `jax.export` saves.)
    """
    return lax.optimization_barrier(a.reshape(-1)).reshape(a.shape)
