"""The top of the spectrum of a map that is known by its products alone."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jconv.placement import zeros

# Vectors that a restart keeps, and products until the next: few enough to keep all. With the best
# alone, close eigenvalues take several times as many.
KEPT, STEPS = 8, 16


class Space(NamedTuple):
    """Orthonormal rows, zeros where there are none, their images, and the unit vector to add."""

    basis: Array
    images: Array
    next: Array


def largest_eigenvector(
    apply: Callable[[Array], Array], start: Array, tol: float, max_products: int
) -> Array:
    """A unit `v` with `|B v - theta v| <= tol * theta`, `theta = v^H B v` the largest found.

    `apply` multiplies by `B`, Hermitian and without negative eigenvalues. Lanczos with all vectors
    orthogonalized, restarted with the best few (Wu and Simon 2000); after `max_products` products,
    the best so far.
    """
    steps = min(STEPS, start.size, max_products)
    cycles = max_products // steps

    def unfinished(state):
        _, _, residual, theta, cycle = state
        return (residual > tol * theta) & (cycle < cycles)

    def improve(state):
        space, *_, cycle = state
        return *_best(_extended(apply, space, start.shape)), cycle + 1

    real = jnp.finfo(start.dtype).dtype
    nothing = zeros((), real, start)
    none = zeros((KEPT + steps, start.size), start.dtype, start)
    v = _unit(start.ravel())
    before = (Space(none, none, v), v, nothing + 1, nothing, 0)
    return lax.while_loop(unfinished, improve, before)[1].reshape(start.shape)


def _extended(apply: Callable[[Array], Array], space: Space, shape: tuple[int, ...]) -> Space:
    def extend(step, space):
        basis, images, q = space
        image = apply(q.reshape(shape)).ravel()
        basis, images = basis.at[step].set(q), images.at[step].set(image)
        return Space(basis, images, _orthogonal(image, basis))

    return lax.fori_loop(KEPT, len(space.basis), extend, space)


def _best(space: Space) -> tuple[Space, Array, Array, Array]:
    """The best of a space, in its first rows; the best vector, its residual's norm, and `theta`."""
    projected = _dot(space.basis.conj(), space.images.T)
    thetas, vectors = jnp.linalg.eigh((projected + projected.conj().T) / 2)
    weights = vectors[:, : -KEPT - 1 : -1].T
    basis, images = _dot(weights, space.basis), _dot(weights, space.images)
    theta, best = thetas[-1], basis[0]
    residual = jnp.linalg.norm(images[0] - theta.astype(best.dtype) * best)
    none = jnp.zeros_like(space.basis)
    kept = Space(none.at[:KEPT].set(basis), none.at[:KEPT].set(images), space.next)
    return kept, _unit(best), residual, theta


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
