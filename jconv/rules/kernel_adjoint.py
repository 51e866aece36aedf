"""The rules of the kernel's adjoint."""

import math

from jconv.methods.patches import BRIEF
from jconv.problem import Problem
from jconv.rules.shared import (
    APART,
    DECIMATED,
    DIRECT,
    GROUPED,
    LONG,
    OTHER_VOLUMES,
    POINTWISE,
    SIDE_BY_SIDE,
    Rule,
    filled_taps,
    has_lines,
    has_room_for_rows,
    is_long,
    is_narrow_strided,
    is_small_grouped,
    is_tileable,
    shares_no_input,
)

# Outputs of an axis up to which the window of a whole image does no harm.
SMALL = 16
# Entries that folding one image makes of it.
MOST_COPIES = 2**22


def _has_small_groups(p: Problem) -> bool:
    """64 groups of 8 to 8 channels take as long by patches."""
    c, m = p.per_group
    fills = c * m <= min(4 * p.spec.groups, 64 if c == 1 else 32)
    return is_small_grouped(p) and fills and p.reads_no_zeros_between


def _has_groups(p: Problem) -> bool:
    """2 groups of 32 channels, 3x3 taps on 16x14x14, take 0.64 ms and 0.85 one by one, 4 of 64 to
    128 with stride 2 on 36x36 0.8 and 1.7; of 2 of 64 on 56x56 tiles gain more, 2.1 and 1.5.
    """
    gains = min(p.per_group) < 48 or (max(p.per_group) <= 128 and not p.is_unit_stride)
    return not p.is_dense and gains and p.reads_no_zeros_between


def _is_pair(p: Problem) -> bool:
    """1x1 taps of two numbers in all: 2 -> 1 channels on 8x17350 take 0.60 ms as a product and
    0.12.
    """
    return p.is_dense and p.taps == 1 and p.inputs * p.outputs == 2


def _narrows_strided(p: Problem) -> bool:
    """From many to a few channels with a stride, or from few to not many more: by phases.

    5x5 taps of stride 2, 32 -> 1 channels on 4x66x66, take 1.5 ms by patches and 0.19; 9 of stride
    2, 128 -> 3 on 4x4417, 2.2 and 0.41; 8x8 of stride 4, 1 -> 1 on 4x256x256, 0.55 and 0.30, but
    5x5 of stride 2, 1 -> 2, 0.59 and 0.96, 3x3 of 2x1, 3 -> 4, 0.47 and 0.61. Of more channels the
    taps that fill up phases cost too much: 4x4 of stride 2, 96 -> 16 on 8x69x69, 3.2 and 8.2, and
    of few positions turning the kernel back: 3x3 of stride 2, 128 -> 4 on 26x26, 0.09 and 0.11.
    """
    strides = [w.stride for w in p.spec.windows]
    is_few = p.outputs < 2 * p.inputs and min(strides) > 1
    return (
        p.is_dense
        and p.rank <= 2
        and p.is_undilated
        and not p.is_unit_stride
        and p.every(lambda w: w.taps >= w.stride)
        and p.outputs <= 4
        and (p.inputs >= 8 or is_few)
        and p.positions >= 2 * p.inputs * math.prod(strides)
    )


def _has_one_input(p: Problem) -> bool:
    """One channel, and outputs so few that no matrix product helps.

    One product serves several outputs: 11x11 taps to 4 channels take 0.8 ms, by lanes 2. In 1D
    XLA's own is fast: 16 taps, 1 -> 4 channels on 4x16000, take 0.28 ms and 0.20. Dilated outputs
    share no patch: 3x3, 1 -> 2 on 595x595, take 2.2 ms by patches and 0.54.
    """
    if not p.is_dense or p.inputs != 1 or is_long(p):
        return False
    few = p.outputs <= (1 if p.is_undilated else 2) and (p.rank > 1 or p.taps <= 8)
    is_long_tapped = p.rank == 1 and p.outputs <= 4 and p.taps > 64
    is_bare = few and not _is_few_to_few(p)
    return p.spec.out[-1] >= 64 and p.reads_no_zeros_between and (is_bare or is_long_tapped)


