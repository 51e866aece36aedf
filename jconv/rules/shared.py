"""What the tables of several faces share: what a rule is, and what they ask of a problem."""

import math
from collections.abc import Callable
from typing import NamedTuple

from jconv.problem import Problem
from jconv.rewrites import common, frame_length


class Rule(NamedTuple):
    """A method, when it is taken, and the measurement that says so."""

    method: str
    when: Callable[[Problem], bool]
    why: str


# Unrolled multiply-adds an output, past which compiling costs more than a call saves.
MOST_TERMS = 256
# The same for few channels: sums of 255 terms take 5 times as long as those of 240.
MOST_TAPS = 240
# Phases in one loop: 64 compile in a second, 121 in a minute.
MOST_PHASES = 64
# Entries of the patches of one row of outputs.
MOST_ROW = 2**23
# Entries of one image's patches, of one group of several that go at once.
MOST_GROUPED = 2**18


# ---------------------------------------------------------------- groups


def is_small_grouped(p: Problem) -> bool:
    """Groups of so few channels that no matrix product helps."""
    c, m = p.per_group
    return not p.is_dense and c * m <= 64 and p.phases <= MOST_PHASES


def has_thin_groups(p: Problem) -> bool:
    """Groups whose products are too small to go one by one, and whose patches are small.

    3x3 taps, 8 groups of 32 channels with stride 2, take 0.30 ms on 28x28 and 0.40 one by one, 8
    of 16 on 2x56x56 3.0 and 3.4; 5x5, 3 of 16 on 16x28x28, 3.5 and 2.2.
    """
    patches = math.prod(p.spec.out) * p.taps * p.ends[0]
    is_short = p.rank <= 2 and p.taps <= 9
    is_few = p.spec.groups >= 4 and patches <= MOST_GROUPED
    is_thin = not p.is_dense and max(p.per_group) <= 32
    return is_thin and p.is_undilated and (is_short or is_few)


# ---------------------------------------------------------------- few channels, many taps


def is_unrolled(p: Problem) -> bool:
    """So few channels that no matrix product helps, and so few taps that one loop unrolls them."""
    return p.reads_no_zeros_between and p.taps * p.ends[0] <= _most_terms(p)


