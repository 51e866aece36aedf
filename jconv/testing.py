"""The laws that a hand-derived rule obeys, as assertions, for users' own rules too.

    assert_adjoint    <f(x), y> == <x, f_adjoint(y)>
    assert_rule       vjp(f_custom) == vjp(f_plain), to any order, and the custom rule really ran
    assert_agree      f(*args) == g(*args)

Two numbers agree when they differ by at most `rtol` times the largest entry of their array, plus
`atol`. By default, with `eps` the spacing of the coarser of the two dtypes,

    rtol = min(8 * eps * sqrt(terms), 0.004)                  float32, float64, complex
    rtol = 4 * eps + 8 * eps(float32) * sqrt(terms)           bfloat16, float16 (sums in float32)

where `terms` bounds how many products are summed into one entry: by default the size of the
largest array in sight. Rounding hides a factor of 1.01 from any one bfloat16 entry, but not from
all of them: the least-squares factor between two arrays must be 1 to within 0.004 as well, plus
what rounding does to an average of so few entries.
An explicit `rtol` replaces both limits.

Random data are dense and normal; `key` is an integer seed or a JAX key. Functions run under
`jax.default_matmul_precision("highest")`, so that no accelerator rounds their float32 products.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["assert_adjoint", "assert_agree", "assert_rule"]

_FACTOR_LIMIT = 0.004
_HALF_ENTRIES = 128  # so many rounded entries show a factor of 1.01
_PROBES = 1024


class _Tolerance(NamedTuple):
    """Limits on rounding errors: the user's where given, else by dtype and number of terms."""

    rtol: float | None
    atol: float
    terms: int
    order: int = 1

    def entry(self, eps: float) -> float:
        """The limit on one entry's error, relative to the largest entry."""
        if self.rtol is not None:
            return self.rtol
        if _is_half(eps):
            single = float(jnp.finfo(jnp.float32).eps)
            return self.order * (4 * eps + 8 * single * math.sqrt(self.terms))
        return min(8 * self.order * eps * math.sqrt(self.terms), _FACTOR_LIMIT)

    def factor(self) -> float:
        """The limit on the distance from 1 of the overall factor."""
        return _FACTOR_LIMIT if self.rtol is None else self.rtol


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
    _check_callable(f=f, f_adjoint=f_adjoint)
    _check_options(draws=draws, rtol=rtol, atol=atol, terms=terms)
    x, y = _template("x", x), _template("y", y)
    dtypes = [leaf.dtype for leaf in jax.tree.leaves((x, y))]
    if len({jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes}) > 1:
        raise TypeError(f"`x` and `y` must be all real or all complex; got {_words(dtypes)}.")
    rng = _generator(key)
    tolerance = _Tolerance(rtol, atol, terms or _largest((x, y)))
    blocks = itertools.product(enumerate(_named("x", x)), range(len(jax.tree.leaves(y))))
    draws = _draws_needed(draws, jax.tree.leaves((x, y)))
    with jax.default_matmul_precision("highest"):
        for (i, (name, _)), j in blocks:
            pairings = [_pairing(f, f_adjoint, x, y, i, j, rng) for _ in range(draws)]
            wrong = _worst_pairing(pairings, tolerance, _eps(dtypes))
            if wrong:
                raise AssertionError(f"{wrong} {_worst_probe(f, x, name, pairings[0], i, j, rng)}")


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
    dtype, `f_plain` runs in float32 where it accepts that, and small arrays get more draws.

    The rule ran if forward mode is refused on the way from `args` to the output of `f_custom`,
    which JAX does for `jax.custom_vjp` alone; `f_plain` must not be refused.

    Raises `AssertionError` naming the argument, its worst entry and both values; `TypeError` if
    `args` is no tuple; `ValueError` if it has nothing to differentiate.

    >>> square = jax.custom_vjp(lambda x: x**2)
    >>> square.defvjp(lambda x: (x**2, x), lambda x, y_bar: (2 * x * y_bar,))
    >>> assert_rule(square, lambda x: x**2, (jnp.arange(3.0),), order=2)
    """
    _check_callable(f_custom=f_custom, f_plain=f_plain)
    _check_options(draws=draws, rtol=rtol, atol=atol, terms=terms, order=order)
    rng = _generator(key)
    args = _arguments(rng, args)
    slots = _inexact_slots(args)
    if not slots:
        raise ValueError("`args` must hold an inexact array to differentiate in; got none.")
    assert_agree(f_custom, f_plain, args, rtol=rtol, atol=atol, terms=terms)
    custom, plain = _restrict(f_custom, args), _restrict(f_plain, args)
    leaves = jax.tree.leaves(args)
    primals = [leaves[slot] for slot in slots]
    with jax.default_matmul_precision("highest"):
        if not _runs_rule(custom, primals):
            between = f"between {_words(slots.values())} and its output"
            raise AssertionError(f"assert_rule: no custom_vjp rule of f_custom ran {between}.")
        if _runs_rule(plain, primals):
            raise AssertionError("assert_rule: f_plain runs a custom_vjp rule itself.")
        value = f_custom(*args)
        arrays = primals + [leaf for leaf in jax.tree.leaves(value) if _is_inexact(leaf)]
        dtypes = _wide_dtypes(plain, primals)
        pairs = [_derivatives(custom, plain, primals, dtypes, order, rng)]
        for _ in range(1, _draws_needed(draws, arrays)):
            point = [_jitter(rng, primal) for primal in primals]
            pairs.append(_derivatives(custom, plain, point, dtypes, order, rng))
    tolerance = _Tolerance(rtol, atol, terms or _largest(arrays), order)
    outputs = [name for name, leaf in _named("output", value) if _is_inexact(leaf)]
    for i, name in enumerate(_derivative_names([*slots.values()], outputs, order)):
        got, want = ([side[i] for side in sides] for sides in zip(*pairs, strict=True))
        _assert_close("assert_rule", name, got, want, tolerance)


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
    `args` is no tuple.

    >>> assert_agree(jnp.cumsum, [1, 3, 6], (jnp.array([1, 2, 3]),), check_dtypes=False)
    Traceback (most recent call last):
    AssertionError: assert_agree: output: structures differ: * and [*, *, *].
    >>> assert_agree(jnp.cumsum, np.array([1, 3, 6]), (jnp.array([1, 2, 3]),), check_dtypes=False)
    """
    _check_options(rtol=rtol, atol=atol, terms=terms)
    args = _arguments(_generator(key), args)
    with jax.default_matmul_precision("highest"):
        got, want = (h(*args) if callable(h) else h for h in (f, g))
    _assert_same_form("assert_agree", "output", got, want, check_dtypes)
    tolerance = _Tolerance(rtol, atol, terms or _largest((args, got, want)))
    for (name, a), b in zip(_named("output", got), jax.tree.leaves(want), strict=True):
        _assert_close("assert_agree", name, [a], [b], tolerance)


