"""The rules of the forward face."""

import math

from jconv.methods.patches import in_runs
from jconv.problem import Problem
from jconv.rules.shared import (
    APART,
    DIRECT,
    GROUPED,
    LONG,
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
    has_tiles,
    is_long,
    is_narrow_strided,
    is_small_grouped,
    is_tileable,
    is_unrolled,
    leaves_a_thread,
    reads_odd_channels,
    shares_no_input,
)


def _has_small_groups(p: Problem) -> bool:
    return is_small_grouped(p) and p.taps * p.ends[0] <= MOST_TERMS


def _has_few_channels(p: Problem) -> bool:
    if not p.is_dense or (is_long(p) and p.inputs * p.outputs > 1):
        return False
    return is_unrolled(p) and not (p.inputs >= 8 and _gives_few(p))


def _gives_few(p: Problem) -> bool:
    """3x3 taps, 8 -> 3 channels on 16x79x64, take 0.75 ms, by lanes 1.2 and as they are 2.6; 7
    taps, 16 -> 4 on 2x16000, 0.32, 0.45 and 0.9.

    Volumes need more inputs: 3x3x3, 32 -> 3 on 30x32x34, take 1.0 ms and by blocks of tiles 1.4,
    8 -> 4 on 2x20x24x28 1.0 and 0.4.
    """
    if not (p.is_dense and p.is_unit_stride and p.taps > 1):
        return False
    is_many = p.inputs >= 8 * p.outputs if p.rank > 2 else p.inputs > 4
    is_few = p.outputs <= 4 and p.taps * max(p.outputs, 2) <= 160
    return is_many and is_few and p.products >= 2**22 and not is_long(p)


def _is_apart(p: Problem) -> bool:
    """2x2 taps, 96 -> 192 channels on 8x56x56, take 2.7 ms, and 5.3 as they are; 4x4, 32 -> 16 on
    8x57x57, 0.27 and 0.20. Of volumes all are: 2x2x2 of stride 3, 16 -> 64 on 16x18x18x18, 0.42, by
    blocks of patches 0.62.
    """
    return shares_no_input(p) and (p.rank > 2 or p.products >= 2**25)


def _is_volume(p: Problem) -> bool:
    return has_room_for_rows(p) and has_long_rows(p)


def _is_tiled(p: Problem) -> bool:
    """256 -> 256 channels on 28x28 take 2.5 ms by patches and 1.1."""
    return is_tileable(p) and has_tiles(p, fewest=1024)


def _is_turned(p: Problem) -> bool:
    """Where adding up outputs costs less than copies of the input.

    3x3 taps from 16 to 32 channels on 64x28x28 take 6.7 ms turned and 2.3 folded, 5x5 taps from 8
    to 16 1.4 and 1.7.
    """
    most = p.inputs * (4 if p.taps * p.inputs >= 200 else 2)
    # 5x5 taps of dilation 4, 48 -> 64 on 8x26x26, of which 10x10 remain: 0.78 ms and folded 0.50.
    keeps = math.prod(p.spec.size) < 4 * math.prod(p.spec.out)
    return p.is_unit_stride and keeps and p.outputs < most and leaves_a_thread(p)


def _is_folded(p: Problem) -> bool:
    """What 1D serves better; of a stride, where the copies are cheap.

    3x3 taps of stride 2, 64 -> 64 channels on 8x57x57, take 1.7 ms folded and 2.8 as they are,
    128 -> 48 on 4x45x46 1.0 and 1.2, -> 16 on 8x38x39 0.8 and 0.6; larger copies cost what they
    gain, 3x5, 64 -> 128 on 8x62x62, 5.6 and 4.7, and rows whose windows share no input nothing.
    Where one row is left, 22x1, 8 -> 16 on 16x22x500, take 1.0 ms as they are and folded 1.5.
    """
    if p.rank != 2 or p.spec.out[0] == 1:
        return False
    overlap = p.spec.taps[0] / p.spec.windows[0].stride
    copies = p.batch * math.prod(p.spec.size) * p.inputs * overlap
    last = p.spec.windows[-1]
    is_cheap = copies <= 5 * 2**19 and last.taps != last.stride
    pays = p.is_unit_stride or (p.outputs >= min(p.inputs, 32) and is_cheap)
    return pays and p.reads_no_zeros_between and gains_by_folding(p)


