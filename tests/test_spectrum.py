"""The singular values are those of the matrix, and the norm is the largest of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jconv.krylov import largest_eigenvector
from jconv.spectrum import operator_norm, singular_values
from tests import definition
from tests.cases import CONV_CASES, conv_case, dense, each_case
from tests.compare import assert_close

KEY = jax.random.key(3)
PERIODIC = [
    conv_case("one axis", (6,), (3,), padding=[(1, 1)]),
    conv_case("two axes, word", (5, 4), (3, 2), padding="same"),
    conv_case("more outputs", (4, 3), (2, 2), (1, 3), padding=[(0, 1), (1, 0)]),
    conv_case("stride", (6, 4), (3, 2), (2, 5), padding=[(1, 0), (0, 1)], stride=(3, 2)),
    conv_case("wide stride", (6,), (2,), (2, 9), padding=[(0, 0)], stride=3),
    conv_case("far dilation", (4, 3), (3, 2), padding=[(9, 1), (1, 1)], dilation=(5, 2)),
    conv_case("groups", (4, 5), (3, 2), (4, 6), padding="same_lower", groups=2, stride=(2, 1)),
    conv_case("flip", (3, 2, 4), (2, 2, 3), padding="same", flip=True),
    conv_case("four axes", (2, 3, 2, 4), (2, 2, 1, 3), padding="same", stride=(1, 1, 2, 2)),
    conv_case("crop and pad", (6,), (3,), padding=[(-2, 4)]),
]


LINEAR = ["crop and pad", "reflect", "groups", "all at once"]


def svd(kernel, case, **changes):
    """NumPy's, of the matrix of the definition: left vectors, values, right vectors."""
    matrix = definition.conv_matrix(kernel, case.size, **{**case.options, **changes})
    return np.linalg.svd(matrix, full_matrices=False)


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@each_case(PERIODIC)
def test_periodic_singular_values_are_those_of_the_matrix(case, dtype):
    _, kernel, _ = case.data(dtype)
    options = {**case.options, "padding_mode": "wrap"}
    values = jax.jit(lambda kernel: singular_values(kernel, case.size, **options))(kernel)
    expected = svd(kernel, case, padding_mode="wrap")[1]
    assert_close(values, expected, jnp.finfo(dtype).dtype, case.terms)


def test_periodic_singular_values_need_no_matrix():
    """The matrix would have 10^11 entries."""
    kernel = dense((3, 3, 2, 2), "float32", seed=0)
    options = {"padding": "same", "padding_mode": "wrap"}
    values = jax.eval_shape(lambda kernel: singular_values(kernel, 400, **options), kernel)
    assert values.shape == (320_000,)
    text = str(jax.make_jaxpr(lambda kernel: singular_values(kernel, 400, **options))(kernel))
    assert "320000,320000" not in text


@each_case(CONV_CASES, *LINEAR)
def test_other_singular_values_are_those_of_the_matrix(case):
    _, kernel, _ = case.data("float64")
    values = singular_values(kernel, case.size, **case.options)
    assert_close(values, svd(kernel, case)[1], "float64", case.terms)


@pytest.mark.parametrize("mode", ["wrap", "constant"])
def test_derivative_of_singular_values(mode):
    case = conv_case("", (4, 3), (2, 3), padding="same")
    _, kernel, _ = case.data("float64")
    weights = dense(24, "float64", seed=9) * np.array([1, *[0] * 23])

    def form(kernel):
        values = singular_values(kernel, case.size, padding="same", padding_mode=mode)
        return weights @ values

    step = dense(kernel.shape, "float64", seed=1)
    slope = (form(kernel + 1e-6 * step) - form(kernel - 1e-6 * step)) / 2e-6
    np.testing.assert_allclose((jax.grad(form)(kernel) * step).sum(), slope, rtol=1e-6)


# The largest


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
@each_case(CONV_CASES, *LINEAR)
def test_operator_norm_and_its_gradient(case, dtype):
    _, kernel, _ = case.data(dtype)

    @jax.jit
    def norm(kernel):
        return operator_norm(kernel, case.size, **case.options, key=KEY, tol=1e-12)

    value, gradient = jax.value_and_grad(norm)(kernel)
    left, values, right = svd(kernel, case)
    assert_close(value, values[0], jnp.finfo(dtype).dtype, case.terms)
    x = right[0].conj().reshape(1, *case.size, -1)
    y_bar = left[:, 0].conj().reshape(1, *case.out, -1)
    expected = definition.kernel_gradient(x, y_bar, case.taps, **case.options)
    loose = 1e-4 if dtype == "float32" else 1e-8
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=loose)
    assert gradient.dtype == dtype


