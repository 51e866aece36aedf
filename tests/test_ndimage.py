"""`jconv.ndimage` has SciPy's results, dtypes and errors, and derivatives that are right."""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.test_util import check_grads

from jconv import ndimage
from tests.cases import dense
from tests.compare import assert_close

WHOLE = ["correlate", "convolve"]
ALONG = ["correlate1d", "convolve1d"]
STEPS = ["sobel", "prewitt"]
EXTREMES = ["maximum_filter", "minimum_filter"]
MODES = [
    "reflect", "mirror", "nearest", "wrap", "constant", "grid-mirror", "grid-wrap",
    "grid-constant",
]  # fmt: skip
DTYPES = ["float64", "float64", "float32", "complex128", "int64", "uint8", "bool"]


def entries(rng, shape, dtype):
    if dtype == "bool":
        return rng.random(shape) < 0.4
    if "int" in dtype:
        return rng.integers(0 if dtype[0] == "u" else -50, 50, shape).astype(dtype)
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if dtype == "complex128" else x.astype(dtype)


def drawn(name, seed):
    """An input and arguments, of which some have origins that SciPy refuses."""
    rng = np.random.default_rng(seed)

    def pick(*options):
        return options[rng.integers(len(options))]

    def one_or_each(draw, count):
        return draw() if rng.random() < 0.5 else [draw() for _ in range(count)]

    ndim = int(rng.integers(1, 4))
    x = entries(rng, tuple(rng.integers(1, 7, ndim)), pick(*DTYPES))
    if name in EXTREMES and np.iscomplexobj(x):
        x = x.real
    if name.startswith("gaussian") and x.dtype.kind in "biu":  # SciPy's rounding decides on ties
        x = x.astype(float)
    options = {"cval": pick(0.0, 2, 1.5), "mode": pick(*MODES)}
    count = ndim
    if name not in (*ALONG, *STEPS) and rng.random() < 0.5:
        count = int(rng.integers(1, ndim + 1))
        axes = rng.permutation(ndim)[:count] - pick(0, ndim)
        options["axes"] = int(axes[0]) % ndim if count == 1 else axes.tolist()
    gaps = name in EXTREMES and rng.random() < 0.5
    if name not in (*WHOLE, *ALONG) and not gaps:
        options["mode"] = one_or_each(lambda: pick(*MODES), count)
    if name in (*WHOLE, *ALONG, *EXTREMES, "uniform_filter"):
        draw = functools.partial(pick, 0, 0, -1, 1)
        options["origin"] = draw() if name in ALONG else one_or_each(draw, count)
    axis = int(rng.integers(-ndim, ndim))
    weights = pick("float64", "int64")
    if name in WHOLE:
        return x, [entries(rng, tuple(rng.integers(1, 6, count)), weights)], options
    if name in ALONG:
        return x, [entries(rng, rng.integers(1, 9), weights), axis], options
    if name in STEPS:
        return x, [axis], options
    if name.startswith("gaussian"):
        sigma = one_or_each(lambda: pick(0, 0.5, 1.2), count)
        options |= pick({}, {"radius": 3}, {"truncate": 2.5})
        if name == "gaussian_filter":
            options["order"] = one_or_each(lambda: int(rng.integers(4)), count)
        return x, [sigma], options
    if gaps:
        return x, [], {"footprint": rng.random(tuple(rng.integers(1, 4, count))) < 0.6, **options}
    return x, [] if name == "laplace" else [one_or_each(lambda: pick(1, 2, 3, 5), count)], options


def assert_same(actual, expected, atol=1e-10):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    atol = 1e-4 if expected.dtype in ("float32", "complex64") else atol
    np.testing.assert_allclose(
        np.asarray(actual).astype(complex), expected.astype(complex), rtol=0, atol=atol
    )


def error_of(function, *args, **options):
    try:
        function(*args, **options)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ndimage.__all__)
def test_agrees_with_scipy(name, seed):
    x, args, options = drawn(name, [seed, ndimage.__all__.index(name)])
    ours, theirs = getattr(ndimage, name), getattr(scipy.ndimage, name)
    error = error_of(theirs, x, *args, **options)
    if error is not None:
        with pytest.raises(type(error), match=r"^`\w+` must "):
            ours(x, *args, **options)
        return
    actual = jax.jit(lambda x: ours(x, *args, **options))(x)
    assert_same(actual, theirs(x, *args, **options))


