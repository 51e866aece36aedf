"""The hand-derived rules: right to third order, really used, and caught when wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

import jconv
from jconv.testing import assert_rule
from tests import definition
from tests.cases import CONV_CASES, MODES, conv_case, dense, each_case, each_method, named
from tests.compare import assert_close, tolerance

pytestmark = pytest.mark.usefixtures("no_nans")

CURVED = "wrap, input dilated", "dilation and stride"


def conv_of(case, **options):
    return lambda x, kernel: jconv.conv(x, kernel, **case.options, **options)


def conv_transpose_of(case, **options):
    return lambda y, kernel: jconv.conv_transpose(
        y, kernel, size=case.size, **case.options, **options
    )


def kernel_gradient_of(case, **options):
    return lambda x, y: jconv.kernel_gradient(x, y, case.taps, **case.options, **options)


def assert_gradients(case, f, dtype):
    """`jax.vjp` of a convolution gives its two adjoints."""
    data = case.data(dtype)
    cotangents = jax.jit(lambda x, k, y: jax.vjp(f, x, k)[1](y))(*data)
    for actual, expected in zip(cotangents, case.defined_faces(*data)[1:], strict=True):
        assert_close(actual, expected, dtype, case.terms)


@each_case(CONV_CASES)
def test_gradients(case):
    assert_gradients(case, conv_of(case), "float32")


@each_method
@pytest.mark.parametrize("custom_vjp", [True, False])
@each_case(CONV_CASES, "low padding beyond the reach", "crop and pad")
def test_gradients_of_each_method(case, custom_vjp, method):
    assert_gradients(case, conv_of(case, method=method, custom_vjp=custom_vjp), "float32")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [((2, 1), (0, 3)), ((-1, 9), (7, -2))])
def test_gradient_of_pad(padding, mode):
    x = dense((2, 4, 5, 3), "float32", seed=0)
    padded, transpose = jax.vjp(lambda x: jconv.pad(x, padding, mode=mode), x)
    padded_bar = dense(padded.shape, "float32", seed=1)
    (x_bar,) = transpose(padded_bar)
    assert_close(x_bar, definition.pad_adjoint(padded_bar, padding, mode=mode), "float32", terms=9)


# Against JAX's derivative of the plain computation


@each_method
@each_case(CONV_CASES, "dilation and stride")
def test_rule_of_each_method_to_third_order(case, method):
    x, kernel, _ = case.data("float64")
    ruled = conv_of(case, method=method)
    plain = conv_of(case, method=method, custom_vjp=False)
    assert_rule(ruled, plain, (x, kernel), order=3, draws=1)


@each_case(CONV_CASES, *CURVED)
def test_conv_rule_to_third_order(case):
    x, kernel, _ = case.data("float64")
    ruled, plain = conv_of(case), conv_of(case, custom_vjp=False)
    assert_rule(ruled, plain, (x, kernel), order=3, draws=1)


@each_case(CONV_CASES, *CURVED)
def test_conv_transpose_rule_to_third_order(case):
    _, kernel, y = case.data("float64")
    ruled, plain = conv_transpose_of(case), conv_transpose_of(case, custom_vjp=False)
    assert_rule(ruled, plain, (y, kernel), order=3, draws=1)


@each_case(CONV_CASES, *CURVED)
def test_kernel_gradient_rule_to_third_order(case):
    x, _, y = case.data("float64")
    ruled, plain = kernel_gradient_of(case), kernel_gradient_of(case, custom_vjp=False)
    assert_rule(ruled, plain, (x, y), order=3, draws=1)


@each_case(CONV_CASES, "crop and pad", "symmetric")
def test_unfold_rule(case):
    x, _, _ = case.data("float64")

    def unfold(x, **options):
        return jconv.unfold(x, case.taps, **case.windowing, **options)

    plain = functools.partial(unfold, custom_vjp=False)
    assert_rule(unfold, plain, (x,), order=2, draws=1)


@each_method
@each_case(CONV_CASES, "crop and pad")
def test_finite_differences(case, method):
    x, kernel, _ = case.data("float64")
    f = jax.jit(conv_of(case, method=method))
    # The map is bilinear, so central differences with a step of one are exact.
    check_grads(f, (x, kernel), order=1, modes=["rev"], eps=1.0)


# Wrong rules


def scaled(x_bar, kernel_bar):
    return 1.01 * x_bar, kernel_bar


def zeroed(x_bar, kernel_bar):
    return x_bar, 0 * kernel_bar


def unflipped(x_bar, kernel_bar):
    return x_bar, kernel_bar[::-1]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("spoil", [scaled, zeroed, unflipped])
def test_a_wrong_rule_is_caught(spoil, dtype):
    (case,) = named(CONV_CASES, "dilation and stride")
    plain = conv_of(case, custom_vjp=False)
    wrong = jax.custom_vjp(plain)
    wrong.defvjp(
        lambda x, kernel: jax.vjp(plain, x, kernel),
        lambda transpose, y_bar: spoil(*transpose(y_bar)),
    )
    x, kernel, _ = case.data(dtype)
    with pytest.raises(AssertionError):
        assert_rule(wrong, plain, (x, kernel))


def test_a_rule_that_never_runs_is_caught():
    (case,) = named(CONV_CASES, "dilation and stride")
    x, kernel, _ = case.data("float64")
    plain = conv_of(case, custom_vjp=False)
    with pytest.raises(AssertionError):
        assert_rule(plain, plain, (x, kernel))


# What `custom_vjp=False` gives


@each_method
@each_case(CONV_CASES, "crop and pad")
def test_plain_jvp(case, method):
    x, kernel, _ = case.data("float64")
    x_dot, kernel_dot, _ = case.data("float64", seed=1)
    plain = conv_of(case, method=method, custom_vjp=False)
    _, y_dot = jax.jvp(plain, (x, kernel), (x_dot, kernel_dot))
    expected = definition.conv(x_dot, kernel, **case.options)
    expected += definition.conv(x, kernel_dot, **case.options)
    assert_close(y_dot, expected, "float64", case.terms)


@each_method
@each_case(CONV_CASES, "dilation and stride")
def test_plain_jacobian_is_the_matrix(case, method):
    x, kernel, _ = case.data("float64")
    jacobian = jax.jacfwd(conv_of(case, method=method, custom_vjp=False))(x[0], kernel)
    matrix = definition.conv_matrix(kernel, case.size, **case.options)
    assert_close(jacobian.reshape(matrix.shape), matrix, "float64", case.terms)


@each_method
@each_case(CONV_CASES, "crop and pad")
def test_plain_linear_transpose(case, method):
    x, kernel, y = case.data("float64")
    plain = conv_of(case, method=method, custom_vjp=False)
    _, x_bar, kernel_bar = case.defined_faces(x, kernel, y)
    (actual,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(y)
    assert_close(actual, x_bar, "float64", case.terms)
    (actual,) = jax.linear_transpose(lambda kernel: plain(x, kernel), kernel)(y)
    assert_close(actual, kernel_bar, "float64", case.terms)


@each_method
def test_many_terms_are_transposed(method):
    """Sums of more terms would be kept from being computed again by a step that is not linear."""
    case = conv_case("", (7, 6), (3, 2), (4, 4), padding=1)
    x, kernel, y = case.data("float64")
    plain = conv_of(case, method=method, custom_vjp=False)
    (actual,) = jax.linear_transpose(lambda kernel: plain(x, kernel), kernel)(y)
    assert_close(actual, case.defined_faces(x, kernel, y)[2], "float64", case.terms)


# Where JAX is wrong


@pytest.mark.parametrize("channels", [(3, 32), (8, 8), (32, 3)])
def test_gradient_that_lax_gets_wrong(channels):
    """Low padding beyond the reach: `lax` reads out of bounds in its own gradient."""
    taps, padding = (3,), ((4, 0),)
    x, kernel = dense((2, 8, channels[0]), "float32", 0), dense((*taps, *channels), "float32", 1)
    y_bar = dense((2, 10, channels[1]), "float32", 2)
    expected = definition.conv_transpose(y_bar, kernel, size=(8,), padding=padding)

    def by_lax(x):
        return lax.conv_general_dilated(
            x, kernel, (1,), padding, dimension_numbers=("NHC", "HIO", "NHC")
        )

    def x_bar(conv):
        return np.asarray(jax.vjp(conv, jnp.asarray(x))[1](y_bar)[0])

    terms = taps[0] * channels[1]
    assert_close(
        x_bar(lambda x: jconv.conv(x, kernel, padding=padding)), expected, "float32", terms
    )
    with jax.debug_nans(False):
        error_of_lax = np.abs(x_bar(by_lax) - expected).max()
    if error_of_lax <= tolerance("float32", terms):
        pytest.skip("lax's own gradient is right on this version and platform")
    assert not error_of_lax < 1e-2