# -- the adjoint -----------------------------------------------------------------------------


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
    _assert_same_form("assert_adjoint", "f(x)", fx, y)
    y_one = _lean(_draw_leaf(rng, y, j), fx, j)
    x_bar = f_adjoint(y_one)
    _assert_same_form("assert_adjoint", "f_adjoint(y)", x_bar, x)
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
    got = _wide(jax.tree.leaves(pairing.x_bar)[i])
    entries = rng.permutation(got.size)[:_PROBES]
    want = np.array([_terms(f(_unit(x, i, entry)), pairing.y, j).sum() for entry in entries])
    worst = int(np.argmax(_errors(got.ravel()[entries], want)))
    where = np.unravel_index(entries[worst], got.shape)
    return (
        f"Worst entry of f_adjoint(y), {name}{_index(where)}: got {got[where]:.9g}, "
        f"want {want[worst]:.9g}."
    )


def _lean(y, fx, slot):
    """Adds the conjugate of `f(x)`, at unit scale, to leaf `slot` of `y`."""
    leaves, tree = jax.tree.flatten(y)
    conjugate = _wide(jax.tree.leaves(fx)[slot]).conj()
    finite = np.where(np.isfinite(conjugate), conjugate, 0)
    scale = np.sqrt(np.mean(np.abs(finite) ** 2)) or 1.0
    leaves[slot] = jnp.asarray(_wide(leaves[slot]) + finite / scale, leaves[slot].dtype)
    return jax.tree.unflatten(tree, leaves)


def _terms(a, b, slot):
    """The products that the bilinear pairing of leaf `slot` of `a` and `b` sums."""
    return (_wide(jax.tree.leaves(a)[slot]) * _wide(jax.tree.leaves(b)[slot])).ravel()


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
        _draw(rng, leaf) if i == slot else jnp.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, drawn)


# -- the rule --------------------------------------------------------------------------------


