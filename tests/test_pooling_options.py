"""The poolings that other libraries leave out or do not differentiate, against the loops."""

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
from tests import definition, definition_pooling, strategies
from tests.cases import POOL_CASES, dense, each_case, named
from tests.compare import assert_close, assert_same
from tests.effort import drawn

FOLDS = {
    "prod": (jconv.prod_pool, definition_pooling.prod_pool, {}),
    "logsumexp": (jconv.logsumexp_pool, definition_pooling.logsumexp_pool, {}),
    "cool logsumexp": (
        jconv.logsumexp_pool, definition_pooling.logsumexp_pool, {"temperature": 0.2},
    ),
    "l1": (jconv.lp_pool, definition_pooling.lp_pool, {"p": 1}),
    "l2": (jconv.lp_pool, definition_pooling.lp_pool, {"p": 2}),
    "l3": (jconv.lp_pool, definition_pooling.lp_pool, {"p": 3}),
    "l2.5": (jconv.lp_pool, definition_pooling.lp_pool, {"p": 2.5}),
    "linf": (jconv.lp_pool, definition_pooling.lp_pool, {"p": math.inf}),
}  # fmt: skip
each_fold = pytest.mark.parametrize("kind", FOLDS)
SMOOTH = ("prod", "cool logsumexp", "l2", "l3", "l2.5")


def fold_of(kind, case, **more):
    pool, _, options = FOLDS[kind]
    return functools.partial(pool, window=case.window, **case.options, **options, **more)


def defined_fold(kind, case):
    _, defined, options = FOLDS[kind]
    return functools.partial(defined, window=case.window, **case.options, **options)


def assert_fold(kind, case, dtype="float32", seed=0):
    x = dense(case.shape, dtype, seed)
    terms = math.prod(case.window)
    assert_close(jax.jit(fold_of(kind, case))(x), defined_fold(kind, case)(x), dtype, terms)


@each_fold
@each_case(POOL_CASES)
def test_values(case, kind):
    assert_fold(kind, case)


@each_fold
@pytest.mark.parametrize("window", [(2, 3), (9, 8)], ids=str)
def test_an_empty_batch(kind, window):
    pool, _, options = FOLDS[kind]
    x = jnp.zeros((0, 10, 9, 3))
    x_bar = jax.grad(lambda x: pool(x, window, **options).sum())(x)
    assert x_bar.shape == x.shape


@each_fold
@drawn(8)
@given(case=strategies.pool_cases(), seed=st.integers(0, 9))
def test_values_of_drawn_options(case, kind, seed):
    assert_fold(kind, case, seed=seed)


@each_fold
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@each_case(POOL_CASES, "overlapping")
def test_dtypes(case, kind, dtype):
    assert_fold(kind, case, dtype)


def test_integers():
    x = dense((2, 7, 3), "int32", 0)
    y = jconv.prod_pool(x, (3,))
    assert y.dtype == jnp.int32
    assert_same(y, definition_pooling.prod_pool(x, (3,)))
    for y in (jconv.logsumexp_pool(x, (3,)), jconv.lp_pool(x, (3,), 2), jconv.avg_pool(x, (3,))):
        assert y.dtype == jnp.result_type(float)


# Derivatives


@pytest.mark.parametrize("kind", SMOOTH)
@each_case(POOL_CASES, "overlapping", "dilation", "ceil mode beyond the padding")
def test_rule_to_second_order(case, kind):
    x = dense(case.shape, "float64", seed=0)
    assert_rule(
        jax.jit(fold_of(kind, case)), jax.jit(fold_of(kind, case, custom_vjp=False)), (x,),
        order=2, draws=1,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [*SMOOTH, "l1", "linf"])
@each_case(POOL_CASES, "windows of only padding", "crop", "rank 3", "one tap at a stride, then two")
def test_gradient_by_differences(case, kind):
    """Along a random line, in float64, of the loops."""
    x, step = dense(case.shape, "float64", 0), dense(case.shape, "float64", 1)
    pool, defined = fold_of(kind, case), defined_fold(kind, case)
    finite = np.isfinite(defined(x))
    weights = np.where(finite, dense(finite.shape, "float64", 2), 0)
    x_bar = jax.jit(lambda x: jax.vjp(pool, x)[1](weights)[0])(x)
    plus, minus = (np.where(finite, defined(x + h * step), 0) for h in (1e-5, -1e-5))
    expected = np.sum(weights * (plus - minus)) / 2e-5
    np.testing.assert_allclose(np.sum(x_bar * step), expected, rtol=1e-6)