def _has_long_strides(p: Problem) -> bool:
    """A long stride that nearly divides the taps, of few channels or large taps.

    8x8 taps of stride 4, 4 -> 32 channels on 32x84x84, take 1.8 ms by phases and 2.2 folded, 11x11,
    3 -> 64 on 4x224x224, 5.2 and 6.5, 9x9 of 3, 64 -> 64 on 4x56x56, 5.7 and 8.2, but 7x7 of stride
    3 on 8x100x100 1.9 and 1.3, 9x9 of 4, 64 -> 64 on 4x64x64, 6.3 and 6.0.
    """
    is_long = p.every(lambda w: 3 <= w.stride <= w.taps // 2)
    is_worth = p.rank == 2 and (p.inputs <= 8 or p.taps > 64)
    return is_worth and p.is_undilated and is_long and 4 * filled_taps(p) <= 5 * p.taps


def _has_few_positions(p: Problem) -> bool:
    """Fewer than channels: 3x3 taps of stride 2, 512 -> 655 on 4x6x6, take 2.2 ms and by patches
    0.5.
    """
    return p.reads_no_zeros_between and p.positions <= p.inputs and p.outputs >= 128


def _has_few_runs(p: Problem) -> bool:
    """One channel of a signal, to many, and patches that are quickly put together.

    Where the results leave the cache of one processor or another it is a gain to many alone: 25
    taps of stride 4, 1 -> 64 on 8x16384, take 0.45 ms on one, as they are 0.59, and on another 1.9
    and 1.2; 10 of stride 5 to 512 on 4x16000 0.6 and 1.2.
    """
    is_cached = p.positions * p.outputs <= 3 * 2**19 or p.outputs >= 256
    is_small = p.taps <= 32 <= p.outputs and is_cached
    return p.inputs == 1 and p.reads_no_zeros_between and in_runs(p.spec) and is_small


def _gives_many(p: Problem) -> bool:
    """Sums of few terms, and more results than one thread has done soon.

    3x3 taps, 4 -> 128 channels on 4x56x56, take 1.4 ms folded and 2.7, 4 -> 64 0.78 and 0.76, 4 ->
    256 on 2x28x28 0.48 and 0.55; of stride 2 6 -> 256 on 16x32x32 1.0 and 1.6.
    """
    is_light = p.rank == 2 and p.taps * p.inputs < 64 and p.spec.taps[0] > 1
    is_large = p.outputs > 64 and p.positions * p.outputs >= 5 * 2**18
    return is_light and is_large and p.reads_no_zeros_between


def _is_folded_odd(p: Problem) -> bool:
    """2x2 taps, 33 -> 160 channels on 2x9x9, take 0.19 ms folded and 0.12."""
    return p.is_unit_stride and reads_odd_channels(p) and p.positions >= 2 * p.outputs


def _is_strided_odd(p: Problem) -> bool:
    return not p.is_unit_stride and reads_odd_channels(p) and p.positions >= 64


def _is_unpadded(p: Problem) -> bool:
    return (
        p.rank == 2
        and p.reads_no_zeros_between
        and p.every(lambda w: w.low == 0 and w.high <= 0)
        and p.products > 2**29
    )


RULES = (
    Rule("lanes", _has_small_groups, "vector lanes over the groups (depthwise3x3, grouped3x3)"),
    THIN,
    POINTWISE,
    Rule("lanes", _has_few_channels, "few channels: multiply-adds in one loop (filter3x3, rgb3x3)"),
    Rule(
        "kn2row",
        _gives_few,
        "few output channels: products, then shifts (3x3 taps, 8 to 3 channels)",
    ),
    *LONG,
    GROUPED,
    APART,
    # From here on all is dense.
    SIDE_BY_SIDE._replace(when=_is_apart),
    Rule("patches", is_narrow_strided, "a volume's strides (3x3x3 taps of stride 2, 16 to 32)"),
    Rule("mixed", _is_volume, "blocks of tiles and patches, 6 products for 12 (volume3x3x3)"),
    OTHER_VOLUMES,
    Rule("winograd", _is_tiled, "24 products for 72 or 36 for 100 (cifar_3x3, lenet2_5x5)"),
    Rule("phases", _has_long_strides, "long strides (8x8 taps of stride 4, 4 to 32 channels)"),
    Rule("turned", _is_turned, "rows of taps as outputs, on both threads (few16)"),
    Rule("fold", _is_folded, "rows of taps as channels, on both threads (few16)"),
    Rule("patches", _has_few_runs, "a signal's strides, and one product (9 taps to 96)"),
    Rule("patches", _has_few_positions, "many channels, few positions: one product (res3x3_7)"),
    Rule("fold", _gives_many, "few channels to many (3x3 taps, 4 to 128 channels)"),
    Rule("fold", _is_folded_odd, "odd channels (3x3 taps, 3 to 72 channels)"),
    Rule("patches", _is_strided_odd, "the same of a stride (3x3 taps of stride 2, 7 to 40)"),
    Rule(
        "overhang",
        _is_unpadded,
        "XLA:CPU is slow without any padding (5x5 taps of stride 2, 64 to 256 on 16x30x30)",
    ),
    DIRECT,
)
