"""Which method serves which face, on which platform, and why.

The rules are tables of (method, condition, reason), tried in order. Every reason cites the layers
of `python -m experiments.compare_layers` on which it was measured; a rewrite is followed by the
choice for what it leads to.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from jconv.problem import Problem
from jconv.rewrites import frame_length


class Rule(NamedTuple):
    """A method, when it is taken, and the measurement that says so."""

    method: str
    when: Callable[[Problem], bool]
    why: str


# Unrolled multiply-adds an output, past which compiling costs more than a call saves.
MOST_TERMS = 256
# The same for few channels: sums of 255 terms take 5 times as long as those of 240.
MOST_TAPS = 240
# Outputs of an axis up to which the window of a whole image does no harm.
SMALL = 16
# Phases in one loop: 64 compile in a second, 121 in a minute.
MOST_PHASES = 64
# Entries of the patches of one row of outputs.
MOST_ROW = 2**23
# Entries of one image's patches, of one group of several that go at once.
MOST_BUNDLED = 2**18
# Entries that folding one image makes of it.
MOST_COPIES = 2**22


def _is_pointwise(p: Problem) -> bool:
    return p.taps == 1 and p.reads_no_zeros_between


def _has_small_groups(p: Problem) -> bool:
    """Groups of so few channels that no matrix product helps."""
    c, m = p.per_group
    if p.is_dense or c * m > 64 or p.phases > MOST_PHASES:
        return False
    match p.face:
        case "forward":
            return p.taps * c <= MOST_TERMS
        case "input_adjoint":
            # Phases of 27 taps and 8 channels take twice as long as groups one by one.
            few = p.is_unit_stride or c * m <= 16 or p.taps <= 9
            return p.taps * m <= MOST_TERMS and few
        case _:
            # 64 groups of 8 to 8 channels take as long by the products of `bundles`.
            fills = c * m <= min(4 * p.spec.groups, 64 if c == 1 else 32)
            return fills and p.reads_no_zeros_between


def _has_thin_groups(p: Problem) -> bool:
    """Groups whose products are too small to go one by one, and whose patches fit the cache.

    3x3 taps, 8 groups of 16 channels, take 7 ms on 4x56x56 and 4 one by one, 16 groups of 8 0.4 and
    0.8 on 4x28x28.
    """
    patches = math.prod(p.spec.out) * p.taps * p.ends[0]
    return (
        patches <= MOST_BUNDLED
        and p.spec.groups >= 4
        and max(p.per_group) <= 32
        and p.is_undilated
        and (p.face != "input_adjoint" or p.is_unit_stride)
    )


def _has_few_channels(p: Problem) -> bool:
    """Channels so few that no matrix product helps, by taps that one loop unrolls."""
    c, m = p.ends
    pairs = c * m
    if not p.is_dense or (_is_long(p) and (pairs > 1 or p.face == "kernel_adjoint")):
        return False
    if c >= 8 and _gives_few(p):
        return False
    if p.face == "kernel_adjoint":
        rows = p.spec.out[-1] >= 64 and p.reads_no_zeros_between
        # One product serves several outputs: 11x11 taps to 4 channels take 0.8 ms, by lanes 2.
        # In 1D XLA's own is fast: 16 taps, 1 -> 4 channels on 4x16000, take 0.28 ms and 0.20.
        # Dilated outputs share no patch: 3x3, 1 -> 2 on 595x595, take 2.2 ms by patches and 0.54.
        few = m <= (1 if p.is_undilated else 2) and (p.rank > 1 or p.taps <= 8)
        few = few and not _is_few_to_few(p)
        return rows and c == 1 and (few or (p.rank == 1 and m <= 4 and p.taps > 64))
    if p.face == "input_adjoint":
        # `kn2row` takes many outputs to few inputs, and long taps: 3 -> 4 channels of 16 taps on
        # 4x16000 take 1.4 ms, and as they are 0.7.
        many = (c > 4 >= m) or (p.rank == 1 and pairs > 1 and p.taps * pairs > 100)
        if many or not p.is_unit_stride:
            return False
    if pairs <= 16 and c <= 4:
        # 48 taps, 1 -> 16 channels on 4x16000, take 0.85 ms and 0.57 as they are, 16 0.16 and 0.40.
        most = 160 if c > 1 else min(400 // m, MOST_TAPS) if p.rank == 1 else MOST_TAPS
        # 7x7 taps, 3 -> 2 channels on 4x72x72, take 1.7 ms, and by `kn2row` 0.34.
        most = 128 if c > m == 2 else most
    elif c == 1 and m > 16 and p.positions >= 2**15:
        most = 800 // m  # XLA's own has one thread: 5x5 taps to 32 channels 0.9 ms instead of 0.5
    elif p.rank > 1 and (pairs > 96 or m > 16):
        # 3x3 taps, 5 -> 32 channels on 8x30x105, take 0.57 ms, as they are 1.3; 5x5 taps, 2 -> 32
        # on 64x27x27, 0.9 and 0.64; 3x3 of stride 3, 5 -> 48 on 16x77x56, 0.32 and 0.27.
        most = 48 if 1 < c <= 9 and m <= 48 and p.every(lambda w: w.stride <= 2) else 0
    else:
        # 3x3 taps, 9 -> 9 channels on 16x64x64, take 1.9 ms, as they are 1.4; 8 -> 8 0.5 and 1.0,
        # 8 -> 12 on 8x72x72 1.1 and 0.8.
        most = (81 if c <= 4 else 72 if pairs <= 64 else 63) if pairs <= 96 and m <= 16 * c else 0
    return p.taps * c <= most and p.reads_no_zeros_between


def _has_few_inputs(p: Problem) -> bool:
    # Phases of a stride are inputs, too: 25 taps of stride 2, 4 -> 40 channels on 8x1777, take 0.42
    # ms, and as they are 0.62; 9 of stride 4, 2 -> 64 on 8x3891, 0.47 and 0.38.
    most = 4 if p.rank > 1 else min(max(p.taps, 5), 8)
    return (
        p.face == "input_adjoint"
        and p.is_dense
        and p.inputs <= most
        and p.is_unit_stride
        and p.taps * max(p.inputs, 2) <= 128  # 64 taps, 4 -> 4 channels: 5.4 ms instead of 2.2
    )


def _narrows(p: Problem) -> bool:
    """The kernel's adjoint from many to few channels: patches of the outputs are the smaller.

    5x5 taps, 32 -> 4 channels on 2x13x25, take 0.32 ms as they are and 0.08 turned, 3 taps, 192 ->
    12 on 2x1000, 1.1 and 0.4. Of few positions turning the kernel back takes too long: 512 -> 64 on
    2x6x8 1.3 ms turned and 0.3.
    """
    return (
        p.face == "kernel_adjoint"
        and p.is_unit_stride
        and p.inputs >= 2 * p.outputs
        and p.positions >= 2 * p.inputs
        and math.prod(p.spec.size) <= 2 * math.prod(p.spec.out)
        and not _is_light(p)
    )


def _gives_few(p: Problem) -> bool:
    """Forward to few outputs: 3x3 taps, 8 -> 3 channels on 16x79x64, take 0.75 ms, by lanes 1.2 and
    as they are 2.6; 7 taps, 16 -> 4 on 2x16000, 0.32, 0.45 and 0.9.

    Volumes need more inputs: 3x3x3, 32 -> 3 on 30x32x34, take 1.0 ms and by blocks of tiles 1.4,
    8 -> 4 on 2x20x24x28 1.0 and 0.4.
    """
    if not (p.face == "forward" and p.is_dense and p.is_unit_stride and p.taps > 1):
        return False
    is_many = p.inputs >= 8 * p.outputs if p.rank > 2 else p.inputs > 4
    is_few = p.outputs <= 4 and p.taps * max(p.outputs, 2) <= 160
    return is_many and is_few and p.products >= 2**22 and not _is_long(p)


def _has_few_rows(p: Problem) -> bool:
    """Inputs so few that what all taps see of them makes one small matrix.

    In 1D one that is small indeed, or is read by many outputs: 16 taps of stride 8, 4 -> 32
    channels, take 0.36 ms on 64x1000 and XLA's own 0.17, on 4000 samples 0.05 and 0.12. Or of few
    examples with a stride: 15 taps of stride 2, 3 -> 8 on 16000, take 0.15 and 0.60; of one
    channel any: 3 of stride 2 to 49 on 8x12468 0.31 and 1.6, but 64 of stride 16 0.32 and 0.22.
    """
    if p.face != "kernel_adjoint" or p.inputs > 4 or not 1 < p.taps <= 64:
        return False
    if p.rank > 1:
        return not _is_few_to_few(p)
    is_small = p.positions <= 2048 or (p.is_unit_stride and p.taps * p.inputs <= 8)
    stride = p.spec.windows[0].stride
    is_few = p.batch <= 2 or (p.inputs == 1 and stride <= 4)
    is_strided = p.is_undilated and stride > 1 and is_few
    return is_small or is_strided or (p.outputs >= 64 and p.taps < 64)


def _is_few_to_few(p: Problem) -> bool:
    """Too few outputs for that, too: 3x3 taps, 4 -> 4 channels on 16x64x65: 0.58 and 0.42 ms.

    Of one or two images they are not: 2 -> 6 on 1x151x275 take 0.30, and 1.0 as they are. Small
    filters of one are, whose rows have no padding: 3x3 on 245x245 take 0.16 by lanes and 0.10.
    """
    last = p.spec.windows[-1]
    is_long = p.rank == 2 and p.is_unit_stride and p.positions >= 2**15
    is_bare = last.low == 0 and last.high <= 0 and p.taps <= 10
    is_filter = is_bare and p.batch == p.inputs == p.outputs == 1
    is_few = p.batch > 2 and 1 < p.inputs <= 4 and p.outputs <= 8
    return is_long and (is_few or is_filter)


def _is_long(p: Problem) -> bool:
    """Taps enough that transforms cost less; the fewer pairs of channels, the sooner."""
    c, m = p.per_group
    long = 64 * max(1, min(c * m // 4, 16)) if p.rank == 1 else MOST_TAPS * c * m + 1
    return p.is_real and p.is_unit_stride and p.taps >= long and (p.rank == 1 or c * m <= 4)


def _is_longer_than_a_frame(p: Problem) -> bool:
    return (
        p.rank == 1
        and _is_long(p)
        and p.spec.windows[0].extent > 2 * frame_length(p.spec.windows[0])
    )


def _is_volume(p: Problem) -> bool:
    """A block holds the patches of a row of outputs, and the products' rows are long enough."""
    row = math.prod(p.spec.out[1:]) * p.taps * p.inputs
    if p.rank < 3 or row > MOST_ROW or not p.reads_no_zeros_between:
        return False
    if p.face == "kernel_adjoint":
        return True
    if p.face == "input_adjoint" and not (p.is_unit_stride and min(p.inputs, p.outputs) >= 8):
        return False
    return p.inputs >= 4 and p.positions >= 4 * max(p.inputs, p.outputs)


