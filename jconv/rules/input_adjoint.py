"""The rules of the input's adjoint, which reads the outputs' channels and gives the inputs'."""

import math

from jconv.problem import Problem
from jconv.rules.shared import (
    APART,
    DECIMATED,
    DIRECT,
    GROUPED,
    LONG,
    MOST_PHASES,
    MOST_TERMS,
    OTHER_VOLUMES,
    POINTWISE,
    SIDE_BY_SIDE,
    THIN,
    Rule,
    filled_taps,
    gains_by_folding,
    has_long_rows,
    has_room_for_rows,
    has_thin_groups,
    has_tiles,
    is_long,
    is_small_grouped,
    is_tileable,
    is_unrolled,
    reads_odd_channels,
    shares_no_input,
)


def _has_small_groups(p: Problem) -> bool:
    c, m = p.per_group
    # Phases of 27 taps and 8 channels take twice as long as groups one by one.
    few = p.is_unit_stride or c * m <= 16 or p.taps <= 9
    return is_small_grouped(p) and p.taps * m <= MOST_TERMS and few


def _has_thin_groups(p: Problem) -> bool:
    return has_thin_groups(p) and p.is_unit_stride


def _has_few_channels(p: Problem) -> bool:
    """`kn2row` takes many outputs to few inputs, and long taps: 3 -> 4 channels of 16 taps on
    4x16000 take 1.4 ms, and as they are 0.7.
    """
    pairs = p.inputs * p.outputs
    if not p.is_dense or not p.is_unit_stride or (is_long(p) and pairs > 1):
        return False
    is_many = p.outputs > 4 >= p.inputs
    has_long_taps = p.rank == 1 and pairs > 1 and p.taps * pairs > 100
    return is_unrolled(p) and not is_many and not has_long_taps


def _has_few_phases(p: Problem) -> bool:
    """A stride, of so few channels that all phases go by one loop.

    5x5 taps of stride 2, 2 -> 1 channels on 4x490x490, take 1.4 ms, folded 3.3, 9 of stride 2, 1 ->
    1 on 16x963, 0.05 and as they are 0.11, but 7x7, 2 -> 2 on 16x91x91, 1.1 and folded 0.7, 3x3 of
    stride 3, 1 -> 4 on 4x398x398, 0.47 and by phases 0.25.
    """
    is_few = p.inputs * p.outputs <= 4 and p.taps * p.outputs <= 50
    overlaps = p.is_dense and p.undoes_stride and not shares_no_input(p)
    return is_few and overlaps and p.phases <= MOST_PHASES


def _has_few_inputs(p: Problem) -> bool:
    """3 taps of a column or row that keep an image's size are as fast as they are, of not too many
    positions: 3x1, 3 -> 24 channels, take 0.10 ms on 83x79 and 0.07, 2 -> 24 on 8x130x106 0.6 and
    0.9.
    """
    keeps_size = p.rank == 2 and p.spec.size == p.spec.out
    if keeps_size and p.taps <= 3 and p.outputs > 16 and p.positions < 2**15:
        return False
    # Phases of a stride are inputs, too: 25 taps of stride 2, 4 -> 40 channels on 8x1777, take 0.42
    # ms, and as they are 0.62; 9 of stride 4, 2 -> 64 on 8x3891, 0.47 and 0.38.
    most = 4 if p.rank > 1 else min(max(p.taps, 5), 8)
    return (
        p.is_dense
        and p.inputs <= most
        and p.is_unit_stride
        and p.taps * max(p.inputs, 2) <= 128  # 64 taps, 4 -> 4 channels: 5.4 ms instead of 2.2
    )


def _is_volume(p: Problem) -> bool:
    is_wide = p.is_unit_stride and min(p.inputs, p.outputs) >= 8
    return is_wide and has_room_for_rows(p) and has_long_rows(p)


def _is_tiled(p: Problem) -> bool:
    """42 -> 134 channels on 8x17x17 take 1.0 ms and folded 0.6."""
    return is_tileable(p) and has_tiles(p, fewest=2048 if p.products < 2**27 else 1024)