@pytest.mark.parametrize("mode", MODES)
def test_arrays_smaller_than_the_filter(mode):
    x, weights = dense((2, 1, 3), "float64", 0), dense((9, 4, 6), "float64", 1)
    actual = jax.jit(lambda x: ndimage.convolve(x, weights, None, mode, 0.7))(x)
    assert_same(actual, scipy.ndimage.convolve(x, weights, None, mode, 0.7))


COMPLEX = dense(5, "float64", 2) + 1j * dense(5, "float64", 3)


@pytest.mark.parametrize("name", [*WHOLE, *ALONG])
def test_complex_weights(name):
    """Correlation conjugates them."""
    for x in (dense(9, "float64", 0), dense(9, "float64", 0) + 1j * dense(9, "float64", 1)):
        assert_same(getattr(ndimage, name)(x, COMPLEX), getattr(scipy.ndimage, name)(x, COMPLEX))


def test_a_complex_constant():
    x, options = COMPLEX, {"mode": "constant", "cval": 1 + 2j}
    assert_same(
        ndimage.uniform_filter(x, 3, **options), scipy.ndimage.uniform_filter(x, 3, **options)
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
@pytest.mark.parametrize("output", [None, np.float64, bool])
def test_integers_are_cut_off_and_wrap(dtype, output):
    x = np.random.default_rng(0).integers(0, 127, (6, 7)).astype(dtype)

    def filtered(module, x):
        yield module.uniform_filter(x, 4, output)
        yield module.gaussian_filter(x, 1.3, 0, output)
        yield module.sobel(x, 0, output)
        yield module.laplace(x, output)

    actual = jax.jit(lambda x: list(filtered(ndimage, x)))(x)
    for ours, theirs in zip(actual, filtered(scipy.ndimage, x), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("x64", [True, False])
def test_a_flat_image_of_integers_stays_flat(x64):
    with jax.enable_x64(x64):
        for value in (7, 100, 255):
            image = np.full((5, 6), value, np.uint8)
            np.testing.assert_array_equal(ndimage.gaussian_filter(image, 1.5), image)
        image = np.ones(1500, np.uint8)
        image[:200] = 255
        np.testing.assert_array_equal(ndimage.gaussian_filter(image, 40)[700:], 1)


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("options", [{"size": 3}, {"footprint": [1, 0, 1]}])
@pytest.mark.parametrize("more", [{}, {"mode": "constant", "cval": 3}])
def test_extremes_of_integers_that_only_unsigned_ones_hold(name, options, more):
    x = np.array([1, 3_000_000_000, 2, 7, 5], np.uint32)
    with jax.enable_x64(False):
        actual = getattr(ndimage, name)(x, **options, **more)
    assert_same(actual, getattr(scipy.ndimage, name)(x, **options, **more))


@pytest.mark.parametrize("jit", [False, True])
def test_fractions_as_unsigned_integers(jit):
    x = np.array([[44, 3, 7], [3_000_000_000, 1, 2]], np.uint32)
    with jax.enable_x64(False):
        same = functools.partial(ndimage.correlate1d, weights=[1.0])
        np.testing.assert_array_equal((jax.jit(same) if jit else same)(x), x)
        falling = functools.partial(ndimage.correlate1d, weights=[-1.5, 0.0, 0.0], mode="nearest")
        actual = (jax.jit(falling) if jit else falling)(x[:1])
        assert_same(actual, scipy.ndimage.correlate1d(x[:1], [-1.5, 0, 0], mode="nearest"))


@pytest.mark.parametrize("taps", [41, 321])
def test_long_filters_keep_to_their_windows(taps):
    """Neither a NaN nor the rounding of a large entry is felt beyond."""
    for dtype in ("float32", "float64"):
        x, weights = np.zeros(1000, dtype), np.ones(taps) / taps
        x[10], x[800] = 1e8, 1
        actual = np.asarray(ndimage.correlate1d(x, weights))
        assert (actual >= 0).all()
        assert actual[800] == pytest.approx(1 / taps)
        x[500] = np.nan
        spoiled = np.isnan(ndimage.correlate1d(x, weights))
        np.testing.assert_array_equal(spoiled, np.abs(np.arange(1000) - 500) <= taps // 2)


@pytest.mark.parametrize("mode", MODES)
def test_windows_much_larger_than_the_array(mode):
    x = dense(6, "float64", 0)
    expected = scipy.ndimage.uniform_filter(x, 901, mode=mode)
    assert_close(ndimage.uniform_filter(x, 901, mode=mode), expected, "float64", 901)
    filtered = functools.partial(ndimage.correlate1d, weights=np.ones(901), mode=mode)
    rows = np.stack([scipy.ndimage.correlate1d(e, np.ones(901), mode=mode) for e in np.eye(6)])
    assert_close(jax.jacrev(filtered)(x), rows.T, "float64", 901)


def test_output_bool_where_no_axis_is_filtered():
    x = np.array([0.3, -0.4, 2, 0])
    for name, arguments in {
        "uniform_filter": (1, bool), "maximum_filter": (1, None, bool),
        "gaussian_filter": (0, 0, bool),
    }.items():  # fmt: skip
        f, expected = getattr(ndimage, name), getattr(scipy.ndimage, name)
        assert_same(f(x, *arguments), expected(x, *arguments))


@pytest.mark.parametrize("axes", [(1, 0), (0, 1), (1,), (-1, 0)])
def test_whose_sigma_is_whose(axes):
    x, sigma = dense((5, 6), "float64", 0), (0.5, 2.0)[: len(axes)]
    for name in ("gaussian_filter", "gaussian_laplace"):
        expected = getattr(scipy.ndimage, name)(x, sigma, axes=axes)
        assert_same(getattr(ndimage, name)(x, sigma, axes=axes), expected)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_entries(shape):
    x = np.zeros(shape)
    for name, args in {
        "convolve": (np.ones((2, 2)),), "sobel": (), "uniform_filter": (), "maximum_filter": (2,),
    }.items():  # fmt: skip
        assert_same(getattr(ndimage, name)(x, *args), getattr(scipy.ndimage, name)(x, *args))


def test_no_axes():
    assert float(ndimage.correlate(3.0, 2.0)) == 6
    assert float(ndimage.gaussian_filter(3.0, 2.0)) == 3
    assert float(ndimage.maximum_filter(3.0, 2)) == 3


def test_size_beside_a_footprint_is_ignored_with_a_warning():
    x = dense(7, "float64", 0)
    with pytest.warns(UserWarning, match="`size` is ignored") as warned:
        actual = ndimage.maximum_filter(x, 3, np.array([1, 0, 1]))
    assert warned[0].filename == __file__
    assert_same(actual, scipy.ndimage.maximum_filter(x, footprint=[1, 0, 1]))


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("options", [{"size": 3}, {"footprint": [1, 0, 1]}])
def test_a_nan_wins(name, options):
    x = np.array([1.0, 2, 3, np.nan, 5, 6, 7])
    seen = {"size": [2, 3, 4], "footprint": [2, 4]}[next(iter(options))]
    nan = np.flatnonzero(np.isnan(getattr(ndimage, name)(x, **options)))
    np.testing.assert_array_equal(nan, seen)


# Errors

X = dense((4, 5), "float64", 0)
PAIR = np.ones((2, 2))
MINIMAL = {name: [] for name in ndimage.__all__} | {
    "correlate": [PAIR], "convolve": [PAIR], "correlate1d": [[1, 2]], "convolve1d": [[1, 2]],
    "gaussian_filter": [1], "gaussian_laplace": [1], "maximum_filter": [3], "minimum_filter": [3],
}  # fmt: skip
WRONG = [
    ("correlate", (X, np.ones(2)), {}),
    ("correlate", (X, np.ones((2, 0))), {}),
    ("correlate", (X, PAIR, "nope"), {}),
    ("correlate", (X, PAIR, "bool"), {}),
    ("correlate", (X, PAIR, object), {}),
    ("correlate", (X, PAIR, complex), {}),
    ("correlate", (X, PAIR, None, "edge"), {}),
    ("correlate", (X, PAIR, None, None), {}),
    ("correlate", (X, PAIR, None, ["wrap", "wrap"]), {}),
    ("correlate", (X, PAIR, None, "wrap", "0"), {}),
    ("correlate", (X, PAIR, None, "wrap", 1j), {}),
    ("correlate", (X, 1j * PAIR, None, "wrap", 1j), {}),
    ("correlate", (1j * X, PAIR, "float32"), {}),
    ("correlate", (X, PAIR, None, "wrap", 0, 1), {}),
    ("convolve", (X, PAIR, None, "wrap", 0, [0]), {}),
    ("convolve", (X, PAIR, None, "wrap", 0, "0"), {}),
    ("convolve", (X, PAIR), {"axes": (0, 0)}),
    ("convolve", (X, PAIR), {"axes": (0, 2)}),
    ("convolve", (X, PAIR), {"axes": 0}),
    ("convolve", (X, PAIR), {"axes": 0.0}),
    ("correlate1d", (X, PAIR), {}),
    ("correlate1d", (X, []), {}),
    ("correlate1d", (X, [1, 2], 2), {}),
    ("correlate1d", (X, [1, 2], -3), {}),
    ("correlate1d", (X, [1, 2], 0.0), {}),
    ("convolve1d", (X, [1, 2], 0, None, ["wrap"]), {}),
    ("convolve", (X, PAIR, None, "wrap", 0, 1), {}),
    ("convolve1d", (X, [1, 2], 0, None, "wrap", 0.0, 1), {}),
    ("uniform_filter", (X, 3, None, "wrap", 0, 0.5), {}),
    ("uniform_filter", (X, "3"), {}),
    ("uniform_filter", (X, None), {}),
    ("uniform_filter", (X, (3, 3, 3)), {}),
    ("uniform_filter", (X, 3, None, "reflex"), {}),
    ("uniform_filter", (X, 3, None, ["wrap"]), {}),
    ("uniform_filter", (X, 3, None, "wrap", "0"), {}),
    ("uniform_filter", (X, 3, None, "wrap", 0, 2), {}),
    ("uniform_filter", (X, 3, None, "wrap", 0, (0, 0, 0)), {}),
    ("gaussian_filter", (X,), {}),
    ("gaussian_filter", (X, "1"), {}),
    ("gaussian_filter", (X, (1, 2, 3)), {}),
    ("gaussian_filter", (X, 1, -1), {}),
    ("gaussian_filter", (X, 1, 0.5), {}),
    ("gaussian_filter", (X, 1, 0, None, "wrap", 0, "4"), {}),
    ("gaussian_filter", (X, 1, 0, None, "wrap", 0, -4), {}),
    ("gaussian_filter", (X, 1), {"radius": -1}),
    ("gaussian_filter", (X, 1), {"radius": 1.5}),
    ("gaussian_filter", (1j * X, 1), {"output": float}),
    ("gaussian_laplace", (X, 1), {"order": 1}),
    ("gaussian_laplace", (X, 1), {"axes": (0, 0)}),
    ("gaussian_laplace", (X, (1, 1, 1)), {}),
    ("laplace", (X, None, ["wrap"]), {}),
    ("laplace", (X, None, "periodic"), {}),
    ("sobel", (X, 2), {}),
    ("sobel", (X, 0, None, ["wrap"]), {}),
    ("prewitt", (X, "0"), {}),
    ("prewitt", (X, 0, None, "zeros"), {}),
    ("maximum_filter", (X,), {}),
    ("maximum_filter", (1j * X, 3), {}),
    ("maximum_filter", (X, "3"), {}),
    ("maximum_filter", (X, (3, 3, 3)), {}),
    ("maximum_filter", (X, 3, None, None, "wrap", 0, 2), {}),
    ("minimum_filter", (X, None, PAIR * 0), {}),
    ("minimum_filter", (X, None, [1, 0]), {}),
    ("minimum_filter", (X, None, [1, 1]), {}),
    ("minimum_filter", (X, None, [[1, 0]], None, ["wrap", "wrap"]), {}),
    ("minimum_filter", (X, None, [[1, 0]], None, "wrap", 0, (0, 1)), {}),
    ("minimum_filter", (X, None, [[1, 0]], None, "wrap", "0"), {}),
]


@pytest.mark.parametrize(("name", "args", "options"), WRONG)
def test_wrong_arguments_raise_what_scipy_raises(name, args, options):
    with warnings.catch_warnings(action="ignore"):
        error = error_of(getattr(scipy.ndimage, name), *args, **options)
    assert error is not None
    raised = error_of(getattr(ndimage, name), *args, **options)
    assert isinstance(raised, type(error))
    ours = re.match(r"(?s)^`\w+` must .*; got .*\.$", str(raised))
    assert ours or "argument" in str(raised)  # what Python itself refuses


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**50])
def test_no_window_is_without_end(value):
    for name, argument in (("uniform_filter", "size"), ("gaussian_filter", "sigma")):
        with pytest.raises(ValueError, match=f"`{argument}` must be less than .* in size; got"):
            getattr(ndimage, name)(X, value)


@pytest.mark.parametrize("value", ["x", None, [1, "2"], object()])
def test_what_is_no_array(value):
    with pytest.raises(TypeError, match="`input` must be an array"):
        ndimage.correlate(value, PAIR)
    with pytest.raises(TypeError, match="`weights` must be an array"):
        ndimage.correlate(X, value)


@pytest.mark.parametrize("name", ndimage.__all__)
def test_there_is_no_array_to_fill(name):
    with pytest.raises(TypeError, match="`output` must be None or a dtype"):
        getattr(ndimage, name)(X, *MINIMAL[name], output=np.zeros_like(X))


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("uniform_filter", "size"), ("uniform_filter", "origin"), ("gaussian_filter", "sigma"),
        ("gaussian_filter", "order"), ("gaussian_filter", "truncate"), ("sobel", "axis"),
        ("laplace", "axes"), ("maximum_filter", "size"), ("maximum_filter", "footprint"),
    ],
)  # fmt: skip
def test_what_must_be_python_is_no_tracer(name, argument):
    options = {"sigma": 1} if name == "gaussian_filter" else {}

    @jax.jit
    def filtered(value):
        return getattr(ndimage, name)(X, **options | {argument: value})

    with pytest.raises(TypeError, match=f"`{argument}` must be "):
        filtered(1)


