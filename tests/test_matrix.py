"""The linear map, written out: forward is `M @ x`, backpropagation is `M.T @ y_bar`."""

import jax
import numpy as np
import pytest
import scipy.linalg

import jconv
from jconv.matrix import conv_matrix, index_pattern, toeplitz
from tests import definition
from tests.cases import CONV_CASES, dense, each_case
from tests.compare import assert_close, assert_same

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