def _is_folded(p: Problem) -> bool:
    """What 1D serves better; of a stride, where the input is an image.

    To many outputs few taps are less work as they are: 5x5 taps, 3 -> 64 on 4x255x135, take 2.1 ms
    and folded 2.7, but 5x1, 4 -> 64 on 4x135x135, 0.57 and 0.34.
    """
    if p.rank != 2:
        return False
    if p.is_unit_stride:
        return gains_by_folding(p)
    # XLA:CPU has no fast way with zeros in both: 3x3 taps of stride 3 and dilation 2, 186 -> 192
    # channels on 2x40x40, 4.5 ms and 1.7.
    spreads = p.products >= 2**25 and p.every(lambda w: w.stride > 1 and w.dilation > 1)
    most = 64 if p.products < 2**26 else 63
    return spreads or (_is_image(p) and p.outputs > 32 and (p.outputs <= most or p.taps >= 49))


def _is_image(p: Problem) -> bool:
    """Few channels, and a stride of no more than two."""
    return p.inputs <= 4 and p.undoes_stride and p.every(lambda w: w.stride <= 2)


def _has_small_patches(p: Problem) -> bool:
    """A stride, and patches so few or so small beside the output that adding them up is cheap.

    3x3 taps with stride 2, 256 -> 256 channels on 7x10, take 0.14 ms instead of 0.62; 4 taps with
    stride 2, 64 -> 8 on 8x4000, 0.43 and by phases 0.73. What does not fit the caches is written
    once by phases: 384 -> 12 on 8x4000 take 15 ms instead of 27.
    """
    if not p.undoes_stride or p.every(lambda w: w.taps == w.stride):
        return False
    is_small = 8 * p.taps * p.inputs <= p.outputs
    is_few = p.taps <= 9 and p.positions <= max(128, p.outputs)
    is_cached = p.positions * p.taps * p.inputs < 7 * 2**20
    is_short = p.rank == 1 and p.taps <= (8 if p.inputs <= 4 else 5) and is_cached
    # 7 taps of stride 3, 3 -> 8 channels on 4x12848, take 0.33 ms and by phases 0.19; 4 taps,
    # filled up to 6, 2 -> 8 on 8x18356, 0.32 and 0.53.
    is_short = is_short and (3 * filled_taps(p) > 4 * p.taps or p.every(lambda w: w.stride <= 2))
    return is_small or is_few or is_short


def _is_strided(p: Problem) -> bool:
    """A stride whose phases fill up the taps, or nearly so with few channels on one side, or any of
    an image and not many outputs.

    9 taps of stride 4, 3 -> 32 channels on 2000 samples, take 0.08 ms by phases and 0.04 as they
    are; 5x5 taps of stride 2, 128 -> 96 on 16x20x22, filled up to 6x6, 4.8, as they are 4.0, and
    3.2 by each phase; 24 -> 64 on 56x58 0.4 and 0.6; 3x3 of 26 -> 4 on 8x33x35, 0.12 and 0.29. Of
    an image 4x4 of stride 2, 4 -> 4 on 8x96x96, take 0.34 ms, folded 1.3, 3x3, 3 -> 32 on
    8x112x112, 1.2 and 1.5, but 3 -> 64 2.1 and 1.4.
    """
    if not p.undoes_stride or p.products < 2**20:
        return False
    filled = filled_taps(p)
    nearly = 2 * filled <= 3 * p.taps
    if p.rank == 1:
        return filled == p.taps or (nearly and p.outputs < 128)
    is_light = p.positions >= 512 and p.inputs <= 32 and p.outputs <= 64
    is_few = p.outputs <= (32 if _is_image(p) else 16)
    return filled == p.taps or is_few or (nearly and is_light)


def _has_phases(p: Problem) -> bool:
    """A stride whose phases have taps each, too few to fill a convolution of them all.

    More taps than outputs XLA:CPU turns round: 7x7 with stride 3, 64 -> 64 channels on 16x14x16,
    take 1.5 ms by phases and 17 as they are. What widens gains where it is large: 3x3 with stride
    2, 24 -> 32 on 16x56x56, 3.9 and 9.7, 32 -> 64 on 4x112x112 4.5 and 6.2, but on 56x56 0.46 and
    0.37.
    """
    if not (p.undoes_stride and p.every(lambda w: w.taps >= w.stride)):
        return False
    is_large = p.products >= 2**26 and p.outputs < 128
    narrows = p.inputs >= 16 and p.outputs <= (2 if is_large else 1) * p.inputs
    least = 14 if p.taps <= 9 else 8
    is_turned_round = p.rank > 1 and p.taps > math.prod(p.spec.out)
    return is_turned_round or (narrows and p.every(lambda w: w.out >= least))