@pytest.mark.parametrize("pool", [jconv.max_pool, jconv.avg_pool, jconv.prod_pool])
@pytest.mark.parametrize(("channels", "stride"), [(1, 2), (3, 2), (2, 4)])
@pytest.mark.parametrize("size", [(23,), (12, 13), (6, 7, 10)], ids=str)
def test_gradient_of_few_channels_at_a_stride(pool, channels, stride, size):
    """Whose entries of a cell are written side by side: apart and overlapping, with tails."""
    for taps, padding, dilation in ((stride, 0, 1), (stride + 1, 1, 1), (3, 2, 2)):
        x = dense((2, *size, channels), "float64", seed=taps)
        options = {"stride": stride, "padding": padding, "dilation": dilation}
        of = functools.partial(pool, window=(taps,) * len(size), **options)
        y, pull = jax.vjp(jax.jit(of), x)
        _, expected = jax.vjp(jax.jit(functools.partial(of, custom_vjp=False)), x)
        y_bar = dense(y.shape, "float64", seed=1)
        assert_close(*pull(y_bar), np.asarray(*expected(y_bar)), "float64", taps ** len(size))


@pytest.mark.parametrize("kind", SMOOTH)
def test_hessian_product(kind):
    (case,) = named(POOL_CASES, "overlapping")
    x, step = dense(case.shape, "float64", 0), dense(case.shape, "float64", 1)

    def product(pool):
        def loss(x):
            return jnp.sum(jnp.tanh(pool(x)))

        return jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (step,))[1])(x)

    assert_agree(product(fold_of(kind, case)), product(fold_of(kind, case, custom_vjp=False)))


def test_product_differentiates_where_entries_are_zero():
    x = jnp.array([[2.0], [0.0], [3.0], [0.0], [0.0], [5.0]])

    def pool(x):
        return jconv.prod_pool(x, (3,), stride=3).sum()

    assert_same(jax.grad(pool)(x).ravel(), np.array([0.0, 6.0, 0.0, 0.0, 0.0, 0.0]))
    hessian = jax.hessian(pool)(x).reshape(6, 6)
    expected = np.zeros((6, 6))
    expected[0, 1] = expected[1, 0] = 3
    expected[1, 2] = expected[2, 1] = 2
    expected[3, 4] = expected[4, 3] = 5
    assert_same(hessian, expected)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, math.inf])
def test_norm_of_zeros_has_gradient_zero(p):
    x = jnp.zeros((6, 1))
    y, transpose = jax.vjp(lambda x: jconv.lp_pool(x, (3,), p, stride=1, padding=1), x)
    assert_same(y, np.zeros((6, 1)))
    assert_same(transpose(jnp.ones_like(y))[0], np.zeros((6, 1)))


@pytest.mark.parametrize("custom_vjp", [True, False])
@pytest.mark.parametrize("size", [1, 1e-9, 1e9])
def test_a_zero_among_others_has_the_derivatives_of_a_norm(size, custom_vjp):
    """A 2-norm has a second one there, of 1 over itself."""
    x = jnp.array([0.0, 3.0, 4.0, 0.0, 12.0]) * size

    def norm(p, x):
        return jconv.lp_pool(x[:, None], (5,), p, custom_vjp=custom_vjp)[0, 0]

    expected = jax.hessian(jnp.linalg.norm)(x)
    slope = jax.grad(functools.partial(norm, 2))
    for second in (jax.jacrev(slope), jax.jacfwd(slope)):
        np.testing.assert_allclose(second(x), expected, rtol=2e-5, atol=1e-6 / size)
    assert_same(jax.grad(functools.partial(norm, 1))(x), np.sign(x))


@pytest.mark.parametrize("p", [1000, 1e5])
def test_large_powers_to_second_order(p):
    """Also where the stride leaves entries that no window reads."""
    x, step = dense((7, 7, 2), "float32", 0), dense((7, 7, 2), "float32", 1)

    def slope(x):
        return jax.grad(lambda x: jconv.lp_pool(x, (3, 3), p).sum())(x)

    product = jax.jit(jax.grad(lambda x: jnp.vdot(slope(x), step)))(x)
    assert np.isfinite(product).all()
    assert_same(product[6:], np.zeros((1, 7, 2)))


@pytest.mark.parametrize("kind", ["logsumexp", "l2"])
def test_an_infinite_entry_keeps_its_gradient_to_itself(kind):
    pool, _, options = FOLDS[kind]
    x = jnp.array([[1.0], [np.inf], [0.5], [2.0]])
    y, transpose = jax.vjp(lambda x: pool(x, (2,), **options), x)
    assert y[0] == np.inf
    assert_same(np.isnan(transpose(jnp.ones_like(y))[0]).ravel(), np.arange(4) == 1)


