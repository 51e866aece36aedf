"""The linear map, written out: forward is `M @ x`, backpropagation is `M.T @ y_bar`."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import jconv
from jconv.matrix import conv_matrix, index_pattern, pool_matrix, toeplitz
from tests import definition, strategies
from tests.cases import CONV_CASES, POOL_CASES, dense, each_case
from tests.compare import assert_close, assert_same
from tests.effort import AS_USERS_COMPILE, drawn

LINEAR = [case.name for case in CONV_CASES if not case.options.get("padding_value")]


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (1, 3), (3, 1)])
def test_toeplitz_agrees_with_scipy(shape):
    column, row = dense(shape[0], "float32", seed=0), dense(shape[1], "float32", seed=1)
    assert_same(toeplitz(column, row), scipy.linalg.toeplitz(column, row))


def test_toeplitz_keeps_a_nan_on_its_diagonal():
    column, row = dense(4, "float32", seed=0), dense(5, "float32", seed=1)
    column[1], row[3] = np.nan, np.inf
    assert_same(toeplitz(column, row), scipy.linalg.toeplitz(column, row))


@each_case(CONV_CASES, *LINEAR)
def test_conv_matrix(case):
    _, kernel, _ = case.data("float32")
    matrix = jax.jit(lambda kernel: conv_matrix(kernel, case.size, **case.options))(kernel)
    expected = definition.conv_matrix(kernel, case.size, **case.options)
    assert_close(matrix, expected, "float32", case.terms)


@pytest.mark.parametrize("sparse", [False, True])
def test_conv_matrix_takes_all_options_of_conv(sparse):
    x, kernel = dense((5, 4, 2), "float32", seed=0), dense((3, 2, 2, 3), "float32", seed=1)
    options = {
        "padding": "same", "method": "direct", "precision": "highest", "custom_vjp": False,
        "preferred_element_type": "float64",
    }  # fmt: skip
    y = conv_matrix(kernel, (5, 4), **options, sparse=sparse) @ x.astype("float64").ravel()
    expected = jconv.conv(x, kernel, **options)
    assert y.dtype == expected.dtype == "float64"
    np.testing.assert_allclose(y, expected.ravel(), rtol=1e-12)


@pytest.mark.parametrize("zero", [0.0, np.float32(0), np.int64(0), jax.numpy.zeros(())])
def test_a_padding_value_of_zero_is_one_of_any_type(zero):
    kernel = dense((3, 1, 1), "float32", seed=0)
    assert_same(conv_matrix(kernel, 4, padding_value=zero), conv_matrix(kernel, 4))


@pytest.mark.parametrize("options", [{}, {"padding": -1}, {"padding": 1, "padding_mode": "wrap"}])
def test_a_padding_value_that_nothing_reads_is_any(options):
    kernel = dense((2, 1, 1), "float32", 0)
    assert_same(
        conv_matrix(kernel, 4, padding_value=2, **options), conv_matrix(kernel, 4, **options)
    )
    with pytest.raises(
        ValueError, match="`padding_value` must be 0 for the map to be linear; got 2"
    ):
        conv_matrix(kernel, 4, padding_value=2, padding=[(0, 1)])


@drawn(6)
@given(case=strategies.conv_cases(linear=True))
def test_either_matrix_times_x_is_the_convolution_of_drawn_options(case):
    case = dataclasses.replace(case, batch=())
    x, kernel, _ = case.data("float64")
    expected = definition.conv(x, kernel, **case.options)
    sparse = conv_matrix(kernel, case.size, **case.options, sparse=True)
    whole = conv_matrix(kernel, case.size, **case.options)
    for product in (whole @ x.ravel(), sparse @ x.ravel()):
        assert_close(product.reshape(expected.shape), expected, "float64", case.terms)
    assert_close(sparse.todense(), np.asarray(whole), "float64", case.terms)
    pairs = np.asarray(sparse.indices)
    assert sparse.unique_indices == (len(np.unique(pairs, axis=0)) == len(pairs))


@each_case(CONV_CASES, "groups", "reflect")
def test_sparse_matrix_under_jit_and_its_derivative(case):
    x, kernel, y_bar = case.data("float64")

    @jax.jit
    def form(kernel):
        matrix = conv_matrix(kernel, case.size, **case.options, sparse=True)
        return sum(y.ravel() @ (matrix @ x.ravel()) for x, y in zip(x, y_bar, strict=True))

    expected = definition.kernel_gradient(x, y_bar, case.taps, **case.options)
    assert_close(jax.grad(form)(kernel), expected, "float64", case.terms)


def test_sparse_matrix_never_takes_the_memory_of_the_dense_one():
    """The dense one would take 10^10 entries."""
    kernel = dense((3, 1, 1), "float32", seed=0)
    make = jax.jit(lambda kernel: conv_matrix(kernel, 100_000, padding="same", sparse=True))
    compiled = make.lower(kernel).compile(AS_USERS_COMPILE)
    assert compiled(kernel).nse == 3 * 100_000 - 2
    assert compiled.memory_analysis().temp_size_in_bytes < 10**7


def test_a_nan_in_the_kernel_is_stored_where_it_is():
    kernel = dense((3, 2, 2), "float32", seed=0)
    kernel[1, 0, 1] = np.nan
    matrix = conv_matrix(kernel, (5,), padding=1, sparse=True)
    assert_same(matrix.todense(), conv_matrix(kernel, (5,), padding=1))


@each_case(CONV_CASES, "crop and pad", "reflect", "groups", "all at once")
def test_forward_is_the_matrix_and_backward_its_transpose(case):
    x, kernel, y_bar = case.data("float64")

    @jax.jit
    def evaluate(x, kernel, y_bar):
        y, transpose = jax.vjp(lambda x: jconv.conv(x, kernel, **case.options), x)
        return y, transpose(y_bar)[0], conv_matrix(kernel, case.size, **case.options)

    y, x_bar, matrix = map(np.asarray, evaluate(x, kernel, y_bar))
    rows, columns = matrix.shape
    forward = x.reshape(-1, columns) @ matrix.T
    backward = y_bar.reshape(-1, rows) @ matrix
    assert_close(y, forward.reshape(y.shape), "float64", case.terms)
    assert_close(x_bar, backward.reshape(x.shape), "float64", case.terms)


@each_case(CONV_CASES, "crop and pad")
def test_conv_matrix_is_differentiable(case):
    x, kernel, y_bar = case.data("float64")

    def form(kernel):
        matrix = conv_matrix(kernel, case.size, **case.options)
        return sum(y.ravel() @ (matrix @ x.ravel()) for x, y in zip(x, y_bar, strict=True))

    expected = definition.kernel_gradient(x, y_bar, case.taps, **case.options)
    assert_close(jax.grad(form)(kernel), expected, "float64", case.terms)


def test_a_nan_in_the_kernel_stays_where_it_is():
    kernel = dense((3, 2, 2), "float32", seed=0)
    kernel[1, 0, 1] = np.nan
    matrix = np.asarray(conv_matrix(kernel, (5,), padding=1))
    marked = np.zeros_like(kernel)
    marked[1, 0, 1] = 1
    expected = definition.conv_matrix(marked, (5,), padding=1) == 1
    assert_same(np.isnan(matrix), expected)


def test_index_pattern_is_the_atom_of_convolution():
    x, kernel = dense((2, 7, 6, 3), "float64", 0), dense((3, 2, 3, 4), "float64", 1)
    options = {"stride": (2, 1), "padding": ((2, -1), (0, 3)), "dilation": (2, 3)}
    rows, columns = index_pattern((7, 6), (3, 2), **options)
    assert rows.shape[0::2] == (3, 7)
    assert columns.shape[0::2] == (2, 6)
    y = np.einsum("aoi,bpj,nijc,abcm->nopm", rows, columns, x, kernel)
    assert_close(y, definition.conv(x, kernel, **options), "float64", terms=18)


@pytest.mark.parametrize(("size", "taps"), [((6, 6), 3), (6, (3, 3))])
def test_index_pattern_takes_one_int_for_all_axes(size, taps):
    expected = index_pattern((6, 6), (3, 3))
    for pattern, want in zip(index_pattern(size, taps), expected, strict=True):
        assert_same(pattern, want)


# Pooling

COUNTS = {
    "avg": {},
    "avg without padding": {"count_include_pad": False},
    "avg with a divisor": {"divisor": -3},
    "sum": {"kind": "sum"},
}


def assert_pool_matrix(case, counts):
    """The matrix times each channel is the pooling of the definition."""
    matrix = pool_matrix(case.window, case.size, **case.options, **counts)
    x = dense((*case.size, 2), "float64", seed=0)
    options = {name: value for name, value in counts.items() if name != "kind"}
    defined = definition.sum_pool if "kind" in counts else definition.avg_pool
    expected = defined(x, case.window, **case.options, **options)
    assert matrix.dtype == "float64"
    y = np.asarray(matrix) @ x.reshape(-1, 2)
    assert_close(y.reshape(expected.shape), expected, "float64", terms=matrix.shape[1])
    sparse = pool_matrix(case.window, case.size, **case.options, **counts, sparse=True)
    assert_same(sparse.todense(), matrix)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@each_case(POOL_CASES)
def test_pool_matrix(case, counts):
    assert_pool_matrix(case, counts)


@drawn(15)
@given(case=strategies.pool_cases(), counts=st.sampled_from(list(COUNTS.values())))
def test_pool_matrix_of_drawn_options(case, counts):
    assert_pool_matrix(case, counts)


def test_transposed_pool_matrix_is_backpropagation():
    x, options = dense((5, 6, 1), "float64", seed=0), {"stride": (1, 2), "padding": 1}
    y, transpose = jax.vjp(lambda x: jconv.avg_pool(x, (3, 2), **options), x)
    y_bar = dense(y.shape, "float64", seed=1)
    x_bar = np.asarray(pool_matrix((3, 2), (5, 6), **options)).T @ y_bar.ravel()
    assert_close(x_bar.reshape(x.shape), transpose(y_bar)[0], "float64", terms=6)


@pytest.mark.parametrize(("stride", "offset"), [((2, 3), (0, 0)), ((3, 1), (1, 2)), ((1, 9), 4)])
def test_pool_matrix_of_drop(stride, offset):
    x = dense((7, 8, 1), "float64", seed=0)
    padding = [(-o, 0) for o in np.broadcast_to(offset, 2).tolist()]
    matrix = np.asarray(pool_matrix(stride, (7, 8), kind="drop", padding=padding))
    expected = definition.drop(x, stride, offset=offset)
    assert_same((matrix @ x.ravel()).reshape(expected.shape), expected)
    assert_same(pool_matrix(5, (7, 8), kind="drop", stride=stride, padding=padding), matrix)


def test_an_int_serves_every_axis_of_a_pool_matrix():
    assert_same(pool_matrix(2, (6, 4)), pool_matrix((2, 2), (6, 4)))
    assert_same(pool_matrix((2, 1), 4), pool_matrix((2, 1), (4, 4)))
    assert_same(pool_matrix(3, 7, stride=1), pool_matrix((3,), (7,), stride=1))


@pytest.mark.parametrize(
    ("error", "name", "options"),
    [
        (ValueError, "kind", {"kind": "max"}),
        (TypeError, "kind", {"kind": None}),
        (ValueError, "window", {"window": (0, 2)}),
        (ValueError, "window", {"window": ()}),
        (TypeError, "window", {"window": (2.0, 2)}),
        (ValueError, "size", {"size": (4, 0)}),
        (ValueError, "size", {"size": (4, 1)}),
        (ValueError, "size", {"size": (4,)}),
        (ValueError, "stride", {"stride": 0}),
        (ValueError, "padding", {"padding": "some"}),
        (ValueError, "dilation", {"dilation": 0}),
        (TypeError, "sparse", {"sparse": 1}),
        (TypeError, "ceil_mode", {"ceil_mode": 1}),
        (TypeError, "count_include_pad", {"count_include_pad": 1}),
        (ValueError, "count_include_pad", {"kind": "sum", "count_include_pad": False}),
        (TypeError, "divisor", {"divisor": "3"}),
        (ValueError, "divisor", {"divisor": 0}),
        (ValueError, "divisor", {"kind": "drop", "divisor": 3}),
    ],
    ids=str,
)
def test_wrong_arguments_of_pool_matrix(error, name, options):
    with pytest.raises(error, match=f"`{name}`"):
        pool_matrix(**{"window": (2, 2), "size": (4, 4), **options})
