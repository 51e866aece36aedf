"""Which method serves which face, on which platform, and why.

The rules are tables of (method, condition, reason), tried in order. Every reason cites what was measured with
`python -m experiments.compare_layers` on the layers named; a rewrite is followed by the method of what it
leads to.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jconv.geometry import Spec
from jconv.rewrites import frame_length


class Problem(NamedTuple):
    """One convolution: its static part and its sizes."""

    spec: Spec
    batch: int
    inputs: int
    outputs: int
    dtype: jnp.dtype

    @property
    def taps(self) -> int:
        return math.prod(self.spec.taps)

    @property
    def positions(self) -> int:
        return self.batch * math.prod(self.spec.out)

    @property
    def per_group(self) -> tuple[int, int]:
        """Channels of one group, in and out."""
        return self.inputs // self.spec.groups, self.outputs // self.spec.groups

    def all(self, condition: Callable) -> bool:
        """Whether every axis' window meets a condition."""
        return all(map(condition, self.spec.windows))

    @property
    def is_real(self) -> bool:
        return jnp.issubdtype(self.dtype, jnp.floating)

    @property
    def is_undilated(self) -> bool:
        return self.all(lambda w: w.dilation == w.input_dilation == 1)

    @property
    def is_unit_stride(self) -> bool:
        return self.all(lambda w: w.stride == w.input_dilation == 1)


class Rule(NamedTuple):
    """A method, when it is taken, and the measurement that says so."""

    method: str
    when: Callable[[str, Problem], bool]
    why: str


def _is_pointwise(face: str, p: Problem) -> bool:
    return p.taps == 1 and p.spec.groups == 1


def _has_small_groups(face: str, p: Problem) -> bool:
    """Few enough multiply-adds an output that no matrix product helps, few enough views to compile."""
    c, m = p.per_group
    unrolled = p.taps * c if face == "forward" else p.taps * m
    return p.spec.groups > 1 and p.spec.groups * 4 >= c * m and c * m <= 64 and (
        face == "kernel_adjoint" and p.spec.windows[-1].taps * c <= 64 or face != "kernel_adjoint" and unrolled <= 256
    )


def _is_strided(p: Problem) -> bool:
    return p.is_undilated and not p.is_unit_stride


def _has_one_input(face: str, p: Problem) -> bool:
    return p.inputs == 1 and p.taps <= 64 and p.outputs >= 8


def _is_long(face: str, p: Problem) -> bool:
    c, m = p.per_group
    return (
        p.is_real
        and p.is_unit_stride
        and len(p.spec.windows) == 1
        and p.taps >= 64 * max(1, min(c * m // 4, 16))
    )


def _is_tiled(face: str, p: Problem) -> bool:
    """Winograd's tiles: enough of them that transforming the kernel does not count."""
    return (
        p.is_real
        and p.spec.groups == 1
        and p.spec.taps == (3, 3)
        and p.is_unit_stride
        and min(p.inputs, p.outputs) >= 16
        and p.positions >= 4 * max(p.inputs, p.outputs)
    )


CPU = (
    Rule("patches", _is_pointwise, "one matrix product (res1x1_14)"),
    Rule(
        "lanes",
        lambda face, p: _has_small_groups(face, p) and (p.is_unit_stride or face != "input_adjoint"),
        "vector lanes over the groups (depthwise3x3, grouped3x3)",
    ),
    Rule(
        "lanes",
        lambda face, p: face == "forward" and _has_one_input(face, p) and p.all(lambda w: w.input_dilation == 1),
        "one input channel: multiply-adds in one loop (volume_first, mnist1_5x5)",
    ),
    Rule(
        "kn2row",
        lambda face, p: face == "input_adjoint" and p.inputs <= 4 and p.spec.groups == 1 and p.is_unit_stride and p.taps <= 64,
        "few input channels: all taps in one product, then shifted sums (volume_first)",
    ),
    Rule(
        "frames",
        lambda face, p: _is_long(face, p) and p.spec.windows[0].extent > 2 * frame_length(p.spec.windows[0]),
        "a long signal in overlapping frames (long1d_k1024)",
    ),
    Rule("fourier", _is_long, "long taps: products over frequencies (long1d_k1024)"),
    Rule(
        "fold",
        lambda face, p: len(p.spec.windows) > 2 and not (face == "kernel_adjoint" and p.inputs == 1),
        "taps of the first axis as channels of a convolution of one rank less (volume3x3x3)",
    ),
    Rule(
        "phases",
        lambda face, p: face == "input_adjoint" and _is_strided(p),
        "phases of the stride as channels, not zeros between the inputs (stem7x7s2)",
    ),
    Rule(
        "interleave",
        lambda face, p: p.is_unit_stride and p.all(lambda w: w.dilation > 1) and _is_tiled(face, p),
        "phases of the dilation as examples (dilated3x3)",
    ),
    Rule(
        "winograd",
        lambda face, p: p.is_undilated and _is_tiled(face, p),
        "16 products a tile instead of 36 (cifar_3x3, res3x3_56)",
    ),
    Rule(
        "patches",
        lambda face, p: face == "kernel_adjoint" and p.spec.groups == 1,
        "patches with positions last and one product, in blocks (lenet2_5x5)",
    ),
    Rule("direct", lambda face, p: True, "XLA's windowed convolution"),
)

ACCELERATOR = (
    Rule("fold", lambda face, p: len(p.spec.windows) > 3, "XLA has no windows of rank 4 there"),
    Rule("direct", lambda face, p: True, "the vendor's convolution"),
)

FACES = ("forward", "input_adjoint", "kernel_adjoint")


def choose(face: str, problem: Problem, platform: str) -> Rule:
    """The first rule that applies."""
    rules = CPU if platform == "cpu" else ACCELERATOR
    return next(rule for rule in rules if rule.when(face, problem))
