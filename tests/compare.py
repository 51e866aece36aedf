"""How close is close enough: one rule for all tests."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.definition import wide

ROUNDINGS = 32


def tolerance(dtype, terms):
    """Absolute, for sums of `terms` products of entries of unit size, each rounded to `dtype`."""
    return ROUNDINGS * terms * float(jnp.finfo(jax.dtypes.canonicalize_dtype(dtype)).eps)


def assert_close(actual, expected, dtype, terms=1):
    """`actual` has that dtype, and is `expected` up to the rounding of `terms` products."""
    assert actual.dtype == jax.dtypes.canonicalize_dtype(dtype)
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(wide(actual), expected, rtol=0, atol=tolerance(dtype, terms))


def assert_same(actual, expected):
    """Equal bit for bit; a NaN equals a NaN."""
    assert actual.shape == np.shape(expected)
    np.testing.assert_array_equal(wide(actual), wide(expected))
