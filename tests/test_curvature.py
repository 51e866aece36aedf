"""Per-example gradients and norms, and Kronecker factors: their definitions, rules and limits."""

import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from jax import lax

import jconv
from jconv import blocks, curvature, each, products
from jconv.call import check_paired
from jconv.curvature import (
    kronecker_factors,
    per_example_kernel_gradients,
    per_example_kernel_norms,
)
from jconv.operands import merged
from jconv.testing import assert_rule
from tests import definition, strategies
from tests.cases import CONV_CASES, METHODS, conv_case, dense, each_case, named
from tests.compare import assert_close
from tests.effort import AS_USERS_COMPILE, drawn

TELLING = (
    "rank 1, no batch axis", "rank 4", "two batch axes", "uncovered tail", "dilation",
    "input dilation", "output of size one", "padding beyond the reach", "crop and pad",
    "constant of 1.5", "reflect", "many groups", "depthwise with multiplier",
    "flip", "all at once",
)  # fmt: skip
KINDS = "expand", "reduce"


# What they mean


def defined_gradients(case, x, y):
    """`[*batch, *taps, in // groups, out]`: one call of the definition an example."""
    gradients = [
        definition.kernel_gradient(x[n], y[n], case.taps, **case.options)
        for n in np.ndindex(*case.batch)
    ]
    return np.reshape(gradients, (*case.batch, *gradients[0].shape))


def defined_norms(case, x, y):
    gradients = defined_gradients(case, x, y).reshape(*case.batch, -1)
    return np.sqrt((np.abs(gradients) ** 2).sum(-1))


def patches_and_cotangents(case, x, y):
    """Of each group `[n, positions, k]` and `[n, positions, m]`."""
    rank, groups = len(case.taps), case.options.get("groups", 1)
    patches = definition.unfold(x, case.taps, **case.windowing)
    if case.options.get("flip"):
        patches = np.flip(patches, range(patches.ndim - rank - 1, patches.ndim - 1))
    shape = math.prod(case.batch), math.prod(case.out)
    patches = patches.reshape(*shape, math.prod(case.taps), -1)
    y = definition.wide(y).reshape(*shape, -1)
    for inputs, outputs in definition.group_blocks(*case.channels, groups):
        yield patches[..., inputs].reshape(*shape, -1), y[..., outputs]


def defined_factors(case, x, y, kind):
    """Outer products one by one; without an axis of groups where there is one group."""
    factors = []
    for p, b in patches_and_cotangents(case, x, y):
        n, positions = p.shape[:2]
        if kind == "expand":
            a = sum(np.outer(v, v) for v in p.reshape(n * positions, -1)) / (n * positions)
            g = sum(np.outer(v, v) for v in b.reshape(n * positions, -1)) / n
        else:
            a = sum(np.outer(v, v) for v in p.mean(1)) / n
            g = sum(np.outer(v, v) for v in b.sum(1)) / n
        factors.append((a, g))
    stacked = [np.stack(parts) for parts in zip(*factors, strict=True)]
    return stacked if len(factors) > 1 else [parts[0] for parts in stacked]


def everything(case):
    """All that is defined above, as one function of `x` and `y`."""

    def compute(x, y):
        args = x, y, case.taps
        norms = [
            per_example_kernel_norms(*args, **case.options, method=method)
            for method in ("gram", "patches", "auto")
        ]
        factors = [kronecker_factors(*args, **case.options, approximation=k) for k in KINDS]
        return per_example_kernel_gradients(*args, **case.options), norms, factors

    return compute


def assert_defined(case, dtype):
    x, _, y = case.data(dtype)
    gradients, norms, factors = jax.jit(everything(case))(x, y)
    assert_close(gradients, defined_gradients(case, x, y), dtype, case.terms)
    for actual in norms:
        # The Gram matrices sum as many squares as there are pairs of positions.
        assert_close(actual, defined_norms(case, x, y), dtype, case.terms**2)
    for actual, kind in zip(factors, KINDS, strict=True):
        for factor, expected in zip(actual, defined_factors(case, x, y, kind), strict=True):
            assert_close(factor, expected, dtype, case.terms)


