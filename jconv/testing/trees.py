"""Pytrees: their leaves by name, their form, and which of them can be differentiated."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jconv import checks


def assert_same_form(law, name, got, want, check_dtypes=True):
    """The same pytree structure, shapes and, if asked, dtypes."""
    trees = [jax.tree.structure(tree) for tree in (got, want)]
    if trees[0] != trees[1]:
        a, b = (str(tree).removeprefix("PyTreeDef(")[:-1] for tree in trees)
        raise AssertionError(f"{law}: {name}: structures differ: {a} and {b}.")
    for (leaf_name, a), b in zip(named_leaves(name, got), jax.tree.leaves(want), strict=True):
        if np.shape(a) != np.shape(b):
            raise AssertionError(f"{law}: {leaf_name}: shape {np.shape(a)}, want {np.shape(b)}.")
        a, b = (getattr(leaf, "dtype", None) or jnp.result_type(leaf) for leaf in (a, b))
        if check_dtypes and a != b:
            raise AssertionError(f"{law}: {leaf_name}: dtype {a}, want {b}.")


def template_of(name, tree):
    """Shapes and dtypes of inexact leaves, as JAX will draw them."""
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        if not is_inexact(leaf):
            raise checks.mistyped(name, "hold floating or complex arrays", leaf)
    if not sum(math.prod(np.shape(leaf)) for leaf in leaves):
        raise checks.wrong(name, "hold at least one entry", tree)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)), tree
    )


def is_inexact(leaf):
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, (float, complex))
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def named_leaves(name, tree):
    """Each leaf, after where it is: `args[0]['kernel']`."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(name + jax.tree_util.keystr(path), leaf) for path, leaf in paths]


def inexact_slots(args):
    """The names of the inexact leaves of `args`, by position among all leaves."""
    return {
        i: name for i, (name, leaf) in enumerate(named_leaves("args", args)) if is_inexact(leaf)
    }


def largest(tree):
    """The size of the largest array, at least 1."""
    return max([1, *(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))])


def bracketed(index):
    return f"[{', '.join(str(int(i)) for i in index)}]"


def listed(items):
    return ", ".join(str(item) for item in items)
