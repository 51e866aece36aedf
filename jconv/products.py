"""The kernel's gradient of one example as one product, by whichever of four takes the least time.

    of_x        patches of `x`, in rows of positions
    of_y        patches of `y`, likewise
    by_halves   patches of either, along some axes each
    by_columns  patches of `x`, channels last as they lie

A few examples share a batched product of small matrices: how fast that is depends on their shapes,
and on which of its libraries XLA:CPU takes.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.channels import by_group, matmul, transposed_kernel
from jconv.geometry import Spec, Window, transposed
from jconv.methods.patches import kernel_of_each, planar, sharing
from jconv.padding import embed, grow
from jconv.windows import gather_patches

# Outputs from which the product of columns is worth trying: of 96 channels, 3x3 taps in 7x7 take
# 2.8 ms so and 4.9 in rows.
MANY = 96
# Entries copied of an example from which Eigen falls behind: 64 to 128 channels in 20x20 take 13.5
# ms by halves, 13.6 by columns and 11.9 in rows.
MOST = 180_000
# Inputs up to which neighbours share patches, and columns of the product. 4 to 64 channels in 16x16
# take 0.5 ms one by one and 0.6 in pairs.
FEW, WIDE = 3, 128
MOST_SUMMED = 2**15


class Work(NamedTuple):
    """What a product does of one example: entries that it copies, multiply-adds, and in Eigen."""

    copied: int
    products: int
    eigen: bool

    @property
    def time(self) -> float:
        """In copies of an entry. XLA:CPU leaves to Eigen what reads both sides across.

        Eigen is the faster once it runs. Fitted to 64 examples of each of 84 layers: the product
        named takes 2 % longer than the fastest on average, and up to 16 %.
        """
        return self.copied + (self.products / 25 + 30_000 if self.eigen else self.products / 12)


def fastest(spec: Spec, inputs: int, outputs: int) -> tuple[str, int]:
    """A key of `PRODUCTS`, and the entries that it copies of one example."""
    works = _works(spec, inputs, outputs)
    product = min(works, key=lambda name: works[name].time)
    return product, works[product].copied


def _works(spec: Spec, inputs: int, outputs: int) -> dict[str, Work]:
    """Of each product that serves; a result that it turns is copied, too."""
    taps, first = math.prod(spec.taps), spec.windows[0]
    size, out = math.prod(spec.size), math.prod(spec.out)
    kernel = taps * inputs // spec.groups * outputs
    copied = _copied(spec, inputs)
    work = {"of_x": _work_of_x(spec, inputs, outputs)}
    if size <= 2 * out:  # else the product sums over too many positions
        of_y = _work_of_x(transposed(spec), outputs, inputs)
        work["of_y"] = of_y._replace(copied=of_y.copied + kernel)
    if spec.groups == 1 and outputs >= MANY:
        work["by_columns"] = Work(copied, out * kernel, True)
    if spec.groups == first.stride == 1 and first.taps > 1:
        rows = out // first.out * first.extent
        copied = rows * (taps // first.taps * inputs + first.taps * outputs) + kernel
        work["by_halves"] = Work(copied, rows * kernel, True)
    return {name: w for name, w in work.items() if not w.eigen or w.copied <= MOST}


def _work_of_x(spec: Spec, inputs: int, outputs: int) -> Work:
    many = neighbours(spec, inputs, outputs)
    spec = sharing(spec, many)
    products = math.prod((*spec.out, *spec.taps, many, inputs // spec.groups, outputs))
    return Work(_copied(spec, inputs), products, False)


def _copied(spec: Spec, inputs: int) -> int:
    """Entries of `x`, padded or turned, and of its patches."""
    taps = math.prod(spec.taps)
    return (math.prod(spec.size) + (math.prod(spec.out) * taps if taps > 1 else 0)) * inputs


def _of_x(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `x` in rows of positions; of few inputs, one for several neighbouring outputs.

    Neighbours share most of their patches, so that there is less to copy, and the product has more
    columns: 3x3 taps of 3 to 64 channels in 32x32 take 1.9 ms one by one, 1.3 in pairs.
    """
    many = neighbours(spec, x.shape[-1], y.shape[-1])
    shared = sharing(spec, many)
    bands, apart = _bands(shared, x.shape[-1], many * y.shape[-1])
    first, *others = shared.windows
    rows = -(-first.out // bands) * bands
    wider = (replace(first, high=first.high + (rows - first.out) * first.stride), *others)
    # By itself: 16 channels of 14x14 take 0.05 ms so, and 0.14 while they are padded.
    x = jnp.moveaxis(lax.optimization_barrier(jnp.moveaxis(x, -1, 0)), 0, -1)
    patches = planar(wider, spec.groups, x[None], bands, apart)
    positions = patches.shape[-1]
    patches = patches.reshape(spec.groups, first.taps if apart else 1, bands, -1, positions)
    ys = by_group(spec, grow(y, 0, [(0, rows - first.out, 0)]))
    outputs = ys.shape[-1]
    ys = ys.reshape(spec.groups, 1, bands, positions, many * outputs)
    ys = jnp.broadcast_to(ys, (*patches.shape[:3], *ys.shape[3:]))
    z = matmul(spec, patches, ys, ((4,), (3,)), ((0, 1, 2), (0, 1, 2))).sum(2)
    z = z.reshape(spec.groups, *shared.taps, x.shape[-1] // spec.groups, many, outputs)
    k = jnp.moveaxis(kernel_of_each(spec, z), 0, -2)
    return k.reshape(*spec.taps, -1, y.shape[-1])


def _bands(spec: Spec, inputs: int, outputs: int) -> tuple[int, bool]:
    """In how many bands of rows to sum, and whether the taps of the first axis are apart.

    XLA:CPU computes a batch of small products on one thread, but sums of two such on both: 196 by
    144 by 32 of 64 examples take 0.51 ms in one, 0.31 in two bands. It computes sums of more than
    `MOST_SUMMED` entries again and again.
    """
    first, *others = spec.windows
    row = math.prod(w.taps for w in others) * (inputs // spec.groups) * (outputs // spec.groups)
    if first.out < 2 or 2 * row > MOST_SUMMED:
        return 1, False
    return 2, 2 * first.taps * row > MOST_SUMMED


def neighbours(spec: Spec, inputs: int, outputs: int) -> int:
    """How many of a row share a patch, for up to a third more multiply-adds."""
    w = spec.windows[-1]
    if inputs > FEW or w.dilation > 1:
        return 1
    most = min(w.taps // (3 * w.stride) + 1, WIDE * spec.groups // outputs)
    return max((d for d in range(1, most + 1) if w.out % d == 0), default=1)


def _of_y(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `y`: the same of the transposed convolution, whose kernel is the transposed."""
    return transposed_kernel(_of_x(transposed(spec), y, x), spec.groups)


def _by_halves(spec: Spec, x: Array, y: Array) -> Array:
    """The taps of the first axis as shifted copies of `y`, the others as patches of `x`.

    k[(i, j), c, m] = sum_(o, p) x[o, p + j, c] y[o - i, p, m]

    Of `t` taps an axis, each is copied `t` times, where patches of `x` alone are `t**n` copies.
    """
    first, *others = spec.padded().windows
    of_x = (replace(first, taps=1), *others)
    of_y = (
        replace(first, size=first.out + 2 * first.reach),
        *(Window(w.out, 1) for w in others),
    )
    positions = first.extent * math.prod(w.out for w in others)
    x = gather_patches(of_x, embed(x, spec.windows)).reshape(positions, -1)
    y = gather_patches(of_y, grow(y, 0, [(first.reach, first.reach, 0)])).reshape(positions, -1)
    x, y = lax.optimization_barrier((x, y))
    k = matmul(spec, x, y, ((0,), (0,)))
    k = k.reshape(*spec.taps[1:], -1, first.taps, y.shape[-1] // first.taps)
    return lax.rev(jnp.moveaxis(k, -2, 0), (0,))


def _by_columns(spec: Spec, x: Array, y: Array) -> Array:
    """Patches of `x` and `y` as they lie: 1x1 taps of 64 to 256 channels take half as long."""
    x = lax.optimization_barrier(embed(x, spec.windows))
    patches = lax.optimization_barrier(gather_patches(spec.padded().windows, x))
    positions = math.prod(spec.out)
    x, y = patches.reshape(positions, -1), y.reshape(positions, -1)
    return matmul(spec, x, y, ((0,), (0,))).reshape(*spec.taps, -1, y.shape[-1])


PRODUCTS = {"of_x": _of_x, "of_y": _of_y, "by_halves": _by_halves, "by_columns": _by_columns}
