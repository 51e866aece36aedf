"""One convolution as several smaller ones, or as another's adjoint.

    apart       the groups, one by one
    bands       a few rows of one image after the other
    by_phase    each phase of the stride, by the taps that meet it
    turned      the forward face, or the kernel's adjoint, by the transposed convolution

A division takes `(face, spec, compute, a, b)`; `compute(face, spec, a, b)` is a face of a part.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import jax.numpy as jnp
from jax import Array, lax

from jconv.blocks import map_blocks, reader, split
from jconv.channels import groups_first, transposed_kernel
from jconv.geometry import Spec, Window, transposed
from jconv.rewrites import phases


def apart(face: str, spec: Spec, compute: Callable, a: Array, b: Array) -> Array:
    """One dense convolution after the other, a group each."""
    each = partial(compute, face, dataclasses.replace(spec, groups=1))
    operands = groups_first(spec, a), groups_first(spec, b)
    parts = lax.map(lambda pair: each(*pair), operands)
    joined = jnp.moveaxis(parts, 0, -2)
    return joined.reshape(*joined.shape[:-2], -1)


def bands(face: str, spec: Spec, compute: Callable, y: Array, k: Array) -> Array:
    """The input's adjoint, a few rows at a time of images too large to rearrange at once.

    With stride `s` and padding `low`, inputs from `s*q` on are reached by outputs from
    `q - (reach - low) // s` on.
    """
    first, *others = spec.windows
    s, (x_row, y_row) = first.stride, (math.prod(sizes[1:]) for sizes in (spec.size, spec.out))
    entries = s * x_row * k.shape[-2] * spec.groups + y_row * k.shape[-1]
    blocks = split(len(y), -(-first.size // s), entries * y.dtype.itemsize)
    inputs, before = s * blocks.rows, (first.reach - first.low) // s
    outputs = (inputs - 1 + first.low) // s + before + 1
    high = (blocks.row_blocks - 1) * blocks.rows + outputs - before - first.out
    grown = Window(first.out, outputs, low=before, high=high)
    low = first.low + s * before
    high = (outputs - 1) * s + first.reach + 1 - low - inputs
    part = dataclasses.replace(first, size=inputs, low=low, high=high)
    read = reader(blocks, y, (grown, *(Window(n, 1) for n in spec.out[1:])), 1, outputs)
    each = partial(compute, face, dataclasses.replace(spec, windows=(part, *others)))
    return map_blocks(blocks, lambda step: each(read(step), k), first.size)


def by_phase(face: str, spec: Spec, compute: Callable, y: Array, k: Array) -> Array:
    """The input's adjoint of a stride, each phase of the input by the taps that meet it.

    `x[s*q + r] = sum_u y[q - u] k[s*u + r]`: no zeros between outputs, none among the taps.
    """
    rewrite = phases(spec)
    strides = [w.stride for w in spec.windows]
    parts = []
    for r in product(*map(range, strides)):
        taps = k[tuple(slice(first, None, s) for first, s in zip(r, strides, strict=True))]
        parts.append(compute(face, _one_phase(rewrite.spec, taps.shape), y, taps))
    return rewrite.to_x.adjoint(jnp.concatenate(parts, -1))


def turned(face: str, spec: Spec, compute: Callable, x: Array, b: Array) -> Array:
    """A face by the transposed convolution, whose inputs are the outputs.

    Forward is its input adjoint: rows of taps become outputs, added up, not copies of the input
    (Vasudevan, Anderson, Gregg (2017), section 3, of one axis). The kernel's adjoint is that of the
    other turned back, by patches of `y`.
    """
    other = transposed(spec)
    if face == "forward":
        return compute("input_adjoint", other, x, transposed_kernel(b, spec.groups))
    return transposed_kernel(compute("kernel_adjoint", other, b, x), spec.groups)


def _one_phase(spec: Spec, taps: Sequence[int]) -> Spec:
    windows = [
        dataclasses.replace(w, taps=n, high=w.high + n - w.taps)
        for w, n in zip(spec.windows, taps, strict=False)
    ]
    return dataclasses.replace(spec, windows=tuple(windows))


DIVISIONS = {"apart": apart, "bands": bands, "by_phase": by_phase, "turned": turned}
