"""What a method is chosen for: one face of one convolution, by its sizes alone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jconv.geometry import Spec, Window, transposed
from jconv.runs import natural

FACES = ("forward", "input_adjoint", "kernel_adjoint")


class Problem(NamedTuple):
    """One face of one convolution: its static part and its sizes."""

    face: str
    spec: Spec
    batch: int
    inputs: int
    outputs: int
    dtype: jnp.dtype

    @property
    def rank(self) -> int:
        return len(self.spec.windows)

    @property
    def taps(self) -> int:
        return math.prod(self.spec.taps)

    @property
    def positions(self) -> int:
        return self.batch * math.prod(self.spec.out)

    @property
    def products(self) -> int:
        """Multiply-adds, of one kernel for all groups."""
        return self.positions * self.taps * self.inputs * self.outputs // self.spec.groups

    @property
    def per_group(self) -> tuple[int, int]:
        """Channels of one group, in and out."""
        return self.inputs // self.spec.groups, self.outputs // self.spec.groups

    @property
    def ends(self) -> tuple[int, int]:
        """Channels of one group that the face reads, and that it gives; a kernel's, as forward."""
        inputs, outputs = self.per_group
        return (outputs, inputs) if self.face == "input_adjoint" else (inputs, outputs)

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Spatial sizes that the face reads, and that it gives; a kernel's, as forward."""
        size, out = self.spec.size, self.spec.out
        return (out, size) if self.face == "input_adjoint" else (size, out)

    @property
    def operands(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """The two arrays that the face takes."""
        spec, n = self.spec, self.batch
        x, y = (n, *spec.size, self.inputs), (n, *spec.out, self.outputs)
        kernel = (*spec.taps, self.inputs // spec.groups, self.outputs)
        faces = {"forward": (x, kernel), "input_adjoint": (y, kernel), "kernel_adjoint": (x, y)}
        a, b = (jax.ShapeDtypeStruct(shape, self.dtype) for shape in faces[self.face])
        return a, b

    @property
    def is_dense(self) -> bool:
        return self.spec.groups == 1

    @property
    def is_real(self) -> bool:
        return jnp.issubdtype(self.dtype, jnp.floating)

    @property
    def is_integer(self) -> bool:
        return jnp.issubdtype(self.dtype, jnp.integer)

    @property
    def reads_no_zeros_between(self) -> bool:
        return self.every(lambda w: w.input_dilation == 1)

    @property
    def is_undilated(self) -> bool:
        return self.reads_no_zeros_between and self.every(lambda w: w.dilation == 1)

    @property
    def is_unit_stride(self) -> bool:
        return self.spec.is_unit_stride

    @property
    def phases(self) -> int:
        """How many outputs side by side are reached by different taps."""
        spec = transposed(self.spec) if self.face == "input_adjoint" else self.spec
        return math.prod(map(natural, spec.windows))

    @property
    def undoes_stride(self) -> bool:
        """Whether it is the input's adjoint of a stride and nothing else."""
        return self.face == "input_adjoint" and self.is_undilated and not self.is_unit_stride

    def every(self, condition: Callable[[Window], bool]) -> bool:
        """Whether the window of every axis meets a condition."""
        return all(map(condition, self.spec.windows))
