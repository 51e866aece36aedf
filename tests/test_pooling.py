"""Pooling: values, winners and gradients, against the loops."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jconv
from jconv.testing import assert_adjoint, assert_agree, assert_rule
from tests import definition, strategies
from tests.cases import POOL_CASES, dense, each_case, named, pool_case
from tests.compare import assert_close, assert_same
from tests.effort import drawn

EXTREMES = {
    "max": (jconv.max_pool, definition.max_pool),
    "min": (jconv.min_pool, definition.min_pool),
}
each_extreme = pytest.mark.parametrize("kind", EXTREMES)

AVERAGES = [
    {"count_include_pad": count_include_pad, "divisor": divisor}
    for count_include_pad, divisor in itertools.product([True, False], [None, 3])
]
RULED = "dilation", "ceil mode beyond the padding"


def assert_winners(case, kind, x):
    """Values, indices and gradient of a max or min pooling of `x` are the definition's."""
    pool, defined = EXTREMES[kind]
    values, indices = defined(x, case.window, **case.options)
    y_bar = dense(values.shape, "float32", seed=1)

    @jax.jit
    def evaluate(x):
        y, transpose = jax.vjp(lambda x: pool(x, case.window, **case.options), x)
        winners = pool(x, case.window, return_indices=True, **case.options)
        return y, winners, transpose(y_bar)[0]

    y, (y_again, winners), x_bar = evaluate(x)
    assert winners.dtype == "int32"
    assert y.dtype == x.dtype
    assert_same(winners, indices)
    assert_same(y, values)
    assert_same(y_again, values)
    expected = definition.extreme_pool_gradient(y_bar, indices, case.size)
    assert_close(x_bar, expected, "float32", terms=math.prod(case.window))


@each_extreme
@each_case(POOL_CASES)
def test_winners(case, kind):
    assert_winners(case, kind, dense(case.shape, "float32", seed=0))


@each_extreme
@each_case(
    POOL_CASES, "overlapping", "dilation", "ceil mode", "windows of only padding",
    "long, everywhere",
)  # fmt: skip
def test_first_of_equals_wins(case, kind):
    """Zeros of either sign are equals, too."""
    assert_winners(case, kind, dense(case.shape, "int8", seed=0).clip(0, 1).astype("float32"))
    assert_winners(case, kind, 0 * dense(case.shape, "float32", seed=0))


@each_extreme
@each_case(
    POOL_CASES, "overlapping", "dilation", "ceil mode", "windows of only padding",
    "long, everywhere",
)  # fmt: skip
def test_first_nan_wins(case, kind):
    x = dense(case.shape, "float32", seed=0)
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    assert_winners(case, kind, x)


@each_extreme
@pytest.mark.parametrize("value", [-np.inf, np.inf])
@each_case(POOL_CASES, "overlapping", "ceil mode", "windows of only padding", "long, everywhere")
def test_infinities(case, value, kind):
    """Where nothing but the neutral value is seen, the first position seen wins."""
    x = dense(case.shape, "float32", seed=0)
    x[np.random.default_rng(1).random(x.shape) < 0.8] = value
    assert_winners(case, kind, x)


@each_extreme
@drawn(15)
@given(case=strategies.pool_cases(), seed=st.integers(0, 9))
def test_winners_of_drawn_options(case, kind, seed):
    assert_winners(case, kind, dense(case.shape, "float32", seed))


def test_a_window_of_only_padding_has_no_winner():
    x, options = dense((2, 3, 1), "float32", seed=0), {"padding": ((4, 0),), "stride": 2}
    y, winners = jconv.max_pool(x, (2,), return_indices=True, **options)
    assert_same(y[:, :2], np.full((2, 2, 1), -np.inf))
    assert_same(winners[:, :2], np.full((2, 2, 1), -1))
    x_bar = jax.grad(lambda x: jconv.max_pool(x, (2,), **options).sum())(x)
    assert np.isfinite(x_bar).all()


@each_extreme
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int32", "int8", "uint8"])
@each_case(POOL_CASES, "windows of only padding")
def test_extremes_keep_the_dtype(case, dtype, kind):
    pool, defined = EXTREMES[kind]
    x = dense(case.shape, dtype, seed=0)
    y, winners = pool(x, case.window, return_indices=True, **case.options)
    values, indices = defined(x, case.window, **case.options)
    assert y.dtype == dtype
    assert_same(y, values)
    assert_same(winners, indices)


