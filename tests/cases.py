"""One table of named cases for every test, and the dense random data that goes with them.

Sizes differ from axis to axis, and data is random: symmetric data hides flips, equal sizes hide
transposes. A name says what no other case has.
"""

import dataclasses
import math

import numpy as np
import pytest

import jconv
from tests import definition

# Those that serve every convolution.
METHODS = ("direct", "patches", "shifts", "toeplitz", "fourier", "auto")
MODES = ("constant", "reflect", "symmetric", "edge", "wrap")


def dense(shape, dtype, seed):
    """Random entries of about unit size, none of them special."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0 if dtype.kind == "u" else -4, 5, shape).astype(dtype)
    real = rng.standard_normal(shape)
    return (real + 1j * rng.standard_normal(shape) if dtype.kind == "c" else real).astype(dtype)


@dataclasses.dataclass(frozen=True)
class ConvCase:
    """`size` and `taps` are spatial, `channels` is `(in, out)`, `options` are those of `conv`."""

    name: str
    size: tuple[int, ...]
    taps: tuple[int, ...]
    channels: tuple[int, int] = (2, 3)
    batch: tuple[int, ...] = (2,)
    options: dict = dataclasses.field(default_factory=dict)

    @property
    def linear_part(self):
        """The same case with zeros outside, where it has another value there."""
        options = {k: v for k, v in self.options.items() if k != "padding_value"}
        return dataclasses.replace(self, options=options)

    @property
    def windowing(self):
        """The options that `unfold` shares."""
        return {k: v for k, v in self.options.items() if k not in ("groups", "flip")}

    @property
    def geometry(self):
        """The options that decide sizes."""
        return {
            k: v for k, v in self.windowing.items() if k not in ("padding_mode", "padding_value")
        }

    @property
    def out(self):
        return definition.output_size(self.size, self.taps, **self.geometry)

    @property
    def shapes(self):
        """Of `x`, `kernel` and `y`."""
        channels_in, channels_out = self.channels
        width = channels_in // self.options.get("groups", 1)
        return (
            (*self.batch, *self.size, channels_in),
            (*self.taps, width, channels_out),
            (*self.batch, *self.out, channels_out),
        )

    @property
    def terms(self):
        """No entry of any face sums more products than this."""
        per_position = math.prod(self.taps) * max(self.channels)
        return max(per_position, math.prod(self.batch) * math.prod(self.out))

    def data(self, dtype, seed=0):
        """`x`, `kernel` and a cotangent `y`."""
        return tuple(dense(shape, dtype, (seed, i)) for i, shape in enumerate(self.shapes))

    def faces(self, method):
        """The three faces, as one function of `x`, `kernel` and `y`."""
        options = {**self.options, "method": method}

        def evaluate(x, kernel, y):
            return (
                jconv.conv(x, kernel, **options),
                jconv.conv_transpose(y, kernel, size=self.size, **options),
                jconv.kernel_gradient(x, y, self.taps, **options),
            )

        return evaluate

    def defined_faces(self, x, kernel, y):
        """What they mean."""
        return (
            definition.conv(x, kernel, **self.options),
            definition.conv_transpose(y, kernel, size=self.size, **self.options),
            definition.kernel_gradient(x, y, self.taps, **self.options),
        )


@dataclasses.dataclass(frozen=True)
class PoolCase:
    """`options` are those that all pooling operations share."""

    name: str
    size: tuple[int, ...]
    window: tuple[int, ...]
    channels: int = 2
    batch: tuple[int, ...] = (2,)
    options: dict = dataclasses.field(default_factory=dict)

    @property
    def shape(self):
        return (*self.batch, *self.size, self.channels)


def conv_case(name, size, taps, channels=(2, 3), batch=(2,), **options):
    return ConvCase(name, size, taps, channels, batch, options)


def pool_case(name, size, window, channels=2, batch=(2,), **options):
    return PoolCase(name, size, window, channels, batch, options)


CONV_CASES = (
    # Ranks, channels and batch axes
    conv_case("rank 1, no batch axis", (9,), (3,), (1, 1), batch=()),
    conv_case("rank 2", (6, 5), (3, 2), (3, 8)),
    conv_case("rank 3", (4, 3, 5), (2, 3, 2), (2, 4), stride=(1, 1, 2)),
    conv_case(
        "rank 4", (3, 2, 4, 3), (2, 1, 3, 2), (1, 2), padding=((1, 0), (0, 1), (1, 1), (0, 0))
    ),
    conv_case("two batch axes", (5, 4), (2, 3), (4, 2), batch=(2, 3), padding=1),
    conv_case("three batch axes", (6,), (3,), (2, 1), batch=(2, 1, 3), stride=2),
    conv_case("pointwise", (3, 4), (1, 1), (17, 32)),
    conv_case("pointwise, strided", (5, 4), (1, 1), (3, 2), stride=(2, 3)),
    conv_case("wide channels", (7,), (3,), (32, 17), padding=1),
    # Windows
    conv_case("stride", (9, 8), (3, 4), stride=(2, 3), padding=(1, 2)),
    conv_case("stride beyond the kernel", (9, 10), (2, 1), stride=(3, 4), padding=((1, 0), (0, 2))),
    conv_case("uncovered tail", (11, 7), (3, 2), (2, 4), stride=(3, 4)),
    conv_case("dilation", (9, 8), (3, 2), dilation=(2, 3), padding=((1, 2), (0, 1))),
    conv_case("dilation and stride", (11,), (3,), (3, 1), dilation=3, stride=2, padding=((2, 3),)),
    conv_case("input dilation", (4, 3), (3, 2), (3, 2), input_dilation=(2, 3), padding=(1, 2)),
    conv_case(
        "all dilations", (4, 5), (2, 3), input_dilation=(3, 2), dilation=(2, 1), stride=(2, 3)
    ),
    conv_case(
        "strides of a dilated signal", (6,), (5,), padding=((2, 1),), input_dilation=3, stride=2
    ),
    conv_case("output of size one", (4, 3), (4, 3), (3, 4)),
    conv_case("output of size one by stride", (5,), (2,), stride=7),
    # Padding amounts
    conv_case("low padding beyond the reach", (8,), (3,), (3, 32), padding=((4, 0),)),
    conv_case("high padding beyond the reach", (8,), (3,), (8, 8), padding=((0, 5),)),
    conv_case(
        "padding beyond the reach", (4, 5), (2, 3), (4, 3), padding=((3, 4), (5, 2)), stride=(2, 1)
    ),
    conv_case("windows of only padding", (3,), (2,), padding=((5, 6),), stride=3),
    conv_case("crop", (7, 8), (3, 2), (3, 4), padding=((-1, -2), (-2, 0))),
    conv_case("crop and pad", (6, 7), (2, 3), padding=((-2, 3), (4, -1)), stride=(1, 2)),
    conv_case("crop between samples", (4,), (3,), (2, 2), padding=((-2, -1),), input_dilation=3),
    # Padding words
    conv_case("same", (7, 6), (3, 2), padding="same", stride=(2, 1)),
    conv_case("same, upper case, dilated", (5, 6), (2, 3), padding="SAME", dilation=(3, 2)),
    conv_case("same_lower", (6, 7), (2, 4), padding="Same_Lower", stride=(1, 3)),
    conv_case(
        "same, input dilated", (4, 3), (2, 3), padding="same", input_dilation=(2, 3), stride=2
    ),
    conv_case("full", (4, 3), (2, 3), padding="full", dilation=(2, 1)),
    conv_case("causal", (7,), (3,), (3, 4), padding="causal", dilation=2),
    # Padding modes
    conv_case("constant of 1.5", (5, 4), (3, 2), padding=((2, 1), (1, 3)), padding_value=1.5),
    conv_case("reflect", (5, 4), (3, 2), padding=((2, 1), (1, 3)), padding_mode="reflect"),
    conv_case("symmetric", (5, 4), (3, 2), padding=((2, 1), (1, 3)), padding_mode="symmetric"),
    conv_case("edge", (5, 4), (3, 2), padding=((2, 1), (1, 3)), padding_mode="edge"),
    conv_case("wrap", (5, 4), (3, 2), padding=((2, 1), (1, 3)), padding_mode="wrap"),
    conv_case(
        "reflect repeatedly", (3, 1), (2, 2), padding=((7, 5), (2, 3)), padding_mode="reflect"
    ),
    conv_case("symmetric repeatedly", (3,), (2,), padding=((8, 11),), padding_mode="symmetric"),
    conv_case("wrap repeatedly", (3,), (2,), padding=((8, 10),), padding_mode="wrap", stride=2),
    conv_case(
        "reflect and crop", (6, 5), (2, 3), padding=((-2, 3), (2, -1)), padding_mode="reflect"
    ),
    conv_case(
        "wrap, input dilated", (4,), (3,), padding="same", padding_mode="wrap", input_dilation=2
    ),
    # Groups
    conv_case("groups", (6, 5), (3, 2), (4, 8), groups=2, padding=1, stride=(1, 2)),
    conv_case("many groups", (5,), (2,), (32, 16), groups=8),
    conv_case("many groups of two", (5, 6), (3, 3), (32, 48), groups=16, padding=(1, 2)),
    conv_case("depthwise", (5, 6), (2, 3), (17, 17), groups=17, padding="same"),
    conv_case("depthwise in rows", (3, 37), (2, 3), (8, 8), groups=8, stride=(1, 2), padding=1),
    conv_case("thin groups", (5, 6), (3, 2), (40, 36), groups=4, padding=1),
    conv_case("depthwise with multiplier", (6, 4), (3, 2), (4, 8), groups=4, dilation=(2, 1)),
    # Flips
    conv_case("flip", (6, 5), (3, 2), flip=True, padding="same"),
    conv_case(
        "all at once",
        (5, 4),
        (2, 3),
        (4, 6),
        batch=(2, 2),
        stride=(2, 3),
        padding=((2, 3), (-1, 4)),
        padding_mode="symmetric",
        dilation=(3, 1),
        input_dilation=(1, 2),
        groups=2,
        flip=True,
    ),
)

# Large enough that "auto" takes up what it leaves alone in small cases.
PLANNED_CASES = (
    conv_case("3x3 taps", (7, 6), (3, 3), (16, 17), padding=1),
    conv_case("5x4 taps", (9, 8), (5, 4), (32, 33), batch=(20,), padding=(2, 1)),
    conv_case("3x3 taps, dilated", (9, 7), (3, 3), (17, 16), padding=(2, 3), dilation=(2, 3)),
    conv_case(
        "a factor of stride and dilation",
        (11, 10),
        (3, 2),
        (5, 6),
        padding=((3, 2), (1, 4)),
        stride=(2, 4),
        dilation=(4, 2),
    ),
    conv_case(
        "the same beside zeros between inputs",
        (3, 7),
        (2, 3),
        (3, 4),
        padding=(1, 2),
        stride=(1, 2),
        dilation=(1, 2),
        input_dilation=(2, 1),
    ),
    conv_case("long taps", (80,), (70,), (1, 2), padding="same"),
    conv_case("long taps over a long signal", (1500,), (70,), (2, 1), padding=((5, 80),)),
    conv_case("wide groups", (6, 5), (3, 2), (24, 20), groups=2, padding=1, stride=(1, 2)),
    conv_case("stride that fills its taps", (11, 9), (5, 4), (3, 4), padding=2, stride=(3, 2)),
    conv_case("stride with phases apart", (9, 8), (3, 4), (16, 3), padding=(1, 2), stride=(2, 3)),
    conv_case("a signal's strides", (24,), (7,), (1, 33), padding=((4, 2),), stride=3),
    conv_case("two colours' strides", (6, 17), (3, 8), (2, 12), padding=(1, 3), stride=(2, 3)),
    conv_case("odd channels", (7, 6), (3, 3), (7, 20), padding=1),
    conv_case("odd channels, strided", (17, 18), (3, 5), (7, 18), padding=(1, 2), stride=2),
    conv_case("odd outputs", (7, 6), (3, 3), (20, 7), padding=1),
    conv_case("few inputs to many", (9, 9), (2, 1), (4, 8192), padding=((1, 0), (0, 0))),
    conv_case("many inputs to few", (8, 8), (2, 1), (2048, 3), padding=((1, 0), (0, 0))),
    conv_case("long strides", (16, 21), (8, 8), (4, 5), padding=(0, 2), stride=4),
    conv_case("large taps, strided", (19, 22), (9, 8), (9, 5), padding=(4, 1), stride=(3, 4)),
    conv_case("few channels, strided", (13, 16), (5, 4), (3, 4), padding=(2, 1), stride=(2, 3)),
    conv_case("a volume's strides", (5, 6, 7), (3, 2, 3), (9, 24), padding=(1, 0, 2), stride=2),
    conv_case("tiles that widen", (16, 17), (3, 3), (32, 64), padding=1),
    conv_case("one row of outputs", (5, 9), (5, 1), (16, 17)),
    conv_case("few positions", (3, 2), (2, 2), (32, 3), padding=(1, 0)),
    conv_case("a stride to few channels", (17, 15), (4, 3), (8, 2), padding=(2, 1), stride=2),
    conv_case("few windows apart", (4, 6), (2, 2), (8, 64), stride=2),
    conv_case("one tap of few channels", (4, 3), (1, 1), (3, 4), padding=1),
    conv_case("a column of few inputs", (5, 4), (3, 1), (3, 24), padding=(1, 0)),
    conv_case("rows a page apart", (19, 512), (17, 1), (1, 2)),
    conv_case("planes a page apart", (18, 8, 64), (17, 1, 1), (1, 1), padding=((1, 0),) * 3),
    conv_case("five rows of taps", (8, 7), (5, 3), (8, 4), padding=2),
    conv_case("depthwise, few taps", (7, 6), (3, 2), (17, 17), groups=17, padding=((2, 1), (0, 3))),
    conv_case("depthwise, 7x4 taps", (6, 5), (7, 4), (16, 16), groups=16, padding=((2, 5), (2, 2))),
    conv_case("depthwise, wide", (5, 6), (7, 6), (16, 16), groups=16, padding=((4, 3), (0, 5))),
    conv_case("depthwise, ends", (8, 7), (5, 5), (16, 16), groups=16, padding=2),
    conv_case("depthwise, long", (47,), (4,), (16, 16), groups=16, padding="causal"),
    conv_case("depthwise, long rows", (4, 43), (3, 3), (17, 17), groups=17, padding=(1, 2)),
    conv_case("depthwise, every other", (5, 41), (2, 3), (16, 16), groups=16, stride=2, padding=1),
    conv_case("depthwise, deep", (4, 3, 18), (3, 2, 3), (16, 16), groups=16, padding=1),
    conv_case("thin groups, strided", (7, 6), (3, 3), (8, 32), groups=4, padding=1, stride=(2, 3)),
)

POOL_CASES = (
    pool_case("rank 1, no batch axis", (9,), (2,), batch=()),
    pool_case("rank 2", (6, 7), (3, 2), channels=3),
    pool_case("rank 3", (4, 3, 5), (2, 3, 2), stride=(1, 1, 2)),
    pool_case(
        "rank 4", (3, 2, 4, 3), (2, 1, 3, 2), padding=((1, 0), (0, 0), (1, 1), (0, 1)), stride=1
    ),
    pool_case("one tap at a stride, then two", (5, 4, 5), (1, 2, 2), stride=(2, 1, 1)),
    pool_case("two batch axes", (5, 4), (2, 3), channels=1, batch=(2, 3), stride=1),
    pool_case("overlapping", (7, 6), (3, 2), stride=(2, 1), padding=1),
    pool_case("stride beyond the window", (9, 8), (2, 1), stride=(3, 4)),
    pool_case("dilation", (9, 8), (3, 2), stride=(2, 1), dilation=(2, 3), padding=(1, 0)),
    pool_case("one window", (4, 3), (4, 3)),
    pool_case("ceil mode", (8, 6), (3, 4), stride=(2, 3), padding=(1, 0), ceil_mode=True),
    pool_case("ceil mode beyond the padding", (5, 7), (3, 2), padding=(1, 1), ceil_mode=True),
    pool_case("ceil mode leaves a window out", (5,), (2,), stride=3, padding=1, ceil_mode=True),
    pool_case(
        "ceil mode in the high padding", (8,), (1,), stride=3, padding=((-2, 5),), ceil_mode=True
    ),
    pool_case("window wider than the input", (2,), (3,), stride=2, ceil_mode=True),
    pool_case("uneven padding", (6, 5), (3, 2), padding=((2, 0), (0, 1)), stride=(1, 2)),
    pool_case("windows of only padding", (3, 4), (2, 2), padding=((3, 4), (2, 0))),
    pool_case("long, everywhere", (6, 3), (11, 2), padding=((12, 5), (0, 1)), stride=1),
    pool_case("crop", (7, 8), (2, 3), padding=((-1, -2), (-2, 1)), stride=(1, 2)),
    pool_case("same", (7, 6), (3, 2), padding="same", stride=(2, 1)),
    pool_case("same_lower, any case", (7, 6), (2, 4), padding="Same_Lower", stride=(3, 1)),
    pool_case("full", (4, 3), (2, 3), padding="full", stride=1),
    pool_case("causal", (7,), (3,), padding="causal", stride=1, dilation=2),
)


def named(cases, *names):
    """The cases of these names, in this order; all of them if none is named."""
    by_name = {case.name: case for case in cases}
    assert len(by_name) == len(cases), "names must differ"
    return [by_name[name] for name in names] if names else list(cases)


def each_case(cases, *names):
    """Parametrizes a test's `case`."""
    chosen = named(cases, *names)
    return pytest.mark.parametrize("case", chosen, ids=[case.name for case in chosen])


each_method = pytest.mark.parametrize("method", METHODS)