def test_forward_over_reverse():
    kernel, step = dense((3, 2, 2, 3), "float64", seed=0), dense((3, 2, 2, 3), "float64", seed=1)

    def norm(kernel):
        return operator_norm(kernel, (5, 4), padding="same", key=KEY, tol=1e-12)

    def exact(kernel):
        return singular_values(kernel, (5, 4), padding="same")[0]

    def product(f):
        return jax.jit(lambda: jax.jvp(jax.grad(f), (kernel,), (step,))[1])()

    np.testing.assert_allclose(product(norm), product(exact), rtol=0, atol=1e-9)


@pytest.mark.parametrize("tol", [0.1, 1e-3])
def test_operator_norm_keeps_its_bound(tol):
    kernel = dense((3, 3, 3, 3), "float64", seed=0)
    exact = singular_values(kernel, 9, padding="same")
    value = operator_norm(kernel, 9, padding="same", key=KEY, tol=tol)
    assert np.abs(exact / value - 1).min() <= tol
    assert value <= exact[0] * (1 + 1e-12)


def test_operator_norm_stops_at_its_limit():
    kernel = dense((3, 3, 3, 3), "float64", seed=0)
    few, all_of_it = (
        operator_norm(kernel, 9, padding="same", key=KEY, max_iterations=n) for n in (2, 500)
    )
    assert 0.5 * all_of_it < few < 0.99 * all_of_it


def test_close_values_take_few_products():
    """Restarts that keep the best vector alone took 1,536 to 1,728."""
    eigenvalues = jnp.asarray(1 - np.linspace(0, 1, 100) ** 2)
    start = dense(100, "float64", seed=0)
    v = jax.jit(lambda v: largest_eigenvector(lambda x: eigenvalues * x, v, 1e-6, 300))(start)
    theta = v @ (eigenvalues * v)
    assert np.linalg.norm((eigenvalues - theta) * v) <= 1e-6 * theta
    np.testing.assert_allclose(theta, 1, rtol=1e-8)


def test_norm_of_nothing_has_a_finite_gradient():
    kernel = jnp.zeros((3, 2, 2))
    value, gradient = jax.value_and_grad(lambda k: operator_norm(k, 5, key=KEY))(kernel)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(kernel.shape))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norm_of_tiny_and_huge_kernels(scale):
    kernel = dense((3, 2, 2), "float32", seed=0)
    norm = jax.jit(lambda kernel: operator_norm(kernel, 5, key=KEY))
    np.testing.assert_allclose(norm(kernel * np.float32(scale)) / scale, norm(kernel), rtol=1e-5)


def test_norm_of_many_kernels_at_once():
    kernels = dense((3, 3, 2, 2, 3), "float64", seed=0)
    kernels[1] = 0
    norms = jax.vmap(jax.value_and_grad(lambda kernel: operator_norm(kernel, (5, 4), key=KEY)))
    values, gradients = norms(kernels)
    expected = [singular_values(kernel, (5, 4))[0] for kernel in kernels]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert np.isfinite(gradients).all()


def test_norm_is_of_the_linear_part_and_in_floats():
    kernel = dense((3, 2, 2), "int32", seed=0)
    options = {"padding": 1, "padding_value": 3}
    exact = singular_values(kernel, 5, **options)
    np.testing.assert_allclose(operator_norm(kernel, 5, **options, key=KEY), exact[0], rtol=1e-6)
    half = operator_norm(kernel.astype("bfloat16"), 5, padding=1, key=KEY)
    assert half.dtype == "bfloat16"
    np.testing.assert_allclose(float(half), exact[0], rtol=1e-2)


@pytest.mark.parametrize("method", ["direct", "patches", "fourier"])
def test_norm_by_each_method_and_its_forward_derivative(method):
    kernel, step = dense((3, 2, 2, 3), "float32", seed=0), dense((3, 2, 2, 3), "float32", seed=1)

    def norm(kernel):
        return operator_norm(
            kernel, (5, 4), method=method, precision="highest", preferred_element_type="float64",
            custom_vjp=False, key=KEY, tol=1e-12,
        )  # fmt: skip

    value, slope = jax.jit(lambda kernel: jax.jvp(norm, (kernel,), (step,)))(kernel)
    exact, exact_slope = jax.jvp(
        lambda kernel: singular_values(kernel, (5, 4), preferred_element_type="float64")[0],
        (kernel,), (step,),
    )  # fmt: skip
    assert value.dtype == exact.dtype == "float64"
    np.testing.assert_allclose(value, exact, rtol=1e-10)
    np.testing.assert_allclose(slope, exact_slope, rtol=1e-7)
