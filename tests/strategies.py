"""Hypothesis strategies that draw legal options: nothing drawn is thrown away."""

from hypothesis import strategies as st

from jconv.geometry import Spec, Window
from tests import definition
from tests.cases import MODES, ConvCase, PoolCase

WORDS = ("valid", "same", "same_lower", "full", "causal")
LONGEST = {1: 4, 2: 3, 3: 2, 4: 2}


def per_axis(rank, entries):
    """One for all axes, or one per axis."""
    return st.one_of(entries, st.tuples(*[entries] * rank))


def spellings(word):
    return st.sampled_from([word, word.upper(), word.title()])


def paddings(rank, least, most):
    amounts = st.integers(least, most)
    pairs = st.tuples(*[st.tuples(amounts, amounts)] * rank)
    words = st.sampled_from(WORDS).flatmap(spellings)
    return st.one_of(words, amounts, st.tuples(*[amounts] * rank), pairs)


def sizes(rank, taps, **geometry):
    """Sizes that give every axis an output, from the smallest such size on."""
    smallest = definition.smallest_size((1,) * rank, taps, **geometry)
    return st.tuples(*[st.integers(n, n + LONGEST[rank] - 1) for n in smallest])


batches = st.lists(st.integers(1, 2), max_size=2).map(tuple)


@st.composite
def conv_cases(draw, *, linear=False):
    """Any convolution of rank 1 to 4. A `linear` one has no padding value."""
    rank = draw(st.integers(1, 4))
    longest = LONGEST[rank]
    taps = draw(st.tuples(*[st.integers(1, longest)] * rank))
    geometry = {
        "stride": draw(per_axis(rank, st.integers(1, 4))),
        "padding": draw(paddings(rank, -2, longest + 1)),
        "dilation": draw(per_axis(rank, st.integers(1, longest))),
        "input_dilation": draw(per_axis(rank, st.integers(1, longest))),
    }
    mode = draw(st.sampled_from(MODES))
    if mode == "constant" and not linear:
        geometry_free = {"padding_value": draw(st.sampled_from([0, -1.5]))}
    else:
        geometry_free = {"padding_mode": mode}
    groups = draw(st.integers(1, 3))
    widths = st.integers(1, 2)
    return ConvCase(
        name="drawn",
        size=draw(sizes(rank, taps, **geometry)),
        taps=taps,
        channels=(groups * draw(widths), groups * draw(widths)),
        batch=draw(batches),
        options={**geometry, **geometry_free, "groups": groups, "flip": draw(st.booleans())},
    )


@st.composite
def windows(draw, longest):
    """The window of one axis, all of whose options are its own."""
    taps, dilation = draw(st.integers(1, longest)), draw(st.integers(1, 4))
    stride, spacing = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    low, high = draw(st.tuples(*[st.integers(-1, longest)] * 2))
    reach = (taps - 1) * dilation
    least = max(-(-(reach - low - high) // spacing) + 1, 1)
    return Window(draw(st.integers(least, least + 5)), taps, stride, low, high, dilation, spacing)


@st.composite
def specs(draw):
    """Windows of one to three axes, and groups."""
    rank = draw(st.integers(1, 3))
    axes = draw(st.tuples(*[windows(LONGEST[rank])] * rank))
    return Spec(axes, draw(st.integers(1, 2)))


@st.composite
def pool_cases(draw):
    """Any pooling of rank 1 to 4."""
    rank = draw(st.integers(1, 4))
    window = draw(st.tuples(*[st.integers(1, LONGEST[rank])] * rank))
    geometry = {
        "stride": draw(per_axis(rank, st.integers(1, 4))),
        "padding": draw(paddings(rank, 0, LONGEST[rank])),
        "dilation": draw(per_axis(rank, st.integers(1, 2))),
    }
    return PoolCase(
        name="drawn",
        size=draw(sizes(rank, window, **geometry)),
        window=window,
        channels=draw(st.integers(1, 2)),
        batch=draw(batches),
        options={**geometry, "ceil_mode": draw(st.booleans())},
    )