def _narrows(p: Problem) -> bool:
    """From many to few channels: patches of the outputs are the smaller.

    5x5 taps, 32 -> 4 channels on 2x13x25, take 0.32 ms as they are and 0.08 turned, 3 taps, 192 ->
    12 on 2x1000, 1.1 and 0.4. Of few positions turning the kernel back takes too long: 512 -> 64 on
    2x6x8 1.3 ms turned and 0.3. Winograd's tiles gain less: 3x3 taps, 64 -> 32 on 16x17x23, take
    1.9 ms turned and 1.2, 256 -> 64 on 8x13x16 1.8 and 2.8.
    """
    tiles = _is_tiled(p) and not _is_half_tiled(p)
    return (
        p.is_unit_stride
        and p.inputs >= (4 if tiles else 2) * p.outputs
        and p.positions >= 2 * p.inputs
        and math.prod(p.spec.size) <= 2 * math.prod(p.spec.out)
        and not _is_light(p)
    )


def _has_few_rows(p: Problem) -> bool:
    """Inputs so few that what all taps see of them makes one small matrix.

    In 1D one that is small indeed, or is read by many outputs: 16 taps of stride 8, 4 -> 32
    channels, take 0.36 ms on 64x1000 and XLA's own 0.17, on 4000 samples 0.05 and 0.12. Or of few
    examples with a stride: 15 taps of stride 2, 3 -> 8 on 16000, take 0.15 and 0.60; of one
    channel those that stay in a cache: 3 of stride 2 to 49 on 8x12468 0.31 and 1.6, but 64 of
    stride 16 0.32 and 0.22, 25 of stride 4 to 32 on 8x20596 1.9 and 1.4.
    """
    if p.inputs > 4 or not 1 < p.taps <= 64:
        return False
    if p.rank > 1:
        return not _is_few_to_few(p)
    is_small = p.positions <= 2048 or (p.is_unit_stride and p.taps * p.inputs <= 8)
    stride = p.spec.windows[0].stride
    is_cached = p.positions * p.taps < 2**19
    is_few = p.batch <= 2 or (p.inputs == 1 and stride <= 4 and is_cached)
    is_strided = p.is_undilated and stride > 1 and is_few
    return is_small or is_strided or (p.outputs >= 64 and p.taps < 64)


def _is_few_to_few(p: Problem) -> bool:
    """Too few outputs for that, too: 3x3 taps, 4 -> 4 channels on 16x64x65: 0.58 and 0.42 ms.

    Of one or two images they are not: 2 -> 6 on 1x151x275 take 0.30, and 1.0 as they are. Small
    filters of one are, whose rows have no padding: 3x3 on 245x245 take 0.16 by lanes and 0.10.
    """
    last = p.spec.windows[-1]
    is_large = p.rank == 2 and p.is_unit_stride and p.positions >= 2**15
    is_bare = last.low == 0 and last.high <= 0 and p.taps <= 10
    is_filter = is_bare and p.batch == p.inputs == p.outputs == 1
    is_few = p.batch > 2 and 1 < p.inputs <= 4 and p.outputs <= 8
    return is_large and (is_few or is_filter)


def _is_light(p: Problem) -> bool:
    """Small images, several of them, whose products go fast as they are; of many taps few.

    3x3 taps, 96 -> 8 channels on 8x16x16, take 0.62 ms by half tiles and 0.46 as they are; 5x5,
    32 -> 64 on 14x14, 0.21 by patches and 0.12, 32 -> 32 on 8x8 0.06 and 0.04, but 7x7, 48 -> 40 on
    16x7x7, 0.38 and 0.51. Dilated it goes by patches: 2x2 of dilation 3, 48 -> 27 on 64x8x8, 0.42
    and 0.22.
    """
    is_small = p.rank == 2 and p.is_undilated and p.every(lambda w: w.out <= SMALL)
    if not is_small:
        return _is_few_to_few(p)
    if min(p.inputs, p.outputs) >= 64:
        return False
    if p.taps <= 16:
        return p.batch >= 8 and p.products < 2**26
    return p.outputs >= 24 and p.products <= 12 * 10**6


def _is_brief(p: Problem) -> bool:
    """So few positions that patches cost less than turning back a kernel's phases.

    4x4 taps of stride 4, 512 -> 384 channels on 8x9, take 1.1 ms by phases and 0.24, but 197 -> 32
    of stride 2 on 2x14x8 0.04 and 0.09.
    """
    is_wide = p.rank > 1 and p.outputs >= 64
    return is_wide and shares_no_input(p) and p.positions < BRIEF