# Averages and sums


def assert_average(case, pool, defined, defined_gradient, dtype="float32"):
    x = dense(case.shape, dtype, seed=0)
    expected = defined(x, case.window, **case.options)
    y_bar = dense(expected.shape, dtype, seed=1)

    @jax.jit
    def evaluate(x):
        y, transpose = jax.vjp(lambda x: pool(x, case.window, **case.options), x)
        return y, transpose(y_bar)[0]

    y, x_bar = evaluate(x)
    terms = math.prod(case.window)
    assert_close(y, expected, dtype, terms)
    expected = defined_gradient(y_bar, case.size, case.window, **case.options)
    assert_close(x_bar, expected, dtype, terms)


def assert_avg_pool(case, options, dtype="float32"):
    """`avg_pool` with these options of its own."""
    functions = jconv.avg_pool, definition.avg_pool, definition.avg_pool_gradient
    assert_average(case, *(functools.partial(f, **options) for f in functions), dtype)


@pytest.mark.parametrize("options", AVERAGES, ids=str)
@each_case(POOL_CASES)
def test_avg_pool(case, options):
    assert_avg_pool(case, options)


@drawn(15)
@given(case=strategies.pool_cases(), options=st.sampled_from(AVERAGES))
def test_avg_pool_of_drawn_options(case, options):
    assert_avg_pool(case, options)


@each_case(POOL_CASES)
def test_sum_pool(case):
    assert_average(case, jconv.sum_pool, definition.sum_pool, definition.sum_pool_gradient)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "complex64"])
@each_case(POOL_CASES, "overlapping")
def test_averages_keep_the_dtype(case, dtype):
    assert_avg_pool(case, {}, dtype)
    assert_average(case, jconv.sum_pool, definition.sum_pool, definition.sum_pool_gradient, dtype)


@pytest.mark.parametrize("window", [2, 5])
def test_averages_keep_nothing_for_their_gradient(window):
    x = dense((4, 56, 56, 64), "float32", seed=0)
    _, transpose = jax.vjp(lambda x: jconv.avg_pool(x, (window, window), stride=1), x)
    assert sum(kept.size for kept in jax.tree.leaves(transpose)) < 100


# On accelerators, whose way a CPU can compute too


UNEVEN = pool_case("uneven", (7, 6), (3, 2), stride=1, padding=((1, 2), (0, 1)), dilation=(2, 1))
each_elsewhere = each_case([*POOL_CASES, UNEVEN], *RULED, "windows of only padding", "uneven")


