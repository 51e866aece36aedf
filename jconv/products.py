"""The kernel's gradient of one example as one product, by whichever of four takes the least time.

    of_x        patches of `x`, in rows of positions
    of_y        patches of `y`, likewise
    by_columns  patches of `x`, channels last as they lie
    turned      the same, and `y` in rows of positions

A few examples share a batched product of small matrices: how fast that is depends on their shapes,
and on which of its libraries XLA:CPU takes.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.channels import by_group, matmul, transposed_kernel
from jconv.geometry import Spec, transposed
from jconv.methods.patches import kernel_of_each, planar, sharing
from jconv.padding import embed, grow
from jconv.windows import gather_patches

# Outputs from which the product of columns is worth trying: of 96 channels, 3x3 taps in 7x7 take
# 2.8 ms so and 4.9 in rows.
MANY = 96
# Outputs up to which it is worth turning them and, back, the kernel: 4 outputs of 32 channels, 3x3
# taps of stride 3 in 40x40, take 1.1 ms so and 2.2 in rows of `x`.
TURNED = 24
# Outputs side by side that may share a patch.
SHARED = 4
# Entries that XLA:CPU sums at once: of more, it computes products again and again.
SUMMED = 2**15
# Multiply-adds of an example that are worth a second thread: 5x5 taps of 6 to 16 channels in 14x14
# take 0.32 ms on one and 0.43 on two; and the positions and the columns that two bands take: 7 taps
# of 24 to 256 channels in 8 take 0.27 and 0.89, 8 taps of 1 to 400 in 500, stride 4, 0.41 and 1.50.
LEAST, FEW, WIDE = 400_000, 32, 256
# The share of a product's time from which two bands are tried: 3x3 taps of dilation 2, 32 channels
# in 20x20, of which one thread has 0.89, take 3.0 ms in one and 2.1 in two, but 5x5 taps of 32 to
# 64 channels in 14x14, of which it has 0.64, 5.4 and 5.7, and 2x2 taps of 8 to 160 channels in
# 20x20, whose 19 rows of outputs become 20, 1.9 and 2.6.
QUICKER = 0.9


class Work(NamedTuple):
    """What a product copies of one example, in entries, and its time, in copies of an entry.

    The times are fitted to 64 examples of each of 118 layers, by every product that serves.
    """

    copied: int
    time: float


def fastest(spec: Spec, inputs: int, outputs: int) -> tuple[str, int]:
    """A key of `PRODUCTS`, and the entries that it copies of one example."""
    works = _works(spec, inputs, outputs)
    product = min(works, key=lambda name: works[name].time)
    return product, works[product].copied


def _works(spec: Spec, inputs: int, outputs: int) -> dict[str, Work]:
    """Of each product that serves; a result that it turns is copied, too."""
    kernel = math.prod(spec.taps) * inputs // spec.groups * outputs
    out, copied = math.prod(spec.out), _copied(spec, inputs)
    works = {"of_x": _work_of_x(spec, inputs, outputs)}
    if math.prod(spec.size) <= 2 * out:  # else the product sums over too many positions
        of_y = _work_of_x(transposed(spec), outputs, inputs)
        works["of_y"] = Work(of_y.copied + kernel, of_y.time + kernel)
    elif _is_turned(spec, inputs, outputs):
        works["turned"] = Work(copied + kernel, copied / 2 + out * kernel / 10 + kernel / 10)
    if spec.groups == 1 and outputs >= MANY:
        # XLA:CPU leaves to Eigen what reads both sides across.
        filled = kernel // outputs * _filled(outputs)
        works["by_columns"] = Work(copied, copied + out * filled / 17 + 12_000)
    return works


def _is_turned(spec: Spec, inputs: int, outputs: int) -> bool:
    """Whether `x` is worth copying as it lies: few outputs of many inputs, not of few positions."""
    is_wide = spec.groups == 1 and math.prod(spec.taps) > 1 and inputs >= 2 * outputs
    return is_wide and outputs <= min(TURNED, 2 * math.prod(spec.out))


def _work_of_x(spec: Spec, inputs: int, outputs: int) -> Work:
    return _work_of_shared(spec, inputs, outputs, neighbours(spec, inputs, outputs))


def _work_of_shared(spec: Spec, inputs: int, outputs: int, many: int) -> Work:
    """Neighbours add up kernels of their own, as large as all that they see."""
    spec = sharing(spec, many)
    rows, columns = math.prod(spec.taps) * inputs // spec.groups, many * outputs // spec.groups
    filled = rows * _filled(columns) * spec.groups
    added = rows * columns * spec.groups if many > 1 else 0
    bands, _ = _bands_and_parts(spec, inputs, many * outputs)
    product = _time(spec, rows, columns, bands) * spec.groups
    copied = _copied(spec, inputs)
    return Work(copied, copied + added + product + filled / 10)


def _time(spec: Spec, rows: int, columns: int, bands: int) -> float:
    """Of a product of one group. Where bands need one more row of outputs `y` is copied for it.

    Of several groups it is copied anyway.
    """
    first, *others = spec.out
    filled = rows * _filled(columns) * math.prod(others)
    if bands == 1:
        return first * filled * _of_one_thread(rows, columns, math.prod(spec.out)) / 14
    more = -first % bands
    copied = more * math.prod(spec.out) * columns if spec.groups == 1 else 0
    return (first + more) * filled / 24 + copied


def _filled(columns: int) -> float:
    """Columns of whole vectors that take the time of so many.

    Of 64 positions and 144 rows 16 take 0.14 ms, 10 take 0.17, 8 take 0.11 and 4 take 0.08.
    """
    if columns in (2, 4, 8):
        return 8 + columns / 2
    return columns if columns % 16 == 0 else 1.1 * (columns + -columns % 16)


def _of_one_thread(rows: int, columns: int, positions: int) -> float:
    """The share of a product that XLA:CPU leaves to the busier of two threads.

    It cuts the rows, alike for all of a batch, into pieces that are worth a thread each.
    """
    piece, side = min(rows, 64), min(columns, 128)
    while piece < rows and max((piece + side) * min(positions, 2**10), piece * side) < 2**16:
        piece *= 2
    count, rest = divmod(rows, piece)
    return (-(-count // 2) * piece + (0 if count % 2 else rest)) / rows


def _copied(spec: Spec, inputs: int) -> int:
    """Entries of `x`, padded or turned, and of its patches."""
    taps = math.prod(spec.taps)
    extent = math.prod(w.extent for w in spec.windows)
    return (extent + (math.prod(spec.out) * taps if taps > 1 else 0)) * inputs


def _of_x(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `x` in rows of positions, one for several neighbouring outputs, in two bands.

    XLA:CPU computes a batch of small products on one thread, but sums of two on both: of 64
    examples, 196 by 144 by 32 take 0.51 ms in one and 0.31 in two bands of rows.
    """
    many = neighbours(spec, x.shape[-1], y.shape[-1])
    shared = sharing(spec, many)
    bands, parts = _bands_and_parts(shared, x.shape[-1], many * y.shape[-1])
    first, *others = shared.windows
    more = -first.out % bands
    # Turned before it is padded: 16 channels of 14x14 take 0.05 ms so, and 0.14 at once.
    x = jnp.moveaxis(lax.optimization_barrier(jnp.moveaxis(x, -1, 0)), 0, -1)
    windows = (replace(first, high=first.high + more * first.stride), *others)
    patches = planar(windows, spec.groups, x[None], bands, taps_first=parts > 1)
    positions = patches.shape[-1]
    patches = patches.reshape(spec.groups, parts, bands, -1, positions)
    outputs = y.shape[-1] // spec.groups
    ys = by_group(spec, y).reshape(spec.groups, first.out, -1, many * outputs)
    ys = grow(ys, 1, [(0, more, 0)]).reshape(spec.groups, 1, bands, positions, -1)
    ys = jnp.broadcast_to(ys, (*patches.shape[:3], *ys.shape[3:]))
    z = matmul(spec, patches, ys, ((4,), (3,)), ((0, 1, 2), (0, 1, 2))).sum(2)
    z = z.reshape(spec.groups, *shared.taps, x.shape[-1] // spec.groups, many, outputs)
    k = jnp.moveaxis(kernel_of_each(spec, z), 0, -2)
    return k.reshape(*spec.taps, -1, y.shape[-1])


def neighbours(spec: Spec, inputs: int, outputs: int) -> int:
    """How many of a row share a patch: there is less to copy, and more to multiply.

    None where a group has one output: 64 depthwise kernels of 3x3 taps in 14x14 take 1.3 ms by
    vectors and 2.1 in pairs.
    """
    w = spec.windows[-1]
    if w.dilation > 1 or outputs == spec.groups:
        return 1
    counts = [count for count in range(SHARED, 0, -1) if w.out % count == 0]
    return min(counts, key=lambda many: _work_of_shared(spec, inputs, outputs, many).time)


def _bands_and_parts(spec: Spec, inputs: int, outputs: int) -> tuple[int, int]:
    """Bands of rows of outputs, and parts of the kernel, such that a sum has `SUMMED` entries."""
    first, positions = spec.windows[0], math.prod(spec.out)
    rows, columns = math.prod(spec.taps) * (inputs // spec.groups), outputs // spec.groups
    is_worth = positions * rows * columns * spec.groups >= LEAST and first.out > 1
    fits = positions >= FEW and columns <= WIDE
    one, two = (_time(spec, rows, columns, bands) for bands in (1, 2))
    if is_worth and fits and two < QUICKER * one:
        for parts in (1, first.taps):
            if 2 * rows * columns <= parts * SUMMED:
                return 2, parts
    return 1, 1


def _of_y(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `y`: the same of the transposed convolution, whose kernel is the transposed."""
    return transposed_kernel(_of_x(transposed(spec), y, x), spec.groups)


def _by_columns(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `x` and `y` as they lie: 1x1 taps of 64 to 256 channels take half as long."""
    x, y = _columns(spec, x, y)
    return matmul(spec, x, y, ((0,), (0,))).reshape(*spec.taps, -1, y.shape[-1])


def _turned(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `x` as they lie, from the right of what is turned: rows as long as patches."""
    x, y = _columns(spec, x, y)
    k = lax.optimization_barrier(matmul(spec, lax.optimization_barrier(y.T), x, ((1,), (0,))))
    return k.T.reshape(*spec.taps, -1, y.shape[-1])


def _columns(spec: Spec, x: Array, y: Array) -> tuple[Array, Array]:
    """Patches of `x`, and `y`, a row for each position."""
    x = lax.optimization_barrier(embed(x, spec.windows))
    patches = lax.optimization_barrier(gather_patches(spec.padded().windows, x))
    positions = math.prod(spec.out)
    return patches.reshape(positions, -1), y.reshape(positions, -1)


PRODUCTS = {"of_x": _of_x, "of_y": _of_y, "by_columns": _by_columns, "turned": _turned}