def _derivatives(custom, plain, primals, dtypes, order, rng):
    """Value and derivatives up to `order`, of `custom` and of `plain` in `dtypes`, as two lists."""
    wide = [primal.astype(dtype) for primal, dtype in zip(primals, dtypes, strict=True)]
    outputs, wide_outputs = jax.vjp(custom, *primals)[0], jax.vjp(plain, *wide)[0]
    got, want = [*outputs], [*wide_outputs]
    for _ in range(order):
        cotangents = [_draw(rng, output) for output in outputs]
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
    slots = _inexact_slots(args)

    def restricted(*primals):
        filled = dict(enumerate(leaves)) | dict(zip(slots, primals, strict=True))
        out = f(*jax.tree.unflatten(tree, filled.values()))
        return tuple(leaf for leaf in jax.tree.leaves(out) if _is_inexact(leaf))

    return restricted


def _wide_dtypes(f, primals):
    """float32 for 16-bit `primals`, if `f` takes it: beside 16-bit arrays of its own it may not."""
    dtypes = [primal.dtype for primal in primals]
    wide = [np.dtype(np.float32) if _is_half(_eps([dtype])) else dtype for dtype in dtypes]
    try:
        f(*(primal.astype(dtype) for primal, dtype in zip(primals, wide, strict=True)))
    except (TypeError, ValueError):
        return dtypes
    return wide


def _jitter(rng, array):
    """`array` times random numbers in [0.5, 1.5), its zeros replaced by positive numbers."""
    values = _wide(array)
    finite = np.abs(values[np.isfinite(values)])
    scale = np.max(finite, initial=0.0) or 1.0
    base = np.where(values == 0, scale, values)
    return jnp.asarray(base * rng.uniform(0.5, 1.5, values.shape), array.dtype)


# -- numbers ---------------------------------------------------------------------------------


def _assert_close(law, name, got, want, tolerance):
    """Compares an array drawn several times, `got`, with as many references, `want`."""
    inexact = [a.dtype for a in map(np.asarray, (got[0], want[0])) if _is_inexact(a)]
    eps = _eps(inexact) if inexact else 0.0
    errors = np.stack(list(map(_errors, got, want)))
    got, want = (np.stack([_wide(a) for a in arrays]) for arrays in (got, want))
    if not got.size:
        return
    finite = np.isfinite(got) & np.isfinite(want)
    scale = np.max(np.abs(want[finite]), initial=0.0)
    limit = tolerance.entry(eps) * scale + tolerance.atol if inexact else 0.0
    worst = np.unravel_index(np.argmax(errors), errors.shape)
    report = (
        f"{law}: {name}: worst entry {_index(worst[1:])}: got {got[worst]:.9g}, "
        f"want {want[worst]:.9g}; error {errors[worst]:.3g}, tolerance {limit:.3g}"
    )
    if not errors[worst] <= limit:
        raise AssertionError(f"{report}.")
    if inexact and scale > tolerance.atol:
        factor, entries = _factor(got[finite] / scale, want[finite] / scale)
        if not abs(factor - 1) <= tolerance.factor() + eps / math.sqrt(entries):
            raise AssertionError(f"{report}; but overall got = {factor:.4f} * want.")


def _factor(got, want):
    """The least-squares factor `got / want`, and how many entries effectively averaged to it."""
    power = np.abs(want) ** 2
    factor = np.vdot(want, got).real / power.sum()
    return factor, power.sum() ** 2 / (power**2).sum()


def _errors(got, want):
    """Distances; 0 for equal infinities and for two NaNs, infinite for any other non-number."""
    got, want = np.asarray(got), np.asarray(want)
    a, b = _wide(got), _wide(want)
    same = (got == want) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b)
    distance = np.where(np.isfinite(distance), distance, np.inf)
    if not (_is_inexact(got) or _is_inexact(want)):
        distance = np.maximum(distance, 1.0)  # integers beyond 2**53 may look equal in float64
    return np.where(same, 0.0, distance)


def _wide(array):
    """In float64 or complex128 NumPy."""
    array = np.asarray(array)
    wide = np.complex128 if jnp.issubdtype(array.dtype, jnp.complexfloating) else np.float64
    return array.astype(wide)


def _eps(dtypes):
    """The spacing at 1 of the coarsest dtype."""
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)


def _is_half(eps):
    return eps > 2 * float(jnp.finfo(jnp.float32).eps)