def test_norm_overflows_nowhere():
    x = jnp.full((4, 1), 1e30, jnp.float32)
    assert_close(jconv.lp_pool(x, (4,), 4) / 1e30, np.full((1, 1), math.sqrt(2)), "float32", 4)


@pytest.mark.parametrize(("taps", "stride"), [((2, 2), 2), ((3, 3), 1)])
def test_gradient_of_log_sum_exp_rounds_little(taps, stride):
    rng = np.random.default_rng(0)
    x = (8 * rng.standard_normal((40, 40, 4))).astype("float32")

    def peer(x):
        return jax.nn.logsumexp(jconv.unfold(x, taps, stride=stride), axis=(2, 3))

    def pooled(x):
        return jconv.logsumexp_pool(x, taps, stride=stride)

    y_bar = rng.standard_normal(jax.eval_shape(peer, x).shape).astype("float32")

    def gradient(f, dtype):
        _, pull = jax.vjp(f, jnp.asarray(x, dtype))
        return np.asarray(jax.jit(pull)(jnp.asarray(y_bar, dtype))[0], "float64")

    exact = gradient(peer, "float64")
    errors = [np.abs(gradient(f, "float32") - exact).max() for f in (pooled, peer)]
    assert errors[0] <= 4 * errors[1]


@pytest.mark.parametrize("window", [(2, 2), (3, 3), (4,), (12,)])
def test_products_over_the_edge_give_nothing(window):
    """Where a window would start before the input or end behind it, none is."""
    size = (15,) * len(window)
    x = np.ones((*size, 2), "float32")
    x[(0,) * len(size)], x[(-1,) * len(size)] = np.inf, np.inf
    gradient = jax.grad(lambda x: jconv.prod_pool(x, window, stride=1).sum())(x)
    assert not np.isnan(gradient).any()


@pytest.mark.parametrize("taps", [3, 12])
def test_log_sum_exp_overflows_nowhere(taps):
    """Nor do its shares vanish: entries far apart, and as low as a mask."""
    least = float(np.finfo("float32").min)
    entries = [least, 1e30, 200, 201, -500, least, least, -3e4, 3, 2, 1, 0, -1, 5, 7]
    x = np.resize(np.float32(entries), (taps * 5, 1))
    y, transpose = jax.vjp(lambda x: jconv.logsumexp_pool(x, (taps,)), jnp.asarray(x))
    rows = x.astype("float64").reshape(5, taps)
    top = rows.max(1, keepdims=True)
    total = np.exp(rows - top).sum(1, keepdims=True)
    np.testing.assert_allclose(y, top + np.log(total), rtol=2e-7)
    x_bar = transpose(jnp.ones_like(y))[0].reshape(5, taps)
    np.testing.assert_allclose(x_bar, np.exp(rows - top) / total, rtol=2e-5, atol=1e-30)


@pytest.mark.parametrize("p", [1.5, 2, 3])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_of_any_size_have_one_gradient(p, size):
    def slope(x):
        return jax.grad(lambda x: jconv.lp_pool(x, (4,), p, stride=1).sum())(x)

    x = dense((9, 2), "float32", 0)
    np.testing.assert_allclose(slope(x * np.float32(size)), slope(x), rtol=2e-5)


