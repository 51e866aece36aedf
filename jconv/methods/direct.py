"""XLA's windowed convolution, each face as one call.

A windowed convolution pairs `lhs` (dilated by `a`), `rhs` (dilated by `d`) and `out` (stride `s`):
output `o` meets entry `t` of `rhs` at position `a*i = s*o + d*t - low` of `lhs`. The three faces
are the same pairing, seen from each of its sides:

    face            lhs  rhs  out    lhs dilation    stride          rhs dilation   low
    forward         x    k    y      input_dilation  stride          dilation       low
    input_adjoint   y    k    x      stride          input_dilation  dilation       reach - low
    kernel_adjoint  x    y    k      input_dilation  dilation        stride         low

The input adjoint takes the kernel reversed, its two channels in each other's place.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.channels import accumulator, factors, in_groups, transposed_kernel, turned_kernel
from jconv.geometry import Spec, spread
from jconv.padding import crop, grow
from jconv.placement import whole
from jconv.platforms import per_platform


class Pairing(NamedTuple):
    """One axis of the table above, with the sizes of the three sides."""

    lhs: int
    rhs: int
    out: int
    lhs_dilation: int
    stride: int
    rhs_dilation: int
    low: int

    @property
    def high(self) -> int:
        """The padding at the end that gives exactly `out`; an uncovered tail is cropped."""
        return self.out_reach + self.rhs_reach + 1 - self.low - spread(self.lhs, self.lhs_dilation)

    @property
    def even_high(self) -> int:
        """The same, or as much of a stride more as makes both ends equal: what libraries pad."""
        return min(max(self.high, self.low), self.high + self.stride - 1)

    @property
    def rhs_reach(self) -> int:
        return (self.rhs - 1) * self.rhs_dilation

    @property
    def out_reach(self) -> int:
        return (self.out - 1) * self.stride

    @property
    def is_safe(self) -> bool:
        """Whether no derivative of any order of this convolution has a negative low padding.

        JAX's rules turn `low` into `rhs_reach - low`, `out_reach - low` and
        `lhs_reach - rhs_reach + low`, and where one of them is negative XLA:CPU may read out of
        bounds. A negative `high` is harmless, and need not be carried out.
        Source: openxla/xla, issue 48713.
        """
        lhs_reach = spread(self.lhs, self.lhs_dilation) - 1
        least = max(0, self.rhs_reach - lhs_reach)
        return least <= self.low <= min(self.rhs_reach, self.out_reach)


def forward(spec: Spec, x: Array, k: Array) -> Array:
    axes = [
        Pairing(w.size, w.taps, w.out, w.input_dilation, w.stride, w.dilation, w.low)
        for w in spec.windows
    ]
    return _by_feature(spec, x, k, axes)


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    return per_platform(_arranged, _labelled, spec, y, k)


def _arranged(spec: Spec, y: Array, k: Array) -> Array:
    """XLA:CPU arranges no convolution within a loop, and computes it one number at a time there."""
    return _by_feature(spec, y, transposed_kernel(k, spec.groups), _adjoint_axes(spec))


def _labelled(spec: Spec, y: Array, k: Array) -> Array:
    """A GPU's library has a face of its own for each of the three.

    XLA finds which one is asked for if the reversal comes last and the numbers of the axes say the
    rest: 7x7 taps of stride 2 took 0.42 ms on an H200 and not 0.12.
    """
    k, axes = turned_kernel(k, spec.groups), _adjoint_axes(spec)
    n = len(axes)
    dims = _channels_last(n)._replace(rhs_spec=(n, n + 1, *range(n)))
    return _convolve(spec, y, k, axes, dims, feature_group_count=spec.groups)


def _adjoint_axes(spec: Spec) -> list[Pairing]:
    return [
        Pairing(w.out, w.taps, w.size, w.stride, w.input_dilation, w.dilation, w.reach - w.low)
        for w in spec.windows
    ]


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    """Examples are summed like channels."""
    return per_platform(_kernel_arranged, _kernel_labelled, spec, x, y)


def _kernel_arranged(spec: Spec, x: Array, y: Array) -> Array:
    """As in the input adjoint: a training step within a `lax.scan` took 200 times as long.

    Groups are the features', since of batches in groups XLA:CPU lets a NaN of one reach all.
    """
    axes = _kernel_axes(spec)
    space = tuple(range(1, len(axes) + 1))
    batch, group, channels = 0, len(axes) + 1, len(axes) + 2
    by_group = in_groups(x, spec.groups)
    lhs = by_group.transpose(channels, *space, group, batch)
    lhs = lhs.reshape(*lhs.shape[:-2], spec.groups * x.shape[batch])
    k = _by_feature(spec, lhs, y.transpose(*space, batch, group), axes)
    return k.transpose(*space, batch, group)


def _kernel_labelled(spec: Spec, x: Array, y: Array) -> Array:
    """What `jax.lax` gives to the libraries, and `jax.vmap` of it."""
    axes = _kernel_axes(spec)
    n = len(axes)
    summed = (n + 1, 0, *range(1, n + 1))
    dims = lax.ConvDimensionNumbers(summed, summed, (n, n + 1, *range(n)))
    return _convolve(spec, x, y, axes, dims, batch_group_count=spec.groups)


def _kernel_axes(spec: Spec) -> list[Pairing]:
    return [
        Pairing(w.size, w.out, w.taps, w.input_dilation, w.dilation, w.stride, w.low)
        for w in spec.windows
    ]


def _by_feature(spec: Spec, lhs: Array, rhs: Array, axes: list[Pairing]) -> Array:
    """The windowed convolution of channels last.

    Of groups of one channel in float64, XLA:CPU makes one group whose kernel is filled up with
    zeros, by which a NaN of one channel reaches all outputs. With a second channel it does not.
    """
    static = (spec, tuple(axes))
    if spec.groups > 1 and rhs.shape[-2] == 1 and accumulator(spec, lhs.dtype) == jnp.float64:
        return per_platform(_in_pairs, _in_groups, static, lhs, rhs)
    return _in_groups(static, lhs, rhs)


def _in_groups(static: tuple[Spec, tuple[Pairing, ...]], lhs: Array, rhs: Array) -> Array:
    spec, axes = static
    dims = _channels_last(len(axes))
    return _convolve(spec, lhs, rhs, axes, dims, feature_group_count=spec.groups)


def _in_pairs(static: tuple[Spec, tuple[Pairing, ...]], lhs: Array, rhs: Array) -> Array:
    """The same, with a channel of zeros beside each."""
    lhs, rhs = grow(lhs, lhs.ndim - 1, [(0, 1, 1)]), grow(rhs, rhs.ndim - 2, [(0, 1, 0)])
    return _in_groups(static, lhs, rhs)


def _channels_last(n: int) -> lax.ConvDimensionNumbers:
    last = (0, n + 1, *range(1, n + 1))
    return lax.ConvDimensionNumbers(last, (n + 1, n, *range(n)), last)


def _convolve(
    spec: Spec,
    lhs: Array,
    rhs: Array,
    axes: Sequence[Pairing],
    dims: lax.ConvDimensionNumbers,
    **groups: Any,
) -> Array:
    """The windowed convolution, its spatial axes those of `lhs` behind the first."""
    axes = list(axes)
    lhs, rhs = factors(spec, lhs, rhs)
    if jnp.issubdtype(lhs.dtype, jnp.integer):
        # Of constants XLA computes it while it compiles, and lets no sum of integers wrap around.
        lhs = lax.optimization_barrier(lhs)
    # XLA:CPU would swap the two, and compute that one number at a time.
    is_larger = math.prod(a.rhs for a in axes) > math.prod(a.lhs for a in axes)
    for i, axis in enumerate(axes):
        if not axis.is_safe or (is_larger and axis.rhs > axis.lhs):
            lhs = _explicit(lhs, i + 1, axis)
            axes[i] = axis._replace(lhs=lhs.shape[i + 1], lhs_dilation=1, low=0)
    return lax.conv_general_dilated(
        whole(lhs, dims.lhs_spec[2:]),
        whole(rhs, dims.rhs_spec[2:]),
        window_strides=[a.stride for a in axes],
        padding=[(a.low, a.even_high) for a in axes],
        lhs_dilation=[a.lhs_dilation for a in axes],
        rhs_dilation=[a.rhs_dilation for a in axes],
        dimension_numbers=dims,
        precision=spec.precision,
        preferred_element_type=spec.preferred,
        **groups,
    )


def _explicit(x: Array, at: int, axis: Pairing) -> Array:
    """`x` with the dilation, padding and cropping of one axis carried out."""
    x = grow(x, at, [(max(axis.low, 0), max(axis.high, 0), axis.lhs_dilation - 1)])
    start = max(-axis.low, 0)
    return crop(x, at, [(start, start + axis.out_reach + axis.rhs_reach + 1)])
