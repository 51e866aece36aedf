"""The adjoint law: `<f(x), y> == <x, f_adjoint(y)>` on dense random pairs."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jconv.testing.arguments import check_callable, check_options
from jconv.testing.closeness import Tolerance, distances, spacing, widened
from jconv.testing.draws import draws_needed, generator_of, normal
from jconv.testing.trees import (
    assert_same_form,
    bracketed,
    largest,
    listed,
    named_leaves,
    template_of,
)

PROBES = 1024


def assert_adjoint(
    f: Callable[[Any], Any],
    f_adjoint: Callable[[Any], Any],
    x: Any,
    y: Any,
    *,
    key: Any = 0,
    draws: int = 3,
    rtol: float | None = None,
    atol: float = 0.0,
    terms: int | None = None,
) -> None:
    """Asserts that `f_adjoint` is the adjoint (transpose) of the linear map `f`.

        <f(x), y> == <x, f_adjoint(y)>        <a, b> = sum_i a[i] * b[i], in float64

    The pairing is bilinear: complex entries are not conjugated, as in `jax.linear_transpose`.
    `x` and `y` are templates, arrays or `jax.ShapeDtypeStruct` or pytrees of them: only shapes and
    dtypes are used, and `f(x)` must have those of `y`, `f_adjoint(y)` those of `x`. The law is
    checked for each leaf of `x` with each leaf of `y`, on `draws` dense random pairs; `y` leans
    towards the conjugate of `f(x)`, so that the pairing does not cancel. The number of evaluations
    grows for small arrays of a 16-bit dtype. On failure, unit vectors `e` find the worst entry,
    by `f_adjoint(y)[i] == <f(e_i), y>`.

    Raises `AssertionError` naming the leaf, its worst entry and both values; `TypeError` for
    templates that are not all real or all complex; `ValueError` for empty ones.

    >>> x, y = jnp.zeros(4), jnp.zeros(3)
    >>> assert_adjoint(lambda x: x[1:] - x[:-1], lambda y: -jnp.diff(y, prepend=0, append=0), x, y)
    """
    check_callable(f=f, f_adjoint=f_adjoint)
    check_options(draws=draws, rtol=rtol, atol=atol, terms=terms)
    x, y = template_of("x", x), template_of("y", y)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves((x, y))]
    if len({jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes}) > 1:
        raise TypeError(f"`x` and `y` must be all real or all complex; got {listed(dtypes)}.")
    rng = generator_of(key)
    tolerance = Tolerance(rtol, atol, terms or largest((x, y)))
    blocks = itertools.product(enumerate(named_leaves("x", x)), range(len(jax.tree.leaves(y))))
    draws = draws_needed(draws, jax.tree.leaves((x, y)))
    with jax.default_matmul_precision("highest"):
        for (i, (name, _)), j in blocks:
            pairings = [_pairing(f, f_adjoint, x, y, i, j, rng) for _ in range(draws)]
            wrong = _worst_pairing(pairings, tolerance, spacing(dtypes))
            if wrong:
                raise AssertionError(f"{wrong} {_worst_probe(f, x, name, pairings[0], i, j, rng)}")


class _Pairing(NamedTuple):
    y: Any
    x_bar: Any
    left: np.ndarray  # the terms of <f(x), y>
    right: np.ndarray  # the terms of <x, f_adjoint(y)>

    @property
    def noise(self) -> float:
        """How much these terms change when each is rounded, in units of eps."""
        return float(max(np.linalg.norm(self.left), np.linalg.norm(self.right)))


def _pairing(f, f_adjoint, x, y, i, j, rng):
    """Both pairings at random data in leaf `i` of `x` and leaf `j` of `y`, all others zero."""
    x_one = _draw_leaf(rng, x, i)
    fx = f(x_one)
    assert_same_form("assert_adjoint", "f(x)", fx, y)
    y_one = _lean(_draw_leaf(rng, y, j), fx, j)
    x_bar = f_adjoint(y_one)
    assert_same_form("assert_adjoint", "f_adjoint(y)", x_bar, x)
    return _Pairing(y_one, x_bar, _terms(fx, y_one, j), _terms(x_one, x_bar, i))


def _worst_pairing(pairings, tolerance, eps):
    """What is wrong with any of `pairings`, or with the sum of them all; None if nothing is."""
    sums = [(p.left.sum(), p.right.sum(), tolerance.entry(eps) * p.noise) for p in pairings]
    left, right = sum(s[0] for s in sums), sum(s[1] for s in sums)
    noise = np.linalg.norm([p.noise for p in pairings])
    sums.append((left, right, tolerance.factor() * abs(left) + eps * noise))
    for left, right, limit in sums:
        if not abs(left - right) <= limit + tolerance.atol:
            return (
                f"assert_adjoint: <f(x), y> = {left:.9g}, but <x, f_adjoint(y)> = {right:.9g}; "
                f"error {abs(left - right):.3g}, tolerance {limit + tolerance.atol:.3g}."
            )
    return None


def _worst_probe(f, x, name, pairing, i, j, rng):
    """Names the worst entry of `f_adjoint(y)` in leaf `i`, among those probed by unit vectors."""
    got = widened(jax.tree.leaves(pairing.x_bar)[i])
    entries = rng.permutation(got.size)[:PROBES]
    want = np.array([_terms(f(_unit(x, i, entry)), pairing.y, j).sum() for entry in entries])
    worst = int(np.argmax(distances(got.ravel()[entries], want)))
    where = np.unravel_index(entries[worst], got.shape)
    return (
        f"Worst entry of f_adjoint(y), {name}{bracketed(where)}: got {got[where]:.9g}, "
        f"want {want[worst]:.9g}."
    )


def _lean(y, fx, slot):
    """Adds the conjugate of `f(x)`, at unit scale, to leaf `slot` of `y`."""
    leaves, tree = jax.tree.flatten(y)
    conjugate = widened(jax.tree.leaves(fx)[slot]).conj()
    finite = np.where(np.isfinite(conjugate), conjugate, 0)
    scale = np.sqrt(np.mean(np.abs(finite) ** 2)) or 1.0
    leaves[slot] = jnp.asarray(widened(leaves[slot]) + finite / scale, leaves[slot].dtype)
    return jax.tree.unflatten(tree, leaves)


def _terms(a, b, slot):
    """The products that the bilinear pairing of leaf `slot` of `a` and `b` sums."""
    return (widened(jax.tree.leaves(a)[slot]) * widened(jax.tree.leaves(b)[slot])).ravel()


def _unit(template, slot, entry):
    """Zeros but for a one at the flat index `entry` of leaf `slot`."""
    leaves, tree = jax.tree.flatten(jax.tree.map(lambda t: jnp.zeros(t.shape, t.dtype), template))
    shape = leaves[slot].shape
    leaves[slot] = leaves[slot].at[np.unravel_index(entry, shape)].set(1)
    return jax.tree.unflatten(tree, leaves)


def _draw_leaf(rng, template, slot):
    """Random numbers in leaf `slot`, zeros in the others."""
    leaves, tree = jax.tree.flatten(template)
    drawn = [
        normal(rng, leaf) if i == slot else jnp.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, drawn)