@each_extreme
@each_elsewhere
def test_winners_elsewhere(case, kind, elsewhere):
    x = dense(case.shape, "float32", seed=0)
    assert_winners(case, kind, x)
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    assert_winners(case, kind, x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@each_elsewhere
def test_averages_elsewhere(case, dtype, elsewhere):
    assert_avg_pool(case, {}, dtype)
    assert_average(case, jconv.sum_pool, definition.sum_pool, definition.sum_pool_gradient, dtype)


@pytest.mark.parametrize("pool", [jconv.max_pool, jconv.avg_pool])
def test_accelerators_reduce_windows_at_once(pool):
    x = jax.ShapeDtypeStruct((2, 9, 8, 3), "float32")
    f = jax.jit(lambda x: pool(x, (3, 3), stride=1, padding=1))
    program = jax.export.export(f, platforms=["cuda"])(x).mlir_module()
    assert "stablehlo.reduce_window" in program
    assert "stablehlo.pad" not in program
    assert "stablehlo.reduce_window" not in jax.export.export(f, platforms=["cpu"])(x).mlir_module()


@pytest.mark.parametrize("window", [(2, 2), (3, 3), (7, 7)])
def test_accelerators_read_no_winners_from_bits(window):
    """XLA:GPU (jaxlib 0.11) read -1 from all of them: the gradient was zero."""
    x = jax.ShapeDtypeStruct((2, 9, 8, 9), "float32")
    f = jax.jit(jax.grad(lambda x: jconv.max_pool(x, window, padding=1).sum()))
    assert "bitcast_convert" not in jax.export.export(f, platforms=["cuda"])(x).mlir_module()


# Rules


@pytest.mark.parametrize("pool", [jconv.max_pool, jconv.min_pool, jconv.avg_pool, jconv.sum_pool])
@each_case(POOL_CASES, *RULED)
def test_rule_to_third_order(case, pool):
    ruled = functools.partial(pool, window=case.window, **case.options)
    plain = functools.partial(ruled, custom_vjp=False)
    # Entries a whole step apart keep their order when the law moves its point.
    x = 2.0 ** np.random.default_rng(0).permutation(math.prod(case.shape)).reshape(case.shape)
    assert_rule(ruled, plain, (np.log2(1 + x),), order=3, draws=1)


@pytest.mark.parametrize("return_indices", [False, True])
def test_zeroed_max_pool_rule_is_caught(return_indices):
    def plain(x):
        return jconv.max_pool(x, (2,), return_indices=return_indices, custom_vjp=False)

    wrong = jax.custom_vjp(plain)
    wrong.defvjp(lambda x: (plain(x), x), lambda x, _: (jnp.zeros_like(x),))
    with pytest.raises(AssertionError):
        assert_rule(wrong, plain, (dense((2, 6, 3), "float32", seed=0),))


@pytest.mark.parametrize("pool", [jconv.avg_pool, jconv.sum_pool])
@each_case(POOL_CASES, *RULED)
def test_averages_have_adjoints(case, pool):
    x = dense(case.shape, "float32", seed=0)
    pool = jax.jit(functools.partial(pool, window=case.window, **case.options))
    y, transpose = jax.vjp(pool, x)
    assert_adjoint(pool, lambda y: transpose(y)[0], x, y)


@pytest.mark.parametrize("pool", [jconv.max_pool, jconv.min_pool, jconv.avg_pool, jconv.sum_pool])
@each_case(POOL_CASES, "overlapping")
def test_transforms(case, pool):
    xs = dense((3, *case.shape), "float64", seed=0)
    direction = dense(case.shape, "float64", seed=1)

    def loss(x):
        return jnp.sum(jnp.tanh(pool(x, case.window, **case.options)))

    def plain_loss(x):
        return jnp.sum(jnp.tanh(pool(x, case.window, custom_vjp=False, **case.options)))

    def product(loss):
        return jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (direction,))[1])(xs[0])

    grad = jax.jit(jax.grad(loss))
    one_by_one = jnp.stack([grad(x) for x in xs])
    assert_agree(jax.jit(jax.vmap(jax.grad(loss)))(xs), one_by_one)
    assert_agree(jax.jit(jax.grad(lambda xs: jax.vmap(loss)(xs).sum()))(xs), one_by_one)
    assert_agree(jax.jit(jax.vmap(jax.grad(jax.checkpoint(loss))))(xs), one_by_one)
    assert_agree(product(loss), product(plain_loss))


