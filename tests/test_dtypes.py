"""Dtypes are kept, and sums lose no more than `lax`'s do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jconv
from jconv import curvature
from tests import definition
from tests.cases import CONV_CASES, METHODS, MODES, dense, each_case, each_method
from tests.compare import assert_close, assert_same

HALVES = ("bfloat16", "float16")

each_half = pytest.mark.parametrize("dtype", HALVES)
each_exact_method = pytest.mark.parametrize("method", [m for m in METHODS if m != "fourier"])


def gradients(conv, x, kernel, y_bar):
    """Value and cotangents of a convolution."""
    y, transpose = jax.vjp(conv, x, kernel)
    return (y, *transpose(y_bar))


@pytest.mark.parametrize("dtype", [*HALVES, "complex64"])
@each_method
@each_case(CONV_CASES, "groups")
def test_dtype_is_kept(case, method, dtype):
    data = case.data(dtype)
    options = {**case.options, "method": method}
    evaluate = jax.jit(lambda *data: gradients(lambda *a: jconv.conv(*a, **options), *data))
    for actual, expected in zip(evaluate(*data), case.defined_faces(*data), strict=True):
        assert_close(actual, expected, dtype, case.terms)


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
@each_exact_method
@each_case(CONV_CASES, "dilation and stride", "groups")
def test_integers_are_exact(case, method, dtype):
    data = tuple(a // 2 for a in case.data(dtype))  # so small that every sum fits
    for actual, expected in zip(
        jax.jit(case.faces(method))(*data), case.defined_faces(*data), strict=True
    ):
        assert actual.dtype == dtype
        assert_same(actual, expected)


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
@each_exact_method
@each_case(CONV_CASES, "dilation and stride", "groups")
def test_sums_of_integers_wrap_around(case, method, dtype):
    """Also of constants, which XLA computes by itself while it compiles."""
    info = np.iinfo(dtype)
    data = tuple(np.where(a % 2, info.max - a, a).astype(dtype) for a in case.data(dtype))
    faces = case.faces(method)
    expected = case.defined_faces(*data)
    for program, operands in ((jax.jit(faces), data), (jax.jit(lambda: faces(*data)), ())):
        for actual, sums in zip(program(*operands), expected, strict=True):
            assert_same(actual, (sums % (info.max - info.min + 1)).astype(dtype))


@pytest.mark.parametrize("mode", MODES)
def test_what_folds_back_keeps_narrow_integers(mode):
    y, kernel = dense((2, 7, 3), "uint8", 0), dense((3, 2, 3), "uint8", 1)
    options = {"padding": ((3, 2),), "padding_mode": mode}
    x = jax.jit(lambda y, kernel: jconv.conv_transpose(y, kernel, **options))(y, kernel)
    assert x.dtype == "uint8"
    assert_same(x, definition.conv_transpose(y, kernel, **options).real % 256)


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_fourier_refuses_integers(dtype):
    x, kernel = dense((5, 1), dtype, seed=0), dense((2, 1, 1), dtype, seed=1)
    with pytest.raises(ValueError, match="method"):
        jconv.conv(x, kernel, method="fourier")


# Accumulation


def lax_conv(x, kernel, **options):
    return lax.conv_general_dilated(
        x, kernel, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"), **options
    )


def root_mean_square(error):
    return np.sqrt(np.mean(np.square(error)))


@each_half
@each_method
def test_accumulation_is_as_accurate_as_that_of_lax(method, dtype):
    channels = 256
    x, y_bar = dense((2, 40, channels), dtype, 0), dense((2, 36, 8), dtype, 2)
    kernel = (dense((5, channels, 8), "float64", 1) / np.sqrt(5 * channels)).astype(dtype)
    defined = (
        definition.conv(x, kernel),
        definition.conv_transpose(y_bar, kernel),
        definition.kernel_gradient(x, y_bar, (5,)),
    )
    data = jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(y_bar)
    by_lax = gradients(lax_conv, *data)
    by_jconv = gradients(lambda *a: jconv.conv(*a, method=method), *data)
    for actual, reference, expected in zip(by_jconv, by_lax, defined, strict=True):
        error = root_mean_square(definition.wide(actual) - expected)
        error_of_lax = root_mean_square(definition.wide(reference) - expected)
        assert error <= 1.02 * error_of_lax


@pytest.mark.parametrize(
    ("inputs", "outputs", "taps", "stride"),
    [(300, 1, (1,), 1), (64, 1, (3,), 2), (1, 96, (1,), 2), (3, 1, (3, 3), 2), (3, 2, (1, 1), 1)],
    ids=str,
)
def test_long_sums_of_one_channel_round_little(inputs, outputs, taps, stride):
    """Not one term after the other: up to 31 times the error of XLA's own convolution."""
    size = (40_000,) if len(taps) == 1 else (200, 200)
    x = dense((1, *size, inputs), "float32", 0)
    spatial = tuple((n - t) // stride + 1 for n, t in zip(size, taps, strict=True))
    y_bar = dense((1, *spatial, outputs), "float32", 1)
    exact = jconv.kernel_gradient(x.astype(float), y_bar.astype(float), taps, stride=stride)

    def error(method):
        k = jconv.kernel_gradient(x, y_bar, taps, stride=stride, method=method)
        return root_mean_square(definition.wide(k) - definition.wide(exact))

    assert error("auto") <= 4 * error("direct")


@each_half
@each_method
def test_preferred_element_type(method, dtype):
    """The result keeps what the sum holds: products of half floats are exact in float32."""
    x, kernel = dense((2, 12, 16), dtype, 0), dense((3, 16, 4), dtype, 1)
    y = jconv.conv(x, kernel, method=method, preferred_element_type=jnp.float32)
    assert_close(y, definition.conv(x, kernel), "float32", terms=48)


# Whole numbers that half floats hold, of which float32 sums are exact, up to what transforms round.
WHOLE = [((2, 9, 4), (3,), 5), ((3, 24, 24, 16), (3, 3), 16), ((2, 12, 6, 6, 8), (3, 3, 3), 8)]


@each_half
@pytest.mark.parametrize("method", jconv.methods.METHODS)
@pytest.mark.parametrize(("shape", "taps", "outputs"), WHOLE)
def test_nothing_is_rounded_to_half_on_the_way(shape, taps, outputs, method, dtype):
    rng = np.random.default_rng(0)
    x, kernel, y = (
        jnp.asarray(rng.integers(-8, 9, size), dtype)
        for size in (shape, (*taps, shape[-1], outputs), (*shape[:-1], outputs))
    )
    options = {"padding": "same", "preferred_element_type": "float32"}

    try:
        actual = (
            jconv.conv(x, kernel, method=method, **options),
            jconv.conv_transpose(y, kernel, size=shape[1:-1], method=method, **options),
            jconv.kernel_gradient(x, y, taps, method=method, **options),
        )
    except ValueError as error:
        assert "method" in str(error)  # noqa: PT017
        return
    expected = (
        definition.conv(x, kernel, padding="same"),
        definition.conv_transpose(y, kernel, size=shape[1:-1], padding="same"),
        definition.kernel_gradient(x, y, taps, padding="same"),
    )
    for face, defined in zip(actual, expected, strict=True):
        limit = 1e-5 * np.abs(defined).max()
        np.testing.assert_allclose(face, defined.real, rtol=0, atol=limit)


@each_half
@each_method
def test_preferred_element_type_leaves_gradients_their_dtype(method, dtype):
    x, kernel = dense((2, 12, 16), dtype, 0), dense((3, 16, 4), dtype, 1)
    y_bar = dense((2, 10, 4), "float32", 2)

    def conv(x, kernel):
        return jconv.conv(x, kernel, method=method, preferred_element_type=jnp.float32)

    _, x_bar, kernel_bar = gradients(conv, jnp.asarray(x), jnp.asarray(kernel), y_bar)
    assert_close(x_bar, definition.conv_transpose(y_bar, kernel), dtype, terms=12)
    assert_close(kernel_bar, definition.kernel_gradient(x, y_bar, (3,)), dtype, terms=20)


@pytest.mark.parametrize(
    ("dtype", "preferred"), [("int8", "int32"), ("uint8", "int32"), ("int8", "float32")]
)
@each_exact_method
def test_preferred_element_type_of_integers(method, dtype, preferred):
    x, kernel = dense((2, 12, 16), dtype, 0) * 15, dense((3, 16, 4), dtype, 1) * 15
    y_bar = dense((2, 10, 4), dtype, 2) * 15
    options = {"method": method, "preferred_element_type": preferred}
    faces = (
        jconv.conv(x, kernel, **options),
        jconv.conv_transpose(y_bar, kernel, **options),
        jconv.kernel_gradient(x, y_bar, 3, **options),
        curvature.per_example_kernel_gradients(x, y_bar, 3, **options).sum(0, preferred),
    )
    expected = (
        definition.conv(x, kernel),
        definition.conv_transpose(y_bar, kernel),
        definition.kernel_gradient(x, y_bar, (3,)),
        definition.kernel_gradient(x, y_bar, (3,)),
    )
    for face, defined in zip(faces, expected, strict=True):
        assert face.dtype == preferred
        assert_same(face, defined.real)


@pytest.mark.parametrize("precision", ["highest", "float32", lax.Precision.HIGH, None])
@each_method
@each_case(CONV_CASES, "groups")
def test_precision_is_accepted(case, method, precision):
    x, kernel, _ = case.data("float32")
    y = jconv.conv(x, kernel, precision=precision, method=method, **case.options)
    assert_close(y, definition.conv(x, kernel, **case.options), "float32", case.terms)


ALGORITHM = lax.DotAlgorithmPreset.F32_F32_F32


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@each_method
def test_an_algorithm_keeps_the_imaginary_part(method, dtype):
    x, kernel = dense((2, 9, 3), dtype, 0), dense((3, 3, 4), dtype, 1)
    expected = definition.conv(x, kernel)
    asked = jconv.conv(x, kernel, method=method, precision=ALGORITHM)
    with jax.default_matmul_precision(ALGORITHM.name):
        given = jconv.conv(x, kernel, method=method)
    for y in (asked, given):
        assert_close(y, expected, dtype, 9)


@each_exact_method
def test_an_algorithm_rounds_no_integers(method):
    x, kernel = np.full((2, 1), 2**25 + 1, "int32"), np.ones((1, 1, 1), "int32")
    with jax.default_matmul_precision(ALGORITHM.name):
        assert_same(jconv.conv(x, kernel, method=method), x)


ROUNDED = [
    ("winograd", (34, 31), (3, 3), 256, 24),
    ("winograd", (90,), (3,), 256, 24),
    ("winograd", (29, 28), (5, 5), 64, 24),
    ("winograd", (28, 29), (3, 4), 64, 24),
    ("mixed", (9, 8, 7), (3, 3, 3), 256, 64),
    ("mixed", (34, 31), (5, 3), 256, 24),
]


@pytest.mark.parametrize(("method", "size", "taps", "inputs", "outputs"), ROUNDED)
def test_winograd_rounds_as_little_as_the_bar_asks(method, size, taps, inputs, outputs):
    x = dense((2, *size, inputs), "float32", 0)
    kernel = dense((*taps, inputs, outputs), "float32", 1)
    y = dense((2, *size, outputs), "float32", 2)

    def faces(by, dtype):
        options = {"padding": "same", "method": by}
        a, k, b = (c.astype(dtype) for c in (x, kernel, y))
        return jax.jit(lambda a, k, b: (
            jconv.conv(a, k, **options),
            jconv.conv_transpose(b, k, size=size, **options),
            jconv.kernel_gradient(a, b, taps, **options),
        ))(a, k, b)  # fmt: skip

    exact = faces("shifts", "float64")
    by_winograd, direct = faces(method, "float32"), faces("direct", "float32")
    for e, w, d in zip(exact, by_winograd, direct, strict=True):
        lost, least = (np.abs(np.float64(a) - np.asarray(e)).max() for a in (w, d))
        assert lost <= 4 * least