def _is_half_tiled(p: Problem) -> bool:
    """The kernel's adjoint of 3 to 5 rows, of 3x3 of few channels or positions: Winograd along
    one axis.

    3x2 taps, 32 -> 16 channels on 8x64x67, take 1.1 ms instead of 2.5.
    """
    if p.face != "kernel_adjoint" or not (p.is_real and p.rank == 2):
        return False
    if not (p.is_unit_stride and p.is_undilated):
        return False
    least, most = sorted((p.inputs, p.outputs))
    if p.spec.taps != (3, 3):
        fits = p.spec.taps[0] in (3, 4) or (p.spec.taps[0] == 5 and not _widens(p))
        return p.inputs >= 8 and p.positions >= 1024 and fits
    # 256 -> 256 on 14x14 take 0.5 ms instead of 0.7; larger kernels' tiles leave no room in 32 MiB.
    is_short = p.positions < min(_fewest_tiled(p), 1024) and least * most <= 2**18
    is_thin = least < 32 and least * most >= 144
    return least >= 8 and (is_thin or (least <= 3 * p.positions and is_short))


def _widens(p: Problem) -> bool:
    """Few inputs to many outputs, which alone keep both threads of XLA:CPU's own busy.

    5x5 taps, 16 -> 128 channels on 8x28x29, take 2.4 ms by half tiles and 1.8 folded.
    """
    return p.outputs >= 8 * p.inputs