@each_case(CONV_CASES, *TELLING)
def test_definition(case):
    assert_defined(case, "float32")


@drawn(4)
@given(case=strategies.conv_cases())
def test_definition_of_drawn_options(case):
    assert_defined(case, "float64")


@pytest.mark.parametrize("method", METHODS)
@each_case(CONV_CASES, "all at once")
def test_each_method(case, method):
    x, _, y = case.data("float64")
    options = {**case.options, "method": method}
    g = jax.jit(lambda x, y: per_example_kernel_gradients(x, y, case.taps, **options))(x, y)
    assert_close(g, defined_gradients(case, x, y), "float64", case.terms)
    norms = jax.jit(lambda x, y: per_example_kernel_norms(x, y, case.taps, **options))(x, y)
    assert_close(norms, defined_norms(case, x, y), "float64", case.terms)


def form_of(case, product=None):
    """The padded arrays, and what is static; with this product, however little another copies."""
    x, _, y = case.data("float64")
    _, _, call = check_paired(x, y, case.taps, **case.options)
    x, y = merged(call.pad(x), call.rank), merged(y, call.rank)
    form = each.prepared(call.spec, "auto", x, y.shape[-1])
    form = form._replace(product=product, together=2) if product else form
    return form, x, y


FORMS = [(product, "all at once") for product in ("of_x", "of_y")]
FORMS += [("by_columns", "dilation")]
FORMS += itertools.product(products.PRODUCTS, ("rank 4", "crop and pad", "input dilation"))


@pytest.mark.parametrize(("product", "name"), FORMS)
def test_each_product(product, name):
    (case,) = named(CONV_CASES, name)
    form, x, y = form_of(case, product)
    k = jax.jit(functools.partial(each.to_kernels, form))(x, y)
    k = lax.rev(k, range(1, 1 + len(case.taps))) if form.spec.flip else k
    expected = defined_gradients(case, *case.data("float64")[::2])
    assert_close(k.reshape(expected.shape), expected, "float64", case.terms)


@pytest.mark.parametrize("summed", [10**6, 100, 1])
@pytest.mark.parametrize("many", [1, 2])
@pytest.mark.parametrize(
    ("size", "taps", "options"),
    [
        ((4, 10), (2, 3), {}),
        ((9, 10), (4, 9), {"groups": 2, "padding": ((1, 0), (1, 1)), "dilation": (2, 1)}),
        ((9, 10), (3, 6), {"stride": (2, 2), "padding": ((-1, 0), (1, 1))}),
        ((11, 8), (5, 3), {"stride": (2, 1), "padding": ((1, 0), (0, 0)), "groups": 2}),
        ((27,), (4,), {"stride": 2, "padding": ((2, 1),)}),
        ((29,), (5,), {"stride": 2, "padding": ((2, 1),)}),
    ],
)
def test_bands_and_neighbours_change_nothing(monkeypatch, size, taps, options, many, summed):
    """One patch for two neighbours, two bands or one, the taps of the first axis apart or not."""
    monkeypatch.setattr(products, "neighbours", lambda spec, inputs, outputs: many)
    monkeypatch.setattr(products, "SUMMED", summed)
    monkeypatch.setattr(products, "LEAST", 0)
    monkeypatch.setattr(products, "FEW", 0)
    monkeypatch.setattr(products, "QUICKER", math.inf)
    case = conv_case("", size, taps, (2, 6), **options)
    form, x, y = form_of(case, "of_x")
    k = jax.jit(functools.partial(each.to_kernels, form))(x, y)
    expected = defined_gradients(case, *case.data("float64")[::2])
    assert_close(k, expected, "float64", case.terms)


