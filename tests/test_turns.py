"""Poolings whose images take turns give what they give at once, to second order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv.pooling import batches, extremes
from tests.compare import assert_close

OPTIONS = {
    "padded": ((3, 2), {"stride": 1, "padding": ((1, 1), (0, 1))}),
    "long": ((2, 10), {"stride": 1, "padding": ((0, 0), (4, 5))}),
}
POOLS = {
    "max": jconv.max_pool,
    "prod": jconv.prod_pool,
    "avg": jconv.avg_pool,
    "l3": functools.partial(jconv.lp_pool, p=3),
}
# 7 images take turns one by one, 6 of them several at a time.
CASES = [
    ("max", "padded", (6,)), ("max", "long", (7,)), ("prod", "padded", (7,)),
    ("prod", "long", (2, 3)), ("avg", "long", (6,)), ("l3", "padded", (2, 3)),
]  # fmt: skip


def everything(pool, x, *others):
    """Values, gradients, and the gradient of a gradient."""

    def weighed(x, *others):
        y = pool(x, *others)
        return jnp.sum(jnp.sin(y)), y

    def gradients(x, *others):
        wanted = tuple(range(1 + len(others)))
        return jax.grad(weighed, wanted, has_aux=True)(x, *others)

    def bent(x, *others):
        return jnp.sum(jnp.cos(gradients(x, *others)[0][0]))

    return gradients(x, *others), jax.grad(bent)(x, *others)


def assert_turns_change_nothing(monkeypatch, pool, *operands):
    whole = functools.partial(everything, pool)
    expected = jax.jit(whole)(*operands)
    assert "scan" not in str(jax.make_jaxpr(whole)(*operands))
    # The values of some hold one copy alone, and take turns with the smaller budget.
    for budget in (2 * operands[0].nbytes, operands[0].nbytes // 2):
        monkeypatch.setattr(batches, "BATCH_BYTES", budget)
        # Compiled programs know no budget, so none is kept.
        jax.clear_caches()
        assert "scan" in str(jax.make_jaxpr(whole)(*operands))
        actual = jax.jit(whole)(*operands)
        for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            assert_close(a, np.asarray(e), "float64", terms=operands[0].size)
    assert "scan" in str(jax.make_jaxpr(pool)(*operands))
    jax.clear_caches()


def drawn(batch):
    return jnp.asarray(np.random.default_rng(0).uniform(0.8, 1.2, (*batch, 7, 11, 3)))


@pytest.mark.parametrize(("kind", "name", "batch"), CASES)
def test_images_in_turns(monkeypatch, kind, name, batch):
    window, options = OPTIONS[name]
    assert_turns_change_nothing(
        monkeypatch, functools.partial(POOLS[kind], window=window, **options), drawn(batch)
    )


@pytest.mark.parametrize("custom_vjp", [True, False])
def test_a_temperature_adds_up_over_turns(monkeypatch, custom_vjp):
    window, options = OPTIONS["padded"]

    def pool(x, temperature):
        return jconv.logsumexp_pool(
            x, window, temperature=temperature, custom_vjp=custom_vjp, **options
        )

    assert_turns_change_nothing(monkeypatch, pool, drawn((6,)), jnp.asarray(0.7))


def test_integers_in_turns(monkeypatch):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 9, (5, 8, 2)))
    pool = functools.partial(jconv.max_pool, window=(3,), stride=1, padding=1)
    expected = pool(x)
    monkeypatch.setattr(batches, "BATCH_BYTES", 1)
    jax.clear_caches()
    np.testing.assert_array_equal(pool(x), expected)
    jax.clear_caches()


@pytest.mark.parametrize("window", [(2, 2), (3, 1), (1, 4)])
def test_winners_are_chosen_again_as_they_were(monkeypatch, window):
    """Where a gradient of many channels is written, of ties and NaN too."""
    x = np.random.default_rng(0).integers(-2, 3, (5, 9, 8, 16)).astype("float32")
    x = jnp.asarray(np.where(x == 2, np.nan, x))
    pool = functools.partial(jconv.max_pool, window=window)
    y, pull = jax.vjp(pool, x)
    y_bar = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape, "float32"))
    (expected,) = pull(y_bar)
    monkeypatch.setattr(extremes, "BATCH_BYTES", 0)
    jax.clear_caches()
    (actual,) = jax.jit(lambda x, y_bar: jax.vjp(pool, x)[1](y_bar))(x, y_bar)
    np.testing.assert_array_equal(actual, expected)
    jax.clear_caches()