@pytest.mark.parametrize("custom_vjp", [True, False])
def test_temperature(custom_vjp):
    (case,) = named(POOL_CASES, "overlapping")
    x, temperature = dense(case.shape, "float64", 0), jnp.float64(0.7)

    def total(temperature):
        return fold_of("logsumexp", case, temperature=temperature, custom_vjp=custom_vjp)(x).sum()

    def defined(temperature):
        return defined_fold("logsumexp", case)(x, temperature=temperature).sum()

    slope = (defined(0.7 + 1e-5) - defined(0.7 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.jit(jax.grad(total))(temperature), slope, rtol=1e-7)
    curvature = (defined(0.7 + 1e-3) - 2 * defined(0.7) + defined(0.7 - 1e-3)) / 1e-6
    np.testing.assert_allclose(
        jax.jit(jax.grad(jax.grad(total)))(temperature), curvature, rtol=1e-4
    )


def test_a_small_temperature_is_max_pool():
    (case,) = named(POOL_CASES, "dilation")
    x = dense(case.shape, "float64", 0)
    y = jax.jit(fold_of("logsumexp", case, temperature=1e-9))(x)
    np.testing.assert_allclose(y, definition.max_pool(x, case.window, **case.options)[0], atol=1e-7)


def test_log_sum_exp_of_nothing():
    x = jnp.array([[0.0], [-jnp.inf], [-jnp.inf], [1.0]])

    def total(x, temperature):
        y = jconv.logsumexp_pool(x, (2,), padding=((2, 0),), temperature=temperature)
        return jnp.where(jnp.isfinite(y), y, 0.0).sum()

    x_bar, temperature_bar = jax.grad(total, (0, 1))(x, 1.0)
    assert_same(x_bar.ravel(), np.array([1.0, 0.0, 0.0, 1.0]))
    assert_same(temperature_bar, 0.0)


# Long windows


@pytest.mark.parametrize("taps", [10, 31, 37])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (3, 1), (1, 2), (5, 1), (37, 1)])
def test_long_windows(taps, stride, dilation):
    size = ((taps - 1) * dilation + 40,)
    options = {"stride": stride, "dilation": dilation, "padding": ((5, 0),)}
    x = dense((*size, 2), "float32", 0)
    indices = definition.max_pool(x, (taps,), **options)[1]
    y_bar = dense(indices.shape, "float32", 1)

    @jax.jit
    def evaluate(x):
        y, transpose = jax.vjp(lambda x: jconv.max_pool(x, (taps,), **options), x)
        total, transpose_sum = jax.vjp(lambda x: jconv.sum_pool(x, (taps,), **options), x)
        winners = jconv.max_pool(x, (taps,), return_indices=True, **options)[1]
        return y, winners, transpose(y_bar)[0], total, transpose_sum(y_bar)[0]

    y, winners, x_bar, total, sum_bar = evaluate(x)
    assert_same(y, definition.max_pool(x, (taps,), **options)[0])
    assert_same(winners, indices)
    assert_close(x_bar, definition.extreme_pool_gradient(y_bar, indices, size), "float32", taps)
    assert_close(total, definition.sum_pool(x, (taps,), **options), "float32", taps)
    expected = definition.sum_pool_gradient(y_bar, size, (taps,), **options)
    assert_close(sum_bar, expected, "float32", taps)


def test_first_of_equals_wins_in_long_windows():
    x = dense((23, 21, 2), "int8", 0).clip(0, 1).astype("float32")
    options = {"stride": 2, "padding": 4}
    y, winners = jax.jit(lambda x: jconv.max_pool(x, (11, 12), return_indices=True, **options))(x)
    values, indices = definition.max_pool(x, (11, 12), **options)
    assert_same(y, values)
    assert_same(winners, indices)


@pytest.mark.parametrize("kind", ["prod", "cool logsumexp", "l3"])
@pytest.mark.parametrize(("stride", "dilation", "more"), [(1, 1, 6), (3, 2, 9), (1, 3, -4)])
def test_long_folds(kind, stride, dilation, more):
    pool, defined, options = FOLDS[kind]
    x = dense((30 * dilation + 1 + more, 2), "float64", 0)
    options = {"stride": stride, "dilation": dilation, "padding": 2, **options}
    pool = functools.partial(pool, window=(31,), **options)
    expected = defined(x, (31,), **options)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(jax.jit(pool)(x), expected, atol=1e-12 * scale)
    ruled, plain = (
        jax.jit(jax.grad(lambda x, c=c: jnp.sum(jnp.tanh(pool(x, custom_vjp=c) / scale))))(x)
        for c in (True, False)
    )
    np.testing.assert_allclose(ruled, plain, rtol=1e-9, atol=1e-12)


# Adaptive bins


ADAPTIVE = [((7,), (3,)), ((3,), (7,)), ((8, 5), (4, 2)), ((5, 4, 3), (2, 4, 5)), ((10,), (1,))]
each_adaptive = pytest.mark.parametrize(("size", "output_size"), ADAPTIVE)


@each_adaptive
def test_adaptive_avg_pool(size, output_size):
    x = dense((2, *size, 3), "float32", 0)
    pool = jax.jit(lambda x: jconv.adaptive_avg_pool(x, output_size))
    y, transpose = jax.vjp(pool, x)
    assert_close(y, definition_pooling.adaptive_avg_pool(x, output_size), "float32", 9)
    assert_adjoint(pool, lambda y: transpose(y)[0], x, y)


@each_adaptive
@pytest.mark.parametrize("ties", [False, True])
def test_adaptive_max_pool(size, output_size, ties):
    x = dense((2, *size, 3), "float32", 0)
    x = (x > 0).astype("float32") if ties else x
    values, indices = definition_pooling.adaptive_max_pool(x, output_size)
    y_bar = dense(values.shape, "float32", 1)

    @jax.jit
    def evaluate(x):
        y, transpose = jax.vjp(lambda x: jconv.adaptive_max_pool(x, output_size), x)
        return y, jconv.adaptive_max_pool(x, output_size, return_indices=True), transpose(y_bar)[0]

    y, (y_again, winners), x_bar = evaluate(x)
    assert_same(y, values)
    assert_same(y_again, values)
    assert_same(winners, indices)
    assert_close(x_bar, definition.extreme_pool_gradient(y_bar, indices, size), "float32", 9)


