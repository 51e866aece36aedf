"""The checkers pass what is right, and catch every way of being wrong that they promise to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from jconv.testing import assert_adjoint, assert_agree, assert_rule
from tests.effort import drawn

SINGLE_OR_DOUBLE = [jnp.float32, jnp.float64]
DTYPES = [*SINGLE_OR_DOUBLE, jnp.float16, jnp.bfloat16, jnp.complex64]
SEEDS = range(50)


@jax.jit
def correlate(x, kernel):
    """`y[o] = sum_t x[o + t] . kernel[t]`, for x [size, in], kernel [taps, in, out]."""
    layout = ("NWC", "WIO", "NWC")
    return lax.conv_general_dilated(x[None], kernel, (1,), "VALID", dimension_numbers=layout)[0]


@jax.jit
def input_adjoint(y, kernel):
    taps = kernel.shape[0]
    padded = jnp.pad(y, ((taps - 1, taps - 1), (0, 0)))
    return correlate(padded, jnp.flip(kernel, 0).swapaxes(1, 2))


@jax.jit
def kernel_adjoint(x, y):
    taps = x.shape[0] - y.shape[0] + 1
    windows = jnp.stack([x[t : t + y.shape[0]] for t in range(taps)])
    return jnp.einsum("toi,oc->tic", windows, y)


def ruled(x_bar=input_adjoint, k_bar=kernel_adjoint):
    """`correlate` with a hand-derived rule, made of the adjoints given."""
    f = jax.custom_vjp(correlate)
    f.defvjp(
        lambda x, kernel: (correlate(x, kernel), (x, kernel)),
        lambda saved, y_bar: (x_bar(y_bar, saved[1]), k_bar(saved[0], y_bar)),
    )
    return f


def unflipped(y, kernel):
    return input_adjoint(y, jnp.flip(kernel, 0))


def scaled(f, factor=1.01):
    return lambda *args: f(*args) * factor


def one_entry_off(f):
    def off(*args):
        out = f(*args)
        return out.at[(0,) * out.ndim].multiply(1.01)

    return off


MUTATIONS = {
    "zero": lambda f: scaled(f, 0),
    "scaled": scaled,
    "negated": lambda f: scaled(f, -1),
    "flipped": lambda f: lambda *args: jnp.flip(f(*args), 0),
    "shifted": lambda f: lambda *args: jnp.roll(f(*args), 1, axis=0),
    "one entry": one_entry_off,
    "nan": lambda f: scaled(f, jnp.nan),
}
# Rounding hides a wrong factor in one 16-bit entry.
COARSE = {name: m for name, m in MUTATIONS.items() if name != "one entry"}


def example(seed, dtype, size=7, taps=3):
    rng = np.random.default_rng(seed)
    x, kernel = rng.standard_normal((size, 2)), rng.standard_normal((taps, 2, 3))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def adjoint_case(seed, dtype, size=7, taps=3):
    """`f`, its adjoint, and templates of their arguments."""
    x, kernel = example(seed, dtype, size, taps)
    y = jax.ShapeDtypeStruct((size - taps + 1, 3), dtype)
    return lambda x: correlate(x, kernel), lambda y: input_adjoint(y, kernel), x, y


class TestAdjoint:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_passes(self, dtype):
        for seed in SEEDS:
            assert_adjoint(*adjoint_case(seed, dtype), key=seed)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("mutation", MUTATIONS)
    def test_catches(self, mutation, dtype):
        if mutation not in COARSE and jnp.finfo(dtype).bits == 16:
            pytest.skip("rounding hides a factor of 1.01 in one 16-bit entry")
        for seed in range(3):
            f, f_adjoint, x, y = adjoint_case(seed, dtype)
            with pytest.raises(AssertionError, match=r"Worst entry .*, x\[\d, \d\]: got .*, want"):
                assert_adjoint(f, MUTATIONS[mutation](f_adjoint), x, y, key=seed)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_always_catches_a_factor(self, dtype):
        for seed in SEEDS:
            f, f_adjoint, x, y = adjoint_case(seed, dtype)
            with pytest.raises(AssertionError, match="assert_adjoint"):
                assert_adjoint(f, scaled(f_adjoint), x, y, key=seed)

    @drawn(30)
    @given(st.sampled_from([3, 4, 11]), st.integers(1, 3), st.integers(0, 2**32), st.booleans())
    def test_any_size(self, size, taps, seed, single):
        dtype = jnp.float32 if single else jnp.float64
        f, f_adjoint, x, y = adjoint_case(seed, dtype, size, taps)
        assert_adjoint(f, f_adjoint, x, y, key=seed)
        with pytest.raises(AssertionError):
            assert_adjoint(f, scaled(f_adjoint), x, y, key=seed)

    def test_catches_an_unflipped_kernel(self):
        f, _, x, y = adjoint_case(0, jnp.float32)
        with pytest.raises(AssertionError):
            assert_adjoint(f, lambda y: unflipped(y, example(0, jnp.float32)[1]), x, y)

    def test_catches_a_map_that_is_not_linear(self):
        x = jnp.zeros(4)
        with pytest.raises(AssertionError):
            assert_adjoint(lambda x: x + 1, lambda y: y, x, x)

    def test_catches_shapes_and_dtypes(self):
        f, f_adjoint, x, y = adjoint_case(0, jnp.float32)
        with pytest.raises(AssertionError, match=r"f_adjoint\(y\): shape \(6, 2\), want \(7, 2\)"):
            assert_adjoint(f, lambda y: f_adjoint(y)[1:], x, y)
        with pytest.raises(AssertionError, match=r"f_adjoint\(y\): dtype bfloat16, want float32"):
            assert_adjoint(f, lambda y: f_adjoint(y).astype(jnp.bfloat16), x, y)
        with pytest.raises(AssertionError, match=r"f\(x\): shape \(5, 3\), want \(5, 2\)"):
            assert_adjoint(f, f_adjoint, x, y.update(shape=(5, 2)))
        with pytest.raises(AssertionError, match=r"f_adjoint\(y\): structures differ"):
            assert_adjoint(f, lambda y: [f_adjoint(y)], x, y)

    def test_pairing_is_bilinear(self):
        z = jnp.zeros(5, jnp.complex64)
        assert_adjoint(lambda x: 1j * x, lambda y: 1j * y, z, z)
        with pytest.raises(AssertionError):
            assert_adjoint(lambda x: 1j * x, lambda y: -1j * y, z, z)

    def test_pytrees_leaf_by_leaf(self):
        x = {"large": jnp.zeros(4), "small": jnp.zeros(3)}
        y = (jnp.zeros(3),)

        def f(x):
            return (1e3 * x["large"][1:] + 1e-3 * x["small"],)

        def f_adjoint(y, factor=1.0):
            return {"large": 1e3 * jnp.pad(y[0], (1, 0)), "small": factor * 1e-3 * y[0]}

        assert_adjoint(f, f_adjoint, x, y)
        with pytest.raises(AssertionError, match=r"x\['small'\]\[\d\]: got"):
            assert_adjoint(f, lambda y: f_adjoint(y, 1.01), x, y)

    def test_names_the_worst_entry(self):
        def off(y):
            return (2 * y).at[3].add(1)

        with pytest.raises(AssertionError, match=r"x\[3\]: got"):
            assert_adjoint(lambda x: 2 * x, off, jnp.zeros(9), jnp.zeros(9))

    def test_scalars(self):
        assert_adjoint(lambda x: 3 * x, lambda y: 3 * y, 0.0, 0.0, key=jax.random.key(1))
        with pytest.raises(AssertionError, match=r"x\[\]: got"):
            assert_adjoint(lambda x: 3 * x, lambda y: 4 * y, 0.0, 0.0)

    def test_explicit_tolerance(self):
        f, f_adjoint, x, y = adjoint_case(0, jnp.float32)
        assert_adjoint(f, scaled(f_adjoint), x, y, rtol=0.05)

    def test_wrong_arguments(self):
        f, f_adjoint, x, y = adjoint_case(0, jnp.float32)
        with pytest.raises(TypeError, match="`x` must hold floating"):
            assert_adjoint(f, f_adjoint, x.astype(int), y)
        with pytest.raises(TypeError, match="all real or all complex"):
            assert_adjoint(f, f_adjoint, x.astype(complex), y)
        with pytest.raises(ValueError, match="`y` must hold at least one entry"):
            assert_adjoint(f, f_adjoint, x, jnp.zeros((0, 3)))
        with pytest.raises(TypeError, match="`key` must be an integer or a JAX key"):
            assert_adjoint(f, f_adjoint, x, y, key="seed")
        with pytest.raises(ValueError, match="`draws` must be at least 1"):
            assert_adjoint(f, f_adjoint, x, y, draws=0)


class TestRule:
    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    @pytest.mark.parametrize("entries", [1, 100])
    def test_a_factor_shows_where_few_entries_are_large(self, entries, dtype):
        def cube(factor):
            f = jax.custom_vjp(lambda x: x**3)
            f.defvjp(lambda x: (x**3, x), lambda x, y_bar: (3 * x**2 * y_bar * factor,))
            return f

        for seed in range(4):
            values = np.random.default_rng(seed).standard_t(2, entries)
            x = jnp.asarray(np.append(values, 30.0), dtype)
            assert_rule(cube(1), lambda x: x**3, (x,))
            with pytest.raises(AssertionError, match="assert_rule"):
                assert_rule(cube(1.01), lambda x: x**3, (x,))

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
    def test_passes_where_float32_would_choose_another_greatest(self, dtype):
        def plain(x, kernel):
            y = correlate(x, kernel)
            return y.reshape(-1, 5, 3).max(1)

        def of(factor):
            f = jax.custom_vjp(plain)
            f.defvjp(
                lambda *args: (plain(*args), args),
                lambda args, y_bar: tuple(a * factor for a in jax.vjp(plain, *args)[1](y_bar)),
            )
            return f

        for seed in range(10):
            args = example(seed, dtype, 42)
            assert_rule(of(1), plain, args, key=seed)
            with pytest.raises(AssertionError, match="assert_rule"):
                assert_rule(of(1.01), plain, args, key=seed)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_passes(self, dtype):
        for seed in range(10):
            assert_rule(ruled(), correlate, example(seed, dtype), key=seed)

    @pytest.mark.parametrize("order", [2, 3])
    @pytest.mark.parametrize("dtype", [*SINGLE_OR_DOUBLE, jnp.bfloat16])
    def test_passes_to_higher_order(self, dtype, order):
        assert_rule(ruled(), correlate, example(0, dtype, size=40), order=order, draws=2)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("mutation", MUTATIONS)
    def test_catches(self, mutation, dtype):
        if mutation not in COARSE and jnp.finfo(dtype).bits == 16:
            pytest.skip("rounding hides a factor of 1.01 in one 16-bit entry")
        mutate = MUTATIONS[mutation]
        args = example(0, dtype)
        with pytest.raises(AssertionError, match=r"gradient in args\[0\]: worst entry \[\d, \d\]"):
            assert_rule(ruled(x_bar=mutate(input_adjoint)), correlate, args)
        with pytest.raises(AssertionError, match=r"gradient in args\[1\]: worst .* got .*, want"):
            assert_rule(ruled(k_bar=mutate(kernel_adjoint)), correlate, args)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_always_catches_a_factor(self, dtype):
        wrong = ruled(scaled(input_adjoint))
        for seed in SEEDS:
            with pytest.raises(AssertionError, match="assert_rule: order 1 gradient"):
                assert_rule(wrong, correlate, example(seed, dtype), key=seed)

    @pytest.mark.parametrize("dtype", [*SINGLE_OR_DOUBLE, jnp.bfloat16])
    @pytest.mark.parametrize("fill", [0, 1])
    def test_catches_a_flip_that_constant_arguments_hide(self, fill, dtype):
        args = jax.tree.map(lambda a: jnp.full_like(a, fill), example(0, dtype))
        assert_rule(ruled(), correlate, args)
        with pytest.raises(AssertionError, match=r"gradient in args\[0\]"):
            assert_rule(ruled(unflipped), correlate, args)

    @pytest.mark.parametrize("order", [2, 3])
    def test_catches_a_wrong_derivative_of_the_rule(self, order):
        @jax.custom_vjp
        def wrong_later(y, kernel):
            return input_adjoint(y, kernel)

        def backward(saved, c):
            y_bar, k_bar = jax.vjp(input_adjoint, *saved)[1](c)
            return y_bar, k_bar * 1.01

        wrong_later.defvjp(lambda y, kernel: (input_adjoint(y, kernel), (y, kernel)), backward)
        args = example(0, jnp.float32)
        assert_rule(ruled(wrong_later), correlate, args)
        with pytest.raises(AssertionError, match=r"order 2 gradient in args\[1\]"):
            assert_rule(ruled(wrong_later), correlate, args, order=order)

    def test_nonlinear_to_third_order(self):
        @jax.custom_vjp
        def f(x):
            return jnp.sin(x)

        f.defvjp(lambda x: (jnp.sin(x), x), lambda x, y_bar: (y_bar * jnp.cos(x),))
        assert_rule(f, jnp.sin, (jnp.arange(4.0),), order=3)

    @pytest.mark.parametrize(
        "f",
        [
            correlate,
            lambda x, k: correlate(x, k) + 0 * ruled()(*lax.stop_gradient((x, k))),
            lambda x, k: correlate(x, k) + 0 * lax.stop_gradient(ruled()(x, k)),
            lambda x, k: (ruled()(x, k), correlate(x, k))[1],
        ],
        ids=["no rule", "inputs stopped", "output stopped", "result unused"],
    )
    def test_catches_a_rule_that_never_ran(self, f):
        with pytest.raises(AssertionError, match=r"no custom_vjp rule .* args\[0\], args\[1\]"):
            assert_rule(f, correlate, example(0, jnp.float32))

    @pytest.mark.parametrize(
        "transform",
        [
            jax.jit,
            jax.checkpoint,
            lambda f: lambda x, k: lax.map(lambda x: f(x, k), x[None])[0],
            lambda f: lambda x, k: jax.vmap(f, (0, None))(x[None], k)[0],
        ],
        ids=["jit", "checkpoint", "map", "vmap"],
    )
    def test_sees_the_rule_inside(self, transform):
        assert_rule(transform(ruled()), correlate, example(0, jnp.float32), order=2)

    def test_catches_a_reference_with_a_rule(self):
        with pytest.raises(AssertionError, match="f_plain runs a custom_vjp rule itself"):
            assert_rule(ruled(), ruled(), example(0, jnp.float32))

    def test_catches_a_wrong_value_of_the_forward_pass(self):
        f = jax.custom_vjp(correlate)
        f.defvjp(
            lambda x, kernel: (correlate(x, kernel) * 1.01, (x, kernel)),
            lambda saved, y_bar: (input_adjoint(y_bar, saved[1]), kernel_adjoint(saved[0], y_bar)),
        )
        with pytest.raises(AssertionError, match="assert_rule: output: worst entry"):
            assert_rule(f, correlate, example(0, jnp.float32))

    def test_pytrees_and_fixed_arguments(self):
        def apply(f, wrong, params, layers, ints):
            x, kernel = layers
            y = f(x, kernel) + params["bias"] * (1.01 if wrong else 1)
            return {"y": y[ints], "count": jnp.sum(ints)}

        x, kernel = example(0, jnp.float32)
        args = ({"bias": jnp.arange(3.0, dtype=x.dtype)[None]}, [x, kernel], jnp.array([2, 0]))
        plain = jax.tree_util.Partial(apply, correlate, False)
        assert_rule(jax.tree_util.Partial(apply, ruled(), False), plain, args, order=2)
        mutant = ruled(k_bar=scaled(kernel_adjoint))
        with pytest.raises(AssertionError, match=r"order 1 gradient in args\[1\]\[1\]"):
            assert_rule(jax.tree_util.Partial(apply, mutant, False), plain, args)
        with pytest.raises(AssertionError, match=r"output\['y'\]"):
            assert_rule(jax.tree_util.Partial(apply, ruled(), True), plain, args)

    def test_reference_bound_to_half_arrays(self):
        x, kernel = example(0, jnp.bfloat16)
        f = ruled()
        assert_rule(lambda x: f(x, kernel), lambda x: correlate(x, kernel), (x,))

    def test_templates_are_drawn(self):
        args = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in example(0, jnp.float32))
        assert_rule(ruled(), correlate, args, key=jax.random.key(3))

    def test_explicit_tolerance(self):
        f = ruled(scaled(input_adjoint))
        assert_rule(f, correlate, example(0, jnp.float32), rtol=0.05)

    def test_wrong_arguments(self):
        x, kernel = example(0, jnp.float32)
        with pytest.raises(TypeError, match="`args` must be a tuple; got list"):
            assert_rule(ruled(), correlate, [x, kernel])
        with pytest.raises(ValueError, match="`order` must be at least 1; got 0"):
            assert_rule(ruled(), correlate, (x, kernel), order=0)
        with pytest.raises(TypeError, match="`order` must be an int"):
            assert_rule(ruled(), correlate, (x, kernel), order=1.0)
        with pytest.raises(ValueError, match="inexact array to differentiate"):
            assert_rule(ruled(), correlate, (1, 2))


class TestAgree:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_passes_up_to_rounding(self, dtype):
        for seed in SEEDS:
            x, kernel = example(seed, dtype)
            assert_agree(correlate, lambda x, k: correlate(x[::-1], k[::-1])[::-1], (x, kernel))

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("mutation", MUTATIONS)
    def test_catches(self, mutation, dtype):
        if mutation not in COARSE and jnp.finfo(dtype).bits == 16:
            pytest.skip("rounding hides a factor of 1.01 in one 16-bit entry")
        with pytest.raises(AssertionError, match=r"output: worst entry \[\d+, \d\]: got .*, want"):
            assert_agree(MUTATIONS[mutation](correlate), correlate, example(0, dtype, size=100))

    def test_sums_of_many_terms(self):
        x = jnp.asarray(np.random.default_rng(0).random(100_000), jnp.float32)
        assert_agree(lambda x: lax.scan(lambda c, a: (c + a, None), 0 * x[0], x)[0], jnp.sum, (x,))
        with pytest.raises(AssertionError):
            assert_agree(lambda x: jnp.sum(x) * 1.01, jnp.sum, (x,))

    def test_shapes_dtypes_structures(self):
        x = jnp.arange(3.0)
        with pytest.raises(AssertionError, match=r"output: shape \(1, 3\), want \(3,\)"):
            assert_agree(x[None], x)
        with pytest.raises(AssertionError, match=r"output\[1\]: dtype float32, want float64"):
            assert_agree((x, x.astype(jnp.float32)), (x, x))
        assert_agree(x.astype(jnp.float32), x, check_dtypes=False)
        with pytest.raises(AssertionError, match="output: structures differ"):
            assert_agree([x], (x,))

    def test_not_a_number(self):
        x = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.0])
        assert_agree(x, x)
        for i in range(4):
            for wrong in (0.0, jnp.nan, jnp.inf, -jnp.inf):
                y = x.at[i].set(wrong)
                if jnp.array_equal(x, y, equal_nan=True):
                    continue
                with pytest.raises(AssertionError, match=rf"worst entry \[{i}\]"):
                    assert_agree(y, x)

    def test_integers_are_exact(self):
        n = jnp.array([2**60, 3])
        assert_agree(n, n)
        with pytest.raises(AssertionError, match=r"worst entry \[0\]"):
            assert_agree(n.at[0].add(1), n)
        with pytest.raises(AssertionError, match=r"worst entry \[1\]"):
            assert_agree(jnp.array([True, False]), jnp.array([True, True]))

    def test_empty_and_absent(self):
        assert_agree((None, jnp.zeros((0, 3))), (None, jnp.zeros((0, 3))))

    def test_tolerances(self):
        x = jnp.arange(1.0, 5.0)
        assert_agree(x * 1.01, x, rtol=0.02)
        assert_agree(x + 0.1, x, atol=0.2, rtol=0.1)
        with pytest.raises(ValueError, match="`rtol` must be finite and not negative"):
            assert_agree(x, x, rtol=-1.0)
        with pytest.raises(TypeError, match="`args` must be a tuple; got ArrayImpl"):
            assert_agree(jnp.sin, jnp.sin, x)
