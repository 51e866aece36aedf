"""The top of the spectrum of a map that is known by its products alone."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from jconv.placement import zeros

# Products between two restarts: enough to tell close eigenvalues apart, few enough to keep.
DEPTH = 24


def largest_eigenvector(
    apply: Callable[[Array], Array], start: Array, tol: float, max_products: int
) -> Array:
    """A unit `v` with `|B v - theta v| <= tol * theta`, `theta = v^H B v` the largest found.

    `apply` multiplies by `B`, Hermitian and without negative eigenvalues. Lanczos with all vectors
    orthogonalized, restarted from the best; after `max_products` products, the best so far.
    """
    depth = min(DEPTH, start.size, max_products)

    def unfinished(state):
        _, residual, theta, cycle = state
        return (residual > tol * theta) & (cycle < max(max_products // depth, 1))

    def improve(state):
        v, _, _, cycle = state
        return *_best(apply, v, depth), cycle + 1

    real = jnp.finfo(start.dtype).dtype
    nothing = zeros((), real, start)
    before = (_unit(start), nothing + 1, nothing, 0)
    return lax.while_loop(unfinished, improve, before)[0]


def _best(apply: Callable[[Array], Array], v: Array, depth: int) -> tuple[Array, Array, Array]:
    """The best vector of the Krylov space of `v`, the norm of its residual, and its `theta`."""
    shape = v.shape
    none = zeros((depth, v.size), v.dtype, v)

    def extend(step, state):
        basis, images, q = state
        image = apply(q.reshape(shape)).ravel()
        basis, images = basis.at[step].set(q), images.at[step].set(image)
        return basis, images, _orthogonal(image, basis)

    basis, images, _ = lax.fori_loop(0, depth, extend, (none, none, v.ravel()))
    projected = _dot(basis.conj(), images.T)
    thetas, vectors = jnp.linalg.eigh((projected + projected.conj().T) / 2)
    theta, weights = thetas[-1], vectors[:, -1]
    best, image = _dot(weights, basis), _dot(weights, images)
    residual = jnp.linalg.norm(image - theta.astype(best.dtype) * best)
    return _unit(best).reshape(shape), residual, theta


def _orthogonal(image: Array, basis: Array) -> Array:
    """The unit vector along what `basis` does not span of `image`; zeros where that is rounding."""
    once = _unit(image - _dot(_dot(basis.conj(), image), basis))
    twice = once - _dot(_dot(basis.conj(), once), basis)
    kept = jnp.linalg.norm(twice)
    return jnp.where(kept > 0.5, _unit(twice), 0)


def _unit(v: Array) -> Array:
    norm = jnp.linalg.norm(v.ravel())
    return v / jnp.where(norm > 0, norm, 1).astype(v.dtype)


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, precision="highest")