# Derivatives

GRADIENTS = [
    ("correlate", {"origin": (1, -1), "mode": "mirror"}),
    ("convolve", {"origin": (0, 1), "mode": "reflect"}),
    ("correlate", {"mode": "constant"}),
    ("convolve1d", {"axis": 0, "mode": "wrap"}),
    ("uniform_filter", {"size": (3, 4), "mode": ["wrap", "mirror"]}),
    ("gaussian_filter", {"sigma": (0.7, 1.1), "order": (0, 1), "mode": "nearest"}),
    ("gaussian_laplace", {"sigma": 0.8}),
    ("sobel", {"axis": 0}),
    ("laplace", {"mode": "mirror"}),
]


@pytest.mark.parametrize(("name", "options"), GRADIENTS)
def test_gradients_are_adjoints(name, options):
    """All are linear in the input, and in the weights."""
    weights = {"correlate": (5, 4), "convolve": (2, 3), "convolve1d": (4,)}.get(name)
    arrays = [X] if weights is None else [X, dense(weights, "float64", 1)]
    y_bar = dense(X.shape, "float64", 2)

    @jax.jit
    def evaluate(*arrays):
        y, transpose = jax.vjp(lambda *a: getattr(ndimage, name)(*a, **options), *arrays)
        return y, transpose(jnp.asarray(y_bar))

    y, bars = evaluate(*arrays)
    for a, bar in zip(arrays, bars, strict=True):
        np.testing.assert_allclose(np.vdot(y, y_bar), np.vdot(a, bar), rtol=1e-11)
        assert bar.shape == a.shape


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize(
    "options", [{"size": (3, 4)}, {"footprint": [[1, 0, 1], [0, 1, 1]], "mode": "mirror"}]
)
def test_gradients_of_extremes(name, options):
    f = jax.jit(lambda x: getattr(ndimage, name)(x, **options))
    check_grads(f, (jnp.asarray(X),), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_a_tie_goes_to_the_first():
    gradient = jax.grad(lambda x: ndimage.maximum_filter(x, footprint=[1, 0, 1])[1])
    x_bar = jax.jit(gradient)(jnp.ones(3))
    np.testing.assert_array_equal(x_bar, [1, 0, 0])


def test_the_constant_outside_is_differentiable():
    def f(cval):
        return ndimage.uniform_filter(jnp.asarray(X), 3, None, "constant", cval).sum()

    check_grads(jax.jit(f), (jnp.asarray(0.3),), order=1, modes=["rev"])


@pytest.mark.parametrize("name", ["gaussian_filter", "sobel", "maximum_filter", "uniform_filter"])
def test_jit_and_vmap(name):
    args = {"gaussian_filter": [1.2], "maximum_filter": [3]}.get(name, [])
    batch = jnp.asarray(dense((3, 4, 5), "float64", 0))
    gradient = jax.grad(lambda x: jnp.sin(getattr(ndimage, name)(x, *args)).sum())
    one = jax.jit(gradient)
    expected = np.stack([one(x) for x in batch])
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(batch), expected, atol=1e-12)


def test_the_rules_are_ours():
    for name, args in MINIMAL.items():
        program = jax.make_jaxpr(lambda x, name=name, a=args: getattr(ndimage, name)(x, *a))(X)
        assert "custom_vjp" in str(program)