def _most_terms(p: Problem) -> int:
    """Terms of a sum up to which a loop over channels `c` read and `m` given takes least."""
    c, m = p.ends
    pairs = c * m
    if pairs <= 16 and c <= 4:
        if c > 1:
            # 7x7 taps, 3 -> 2 channels on 4x72x72, take 1.7 ms, and by `kn2row` 0.34.
            return 128 if c > m == 2 else 160
        # 48 taps, 1 -> 16 channels on 4x16000, take 0.85 ms and 0.57 as they are, 16 0.16 and 0.40.
        return min(400 // m, MOST_TAPS) if p.rank == 1 else MOST_TAPS
    if c == 1 and m > 16 and p.positions * m >= 2**19:
        # XLA's own has one thread: 5x5 taps to 32 channels 0.9 ms instead of 0.5, to 48 on 32x22x22
        # 0.8 and 0.45, but 7x7 to 32 1.25 and 1.1.
        terms = 1600 if p.rank > 1 and p.taps <= 32 else 800
        return terms // m
    if p.rank > 1 and (pairs > 96 or m > 16):
        # 3x3 taps, 5 -> 32 channels on 8x30x105, take 0.57 ms, as they are 1.3; 5x5 taps, 2 -> 32
        # on 64x27x27, 0.9 and 0.64; 3x3 of stride 3, 5 -> 48 on 16x77x56, 0.32 and 0.27.
        return 48 if 1 < c <= 9 and m <= 48 and p.every(lambda w: w.stride <= 2) else 0
    if pairs > 96 or m > 16 * c:
        return 0
    # 3x3 taps, 9 -> 9 channels on 16x64x64, take 1.9 ms, as they are 1.4; 8 -> 8 0.5 and 1.0,
    # 8 -> 12 on 8x72x72 1.1 and 0.8.
    return 81 if c <= 4 else 72 if pairs <= 64 else 63


def is_long(p: Problem) -> bool:
    """Taps enough that transforms cost less; the fewer pairs of channels, the sooner."""
    c, m = p.per_group
    long = 64 * max(1, min(c * m // 4, 16)) if p.rank == 1 else MOST_TAPS * c * m + 1
    return p.is_real and p.is_unit_stride and p.taps >= long and (p.rank == 1 or c * m <= 4)


def _is_longer_than_a_frame(p: Problem) -> bool:
    return (
        p.rank == 1
        and is_long(p)
        and p.spec.windows[0].extent > 2 * frame_length(p.spec.windows[0])
    )


# ---------------------------------------------------------------- windows, tiles and threads


def shares_no_input(p: Problem) -> bool:
    """Windows next to each other, or with entries between them that none reads."""
    return p.is_undilated and p.taps > 1 and p.every(lambda w: w.taps <= w.stride)


def filled_taps(p: Problem) -> int:
    """The taps that as many of every phase of the stride make."""
    return math.prod(-(-w.taps // w.stride) * w.stride for w in p.spec.windows)


def has_room_for_rows(p: Problem) -> bool:
    """Whether a block holds the patches of a row of a volume's outputs."""
    row = math.prod(p.spec.out[1:]) * p.taps * p.inputs
    return p.rank > 2 and row <= MOST_ROW and p.reads_no_zeros_between


def is_narrow_strided(p: Problem) -> bool:
    """A volume of few channels and a stride in every axis, which leaves no tiles.

    3x3x3 taps of stride 2, 16 -> 32 channels on 2x16x32x32, take 1.2 ms by patches and 1.5 mixed,
    and the kernel's adjoint 1.5 and 2.1; 64 -> 128 on 2x8x14x14 2.2 and 1.8.
    """
    is_strided = p.is_undilated and p.every(lambda w: w.stride > 1)
    return has_room_for_rows(p) and is_strided and max(p.inputs, p.outputs) <= 32


def has_long_rows(p: Problem) -> bool:
    """Whether a volume's products are of rows long enough."""
    return p.inputs >= 4 and p.positions >= 4 * max(p.inputs, p.outputs)


def is_tileable(p: Problem) -> bool:
    """What Winograd's tiles could serve, were they enough."""
    return p.is_real and p.is_unit_stride and (p.is_undilated or _fills_gaps(p))


def _fills_gaps(p: Problem) -> bool:
    """Dilated tiles, of whose outputs not too many are none.

    The kernel's adjoint of 3x3 taps of dilation 4, 64 -> 64 channels on 2x48x48, takes 0.9 ms and
    by patches 1.6; of 256 -> 256 on 2x33x33 half of the outputs are none, 10.3 and 9.4.
    """
    spans = ((w.out, 4 * w.dilation) for w in p.spec.windows)
    whole = p.batch * math.prod(-(-out // span) * span for out, span in spans)
    is_large = p.positions >= 2**12 and min(p.inputs, p.outputs) >= 32
    return is_large and 3 * whole <= 4 * p.positions


def has_tiles(p: Problem, fewest: int) -> bool:
    """Enough tiles, of forward and the input's adjoint, that transforming the kernel is nothing.

    Tiles for 4 and 5 taps round four times as much as XLA's own beyond 64 terms a sum. In 1D 128 ->
    128 channels take 2.9 ms instead of 3.6; results of more than 20 MiB leave no room in the
    caches: on 16x4998 45 ms instead of 30.
    """
    least, most = sorted((p.inputs, p.outputs))
    if p.rank == 1:
        is_cached = p.positions * most <= 5 * 2**20
        return has_lines(p, fewest=2**27) and least >= 128 and is_cached
    is_exact = p.spec.taps == (3, 3) or p.ends[0] <= 64
    return (
        p.rank == 2
        and p.every(lambda w: 3 <= w.taps <= 5)
        and is_exact
        and least >= 32
        and least * most >= (4096 if p.taps == 9 else 2048)
        and p.positions >= max(4 * most, fewest)
    )


def has_lines(p: Problem, fewest: int) -> bool:
    """3 taps in 1D, and products enough."""
    return p.spec.taps == (3,) and p.positions * p.inputs * p.outputs >= fewest


def leaves_a_thread(p: Problem) -> bool:
    """Whether XLA:CPU's own 2D convolution runs on one thread, and for long enough to matter.

    It shares out its output channels in blocks of 128, of 64 for sums of some 850 terms and more:
    cifar_3x3 takes as long on one core as on two, 5x5 taps of 34 -> 128 on 4x11x28 0.41 ms, and
    folded 1.2. In 1D it shares out the positions as well. Sums of few terms are not worth it: 3x3
    taps, 3 to 64 channels on 8x64x64, take 0.5 ms, folded 0.7. Nor are short calls that widen: 5x5
    taps, 16 to 64 channels on 32x9x6, take 0.22 ms and folded 0.30, 45 to 32 on 8x13x8 0.40 and
    0.26.
    """
    inputs, outputs = p.ends
    widens = inputs < outputs or not p.is_unit_stride
    return (
        p.rank == 2
        and not _shares_rows(p)
        and p.taps * inputs >= 64
        and outputs < (256 if p.taps * inputs < 832 else 128)
        and p.products >= (2**25 if widens else 2**24)
    )


def _shares_rows(p: Problem) -> bool:
    """Whether it shares out a row of outputs, of which one thread has at most 0.7.

    A piece is as long as its task is large enough; without padding all of it is slow. 3x3 taps, 32
    -> 32 channels on 2x269x533, take 14 ms and folded 26; sums of 800 terms and shorter rows are as
    fast folded.
    """
    read, given = p.sizes
    terms, row = p.taps * p.ends[0], given[-1]
    if _is_by_eigen(p) or terms > 600 or row < 200:
        return False
    axes = zip(read, given, p.spec.windows, strict=True)
    is_padded = any(m > n - w.reach for n, m, w in axes)
    piece, columns = 16, min(p.ends[1], 64)
    while (piece + columns) * terms < 2**16:
        piece *= 2
    return is_padded and piece <= 0.7 * row


def _is_by_eigen(p: Problem) -> bool:
    """Whether a 2D convolution is none that XLA:CPU gives to YNNPACK, but one of Eigen's."""
    return max(p.ends) <= 16 or any(given > read for read, given in zip(*p.sizes, strict=True))


def gains_by_folding(p: Problem) -> bool:
    """2x2 taps from 49 to 128 channels on 8x56x58 take 4.0 ms folded and 3.2 as they are.

    Eigen's convolution takes longer in 2D, but for few taps: the input's adjoint of 5x5 taps
    without padding, 8 -> 64 channels on 16x13x13, 0.62 ms and folded 0.22, 2x2 taps, 8 -> 96 on
    8x27x27, 0.22 and 0.26.
    """
    if p.taps < 9 and p.ends[0] <= p.ends[1]:
        return False
    read, given = p.sizes
    is_unpadded_adjoint = p.face == "input_adjoint" and read != given
    is_tall = p.is_unit_stride and p.spec.taps[0] > 1 and p.products >= 2**20
    is_by_eigen = is_tall and _is_by_eigen(p) and (p.taps > 9 or is_unpadded_adjoint)
    return is_by_eigen or leaves_a_thread(p)


def reads_odd_channels(p: Problem) -> bool:
    """An odd number of channels, which XLA:CPU's own 2D convolution reads one by one, unless those
    that it gives are whole blocks of 64.

    3x3 taps from 3 channels on 8x64x64 run at 51 GFLOP/s to 64, at 10 to 65. To 72 on 16x56x56 they
    take 19 ms and folded 4.0; of stride 2 from 7 to 40 2.7 and by patches 0.84; 5x5 of stride 2
    from 21 to 12 8.0 and 3.8.
    """
    c, m = p.ends
    if p.rank != 2 or c == 1 or c % 2 == 0 or not p.reads_no_zeros_between:
        return False
    if m <= 16:
        return c > 16 and p.products >= 2**20 and not p.is_unit_stride
    return 0 < m % 64 <= (32 if c <= 5 else 60)


# ---------------------------------------------------------------- rules that tables have in common


def _is_thin(p: Problem) -> bool:
    """Products of so few columns that XLA:CPU's own convolution is faster.

    1x1 taps, 3 -> 4 channels on 135x176, take 0.27 ms as a product and 0.03, 8 -> 8 on 2x7549 0.07
    and 0.08, 32 -> 1 on 4x91x43 0.07 and 0.12.
    """
    c, m = p.ends
    return p.is_dense and p.taps == 1 and p.is_unit_stride and c <= 16 and c * m <= 48


def _has_common_factors(p: Problem) -> bool:
    """Of a stride and a dilation.

    The input's adjoint of 3x3 taps, 2 each, 16 -> 64 channels on 8x33x11, takes 0.40 ms and so
    0.11; forward gains nothing: 2x2 taps, 128 -> 96 on 1x19x69, 0.16 and 0.22.
    """
    return p.is_dense and not p.every(lambda w: common(w) == 1)


THIN = Rule("direct", _is_thin, "1x1 taps of few channels (3 to 4 channels)")

POINTWISE = Rule(
    "patches",
    lambda p: p.taps == 1 and p.reads_no_zeros_between,
    "one matrix product (res1x1_14)",
)
DECIMATED = Rule(
    "decimated",
    _has_common_factors,
    "a stride and a dilation by their common factor (3x3 taps, 2 each)",
)
LONG = (
    Rule("frames", _is_longer_than_a_frame, "a long signal in frames (long1d_k1024)"),
    Rule("fourier", is_long, "long taps: products over frequencies (long1d_k1024)"),
)
GROUPED = Rule(
    "patches", has_thin_groups, "patches of all groups at once (ResNeXt from 16 channels a group)"
)
APART = Rule(
    "apart", lambda p: not p.is_dense, "groups one by one: XLA:CPU convolves them in a scalar loop"
)
SIDE_BY_SIDE = Rule(
    "phases", shares_no_input, "windows that share no input: one product (2x2 taps of stride 2)"
)
OTHER_VOLUMES = Rule(
    "fold", lambda p: p.rank > 2, "taps of the first axis as channels (volume_time)"
)
DIRECT = Rule("direct", lambda p: True, "XLA's windowed convolution (wave_k3)")
