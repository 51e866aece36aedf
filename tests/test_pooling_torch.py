"""Hundreds of drawn poolings, batched into a few compilations, against torch."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from tests.cases import dense
from tests.compare import assert_close, assert_same

torch = pytest.importorskip("torch")
functional = pytest.importorskip("torch.nn.functional")

BATCHES, CASES = range(6), 20
each_batch = pytest.mark.parametrize("batch", BATCHES)


def draw(rng, *, dilated):
    """Options that torch takes, and an input size that gives an output."""
    rank = int(rng.integers(1, 4))
    window = rng.integers(1, 5 if rank < 3 else 3, rank)
    padding = np.minimum(rng.integers(0, 3, rank), window // 2)
    dilation = rng.integers(1, 4, rank) if dilated else np.ones(rank, int)
    size = np.maximum((window - 1) * dilation + 1 - 2 * padding, window) + rng.integers(0, 6, rank)
    options = {"stride": rng.integers(1, 5, rank), "padding": padding}
    options |= {"dilation": dilation} if dilated else {}
    options = {name: tuple(value.tolist()) for name, value in options.items()}
    options["ceil_mode"] = bool(rng.integers(2))
    return tuple(window.tolist()), tuple(size.tolist()), options


def cases_of(batch, *, dilated):
    rng = np.random.default_rng(batch)
    for seed in range(CASES):
        window, size, options = draw(rng, dilated=dilated)
        yield window, options, dense((2, *size, 2), "float32", seed)


def to_torch(x):
    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1), requires_grad=x.dtype == np.float32)


def from_torch(y):
    return np.moveaxis(y.detach().numpy(), 1, -1)


def torch_function(name, rank):
    return getattr(functional, f"{name}{rank}d")


def value_and_slope(pool, x):
    """`pool(x)`, and the gradient of half the sum of the squares of what is finite."""
    y, transpose = jax.vjp(pool, x)
    return y, transpose(jnp.where(jnp.isfinite(y), y, 0.0))[0]


def torch_value_and_slope(pool, x):
    leaf = to_torch(x)
    y = pool(leaf)
    y.backward(torch.where(y.isfinite(), y, 0.0).detach())
    return from_torch(y), from_torch(leaf.grad)


def evaluate(pools, xs):
    """Every pool at its input, compiled as one program."""
    return jax.jit(lambda xs: [pool(x) for pool, x in zip(pools, xs, strict=True)])(xs)


@each_batch
def test_max_pool(batch):
    cases = list(cases_of(batch, dilated=True))

    def ours(window, options, x):
        pool = functools.partial(jconv.max_pool, window=window, **options)
        return *value_and_slope(pool, x), pool(x, return_indices=True)[1]

    results = evaluate(
        [functools.partial(ours, window, options) for window, options, _ in cases],
        [x for *_, x in cases],
    )
    for (window, options, x), (y, x_bar, winners) in zip(cases, results, strict=True):
        pool = functools.partial(torch_function("max_pool", len(window)), kernel_size=window)
        theirs, their_slope = torch_value_and_slope(lambda x, p=pool, o=options: p(x, **o), x)
        assert_same(y, theirs)
        assert_close(x_bar, their_slope, "float32", math.prod(window))
        indices = from_torch(pool(to_torch(x), return_indices=True, **options)[1])
        # A window of only padding has no winner here; torch names the nearest position.
        assert_same(winners, np.where(np.isfinite(y), indices, -1))


@each_batch
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_avg_pool(batch, count_include_pad):
    cases = [
        (window, options | {"count_include_pad": count_include_pad}, divisor, x)
        for (window, options, x), divisor in zip(
            cases_of(batch, dilated=False), itertools.cycle([None, 3]), strict=False
        )
    ]

    def ours(window, options, divisor, x):
        divisor = divisor if len(window) > 1 else None
        return value_and_slope(lambda x: jconv.avg_pool(x, window, divisor=divisor, **options), x)

    results = evaluate(
        [functools.partial(ours, *case[:-1]) for case in cases], [case[-1] for case in cases]
    )
    for (window, options, divisor, x), (y, x_bar) in zip(cases, results, strict=True):
        theirs = {} if len(window) == 1 else {"divisor_override": divisor}
        pool = functools.partial(
            torch_function("avg_pool", len(window)), kernel_size=window, **options, **theirs
        )
        expected, slope = torch_value_and_slope(pool, x)
        assert_close(y, expected, "float32", math.prod(window))
        assert_close(x_bar, slope, "float32", math.prod(window))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(p):
    """Of entries from 0 on, where torch's root of `sum x^p` is the norm; it has no padding."""
    cases = [
        (window, {"stride": options["stride"], "ceil_mode": options["ceil_mode"]}, np.abs(x))
        for window, options, x in cases_of(0, dilated=False)
        if all(n >= w for n, w in zip(x.shape[1:-1], window, strict=True))
    ]

    def ours(window, options, x):
        return value_and_slope(lambda x: jconv.lp_pool(x, window, p, **options), x)

    results = evaluate(
        [functools.partial(ours, *case[:-1]) for case in cases], [case[-1] for case in cases]
    )
    compared = 0
    for (window, options, x), (y, x_bar) in zip(cases, results, strict=True):
        if options["ceil_mode"]:
            # Torch scales up the mean of a partial window by the whole window; the norm does not.
            continue
        kernel_size = window if len(window) > 1 else window[0]
        pool = functools.partial(
            torch_function("lp_pool", len(window)), norm_type=p, kernel_size=kernel_size, **options
        )
        expected, slope = torch_value_and_slope(pool, x)
        terms = 4 * math.prod(window)
        assert_close(y, expected, "float32", terms)
        assert_close(x_bar, slope, "float32", terms)
        compared += 1
    assert compared >= 4


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_unpool(rank):
    x = dense((2, *(6, 4, 5)[:rank], 3), "float32", 0)
    y, indices = jconv.max_pool(x, (2,) * rank, return_indices=True)
    size = x.shape[1:-1]
    unpooled, slope = jax.jit(
        lambda y: value_and_slope(lambda y: jconv.max_unpool(y, indices, size), y)
    )(y)
    pool = functools.partial(
        torch_function("max_unpool", rank),
        indices=to_torch(indices).long(), kernel_size=2, output_size=size,
    )  # fmt: skip
    expected, their_slope = torch_value_and_slope(pool, y)
    assert_same(unpooled, expected)
    assert_same(slope, their_slope)