@pytest.mark.parametrize(
    ("product", "channels", "size", "options"),
    [
        ("of_x", (1, 32), (16, 16), {}),
        ("of_x", (16, 32), (16, 16), {"stride": 2}),
        ("of_y", (64, 4), (16, 16), {}),
        ("of_x", (64, 64), (16, 16), {"padding": 1}),
        ("by_columns", (32, 256), (8, 8), {"padding": 1}),
        ("turned", (32, 6), (16, 16), {"stride": 2}),
        ("", (64, 64), (160, 160), {}),  # row by row
    ],
)
def test_the_fastest_product_is_taken(product, channels, size, options):
    case = conv_case("", size, (3, 3), channels, (1,), **options)
    assert form_of(case)[0].product == product


@pytest.mark.parametrize(
    ("many", "channels", "size"), [(2, (1, 8), 28), (2, (16, 16), 28), (1, (64, 64), 28)]
)
def test_few_channels_share_patches(many, channels, size):
    spec = form_of(conv_case("", (size, size), (3, 3), channels, (1,), padding=1))[0].spec
    assert products.neighbours(spec, *channels) == many


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a row or two. Compiled programs know no budget, so none is kept."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 700)
    monkeypatch.setattr(each, "BLOCK_BYTES", 3000)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("size", [(7, 4), (3, 3)])
def test_blocks_change_nothing(small_blocks, size, count):
    """Rows of one example, of which the last block has too many, and a few examples a step."""
    case = conv_case("", size, (3, 2), (2, 3), (count,), padding=((1, 0), (2, 1)), stride=(1, 2))
    assert_defined(case, "float64")


@each_case(CONV_CASES, "depthwise with multiplier", "many groups")
def test_elsewhere_it_is_the_same(elsewhere, case):
    assert form_of(case)[0].native
    assert_defined(case, "float64")
    x, _, y = case.data("float64")
    for function in (per_example_kernel_gradients, per_example_kernel_norms):
        assert_rule(*both_ways(function, case), (x, y), draws=1)


@each_case(CONV_CASES, "rank 2")
def test_half_precision_sums_in_single(case):
    x, _, y = (jnp.asarray(a, jnp.bfloat16) for a in case.data("float32"))
    gradients, norms, factors = jax.jit(everything(case))(x, y)
    assert gradients.dtype == jnp.bfloat16
    wide = tuple(map(definition.wide, (x, y)))
    expected = [(norm, defined_norms(case, *wide)) for norm in norms]
    for actual, kind in zip(factors, KINDS, strict=True):
        expected += zip(actual, defined_factors(case, *wide, kind), strict=True)
    for actual, right in expected:
        assert actual.dtype == jnp.bfloat16
        error = np.abs(definition.wide(actual) - right).max()
        assert error <= float(jnp.finfo(jnp.bfloat16).eps) * np.abs(right).max()


@each_case(CONV_CASES, "rank 2")
def test_norms_of_integers_and_complex_numbers(case):
    for dtype, result in (("int32", "float64"), ("complex64", "float32")):
        x, _, y = case.data(dtype)
        for method in ("gram", "patches"):
            norms = per_example_kernel_norms(x, y, case.taps, method=method)
            assert_close(norms, defined_norms(case, x, y), result, case.terms**2)


def test_preferred_element_type():
    case = conv_case("", (6, 5), (3, 2))
    x, _, y = case.data("float32")
    options = {**case.options, "preferred_element_type": "float64"}
    g = per_example_kernel_gradients(x, y, case.taps, **options)
    assert_close(g, defined_gradients(case, x, y), "float64", case.terms)
    norms = per_example_kernel_norms(x, y, case.taps, **options)
    assert_close(norms, defined_norms(case, x, y), "float64", case.terms)
    for factor, expected in zip(
        kronecker_factors(x, y, case.taps, **options),
        defined_factors(case, x, y, "expand"),
        strict=True,
    ):
        assert_close(factor, expected, "float64", case.terms)


