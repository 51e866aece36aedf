"""One convolution as a simpler one.

A rewrite is three rearrangements that copy and zero-fill, and a simpler convolution between them:

    conv(x, kernel) == from_y(simpler(to_x(x), to_kernel(kernel)))

Each rearrangement has its adjoint, so the faces of the simpler convolution give those of the first:

    forward         from_y(forward(to_x x, to_kernel k))
    input_adjoint   to_x' (input_adjoint(from_y' y, to_kernel k))
    kernel_adjoint  to_kernel' (kernel_adjoint(to_x x, from_y' y))
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.channels import in_groups
from jconv.geometry import Spec, Window
from jconv.methods.fourier import fast_length
from jconv.padding import crop, embed, extract, grow
from jconv.windows import put_back, seen


class Linear(NamedTuple):
    """A linear map and its adjoint."""

    apply: Callable[[Array], Array]
    adjoint: Callable[[Array], Array]


class Rewrite(NamedTuple):
    """The simpler convolution and what leads to it and back."""

    spec: Spec
    to_x: Linear
    to_kernel: Linear
    from_y: Linear


IDENTITY = Linear(lambda a: a, lambda a: a)


def _with_windows(spec: Spec, windows: Sequence[Window]) -> Spec:
    return dataclasses.replace(spec, windows=tuple(windows))


def _padded(x: Array, windows: Sequence[Window]) -> Array:
    """`embed`, not fused into a rearrangement, whose every entry would test the bounds."""
    return lax.optimization_barrier(embed(x, windows))


def _split(a: Array, first: int, parts: Sequence[int]) -> Array:
    """Each axis from `first` on in two: `[..., size, ...]` to `[..., size // part, part, ...]`."""
    sizes = a.shape[first : first + len(parts)]
    pairs = [(n // part, part) for n, part in zip(sizes, parts, strict=True)]
    return a.reshape(*a.shape[:first], *sum(pairs, ()), *a.shape[first + len(parts) :])


# ---------------------------------------------------------------- a stride: its phases as channels


def phases(spec: Spec) -> Rewrite:
    """A stride `s` as `s` times the channels (space to depth): taps and inputs that meet share a
    phase.

    `x[s*(o + u) + r] k[s*u + r]` is, over all phases `r`, a stride-1 convolution over `u`. Of fewer
    taps than `s` the first phases hold all that is read.
    """
    strides = [w.stride for w in spec.windows]
    held = [min(w.taps, w.stride) for w in spec.windows]
    padded = [_phased(w) for w in spec.windows]
    simple = [
        Window(p.extent // w.stride, -(-w.taps // w.stride)) if w.stride > 1 else w
        for w, p in zip(spec.windows, padded, strict=True)
    ]
    rank = len(strides)
    to_depth = (0, *range(1, 2 * rank, 2), 2 * rank + 1, *range(2, 2 * rank + 1, 2), 2 * rank + 2)
    from_depth = tuple(sorted(range(2 * rank + 3), key=to_depth.__getitem__))

    def to_x(x: Array) -> Array:
        a = _split(in_groups(_padded(x, padded), spec.groups), 1, strides)
        # The last axis' phases are next to the channels already.
        a = jnp.swapaxes(a, -3, -2)[..., : held[-1], :]
        # Views in a stack copy whole rows, three times as fast as a transpose.
        views = [_phase(a, phase) for phase in product(*map(range, held[:-1]))]
        a = jnp.stack(views, -3)
        return a.reshape(*a.shape[: rank + 1], -1)

    def to_x_adjoint(a: Array) -> Array:
        a = a.reshape(*a.shape[:-1], spec.groups, *held, -1).transpose(from_depth)
        rest = [
            (0, n, 0) for w, h in zip(spec.windows, held, strict=True) for n in (0, w.stride - h)
        ]
        a = grow(a, 1, rest)
        sizes = [p.extent for p in padded]
        return extract(a.reshape(a.shape[0], *sizes, a.shape[-1] * spec.groups), padded)

    taps_whole = [-(-w.taps // w.stride) * h for w, h in zip(spec.windows, held, strict=True)]
    k_to_depth = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2), 2 * rank, 2 * rank + 1)
    k_from_depth = tuple(sorted(range(2 * rank + 2), key=k_to_depth.__getitem__))

    def to_kernel(k: Array) -> Array:
        k = grow(k, 0, [(0, n - w.taps, 0) for n, w in zip(taps_whole, spec.windows, strict=True)])
        k = _split(k, 0, held).transpose(k_to_depth)
        return k.reshape(*k.shape[:rank], -1, k.shape[-1])

    def to_kernel_adjoint(k: Array) -> Array:
        k = k.reshape(*k.shape[:rank], *held, -1, k.shape[-1]).transpose(k_from_depth)
        k = k.reshape(*taps_whole, *k.shape[-2:])
        return crop(k, 0, [(0, n) for n in spec.taps])

    return Rewrite(
        _with_windows(spec, simple),
        Linear(to_x, to_x_adjoint),
        Linear(to_kernel, to_kernel_adjoint),
        IDENTITY,
    )


def _phase(a: Array, phase: Sequence[int]) -> Array:
    """One phase of the first axes of `[n, size, stride, ...]`."""
    for axis, at in enumerate(phase):
        a = lax.index_in_dim(a, at, 2 + axis, keepdims=False)
    return a


def _phased(w: Window) -> Window:
    """The padding that makes whole phases of an axis; an axis without a stride stays as it is."""
    if w.stride == 1:
        return Window(w.size, 1)
    whole = (w.out - 1 + -(-w.taps // w.stride)) * w.stride
    return Window(w.size, 1, low=w.low, high=whole - w.low - w.size)


# ---------------------------------------------------------------- a stride and a dilation: by
# their common factor


def decimated(spec: Spec) -> Rewrite:
    """Every `g`-th input, of strides and dilations that `g` divides: no window reads any other.

    `s*o + d*t - low` is `-low` modulo `g` for every output and tap.
    """
    factors = [common(w) for w in spec.windows]
    firsts = [-w.low % g for w, g in zip(spec.windows, factors, strict=True)]
    simple = [_decimated(w, g) for w, g in zip(spec.windows, factors, strict=True)]
    after = [(w.size - r - 1) % g for w, r, g in zip(spec.windows, firsts, factors, strict=True)]
    around = [(r, n, g - 1) for r, n, g in zip(firsts, after, factors, strict=True)]
    bounds = list(zip(firsts, spec.size, strict=True))
    return Rewrite(
        _with_windows(spec, simple),
        Linear(lambda x: crop(x, 1, bounds, factors), lambda a: grow(a, 1, around)),
        IDENTITY,
        IDENTITY,
    )


def common(w: Window) -> int:
    """The factor that a stride and a dilation have in common, where a window reads anything."""
    g = math.gcd(w.stride, w.dilation) if w.input_dilation == 1 else 1
    return g if -w.low % g < w.size else 1


def _decimated(w: Window, g: int) -> Window:
    first = -w.low % g
    size, low = -(-(w.size - first) // g), (w.low + first) // g
    stride, dilation = w.stride // g, w.dilation // g
    made = dataclasses.replace(w, size=size, stride=stride, low=low, dilation=dilation)
    return made.grown_to((w.out - 1) * stride + made.reach + 1)


# ---------------------------------------------------------------- the first axis: its taps as
# channels


def fold(spec: Spec) -> Rewrite:
    """Rank `n` as rank `n - 1`: taps of the first axis become channels, its outputs examples."""
    first, *others = spec.windows
    outer, inner = (first, *(Window(w.size, 1) for w in others)), first.padded()

    def to_x(x: Array) -> Array:
        xp = in_groups(_padded(x, outer), spec.groups)
        a = jnp.stack([seen(xp, 1, inner, t) for t in range(first.taps)], -2)
        return a.reshape(-1, *a.shape[2:-3], math.prod(a.shape[-3:]))

    def to_x_adjoint(a: Array) -> Array:
        a = in_groups(a.reshape(-1, first.out, *a.shape[1:]), spec.groups)
        a = in_groups(a, first.taps)
        by_tap = (a[..., t, :].reshape(*a.shape[:-3], -1) for t in range(first.taps))
        parts = (put_back(part, 1, inner, t) for t, part in enumerate(by_tap))
        return extract(reduce(jnp.add, parts), outer)

    def to_kernel(k: Array) -> Array:
        k = jnp.moveaxis(k, 0, -3)
        return k.reshape(*k.shape[:-3], -1, k.shape[-1])

    def to_kernel_adjoint(k: Array) -> Array:
        k = k.reshape(*k.shape[:-2], first.taps, -1, k.shape[-1])
        return jnp.moveaxis(k, -3, 0)

    return Rewrite(
        _with_windows(spec, others),
        Linear(to_x, to_x_adjoint),
        Linear(to_kernel, to_kernel_adjoint),
        Linear(
            lambda a: a.reshape(-1, first.out, *a.shape[1:]),
            lambda y: y.reshape(-1, *y.shape[2:]),
        ),
    )


# ---------------------------------------------------------------- a long axis: overlapping frames
# as examples


def frames(spec: Spec) -> Rewrite:
    """One long axis as many short ones: frames that overlap by the taps' reach (overlap-save)."""
    (w,) = spec.windows
    length = frame_length(w)
    hop = length - w.reach
    count = -(-w.out // hop)
    padded = (Window(w.size, 1, low=w.low, high=count * hop + w.reach - w.low - w.size),)

    def to_x(x: Array) -> Array:
        xp = _padded(x, padded)
        body = xp[:, : count * hop].reshape(-1, count, hop, xp.shape[-1])
        after = grow(xp[:, hop:], 1, [(0, hop - w.reach, 0)]).reshape(body.shape)
        whole = jnp.concatenate([body, after[:, :, : w.reach]], 2)
        return whole.reshape(-1, length, xp.shape[-1])

    def to_x_adjoint(a: Array) -> Array:
        a = a.reshape(-1, count, length, a.shape[-1])
        body = a[:, :, :hop].reshape(a.shape[0], -1, a.shape[-1])
        after = grow(a[:, :, hop:], 2, [(0, hop - w.reach, 0)]).reshape(body.shape)
        after = after[:, : after.shape[1] - (hop - w.reach)]
        return extract(grow(body, 1, [(0, w.reach, 0)]) + grow(after, 1, [(hop, 0, 0)]), padded)

    return Rewrite(
        _with_windows(spec, [Window(length, w.taps, dilation=w.dilation)]),
        Linear(to_x, to_x_adjoint),
        IDENTITY,
        Linear(
            lambda a: a.reshape(-1, count * hop, a.shape[-1])[:, : w.out],
            lambda y: grow(y, 1, [(0, count * hop - w.out, 0)]).reshape(-1, hop, y.shape[-1]),
        ),
    )


def frame_length(w: Window) -> int:
    """The length of a frame: eight times the reach, so that an eighth of the work is overlap."""
    return fast_length(8 * w.reach)


# ---------------------------------------------------------------- no padding at all: one row too
# many


def overhang(spec: Spec) -> Rewrite:
    """One more row of padding and of outputs, cropped: XLA:CPU is slow where a window has no
    padding.

    A stride-1 3x3 convolution of 8x58x58x64 takes it four times as long without padding as with.
    """
    first, *others = spec.windows
    longer = dataclasses.replace(
        first, high=first.high + first.covered + first.stride - first.extent
    )
    return Rewrite(
        _with_windows(spec, [longer, *others]),
        IDENTITY,
        IDENTITY,
        Linear(lambda a: a[:, : first.out], lambda y: grow(y, 1, [(0, 1, 0)])),
    )


REWRITES = {
    "decimated": decimated,
    "phases": phases,
    "fold": fold,
    "frames": frames,
    "overhang": overhang,
}