def _has_few_positions(p: Problem) -> bool:
    """Fewer than channels: 3x3 taps on 7x8 from 512 to 64 take 0.25 ms and 0.19 by patches."""
    return p.is_unit_stride and p.positions <= min(p.inputs, 2 * p.outputs)


def _reads_few(p: Problem) -> bool:
    """Patches of a few outputs, to many inputs: 3x3 taps, 128 -> 4 channels on 4x56x56, take 1.0 ms
    and 1.7 as they are, 5x5, 128 -> 3 on 16x32x32, 2.4 and folded 5.9; 3x3, 48 -> 4 on 2x28x28,
    0.20 and 0.15.
    """
    is_few = p.rank == 2 and p.taps > 1 and p.outputs <= 6 and p.inputs >= 32
    is_plain = p.is_unit_stride and p.reads_no_zeros_between
    return is_few and is_plain and p.positions * p.inputs >= 2**18


def _is_odd(p: Problem) -> bool:
    """3x3 taps, 40 -> 7 channels on 16x56x56, take 17 ms, by patches 4.9 and folded 6.8; parts of
    5x5 with stride 2, 40 -> 33, 4.4 and 7.1.
    """
    return p.is_unit_stride and p.outputs <= 15 and reads_odd_channels(p)


def _is_large(p: Problem) -> bool:
    """An image that leaves the caches, with its outputs, and long enough to be cut.

    7x7 taps of stride 2, 3 -> 64 channels on 2x896x896, take 35 ms with 7 MB of scratch, whole 56
    with 107; 3x3 of stride 2, 128 -> 128 on 2x224x224, 29 and 32.
    """
    image = math.prod(p.spec.size) * p.inputs + math.prod(p.spec.out) * p.outputs
    return p.rank == 2 and p.undoes_stride and p.spec.size[0] >= 64 and image >= 5 * 2**20


def _is_large_folded(p: Problem) -> bool:
    return _is_large(p) and (_is_folded(p) or _is_image(p))


def _has_large_phases(p: Problem) -> bool:
    return _is_large(p) and _has_phases(p)


RULES = (
    Rule("lanes", _has_small_groups, "vector lanes over the groups (depthwise3x3, grouped3x3)"),
    THIN,
    POINTWISE,
    DECIMATED,
    Rule("lanes", _has_few_channels, "few channels: multiply-adds in one loop (filter3x3)"),
    Rule("lanes", _has_few_phases, "few channels: all phases of a stride in one loop (5x5 taps)"),
    Rule("kn2row", _has_few_inputs, "few input channels: products, then shifts (volume_first)"),
    *LONG,
    GROUPED._replace(when=_has_thin_groups),
    APART,
    # From here on all is dense.
    SIDE_BY_SIDE,
    Rule("mixed", _is_volume, "blocks of tiles and patches, 6 products for 12 (volume3x3x3)"),
    OTHER_VOLUMES,
    Rule("patches", _reads_few, "few channels to many: patches of the few (3x3 taps, 128 to 4)"),
    Rule("winograd", _is_tiled, "24 products for 72 or 36 for 100 (cifar_3x3, lenet2_5x5)"),
    Rule("bands", _is_large_folded, "rows of an image beyond the caches (stem7x7s2 on 896x896)"),
    Rule("fold", _is_folded, "rows of taps as channels, on both threads (stem7x7s2)"),
    Rule("patches", _has_small_patches, "one product (10 taps, stride 5, 1 to 512 channels)"),
    Rule("phases", _is_strided, "phases of the stride, no zeros between inputs (stem7x7s2)"),
    Rule("bands", _has_large_phases, "rows of an image beyond the caches (res3x3s2 on 224x224)"),
    Rule("by_phase", _has_phases, "each phase of the stride by its own taps (res3x3s2_56)"),
    Rule("patches", _has_few_positions, "many channels, few positions: one product (res3x3_7)"),
    Rule("patches", _is_odd, "odd channels (3x3 taps, 40 to 7 channels)"),
    DIRECT,
)