def test_an_empty_batch():
    x, y = dense((0, 6, 5, 2), "float64", 0), dense((0, 4, 4, 3), "float64", 1)
    assert per_example_kernel_gradients(x, y, (3, 2)).shape == (0, 3, 2, 2, 3)
    assert per_example_kernel_norms(x, y, (3, 2)).shape == (0,)


# Rules


def both_ways(function, case, **options):
    """By the rule, and differentiated by JAX."""
    options = {**case.options, **options, "taps": case.taps}
    return [jax.jit(functools.partial(function, **options, custom_vjp=c)) for c in (True, False)]


@each_case(CONV_CASES, "all at once")
def test_rule_of_gradients_to_second_order(case):
    x, _, y = case.data("float64")
    assert_rule(*both_ways(per_example_kernel_gradients, case), (x, y), order=2, draws=1)


@pytest.mark.parametrize(("method", "order"), [("gram", 2), ("patches", 1)])
@each_case(CONV_CASES, "all at once")
def test_rule_of_norms(case, method, order):
    """The rule is one for both, so that its own derivative is taken once."""
    x, _, y = case.data("float64")
    pair = both_ways(per_example_kernel_norms, case, method=method)
    assert_rule(*pair, (x, y), order=order, draws=1)


def test_rules_of_complex_norms_and_of_another_dtype():
    case = conv_case("", (5, 4), (2, 3))
    x, _, y = case.data("complex128")
    assert_rule(*both_ways(per_example_kernel_norms, case), (x, y), draws=1)
    x, _, y = case.data("float32")
    for function in (per_example_kernel_gradients, per_example_kernel_norms):
        pair = both_ways(function, case, preferred_element_type="float64")
        assert_rule(*pair, (x, y), draws=1)


@pytest.mark.parametrize("method", ["gram", "patches"])
@pytest.mark.parametrize("custom_vjp", [True, False])
def test_the_derivative_of_a_norm_that_is_zero(method, custom_vjp):
    """Zero, in `x` and in `y_bar` alike, and beside an example whose norm is not."""
    x, y = dense((2, 4, 5, 2), "float64", 0), dense((2, 3, 4, 3), "float64", 1)
    y[0] = 0

    def total(x, y):
        options = {"method": method, "custom_vjp": custom_vjp}
        return per_example_kernel_norms(x, y, (2, 2), **options).sum()

    for cotangent in jax.jit(jax.grad(total, argnums=(0, 1)))(x, y):
        np.testing.assert_array_equal(cotangent[0], np.zeros_like(cotangent[0]))
        assert np.abs(cotangent[1]).min() > 0


