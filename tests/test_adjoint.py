"""The three faces are one trilinear form: each is the adjoint of the other two."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jconv
from jconv.testing import assert_adjoint
from tests import strategies
from tests.cases import CONV_CASES, METHODS, dense, each_case, each_method
from tests.compare import tolerance
from tests.effort import drawn

pytestmark = pytest.mark.usefixtures("no_nans")


def pairing(a, b):
    """Bilinear: complex entries are not conjugated."""
    return np.sum(np.asarray(a) * np.asarray(b))


def assert_one_form(case, method, dtype):
    x, kernel, y = data = case.data(dtype)
    y_of, x_of, kernel_of = jax.jit(case.faces(method))(*data)
    form = pairing(y_of, y)
    limit = tolerance(dtype, case.terms) * np.sqrt(y.size)
    np.testing.assert_allclose(pairing(x, x_of), form, rtol=0, atol=limit)
    np.testing.assert_allclose(pairing(kernel, kernel_of), form, rtol=0, atol=limit)


@each_method
@each_case(CONV_CASES, "crop and pad", "same_lower", "symmetric", "groups", "all dilations")
def test_faces_are_one_form(case, method):
    assert_one_form(case, method, "float64")


@each_method
@each_case(CONV_CASES, "all at once")
def test_complex_faces_are_one_form(case, method):
    assert_one_form(case, method, "complex64")


@drawn(20)
@given(case=strategies.conv_cases(linear=True), method=st.sampled_from(METHODS))
def test_faces_of_drawn_options_are_one_form(case, method):
    assert_one_form(case, method, "float64")


@each_case(CONV_CASES)
def test_conv_transpose_is_the_adjoint_of_conv(case):
    x, kernel, y = case.data("float32")
    options = case.linear_part.options
    assert_adjoint(
        jax.jit(lambda x: jconv.conv(x, kernel, **options)),
        jax.jit(lambda y: jconv.conv_transpose(y, kernel, size=case.size, **options)),
        x,
        y,
    )


@each_case(CONV_CASES, "uncovered tail", "all dilations")
def test_fold_is_the_adjoint_of_unfold(case):
    x, _, _ = case.data("float32")
    patches = dense((*case.batch, *case.out, *case.taps, case.channels[0]), "float32", seed=1)
    assert_adjoint(
        lambda x: jconv.unfold(x, case.taps, **case.windowing),
        lambda patches: jconv.fold(patches, case.size, **case.windowing),
        x,
        patches,
    )


def test_padding_value_is_no_part_of_the_adjoint():
    y, kernel = dense((2, 6, 7, 3), "float32", seed=0), dense((3, 2, 2, 3), "float32", seed=1)
    options = {"padding": ((2, 1), (1, 3)), "size": (5, 4)}
    expected = jconv.conv_transpose(y, kernel, **options)
    actual = jconv.conv_transpose(y, kernel, padding_value=1.5, **options)
    np.testing.assert_array_equal(actual, expected)