@pytest.mark.parametrize("pool", [jconv.max_pool, jconv.avg_pool, jconv.prod_pool])
def test_many_channels_are_pooled_as_few(pool):
    """From 8 channels on a loop is lengthened by a choice, which must be none."""
    x, y_bar = dense((2, 6, 5, 9), "float32", seed=0), dense((2, 3, 2, 9), "float32", seed=1)
    x[0, 0, 0, :3] = np.nan, np.inf, -np.inf

    @jax.jit
    def evaluate(x, y_bar):
        y, transpose = jax.vjp(lambda x: pool(x, (2, 2)), x)
        return y, transpose(y_bar)[0]

    def joined(*parts):
        return jnp.concatenate(parts, -1)

    together = evaluate(x, y_bar)
    alone = evaluate(x[..., :5], y_bar[..., :5]), evaluate(x[..., 5:], y_bar[..., 5:])
    for a, b in zip(together, map(joined, *alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("window", [(2, 2), (4, 3)], ids=str)
@pytest.mark.parametrize("pool", [jconv.max_pool, jconv.avg_pool, jconv.prod_pool])
def test_many_channels_are_differentiated_as_few(pool, window):
    """And JAX must know that choice for one that it may transpose."""
    x = dense((1, 5, 7, 8), "float64", seed=0)
    options = {"window": window, "stride": 4, "padding": [(0, 1), (-1, 0)]}
    ruled = functools.partial(pool, **options)
    plain = functools.partial(ruled, custom_vjp=False)
    assert_rule(ruled, plain, (x,), order=2, draws=1)
    y, pull = jax.vjp(plain, x)
    few, pull_few = jax.vjp(ruled, x[..., :5])
    np.testing.assert_allclose(y[..., :5], few, rtol=1e-12)
    np.testing.assert_allclose(pull(y)[0][..., :5], pull_few(few)[0], rtol=1e-12)


@pytest.mark.parametrize("pool", [jconv.avg_pool, jconv.sum_pool])
def test_averages_of_many_channels_are_transposed(pool):
    x = dense((1, 5, 7, 8), "float32", seed=0)
    plain = functools.partial(pool, window=(4, 3), custom_vjp=False)
    transpose = jax.linear_transpose(plain, x)
    assert_adjoint(plain, lambda y: transpose(y)[0], x, plain(x))


def test_winners_under_vmap():
    x = dense((2, 3, 6, 5, 2), "float32", seed=0)
    pool = functools.partial(jconv.max_pool, window=(3, 2), padding=1, return_indices=True)
    assert_agree(jax.jit(jax.vmap(pool))(x), jax.jit(pool)(x))


@pytest.mark.parametrize("pool", [jconv.max_pool, jconv.min_pool, jconv.avg_pool, jconv.sum_pool])
def test_window_of_one_int_leaves_the_first_and_last_axis(pool):
    x = dense((2, 6, 5, 4, 3), "float32", seed=0)
    assert_same(pool(x, 2), pool(x, (2, 2, 2)))
    assert_same(pool(x, 2, stride=1), pool(x, (2, 2, 2), stride=(1, 1, 1)))


# Drop and unpool


@pytest.mark.parametrize(
    ("stride", "offset"), [((2, 3), 0), ((2, 3), (1, 2)), (2, 0), (3, 1), ((1, 7), 0)]
)
def test_drop(stride, offset):
    x = dense((2, 7, 8, 3), "float32", seed=0)
    y, transpose = jax.vjp(lambda x: jconv.drop(x, stride, offset=offset), x)
    assert_same(y, definition.drop(x, stride, offset=offset))
    y_bar = dense(y.shape, "float32", seed=1)
    x_bar = np.zeros_like(x)
    definition.drop(x_bar, stride, offset=offset)[:] = y_bar
    assert_same(transpose(y_bar)[0], x_bar)


def test_drop_after_conv_is_stride():
    x, kernel = dense((2, 8, 7, 3), "float32", 0), dense((3, 2, 3, 4), "float32", 1)
    y = jconv.drop(jconv.conv(x, kernel, padding=1), (3, 2))
    expected = definition.conv(x, kernel, padding=1, stride=(3, 2))
    assert_close(y, expected, "float32", terms=18)


@each_case(POOL_CASES, "rank 1, no batch axis", "rank 2", "stride beyond the window", "rank 3")
def test_max_unpool(case):
    x = dense(case.shape, "float32", seed=0)
    y, indices = definition.max_pool(x, case.window, **case.options)
    unpooled, transpose = jax.vjp(lambda y: jconv.max_unpool(y, indices, case.size), y)
    assert_same(unpooled, definition.max_unpool(y, indices, case.size))
    x_bar = dense(x.shape, "float32", seed=1)
    flat = x_bar.reshape(*case.batch, math.prod(case.size), case.channels)
    taken = np.take_along_axis(
        flat, indices.reshape(*case.batch, -1, case.channels), axis=len(case.batch)
    )
    assert_same(transpose(x_bar)[0], taken.reshape(y.shape))


def test_max_unpool_leaves_out_windows_without_a_winner():
    (case,) = named(POOL_CASES, "windows of only padding")
    x = dense(case.shape, "float32", seed=0)
    y, indices = jconv.max_pool(x, case.window, return_indices=True, **case.options)
    unpooled = jconv.max_unpool(y, indices, case.size)
    assert_same(unpooled, definition.max_unpool(y, np.asarray(indices), case.size))


def test_max_unpool_takes_a_cotangent_of_numpy():
    y, indices = dense((1, 2, 1), "float32", seed=0), np.array([[[3], [1]]], "int32")
    _, transpose = jax.vjp(lambda y: jconv.max_unpool(y, indices, (4,)), y)
    x_bar = dense((1, 4, 1), "float32", seed=1)
    assert_same(transpose(x_bar)[0], x_bar[:, [3, 1]])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_max_unpool_takes_indices_too_narrow_for_the_size(dtype):
    y, indices = dense((3, 1), "float32", seed=0), np.array([[100], [2], [0]], dtype)
    actual = jconv.max_unpool(y, indices, (300,))
    assert_same(actual, definition.max_unpool(y, indices.astype("int32"), (300,)))
