"""Random data: dense, normal, reproducible, and enough of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jconv import checks
from jconv.operands import require_key
from jconv.testing.closeness import is_half, spacing, widened

HALF_ENTRIES = 128  # so many rounded entries show a factor of 1.01


def generator_of(key):
    """A NumPy generator from an integer seed or a JAX key."""
    if isinstance(key, jax.Array):
        require_key(key)
        return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    if isinstance(key, bool) or not isinstance(key, int | np.integer):
        raise checks.mistyped("key", "be an integer or a JAX key", key)
    if key < 0:
        raise checks.wrong("key", "not be negative", key)
    return np.random.default_rng(key)


def normal(rng, template):
    """Standard normal numbers (in both parts, if complex) of the shape and dtype of `template`."""
    values = rng.standard_normal(template.shape)
    if jnp.issubdtype(template.dtype, jnp.complexfloating):
        values = values + 1j * rng.standard_normal(template.shape)
    return jnp.asarray(values, template.dtype)


def jitter(rng, array):
    """`array` times random numbers in [0.5, 1.5), its zeros replaced by positive numbers."""
    values = widened(array)
    finite = np.abs(values[np.isfinite(values)])
    scale = np.max(finite, initial=0.0) or 1.0
    base = np.where(values == 0, scale, values)
    return jnp.asarray(base * rng.uniform(0.5, 1.5, values.shape), array.dtype)


def draws_needed(draws, leaves):
    """More draws for small 16-bit arrays, so that rounding errors average out."""
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    if not is_half(spacing([leaf.dtype for leaf in leaves])):
        return draws
    return max(draws, math.ceil(HALF_ENTRIES / min(filter(None, sizes), default=HALF_ENTRIES)))