def _is_light(p: Problem) -> bool:
    """The kernel's adjoint of small images, several of them, whose products go fast as they are.

    3x3 taps, 96 -> 8 channels on 8x16x16, take 0.62 ms by half tiles and 0.46 as they are; 5x5,
    24 -> 96 on 4x12x12, 0.43 by patches and 0.30.
    """
    if p.face != "kernel_adjoint":
        return False
    is_small = p.rank == 2 and p.every(lambda w: w.out <= SMALL)
    if not is_small:
        return _is_few_to_few(p)
    is_several = p.batch >= (8 if p.taps <= 16 else 2)
    return is_several and min(p.inputs, p.outputs) < 64 and p.products < 2**26


def _fewest_tiled(p: Problem) -> int:
    """Positions from which Winograd on both axes pays for transforming the kernel, or its adjoint.

    256 -> 256 on 28x28 take 2.5 ms by patches, 1.7 by one axis and 1.1 by both; the input's adjoint
    of 42 -> 134 on 8x17x17 1.0 and folded 0.6.
    """
    most = max(p.inputs, p.outputs)
    if p.face == "kernel_adjoint" and p.inputs * p.outputs < 2**18:
        return max(most, 512)
    is_brief = p.face == "input_adjoint" and p.products < 2**27
    return max(4 * most, 2048 if is_brief else 1024)


