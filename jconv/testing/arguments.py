"""What the laws are given, checked."""

import math

import jax
import jax.numpy as jnp

from jconv import checks
from jconv.operands import number
from jconv.testing.draws import normal
from jconv.testing.trees import is_inexact, template_of


def filled_in(rng, args):
    """`args`, its inexact leaves as arrays and its templates drawn."""
    if not isinstance(args, tuple):
        raise TypeError(f"`args` must be a tuple; got {type(args).__name__}.")

    def fill(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return normal(rng, *jax.tree.leaves(template_of("args", leaf)))
        return jnp.asarray(leaf, jnp.result_type(leaf)) if is_inexact(leaf) else leaf

    return jax.tree.map(fill, args)


def check_options(*, rtol, atol, terms, draws=1, order=1, check_dtypes=True):
    checks.flag("check_dtypes", check_dtypes)
    counts = {"draws": draws, "order": order} | ({} if terms is None else {"terms": terms})
    for name, value in counts.items():
        checks.whole(name, value, least=1)
    limits = {"atol": atol} | ({} if rtol is None else {"rtol": rtol})
    for name, value in limits.items():
        if not 0 <= number(name, value) < math.inf:
            raise checks.wrong(name, "be finite and not negative", value)


def check_callable(**functions):
    for name, function in functions.items():
        if not callable(function):
            raise checks.mistyped(name, "be callable", function)