def test_a_nan_is_not_taken_for_zero():
    x, y = dense((2, 4, 5, 2), "float64", 0), dense((2, 3, 4, 3), "float64", 1)
    x[1, 2, 2, 0] = np.nan
    for method in ("gram", "patches"):
        norms = per_example_kernel_norms(x, y, (2, 2), method=method)
        assert np.isnan(norms).tolist() == [False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_factors_are_differentiable(kind):
    case = conv_case("", (5, 4), (2, 3), (4, 6), groups=2, padding=1)
    x, _, y = case.data("float64")

    def factors(x, y):
        args = x, y, case.taps
        return kronecker_factors(*args, **case.options, approximation=kind)

    def plain(x, y):
        patches = jconv.unfold(x, case.taps, padding=1).reshape(2, -1, 6, 2, 2)
        p, b = jnp.moveaxis(patches, 3, 0), jnp.moveaxis(y.reshape(2, -1, 2, 3), 2, 0)
        p, count = p.reshape(*p.shape[:3], -1), p.shape[2]
        if kind == "reduce":
            p, b, count = p.mean(2, keepdims=True), b.sum(2, keepdims=True), 1
        a = jnp.einsum("gnti,gntj->gij", p, p) / (2 * count)
        return curvature.KroneckerFactors(a, jnp.einsum("gnti,gntj->gij", b, b) / 2)

    bars = jax.tree.map(lambda a: dense(a.shape, "float64", 3), jax.eval_shape(plain, x, y))

    def with_cotangents(f):
        value, transpose = jax.vjp(f, x, y)
        return value, transpose(bars)

    actual, expected = (jax.jit(with_cotangents, static_argnums=0)(f) for f in (factors, plain))
    for pairs in zip(actual, expected, strict=True):
        for one, other in zip(*pairs, strict=True):
            assert_close(one, np.asarray(other), "float64", case.terms**2)


# Transformations


def test_vmap_over_what_is_no_batch_axis():
    case = conv_case("", (5, 4), (2, 3), (4, 6), batch=(3, 2), groups=2)
    x, _, y = case.data("float64")
    gradients, norms, factors = jax.jit(jax.vmap(everything(case), (0, 0)))(x, y)
    assert_close(gradients, defined_gradients(case, x, y), "float64", case.terms)
    assert_close(norms[0], defined_norms(case, x, y), "float64", case.terms**2)
    of_one = conv_case("", case.size, case.taps, case.channels, **case.options)
    for i in range(3):
        for actual, kind in zip(factors, KINDS, strict=True):
            for factor, expected in zip(
                actual, defined_factors(of_one, x[i], y[i], kind), strict=True
            ):
                assert_close(factor[i], expected, "float64", case.terms)


def test_forward_over_reverse():
    case = conv_case("", (5, 4), (2, 3))
    x, _, y = case.data("float64")
    x_dot, _, y_dot = case.data("float64", seed=1)

    def total(x, y, **options):
        return per_example_kernel_norms(x, y, case.taps, **options).sum()

    def product(**options):
        gradient = jax.grad(functools.partial(total, **options), argnums=(0, 1))
        return jax.jit(lambda: jax.jvp(gradient, (x, y), (x_dot, y_dot))[1])()

    for actual, expected in zip(product(), product(custom_vjp=False), strict=True):
        assert_close(actual, np.asarray(expected), "float64", case.terms**2)


# What the factors are for


def gauss_newton(outputs, kernel, count):
    """Of half the squared error, a mean over examples, in `kernel.ravel()`."""
    jacobian = jax.jit(jax.jacrev(outputs))(kernel).reshape(-1, kernel.size)
    return np.asarray(jacobian.T @ jacobian) / count


HEADS = {
    # kind, size of x, equation of the linear net behind the layer
    "one position": ("expand", (3, 2), "noum,mc->nc"),
    "positions that share weights": ("expand", (5, 4), "noum,mc->nouc"),
    "sums over positions": ("reduce", (5, 4), "noum,mc->nc"),
}


@pytest.mark.parametrize("head", HEADS)
def test_factors_of_a_linear_net_are_its_gauss_newton_matrix(head):
    kind, size, equation = HEADS[head]
    options = {"stride": (1, 2), "flip": True, "padding_mode": "wrap", "padding": ((0, 1), (0, 0))}
    case = conv_case("", size, (4, 2) if head == "one position" else (3, 2), (2, 3), **options)
    x, kernel, _ = case.data("float64")
    weights = dense((3, 4), "float64", 5)

    def behind(y):
        return jnp.einsum(equation, y, weights)

    y = jconv.conv(x, kernel, **options)
    expected = gauss_newton(lambda k: behind(jconv.conv(x, k, **options)), kernel, len(x))
    outputs, transpose = jax.vjp(behind, y)
    # The cotangents of one output of every example at a time.
    units = np.eye(outputs[0].size).reshape(-1, 1, *outputs[0].shape)
    every = [transpose(jnp.broadcast_to(unit, outputs.shape))[0] for unit in units]
    of = jax.jit(lambda b: kronecker_factors(x, b, case.taps, approximation=kind, **options))
    factors = [of(b) for b in every]
    a, g = factors[0].input, sum(f.output for f in factors)
    np.testing.assert_allclose(np.kron(a, g), expected, rtol=1e-10, atol=1e-12)


# Programs


def compiled(f, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(f).lower(*arguments).compile(AS_USERS_COMPILE)


@pytest.mark.parametrize(
    ("channels", "taps", "groups"),
    [((16, 24), (3, 3), 1), ((12, 12), (2, 3), 12), ((2, 2), (5,), 1)],
)
def test_no_convolution_is_grouped(channels, taps, groups):
    case = conv_case("", (12,) * len(taps), taps, channels, (6,), groups=groups)

    def gradient_and_derivative(x, y, k):
        def f(x, y):
            return per_example_kernel_gradients(x, y, taps, groups=groups)

        g, transpose = jax.vjp(f, x, y)
        return g, transpose(k), jax.vmap(f)(x, y)

    x, kernel, y = case.shapes
    text = compiled(gradient_and_derivative, x, y, (6, *kernel)).as_text()
    assert "while" in text or "dot" in text
    assert not re.search(r"(feature|batch)_group_count=", text)


def scratch(f, count, case):
    x, _, y = ((count, *shape[1:]) for shape in case.shapes)
    return compiled(f, x, y).memory_analysis().temp_size_in_bytes


WIDE = conv_case("few positions", (4, 4), (3, 3), (96, 96), padding=1)
LONG = conv_case("many positions", (64, 64), (3, 3), (8, 8), padding=1)


@pytest.mark.parametrize("case", [WIDE, LONG], ids=lambda case: case.name)
@pytest.mark.parametrize("derivative", [False, True])
def test_scratch_of_norms_does_not_grow_with_the_batch(case, derivative):
    def f(x, y):
        return per_example_kernel_norms(x, y, case.taps, **case.options).sum()

    f = jax.grad(f, argnums=(0, 1)) if derivative else f
    kernel = 4 * math.prod(case.taps) * math.prod(case.channels)
    activations = 4 * math.prod(case.size) * sum(case.channels)
    few, many = scratch(f, 256, case), scratch(f, 512, case)
    # A step holds a few examples; arrays as large as `x` and `y` may be copied.
    assert many - few <= 256 * 2 * activations
    assert case is LONG or many - few < 256 * kernel / 2
    assert many < 4 * blocks.BLOCK_BYTES + 512 * 2 * activations


def test_gram_matrices_are_taken_where_they_are_cheaper():
    def same_as(case, method):
        x, _, y = (jnp.zeros(shape) for shape in case.shapes)

        def program(method):
            norms = functools.partial(
                per_example_kernel_norms, taps=case.taps, **case.options, method=method
            )
            return str(jax.make_jaxpr(norms)(x, y))

        return program("auto") == program(method)

    assert same_as(WIDE, "gram")
    assert not same_as(LONG, "gram")
    for inputs, groups, cheaper in ((16, 1, False), (64, 4, True), (8, 4, False)):
        case = conv_case("", (4, 4), (3, 3), (inputs, 16 * groups), padding=1, groups=groups)
        assert same_as(case, "gram") == cheaper


@pytest.mark.parametrize("kind", KINDS)
def test_patches_of_a_batch_never_stand_in_memory(kind):
    def f(x, y):
        return kronecker_factors(x, y, LONG.taps, **LONG.options, approximation=kind)

    patches = 4 * 64 * math.prod(LONG.size) * math.prod(LONG.taps) * LONG.channels[0]
    assert scratch(f, 64, LONG) < patches / 3
    # Nor in its derivative.
    derivative = jax.grad(lambda x, y: sum(a.sum() for a in f(x, y)), argnums=(0, 1))
    assert scratch(derivative, 64, LONG) < patches / 2