def _leaves_a_thread(p: Problem) -> bool:
    """Whether XLA:CPU's own 2D convolution runs on one thread, and for long enough to matter.

    It shares out its output channels in blocks of 128, of 64 for sums of 1024 terms and more:
    cifar_3x3 takes as long on one core as on two. In 1D it shares out the positions as well. Sums
    of few terms are not worth it: 3x3 taps, 3 to 64 channels on 8x64x64, take 0.5 ms, folded 0.7.
    Nor are short calls that widen: 5x5 taps, 16 to 64 channels on 32x9x6, take 0.22 ms and folded
    0.30, 45 to 32 on 8x13x8 0.40 and 0.26.
    """
    inputs, outputs = p.ends
    widens = inputs < outputs or not p.is_unit_stride
    return (
        p.rank == 2
        and p.taps * inputs >= 64
        and outputs < (256 if p.taps * inputs < 1024 else 128)
        and p.products >= (2**25 if widens else 2**24)
    )


def _is_turned(p: Problem) -> bool:
    """Where adding up outputs costs less than copies of the input.

    3x3 taps from 16 to 32 channels on 64x28x28 take 6.7 ms turned and 2.3 folded, 5x5 taps from 8
    to 16 1.4 and 1.7.
    """
    most = p.inputs * (4 if p.taps * p.inputs >= 200 else 2)
    # 5x5 taps of dilation 4, 48 -> 64 on 8x26x26, of which 10x10 remain: 0.78 ms and folded 0.50.
    keeps = math.prod(p.spec.size) < 4 * math.prod(p.spec.out)
    is_simple = p.face == "forward" and p.is_unit_stride and keeps
    return is_simple and p.outputs < most and _leaves_a_thread(p)