def _is_half_tiled(p: Problem) -> bool:
    """3 to 5 rows, of 3x3 those of few channels or positions: Winograd along one axis.

    3x2 taps, 32 -> 16 channels on 8x64x67, take 1.1 ms instead of 2.5. Of few positions 4 rows gain
    as well, 4x4 taps, 64 -> 48 on 2x6x6, 0.11 and 0.22, and what narrows: 7x7, 128 -> 12 on 11x11,
    0.15, by patches 0.20 and folded 0.23.
    """
    if not (p.is_real and p.rank == 2 and p.is_unit_stride and p.is_undilated):
        return False
    least, most = sorted((p.inputs, p.outputs))
    if p.spec.taps != (3, 3):
        rows = p.spec.taps[0]
        if p.positions >= 1024:
            fits = rows in (3, 4) or (rows == 5 and not _widens(p))
        else:
            fits = (rows == 4 and p.positions < 256) or (rows > 4 and p.inputs > p.outputs)
        return p.inputs >= 8 and p.positions >= 32 and fits
    # 256 -> 256 on 14x14 take 0.5 ms instead of 0.7, 64 -> 256 on 37x37 0.87 instead of 1.2; larger
    # kernels' tiles leave no room in 32 MiB.
    widens = p.outputs >= max(p.inputs, 96)
    fewest = 1536 if widens else min(_fewest_tiled(p), 1024)
    is_short = p.positions < fewest and least * most <= 2**18
    is_thin = least < 32 and least * most >= 144
    return least >= 8 and (is_thin or (least <= 3 * p.positions and is_short))


def _widens(p: Problem) -> bool:
    """Few inputs to many outputs, which alone keep both threads of XLA:CPU's own busy.

    5x5 taps, 16 -> 128 channels on 8x28x29, take 2.4 ms by half tiles and 1.8 folded.
    """
    return p.outputs >= 8 * p.inputs


def _is_tiled(p: Problem) -> bool:
    """Winograd's tiles, of enough positions that transforming the result back does not count.

    In 1D 64 -> 64 channels on 4096 samples take 0.42 ms and 1.0 as they are, 96 -> 192 on 2500 0.57
    and 0.89, but 40 -> 256 on 4x1539 1.6 and 1.3.
    """
    least, most = sorted((p.inputs, p.outputs))
    if not is_tileable(p) or least < 16:
        return False
    if p.rank == 1:
        is_wide = least >= 48 and most < 4 * least
        return has_lines(p, fewest=2**23 if is_wide else 2**27)
    return p.spec.taps == (3, 3) and p.positions >= _fewest_tiled(p)


def _widens_in_tiles(p: Problem) -> bool:
    """Turned, a product of few rows and columns comes in pieces, on both threads: 3x3 taps, 32 ->
    64 channels on 64x26x26, take 16 ms and 9.8, 48 -> 64 on 32x14x14 4.2 and 2.9, 64 -> 128 9.2
    and 9.4. What it is turned to has as many tiles, and so is not turned back.
    """
    is_small = p.outputs > p.inputs >= 32 and p.inputs * p.outputs <= 3 * 2**10
    fills_vectors = p.rank == 2 and p.outputs % 32 == 0
    keeps = p.is_undilated and math.prod(p.spec.size) >= math.prod(p.spec.out)
    return is_small and fills_vectors and keeps and _is_tiled(p)


def _fewest_tiled(p: Problem) -> int:
    """256 -> 256 channels on 28x28 take 2.5 ms by patches, 1.7 by one axis and 1.1 by both."""
    most = max(p.inputs, p.outputs)
    return max(most, 512) if p.inputs * p.outputs < 2**18 else max(4 * most, 1024)


def _has_large_taps(p: Problem) -> bool:
    return p.rank == 2 and p.is_undilated and p.taps > 64


def _has_long_strides(p: Problem) -> bool:
    """Large taps of a stride that nearly divides them, as few taps of many channels.

    11x11 taps of stride 4, 3 -> 64 channels on 4x224x224, take 4.0 ms by phases and folded 7.5, 9x9
    of 3, 64 -> 64 on 4x56x56, 7.7 and by patches 11, but 8x8 of 4, 32 -> 64 on 8x84x84, 8.2 and
    7.8. Few channels may be filled up: 13x13 of 3, 3 -> 32 on 4x128x128, 2.5 and folded 4.0, 11x11
    of 5, 24 -> 24 on 2x112x112, 4.1 and by patches 2.7.
    """
    is_filled = p.inputs <= 4 or 4 * filled_taps(p) <= 5 * p.taps
    return _has_large_taps(p) and is_filled and p.every(lambda w: 3 <= w.stride < w.taps)