def _draws_needed(draws, leaves):
    """More draws for small 16-bit arrays, so that rounding errors average out."""
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    if not _is_half(_eps([leaf.dtype for leaf in leaves])):
        return draws
    return max(draws, math.ceil(_HALF_ENTRIES / min(filter(None, sizes), default=_HALF_ENTRIES)))


def _generator(key):
    """A NumPy generator from an integer seed or a JAX key."""
    if isinstance(key, jax.Array):
        return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    if isinstance(key, bool) or not isinstance(key, (int, np.integer)):
        raise TypeError(f"`key` must be an integer or a JAX key; got {key!r}.")
    if key < 0:
        raise ValueError(f"`key` must not be negative; got {key}.")
    return np.random.default_rng(key)


def _draw(rng, template):
    """Standard normal numbers (in both parts, if complex) of the shape and dtype of `template`."""
    values = rng.standard_normal(template.shape)
    if jnp.issubdtype(template.dtype, jnp.complexfloating):
        values = values + 1j * rng.standard_normal(template.shape)
    return jnp.asarray(values, template.dtype)


# -- pytrees and arguments -------------------------------------------------------------------


def _assert_same_form(law, name, got, want, check_dtypes=True):
    """The same pytree structure, shapes and, if asked, dtypes."""
    trees = [jax.tree.structure(tree) for tree in (got, want)]
    if trees[0] != trees[1]:
        a, b = (str(tree).removeprefix("PyTreeDef(")[:-1] for tree in trees)
        raise AssertionError(f"{law}: {name}: structures differ: {a} and {b}.")
    for (leaf_name, a), b in zip(_named(name, got), jax.tree.leaves(want), strict=True):
        if np.shape(a) != np.shape(b):
            raise AssertionError(f"{law}: {leaf_name}: shape {np.shape(a)}, want {np.shape(b)}.")
        a, b = (getattr(leaf, "dtype", None) or jnp.result_type(leaf) for leaf in (a, b))
        if check_dtypes and a != b:
            raise AssertionError(f"{law}: {leaf_name}: dtype {a}, want {b}.")


def _template(name, tree):
    """Shapes and dtypes of inexact leaves, as JAX will draw them."""
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        if not _is_inexact(leaf):
            raise TypeError(f"`{name}` must hold floating or complex arrays; got {leaf!r}.")
    if not sum(math.prod(np.shape(leaf)) for leaf in leaves):
        raise ValueError(f"`{name}` must hold at least one entry; got {tree!r}.")
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jnp.result_type(leaf)), tree
    )


def _arguments(rng, args):
    """`args`, its inexact leaves as arrays and its templates drawn."""
    if not isinstance(args, tuple):
        raise TypeError(f"`args` must be a tuple; got {type(args).__name__}.")

    def fill(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return _draw(rng, *jax.tree.leaves(_template("args", leaf)))
        return jnp.asarray(leaf, jnp.result_type(leaf)) if _is_inexact(leaf) else leaf

    return jax.tree.map(fill, args)


def _check_options(*, rtol, atol, terms, draws=1, order=1):
    counts = {"draws": draws, "order": order} | ({} if terms is None else {"terms": terms})
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"`{name}` must be an integer; got {value!r}.")
        if value < 1:
            raise ValueError(f"`{name}` must be positive; got {value}.")
    limits = {"atol": atol} | ({} if rtol is None else {"rtol": rtol})
    for name, value in limits.items():
        if not isinstance(value, int | float | np.number) or isinstance(value, bool):
            raise TypeError(f"`{name}` must be a number; got {value!r}.")
        if not value >= 0:
            raise ValueError(f"`{name}` must not be negative; got {value}.")


def _check_callable(**functions):
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(f"`{name}` must be callable; got {function!r}.")


def _is_inexact(leaf):
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return isinstance(leaf, (float, complex))
    return bool(jnp.issubdtype(dtype, jnp.inexact))


def _named(name, tree):
    """Each leaf, after where it is: `args[0]['kernel']`."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(name + jax.tree_util.keystr(path), leaf) for path, leaf in paths]


def _inexact_slots(args):
    """The names of the inexact leaves of `args`, by position among all leaves."""
    return {i: name for i, (name, leaf) in enumerate(_named("args", args)) if _is_inexact(leaf)}


def _largest(tree):
    """The size of the largest array, at least 1."""
    return max([1, *(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(tree))])


def _index(index):
    return f"[{', '.join(str(int(i)) for i in index)}]"


def _words(items):
    return ", ".join(str(item) for item in items)