@each_adaptive
def test_adaptive_pools_to_second_order(size, output_size):
    x, step = (jnp.asarray(dense((*size, 2), "float64", seed)) for seed in range(2))

    @jax.jit
    def product(x):
        def loss(x):
            most = jconv.adaptive_max_pool(x, output_size)
            return jnp.sum(jnp.tanh(jconv.adaptive_avg_pool(x, output_size)) * most)

        gradient = jax.grad(loss)
        forward = jax.jvp(gradient, (x,), (step,))[1]
        return forward, jax.grad(lambda x: jnp.vdot(gradient(x), step))(x)

    forward, backward = product(x)
    assert_close(forward, np.asarray(backward), "float64", x.size)


# Fractional


@pytest.mark.parametrize(
    ("size", "window", "output_size"),
    [((9,), (2,), (6,)), ((7, 11), (2, 3), (5, 4)), ((5,), (3,), (1,))],
)
def test_fractional_max_pool(size, window, output_size):
    x = dense((2, *size, 3), "float32", 0)
    y_bar = dense((2, *output_size, 3), "float32", 1)

    @jax.jit
    def evaluate(key, x):
        pool = functools.partial(
            jconv.fractional_max_pool, key, window=window, output_size=output_size
        )
        return *pool(x=x, return_indices=True), jax.vjp(lambda x: pool(x=x), x)[1](y_bar)[0]

    for seed in range(3):
        key = jax.random.key(seed)
        y, winners, x_bar = evaluate(key, x)
        shifts = np.asarray(jax.random.uniform(key, (len(size),), jnp.float32))
        ranges = list(
            itertools.starmap(
                fractional_ranges, zip(size, window, output_size, shifts, strict=True)
            )
        )
        values, indices = definition_pooling.boxed_max_pool(x, ranges)
        assert_same(y, values)
        assert_same(winners, indices)
        assert_close(x_bar, definition.extreme_pool_gradient(y_bar, indices, size), "float32", 9)


def fractional_ranges(n, window, out, shift):
    """Torch's intervals."""
    step = np.float32((n - window) / max(out - 1, 1))
    starts = [int((i + shift) * step) - int(shift * step) for i in range(out - 1)] + [n - window]
    return [range(start, start + window) for start in starts]


# Blur


@pytest.mark.parametrize("taps", [1, 2, 3, 5])
@each_case(POOL_CASES, "rank 1, no batch axis", "rank 2", "rank 3")
def test_blur_pool(case, taps):
    x = dense(case.shape, "float32", 0)
    pool = jax.jit(lambda x: jconv.blur_pool(x, case.window, stride=2, taps=taps))
    expected = definition_pooling.blur_pool(x, case.window, stride=2, taps=taps)
    assert_close(pool(x), expected, "float32", 9)


def test_a_long_blur_keeps_a_nan_within_its_reach():
    x = dense((400, 1), "float32", 0)
    x[200] = np.nan
    y = jconv.blur_pool(x, (1,), stride=1, taps=257)
    assert np.isnan(y).sum() == 257
    assert_close(y, definition_pooling.blur_pool(x, (1,), stride=1, taps=257), "float32", 9)


def test_blur_pool_rule():
    (case,) = named(POOL_CASES, "rank 2")
    x = dense(case.shape, "float64", 0)

    def pool(x, custom_vjp=True):
        return jconv.blur_pool(x, case.window, stride=(2, 1), custom_vjp=custom_vjp)

    assert_rule(
        jax.jit(pool), jax.jit(functools.partial(pool, custom_vjp=False)), (x,), order=2, draws=1
    )


# Unpool


def test_unpool_undoes_pool_and_differentiates():
    x = dense((2, 6, 4, 3), "float64", 0)
    y, indices = jconv.max_pool(x, (2, 2), return_indices=True)
    put = functools.partial(jconv.max_unpool, indices=indices, size=(6, 4))
    assert_same(jconv.max_pool(put(jnp.abs(y)), (2, 2)), np.abs(y))
    assert_adjoint(put, lambda x: jax.vjp(put, y)[1](x)[0], y, x)
    product = jax.jvp(jax.grad(lambda y: jnp.sum(put(y) ** 3)), (y,), (y,))[1]
    np.testing.assert_allclose(product, 6 * y * y, rtol=1e-12)