def _has_large_strided_taps(p: Problem) -> bool:
    """Of few channels XLA's own is the fastest: 11x11 taps of stride 2, 3 -> 32 on 4x128x128, take
    5.3 ms, by patches 8.8 and folded 16, 9x9 of stride 2, 16 -> 32 on 4x64x64, 4.2 and 6.9, but 64
    -> 8, 26 and 13.
    """
    return _has_large_taps(p) and not p.is_unit_stride and p.inputs <= 16


def _is_folded(p: Problem) -> bool:
    """What 1D serves better: 7x7 taps of 48 -> 48 channels on 8x27x27 take 9.6 ms by patches and
    5.1 folded; 22x1 of 40 -> 40 on 8x22x476, of which one row remains, 2.9 and 4.4.
    """
    if p.rank != 2 or not (p.is_undilated and p.is_unit_stride) or p.spec.out[0] == 1:
        return False
    copies = p.spec.taps[0] * math.prod(p.spec.out) * p.inputs
    is_long_tapped = max(p.spec.taps) >= 6 or _widens(p)
    return copies <= MOST_COPIES and p.inputs >= 8 and is_long_tapped


def _has_patches(p: Problem) -> bool:
    """In 1D where XLA's own is slow: strides, few positions, 4 taps.

    4x192x500 to 12 channels with stride 2 take 0.25 ms instead of 0.69; 5 taps, 192 -> 48 channels
    on 1000 samples, 0.32 and 0.64; 4 taps, 96 -> 24 on 8x2000, 1.5 and 2.6.
    """
    if p.rank > 1:
        return True
    if not p.is_unit_stride:
        return p.inputs >= 24 or p.positions <= 4096
    is_short = p.positions <= 1500 and p.taps * p.inputs * p.outputs <= 2**20
    return p.inputs >= 16 and (is_short or p.taps == 4)


RULES = (
    Rule("lanes", _has_small_groups, "vector lanes over the groups (depthwise3x3, grouped3x3)"),
    Rule("direct", _is_pair, "1x1 taps of two numbers (1 to 2 channels)"),
    POINTWISE,
    DECIMATED,
    Rule("phases", _narrows_strided, "a stride to few channels (5x5 taps of stride 2, 32 to 1)"),
    Rule("lanes", _has_one_input, "few channels: multiply-adds in one loop (filter3x3)"),
    *LONG,
    GROUPED._replace(when=_has_groups),
    APART,
    # From here on all is dense.
    Rule("turned", _narrows, "many channels to few: patches of the few (5x5 taps, 32 to 4)"),
    Rule("patches", _has_few_rows, "few input channels: one small product (rgb3x3, audio_k25s4)"),
    Rule("patches", _is_brief, "few windows that share no input (4x4 taps of stride 4 on 8x9)"),
    SIDE_BY_SIDE,
    Rule("patches", is_narrow_strided, "a volume's strides (3x3x3 taps of stride 2, 16 to 32)"),
    Rule("mixed", has_room_for_rows, "blocks of tiles and patches (volume3x3x3)"),
    OTHER_VOLUMES,
    Rule("direct", _is_light, "too few products to prepare them (3x3 taps on 8x16x16)"),
    Rule("mixed", _is_half_tiled, "half of the products, in long rows (lenet2_5x5)"),
    Rule("turned", _widens_in_tiles, "the same of the transposed kernel (3x3 taps, 32 to 64)"),
    Rule("winograd", _is_tiled, "24 products for 72 (cifar_3x3)"),
    Rule("phases", _has_long_strides, "large taps of long strides (11x11 of stride 4, 3 to 64)"),
    Rule("direct", _has_large_strided_taps, "as XLA does it (11x11 taps of stride 2, 3 to 32)"),
    Rule("fold", _is_folded, "rows of taps as channels, on both threads (stem7x7s2)"),
    Rule("patches", _has_patches, "blocks of patches and one product (res3x3s2_56)"),
    DIRECT,
)