@each_batch
def test_adaptive_pools(batch):
    rng = np.random.default_rng(batch)
    cases = []
    for seed in range(CASES // 2):
        rank = int(rng.integers(1, 4))
        size, out = (tuple(rng.integers(1, 8, rank).tolist()) for _ in range(2))
        cases.append((out, dense((2, *size, 2), "float32", seed)))

    def ours(out, x):
        most = functools.partial(jconv.adaptive_max_pool, output_size=out)
        mean = functools.partial(jconv.adaptive_avg_pool, output_size=out)
        winners = most(x, return_indices=True)[1]
        return *value_and_slope(most, x), winners, *value_and_slope(mean, x)

    results = evaluate([functools.partial(ours, out) for out, _ in cases], [x for _, x in cases])
    for (out, x), (y, x_bar, winners, mean, mean_bar) in zip(cases, results, strict=True):
        most = torch_function("adaptive_max_pool", len(out))
        expected, slope = torch_value_and_slope(lambda x, p=most, o=out: p(x, o), x)
        assert_same(y, expected)
        assert_close(x_bar, slope, "float32", 64)
        assert_same(winners, from_torch(most(to_torch(x), out, return_indices=True)[1]))
        pool = torch_function("adaptive_avg_pool", len(out))
        expected, slope = torch_value_and_slope(lambda x, p=pool, o=out: p(x, o), x)
        assert_close(mean, expected, "float32", 8)
        assert_close(mean_bar, slope, "float32", 64)


def test_special_values():
    """Ties, NaN, and windows of only -inf."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (4, 9, 8, 2)).astype("float32")
    x[rng.random(x.shape) < 0.2] = np.nan
    x[2:] = -np.inf
    options = {"stride": (2, 1), "padding": (1, 1)}
    y, winners = jconv.max_pool(x, (3, 2), return_indices=True, **options)
    theirs, indices = functional.max_pool2d(to_torch(x), (3, 2), return_indices=True, **options)
    assert_same(y, from_torch(theirs))
    assert_same(winners[2:], from_torch(indices)[2:])
    # Among several NaN torch's index is the last, ours the first.
    clear = np.asarray(~jnp.isnan(y))
    assert_same(np.asarray(winners)[clear], from_torch(indices)[clear])
