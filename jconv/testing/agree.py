"""The law of equals: the same pytrees, shapes, dtypes and values."""

from typing import Any

import jax

from jconv.testing.arguments import check_options, filled_in
from jconv.testing.closeness import Tolerance, assert_close
from jconv.testing.draws import generator_of
from jconv.testing.trees import assert_same_form, largest, named_leaves


def assert_agree(
    f: Any,
    g: Any,
    args: tuple[Any, ...] = (),
    *,
    key: Any = 0,
    rtol: float | None = None,
    atol: float = 0.0,
    terms: int | None = None,
    check_dtypes: bool = True,
) -> None:
    """Asserts that two functions agree: the same pytrees, shapes, dtypes and values.

        f(*args) == g(*args)

    Either may be the value itself in place of a callable. NaNs and infinities must be in the same
    places, and integers equal. A `jax.ShapeDtypeStruct` in `args` is drawn. `check_dtypes=False`
    compares with an oracle of another precision. Each function runs once: in bfloat16 it takes an
    output of a hundred entries or more to show a factor of 1.01.

    Raises `AssertionError` naming the output, its worst entry and both values; `TypeError` if
    `args` is no tuple or `check_dtypes` no bool.

    >>> import jax.numpy as jnp, numpy as np
    >>> assert_agree(jnp.cumsum, [1, 3, 6], (jnp.array([1, 2, 3]),), check_dtypes=False)
    Traceback (most recent call last):
    AssertionError: assert_agree: output: structures differ: * and [*, *, *].
    >>> assert_agree(jnp.cumsum, np.array([1, 3, 6]), (jnp.array([1, 2, 3]),), check_dtypes=False)
    """
    check_options(rtol=rtol, atol=atol, terms=terms, check_dtypes=check_dtypes)
    args = filled_in(generator_of(key), args)
    with jax.default_matmul_precision("highest"):
        got, want = (h(*args) if callable(h) else h for h in (f, g))
    assert_same_form("assert_agree", "output", got, want, check_dtypes)
    tolerance = Tolerance(rtol, atol, terms or largest((args, got, want)))
    for (name, a), b in zip(named_leaves("output", got), jax.tree.leaves(want), strict=True):
        assert_close("assert_agree", name, [a], [b], tolerance)
