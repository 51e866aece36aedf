"""The law of a rule: its derivatives are those of the plain function, to any order."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jconv.testing.agree import assert_agree
from jconv.testing.arguments import check_callable, check_options, filled_in
from jconv.testing.closeness import Tolerance, assert_close, is_half, spacing
from jconv.testing.draws import draws_needed, generator_of, jitter, normal
from jconv.testing.trees import inexact_slots, is_inexact, largest, listed, named_leaves


def assert_rule(
    f_custom: Callable[..., Any],
    f_plain: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    order: int = 1,
    key: Any = 0,
    draws: int = 3,
    rtol: float | None = None,
    atol: float = 0.0,
    terms: int | None = None,
) -> None:
    """Asserts that the `jax.custom_vjp` rule in `f_custom` is the derivative of `f_plain`.

        vjp(f_custom)(*args, y_bar) == vjp(f_plain)(*args, y_bar)                  order 1
        vjp(vjp(f_custom))(*args, y_bar, x_bar_bar) == the same of f_plain         order 2, ...

    Each order differentiates in all inputs of the last one, its cotangents included, under dense
    random cotangents; values are compared too. `args` is a tuple of pytrees. Inexact leaves are
    differentiated; everything else is held fixed. The first draw uses them as they are, the others
    multiply each entry by a random number between 0.5 and 1.5 (and replace zeros), since zero,
    constant or symmetric arguments hide mistakes. A `jax.ShapeDtypeStruct` is drawn. In a 16-bit
    dtype, `f_plain` runs in float32 where it accepts that, or agrees as it is, and small arrays get
    more draws.

    The rule ran if forward mode is refused on the way from `args` to the output of `f_custom`,
    which JAX does for `jax.custom_vjp` alone; `f_plain` must not be refused.

    Raises `AssertionError` naming the argument, its worst entry and both values; `TypeError` if
    `args` is no tuple; `ValueError` if it has nothing to differentiate.

    >>> import jax.numpy as jnp
    >>> square = jax.custom_vjp(lambda x: x**2)
    >>> square.defvjp(lambda x: (x**2, x), lambda x, y_bar: (2 * x * y_bar,))
    >>> assert_rule(square, lambda x: x**2, (jnp.arange(3.0),), order=2)
    """
    check_callable(f_custom=f_custom, f_plain=f_plain)
    check_options(draws=draws, rtol=rtol, atol=atol, terms=terms, order=order)
    rng = generator_of(key)
    args = filled_in(rng, args)
    slots = inexact_slots(args)
    if not slots:
        raise ValueError("`args` must hold an inexact array to differentiate in; got none.")
    assert_agree(f_custom, f_plain, args, rtol=rtol, atol=atol, terms=terms)
    custom, plain = _restrict(f_custom, args), _restrict(f_plain, args)
    leaves = jax.tree.leaves(args)
    primals = [leaves[slot] for slot in slots]
    with jax.default_matmul_precision("highest"):
        if not _runs_rule(custom, primals):
            between = f"between {listed(slots.values())} and its output"
            raise AssertionError(f"assert_rule: no custom_vjp rule of f_custom ran {between}.")
        if _runs_rule(plain, primals):
            raise AssertionError("assert_rule: f_plain runs a custom_vjp rule itself.")
        value = f_custom(*args)
        arrays = primals + [leaf for leaf in jax.tree.leaves(value) if is_inexact(leaf)]
        outputs = [name for name, leaf in named_leaves("output", value) if is_inexact(leaf)]
        names = _derivative_names([*slots.values()], outputs, order)
        tolerance = Tolerance(rtol, atol, terms or largest(arrays), order)
        draws = draws_needed(draws, arrays)
        wide, own = _wide_dtypes(plain, primals), [primal.dtype for primal in primals]

        def compare(dtypes):
            pairs = [_derivatives(custom, plain, primals, dtypes, order, rng)]
            for _ in range(1, draws):
                point = [jitter(rng, primal) for primal in primals]
                pairs.append(_derivatives(custom, plain, point, dtypes, order, rng))
            for i, name in enumerate(names):
                got, want = ([side[i] for side in sides] for sides in zip(*pairs, strict=True))
                assert_close("assert_rule", name, got, want, tolerance)

        try:
            compare(wide)
        except AssertionError:
            # Of values that only 16 bits tell apart, or not, it may choose another greatest.
            if wide == own or not _passes(compare, own):
                raise


def _passes(law, *args):
    try:
        law(*args)
    except AssertionError:
        return False
    return True


def _derivatives(custom, plain, primals, dtypes, order, rng):
    """Value and derivatives up to `order`, of `custom` and of `plain` in `dtypes`, as two lists."""
    wide = [primal.astype(dtype) for primal, dtype in zip(primals, dtypes, strict=True)]
    outputs, wide_outputs = jax.vjp(custom, *primals)[0], jax.vjp(plain, *wide)[0]
    got, want = [*outputs], [*wide_outputs]
    for _ in range(order):
        cotangents = [normal(rng, output) for output in outputs]
        wide_cotangents = [c.astype(w.dtype) for c, w in zip(cotangents, wide_outputs, strict=True)]
        custom, plain = _vjp(custom, len(primals)), _vjp(plain, len(wide))
        outputs, primals = primals, [*primals, *cotangents]
        wide_outputs, wide = wide, [*wide, *wide_cotangents]
        got += custom(*primals)
        want += plain(*wide)
    return got, want


def _derivative_names(inputs, outputs, order):
    """The names of what `_derivatives` lists."""
    names, level = [*outputs], outputs
    for k in range(1, order + 1):
        cotangents = [f"cotangent of {name}" for name in level]
        level = [f"order {k} gradient in {name}" for name in inputs]
        inputs = inputs + cotangents
        names += level
    return names


def _vjp(f, n):
    """The vjp of `f`, as a function of its `n` primals and its cotangents."""
    return lambda *inputs: jax.vjp(f, *inputs[:n])[1](tuple(inputs[n:]))


def _runs_rule(f, primals):
    """Whether a custom_vjp rule is on the way from `primals` to the output of `f`.

    `jax.linearize` drops what does not reach the output, so a rule called in vain does not count.
    """
    try:
        jax.linearize(f, *primals)[1](*primals)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        return True
    return False


def _restrict(f, args):
    """`f` as a function of the inexact leaves of `args`, returning its inexact output leaves."""
    leaves, tree = jax.tree.flatten(args)
    slots = inexact_slots(args)

    def restricted(*primals):
        filled = dict(enumerate(leaves)) | dict(zip(slots, primals, strict=True))
        out = f(*jax.tree.unflatten(tree, filled.values()))
        return tuple(leaf for leaf in jax.tree.leaves(out) if is_inexact(leaf))

    return restricted


def _wide_dtypes(f, primals):
    """float32 for 16-bit `primals`, if `f` takes it: beside 16-bit arrays of its own it may not."""
    dtypes = [primal.dtype for primal in primals]
    wide = [np.dtype(np.float32) if is_half(spacing([dtype])) else dtype for dtype in dtypes]
    try:
        f(*(primal.astype(dtype) for primal, dtype in zip(primals, wide, strict=True)))
    except (TypeError, ValueError):
        return dtypes
    return wide