def _is_folded(p: Problem) -> bool:
    """What 1D serves better; of a stride, the adjoints where the input is an image."""
    if p.rank != 2:
        return False
    is_image = p.inputs <= 4 and p.is_undilated and not p.is_unit_stride
    if p.face == "kernel_adjoint":
        # 7x7 taps of 48 -> 48 channels on 8x27x27 take 9.6 ms by patches and 5.1 folded.
        copies = p.spec.taps[0] * math.prod(p.spec.out) * p.inputs
        is_simple = p.is_unit_stride and p.is_undilated and copies <= MOST_COPIES
        is_long = is_simple and p.inputs >= 8 and (max(p.spec.taps) >= 6 or _widens(p))
        return is_long or (is_image and p.spec.taps[0] >= 5)
    if p.face == "input_adjoint" and not p.is_unit_stride:
        # XLA:CPU has no fast way with zeros in both: 2x40x40, 186 -> 192 channels, 4.6 ms and 2.2.
        spreads = p.products >= 2**25 and p.every(lambda w: w.stride > 1 and w.dilation > 1)
        # To many outputs few taps are less work as they are: 5x5 taps, 3 -> 64 on 4x255x135, take
        # 2.1 ms and folded 2.7, but 5x1, 4 -> 64 on 4x135x135, 0.57 and 0.34.
        most = 64 if p.products < 2**26 else 63
        is_worth_it = p.every(lambda w: w.stride <= 2) and (p.outputs <= most or p.taps >= 49)
        return spreads or (is_image and is_worth_it)
    # 3x3 taps of stride 2, 64 -> 64 channels on 8x57x57, take 1.7 ms folded and 2.8 as they are,
    # 128 -> 48 on 4x45x46 1.0 and 1.2, -> 16 on 8x38x39 0.8 and 0.6; larger copies cost what they
    # gain, 3x5, 64 -> 128 on 8x62x62, 5.6 and 4.7, and rows whose windows share no input nothing.
    overlap = p.spec.taps[0] / p.spec.windows[0].stride
    copies = p.batch * math.prod(p.spec.size) * p.inputs * overlap
    last = p.spec.windows[-1]
    is_cheap = copies <= 5 * 2**19 and last.taps != last.stride
    pays = p.is_unit_stride or (p.outputs >= min(p.inputs, 32) and is_cheap)
    # 2x2 taps from 49 to 128 channels on 8x56x58 take 4.0 ms folded and 3.2 as they are.
    pays = pays and (p.taps >= 9 or p.ends[0] > p.ends[1])
    return pays and p.reads_no_zeros_between and _leaves_a_thread(p)


def _is_strided(p: Problem) -> bool:
    """A stride whose phases fill up the taps, or nearly so with few channels on one side.

    9 taps of stride 4, 3 -> 32 channels on 2000 samples, take 0.08 ms by phases and 0.04 as they
    are; 5x5 taps of stride 2, 128 -> 96 on 16x20x22, filled up to 6x6, 4.8, as they are 4.0, and
    3.2 by each phase; 24 -> 64 on 56x58 0.4 and 0.6; 3x3 of 26 -> 4 on 8x33x35, 0.12 and 0.29.
    """
    if not p.undoes_stride or p.products < 2**20:
        return False
    filled = _filled(p)
    nearly = 2 * filled <= 3 * p.taps
    if p.rank == 1:
        return filled == p.taps or (nearly and p.outputs < 128)
    is_light = p.positions >= 512 and p.inputs <= 32 and p.outputs <= 64
    return filled == p.taps or p.outputs <= 16 or (nearly and is_light)


