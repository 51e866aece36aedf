"""No rule makes a NaN on the way, where none goes in: not even one that a `where` then hides.

Step by step, under `jax_debug_nans`: there a hidden NaN stops a user's program, and in the next
derivative `0 * nan` shows it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from jconv.curvature import per_example_kernel_norms
from tests.cases import POOL_CASES, dense, named

POOLS = {
    "max": jconv.max_pool,
    "min": jconv.min_pool,
    "mean of real entries": partial(jconv.avg_pool, count_include_pad=False),
    "product": jconv.prod_pool,
    "log of sum": jconv.logsumexp_pool,
    "near maximum": partial(jconv.logsumexp_pool, temperature=1e-9),
    "norm": partial(jconv.lp_pool, p=2),
    "fractional norm": partial(jconv.lp_pool, p=2.5),
    "greatest": partial(jconv.lp_pool, p=jnp.inf),
}


def derivative(f):
    """`f`, and the cotangents of its arguments for a cotangent of ones."""

    def value_and_cotangents(*arrays):
        y, transpose = jax.vjp(f, *arrays)
        return y, transpose(jax.tree.map(jnp.ones_like, y))

    return value_and_cotangents


def assert_no_nan(f, *arrays):
    with jax.debug_nans(True), jax.disable_jit():
        derivative(derivative(f))(*arrays)


@pytest.mark.parametrize("name", POOLS)
def test_pooling_of_zeros_and_of_nothing(name):
    (case,) = named(POOL_CASES, "windows of only padding")
    pool = partial(POOLS[name], window=case.window, **case.options)
    assert_no_nan(pool, np.zeros(case.shape, "float32"))


@pytest.mark.parametrize("method", ["gram", "patches"])
def test_norms_that_are_zero(method):
    x, y = dense((2, 5, 2), "float32", 0), np.zeros((2, 4, 3), "float32")
    assert_no_nan(lambda x, y: per_example_kernel_norms(x, y, (2,), method=method), x, y)
