"""Values equal the NumPy loops: every face of every method, on every case."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jconv
from jconv.faces import evaluate
from jconv.planner import choose
from jconv.problem import Problem
from tests import definition, strategies
from tests.cases import (
    CONV_CASES,
    METHODS,
    MODES,
    PLANNED_CASES,
    dense,
    each_case,
    each_method,
    named,
)
from tests.compare import assert_close, assert_same
from tests.effort import drawn

VARIED = (
    "rank 3",
    "low padding beyond the reach",
    "windows of only padding",
    "crop and pad",
    "same, input dilated",
    "constant of 1.5",
    "depthwise with multiplier",
    "all at once",
)


def assert_faces(case, evaluate, dtype, seed=0):
    data = case.data(dtype, seed)
    for actual, expected in zip(evaluate(*data), case.defined_faces(*data), strict=True):
        assert_close(actual, expected, dtype, case.terms)


@each_method
@each_case(CONV_CASES)
def test_faces(case, method):
    assert_faces(case, jax.jit(case.faces(method)), "float32")


@each_case(CONV_CASES)
def test_faces_elsewhere(case, elsewhere):
    assert_faces(case, jax.jit(case.faces("direct")), "float32")


@each_case(PLANNED_CASES)
def test_faces_of_larger_cases(case):
    assert_faces(case, jax.jit(case.faces("auto")), "float32")


@pytest.mark.parametrize("method", [m for m in jconv.methods.METHODS if m not in METHODS])
@each_case([*named(CONV_CASES, *VARIED), *named(PLANNED_CASES, "3x3 taps")])
def test_special_methods_serve_or_refuse(case, method):
    try:
        evaluate = jax.jit(case.faces(method)).lower(*case.data("float32")).compile()
    except ValueError as error:
        assert "method" in str(error)  # noqa: PT017
    else:
        assert_faces(case, evaluate, "float32")


@each_method
@each_case(CONV_CASES, *VARIED)
def test_faces_in_float64(case, method):
    assert_faces(case, jax.jit(case.faces(method)), "float64")


@each_method
@each_case(CONV_CASES, "low padding beyond the reach", "reflect and crop")
def test_faces_eager(case, method):
    assert_faces(case, case.faces(method), "float32")


@drawn(20)
@given(
    case=strategies.conv_cases(),
    method=st.sampled_from(METHODS),
    dtype=st.sampled_from(["float64", "float32"]),
    seed=st.integers(0, 9),
)
def test_faces_of_drawn_options(case, method, dtype, seed):
    assert_faces(case, jax.jit(case.faces(method)), dtype, seed)


# Channels of a group, and examples, for which the planner is asked.
WIDTHS = ((1, 1), (3, 3), (16, 16), (16, 64), (64, 16), (3, 64), (64, 3), (33, 40), (256, 256))
BATCHES = 1, 64


@drawn(80)
@given(spec=strategies.specs(), seed=st.integers(0, 9))
def test_what_is_rewritten_at_any_size_is_the_same(spec, seed):
    """Whatever the planner may rewrite of these windows, were there more channels and examples."""
    inputs, outputs = 2 * spec.groups, 3 * spec.groups
    shapes = (2, *spec.size, inputs), (*spec.taps, 2, outputs), (2, *spec.out, outputs)
    x, kernel, y = (dense(shape, "float64", (seed, i)) for i, shape in enumerate(shapes))
    faces = {"forward": (x, kernel), "input_adjoint": (y, kernel), "kernel_adjoint": (x, y)}
    for face, operands in faces.items():
        problems = (
            Problem(face, spec, n, spec.groups * c, spec.groups * m, jnp.dtype("float32"))
            for (c, m), n in itertools.product(WIDTHS, BATCHES)
        )
        taken = {choose(problem, "cpu").method for problem in problems} - {*jconv.methods.METHODS}
        expected = jax.jit(functools.partial(evaluate, face, spec, "shifts"))(*operands)
        for method in sorted(taken):
            actual = jax.jit(functools.partial(evaluate, face, spec, method))(*operands)
            assert_close(actual, expected, "float64", terms=1000)


@each_case(CONV_CASES)
def test_conv_transpose_defaults_to_the_smallest_size(case):
    _, kernel, y = case.data("float32")
    x = jax.eval_shape(lambda y, k: jconv.conv_transpose(y, k, **case.options), y, kernel)
    assert x.shape == definition.conv_transpose(y, kernel, **case.options).shape


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", ["direct", "patches", "shifts"])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 2), (2, 1), (1, 1)])
def test_a_nan_stays_within_its_group(inputs, outputs, method, dtype):
    options = {"groups": 3, "padding": "same", "method": method}
    x, kernel = dense((2, 5, 4, 3 * inputs), dtype, 0), dense((2, 3, inputs, 3 * outputs), dtype, 1)
    y = dense((2, 5, 4, 3 * outputs), dtype, 2)
    x[1, 2, 1, 0] = y[0, 3, 2, -1] = np.nan

    def groups_with_nan(face, *arrays, **sizes):
        a = jax.jit(functools.partial(face, **sizes, **options))(*arrays)
        return np.isnan(a.reshape(-1, 3, a.shape[-1] // 3)).any((0, 2)).tolist()

    assert groups_with_nan(jconv.conv, x, kernel) == [True, False, False]
    assert groups_with_nan(jconv.conv_transpose, y, kernel) == [False, False, True]
    assert groups_with_nan(jconv.kernel_gradient, x, y, taps=(2, 3)) == [True, False, True]


@each_case(CONV_CASES)
def test_unfold_is_exact(case):
    x, _, _ = case.data("float32")
    x.flat[[0, x.size // 2, -1]] = np.inf, np.nan, -np.inf
    patches = jax.jit(lambda x: jconv.unfold(x, case.taps, **case.windowing))(x)
    assert_same(patches, definition.unfold(x, case.taps, **case.windowing))


@each_case(CONV_CASES, *VARIED)
def test_fold(case):
    windowing = {k: v for k, v in case.windowing.items() if k != "padding_value"}
    shape = (*case.batch, *case.out, *case.taps, case.channels[0])
    patches = dense(shape, "float32", seed=0)
    x = jax.jit(lambda patches: jconv.fold(patches, case.size, **windowing))(patches)
    assert_close(x, definition.fold(patches, case.size, **windowing), "float32", case.terms)


def test_patches_of_many_taps_are_exact_and_have_their_adjoint():
    options = {"stride": 3, "dilation": 2, "padding": [(1, 2), (30, -1)]}
    x, size, taps = dense((2, 4, 180, 2), "float32", seed=0), (4, 180), (2, 70)
    unfold = functools.partial(jconv.unfold, taps=taps, **options)
    patches = unfold(x)
    assert_same(patches, definition.unfold(x, taps, **options))
    fold = functools.partial(jconv.fold, size=size, **options)
    jconv.testing.assert_adjoint(unfold, fold, x, patches)


def test_conv_contracts_unfold_with_the_kernel():
    x, kernel = dense((2, 6, 5, 3), "float64", seed=0), dense((3, 2, 3, 4), "float64", seed=1)
    patches = jconv.unfold(x, (3, 2), stride=2, padding=1)
    y = jconv.conv(x, kernel, stride=2, padding=1)
    assert_close(y, np.tensordot(patches, kernel, axes=3), "float64", terms=18)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "padding",
    [
        ((0, 0), (2, 1)),
        ((3, 0), (0, 2)),
        ((-1, -2), (-3, 0)),
        ((-2, 9), (13, -1)),
        ((5, 17), (-4, 8)),
    ],
)
def test_pad(padding, mode):
    x = dense((2, 4, 5, 3), "float32", seed=0)
    x[0, 0, 0, 0], x[1, 3, 4, 2] = np.nan, np.inf
    assert_same(jconv.pad(x, padding, mode=mode), definition.pad(x, padding, mode=mode))


@pytest.mark.parametrize("mode", MODES)
def test_pad_agrees_with_numpy(mode):
    x = dense((4, 5, 2), "float32", seed=0)
    expected = np.pad(x, ((3, 2), (1, 4), (0, 0)), mode=mode)
    assert_same(jconv.pad(x, ((3, 2), (1, 4)), mode=mode), expected)


@pytest.mark.parametrize("mode", MODES)
def test_pad_an_axis_of_size_one(mode):
    x = dense((2, 1, 3), "float32", seed=0)
    assert_same(jconv.pad(x, ((2, 3),), mode=mode), definition.pad(x, ((2, 3),), mode=mode))


@pytest.mark.parametrize("dtype", ["float32", "int32", "complex64"])
def test_pad_value(dtype):
    x = dense((2, 4, 3), dtype, seed=0)
    padded = jconv.pad(x, ((2, 1),), value=7)
    assert padded.dtype == dtype
    assert_same(padded, definition.pad(x, ((2, 1),), value=7))