def _filled(p: Problem) -> int:
    """The taps that as many of every phase of the stride make."""
    return math.prod(-(-w.taps // w.stride) * w.stride for w in p.spec.windows)


def _is_apart(p: Problem) -> bool:
    """Windows next to each other, which share no input.

    4x4 taps, 32 -> 16 channels on 8x57x57, take 0.27 ms forward, and 0.20 as they are; 3x3, 64 ->
    128 on 8x56x50, 2.5 and 2.2.
    """
    next_to_each_other = p.taps > 1 and p.every(lambda w: w.taps == w.stride)
    pays = p.face != "forward" or (p.products >= 2**25 and p.outputs < 128)
    return p.is_undilated and next_to_each_other and pays


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
    is_short = is_short and (3 * _filled(p) > 4 * p.taps or p.every(lambda w: w.stride <= 2))
    return is_small or is_few or is_short


def _has_phases(p: Problem) -> bool:
    """A stride whose phases have taps each, too few to fill a convolution of them all.

    More taps than outputs XLA:CPU turns round: 7x7 with stride 3, 64 -> 64 channels on 16x14x16,
    take 1.5 ms by phases and 17 as they are.
    """
    if not (p.undoes_stride and p.every(lambda w: w.taps >= w.stride)):
        return False
    narrows = p.inputs >= max(16, p.outputs)
    least = 14 if p.taps <= 9 else 8
    is_turned_round = p.rank > 1 and p.taps > math.prod(p.spec.out)
    return is_turned_round or (narrows and p.every(lambda w: w.out >= least))


def _is_tiled(p: Problem) -> bool:
    """Winograd's tiles, enough of them that transforming the kernel does not count."""
    return (p.is_undilated or _fills_gaps(p)) and (_has_tiles(p) or _is_line(p))


def _fills_gaps(p: Problem) -> bool:
    """Dilated tiles, of whose outputs not too many are none.

    The kernel's adjoint of 3x3 taps of dilation 4, 64 -> 64 channels on 2x48x48, takes 0.9 ms and
    by patches 1.6; of 256 -> 256 on 2x33x33 half of the outputs are none, 10.3 and 9.4.
    """
    spans = ((w.out, 4 * w.dilation) for w in p.spec.windows)
    whole = p.batch * math.prod(-(-out // span) * span for out, span in spans)
    is_large = p.positions >= 2**12 and min(p.inputs, p.outputs) >= 32
    return is_large and 3 * whole <= 4 * p.positions


def _has_tiles(p: Problem) -> bool:
    least, most = sorted((p.inputs, p.outputs))
    return (
        p.is_real
        and p.rank == 2
        and p.is_unit_stride
        and (p.spec.taps == (3, 3) or _has_large_tiles(p))
        and least >= (16 if p.face == "kernel_adjoint" else 32)
        and (p.face == "kernel_adjoint" or least * most >= (4096 if p.taps == 9 else 2048))
        and p.positions >= _fewest_tiled(p)
    )


def _has_large_tiles(p: Problem) -> bool:
    """Tiles for 4 and 5 taps: beyond 64 terms a sum they round four times as much as XLA's."""
    terms, _ = p.ends
    return p.face != "kernel_adjoint" and terms <= 64 and p.every(lambda w: 3 <= w.taps <= 5)


def _is_line(p: Problem) -> bool:
    """3 taps in 1D, many positions, and channels enough: 128 -> 128 take 2.9 ms instead of 3.6.

    Results of more than 20 MiB leave no room in the caches: on 16x4998 45 ms instead of 30.
    """
    if not (p.is_real and p.spec.taps == (3,) and p.is_unit_stride):
        return False
    least, most = sorted((p.inputs, p.outputs))
    if p.face == "kernel_adjoint":
        fits = least >= 16
    else:
        fits = least >= 128 and p.positions * most <= 5 * 2**20
    return fits and p.positions * least * most >= 2**27


def _has_few_positions(p: Problem) -> bool:
    """Fewer than channels, of which many: 3x3 taps on 7x8 from 512 to 64 take 0.25 ms and 0.19.

    3x3 taps of stride 2, 512 -> 655 channels on 4x6x6, take 2.2 ms and by patches 0.5.
    """
    is_plain = p.face == "forward" and p.reads_no_zeros_between
    if p.face == "kernel_adjoint" or not (is_plain or p.is_unit_stride):
        return False
    is_wide = p.outputs >= 128 if p.face == "forward" else p.positions <= 2 * p.outputs
    return p.positions <= p.inputs and is_wide


def _has_patches(p: Problem) -> bool:
    """The kernel's adjoint, in 1D where XLA's own is slow: strides, few positions, 4 taps.

    4x192x500 to 12 channels with stride 2 take 0.25 ms instead of 0.69; 5 taps, 192 -> 48 channels
    on 1000 samples, 0.32 and 0.64; 4 taps, 96 -> 24 on 8x2000, 1.5 and 2.6.
    """
    if p.face != "kernel_adjoint":
        return False
    if p.rank > 1:
        return True
    if not p.is_unit_stride:
        return p.inputs >= 24 or p.positions <= 4096
    is_short = p.positions <= 1500 and p.taps * p.inputs * p.outputs <= 2**20
    return p.inputs >= 16 and (is_short or p.taps == 4)


def _is_unpadded(p: Problem) -> bool:
    return (
        p.face == "forward"
        and p.rank == 2
        and p.reads_no_zeros_between
        and p.every(lambda w: w.low == 0 and w.high <= 0)
        and p.products > 2**29
    )


CPU = (
    Rule("lanes", _has_small_groups, "vector lanes over the groups (depthwise3x3, grouped3x3)"),
    Rule("patches", _is_pointwise, "one matrix product (res1x1_14)"),
    Rule("lanes", _has_few_channels, "few channels: multiply-adds in one loop (filter3x3, rgb3x3)"),
    Rule("kn2row", _has_few_inputs, "few input channels: products, then shifts (volume_first)"),
    Rule("kn2row", _gives_few, "few output channels: likewise (3x3 taps, 8 to 3 channels)"),
    Rule("frames", _is_longer_than_a_frame, "a long signal in frames (long1d_k1024)"),
    Rule("fourier", _is_long, "long taps: products over frequencies (long1d_k1024)"),
    Rule(
        "bundles",
        _has_thin_groups,
        "patches and products of four groups at a time (ResNeXt from 8 channels a group on)",
    ),
    Rule(
        "apart",
        lambda p: not p.is_dense,
        "groups one by one: XLA:CPU convolves them in a scalar loop",
    ),
    # From here on all is dense.
    Rule("turned", _narrows, "many channels to few: patches of the few (5x5 taps, 32 to 4)"),
    Rule("patches", _has_few_rows, "few input channels: one small product (rgb3x3, audio_k25s4)"),
    Rule("phases", _is_apart, "windows that share no input: one product (2x2 taps of stride 2)"),
    Rule("mixed", _is_volume, "blocks of tiles and patches, 6 products for 12 (volume3x3x3)"),
    Rule("fold", lambda p: p.rank > 2, "taps of the first axis as channels (volume_time)"),
    Rule("direct", _is_light, "too few products to prepare them (3x3 taps on 8x16x16)"),
    Rule("mixed", _is_half_tiled, "half of the products, in long rows (lenet2_5x5)"),
    Rule("winograd", _is_tiled, "24 products for 72 or 36 for 100 (cifar_3x3, lenet2_5x5)"),
    Rule("turned", _is_turned, "rows of taps as outputs, on both threads (cifar_3x3, few16)"),
    Rule("fold", _is_folded, "rows of taps as channels, on both threads (stem7x7s2, few16)"),
    Rule("patches", _has_small_patches, "one product (10 taps, stride 5, 1 to 512 channels)"),
    Rule("phases", _is_strided, "phases of the stride, no zeros between inputs (stem7x7s2)"),
    Rule("by_phase", _has_phases, "each phase of the stride by its own taps (res3x3s2_56)"),
    Rule("patches", _has_few_positions, "many channels, few positions: one product (res3x3_7)"),
    Rule("patches", _has_patches, "blocks of patches and one product (res3x3s2_56, lenet2_5x5)"),
    Rule(
        "overhang",
        _is_unpadded,
        "XLA:CPU is slow without any padding (5x5 taps of stride 2, 64 to 256 on 16x30x30)",
    ),
    Rule("direct", lambda p: True, "XLA's windowed convolution (wave_k3)"),
)

ACCELERATOR = (
    Rule("shifts", lambda p: p.is_integer, "NVIDIA's library convolves no integers"),
    Rule("fold", lambda p: p.rank > 3, "XLA has windows of at most three axes there"),
    Rule("direct", lambda p: True, "the vendor's convolution"),
)


def choose(problem: Problem, platform: str) -> Rule:
    """The first rule that applies."""
    rules = CPU if platform == "cpu" else ACCELERATOR
    return next(rule for rule in rules if rule.when(problem))
