"""`jconv.signal` has SciPy's results, dtypes and errors, and derivatives that are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from jax.test_util import check_grads

from jconv import signal
from tests.cases import dense

NAMES = ["convolve", "correlate"]
ALONG = ["fftconvolve", "oaconvolve"]
MATRICES = ["convolve2d", "correlate2d"]
MODES = ["full", "same", "valid"]
# Of one dtype or two, where JAX and NumPy promote alike.
DTYPES = [
    ("float64", "float64"), ("float32", "float32"), ("complex128", "float64"),
    ("complex128", "complex128"), ("int64", "int64"), ("int8", "uint8"), ("float64", "int64"),
]  # fmt: skip


def drawn(name, seed):
    """Two arrays and arguments, of which SciPy refuses some."""
    rng = np.random.default_rng(seed)

    def pick(options):
        return options[rng.integers(len(options))]

    ndim = 2 if name in MATRICES else int(rng.integers(1, 4))
    sizes = [tuple(int(n) for n in rng.integers(1, 6, ndim)) for _ in "12"]
    mode = pick(MODES)
    if name in NAMES:
        args = (mode, pick(["auto", "direct", "fft"]))
    elif name in MATRICES:
        args = (mode, pick(["fill", "wrap", "symm", "pad", "circular"]), pick([0, 2.5, -3]))
    else:
        axes = rng.permutation(ndim)[: rng.integers(1, ndim + 1)].tolist()
        kept = [
            n if a in axes else pick([1, m]) for a, (m, n) in enumerate(zip(*sizes, strict=True))
        ]
        sizes = [tuple(pick([1, n]) if a not in axes else n for a, n in enumerate(sizes[0])), kept]
        args = (mode, pick([axes, [a - ndim for a in axes], axes[0] if len(axes) == 1 else axes]))
    dtypes = pick(DTYPES)
    return [dense(s, d, seed + i) for i, (s, d) in enumerate(zip(sizes, dtypes, strict=True))], args


def assert_same(actual, expected):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    atol = 1e-4 if expected.dtype == "float32" else 1e-10
    exact = expected.dtype.kind in "biu"
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0 if exact else atol)


def error_of(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("seed", range(14))
@pytest.mark.parametrize("name", signal.__all__)
def test_agrees_with_scipy(name, seed):
    arrays, args = drawn(name, 100 * signal.__all__.index(name) + seed)
    ours, theirs = getattr(signal, name), getattr(scipy.signal, name)
    error = error_of(theirs, *arrays, *args)
    if error is not None:
        with pytest.raises(type(error), match=r"^`\w+` must "):
            ours(*arrays, *args)
        return
    assert_same(jax.jit(lambda a, b: ours(a, b, *args))(*arrays), theirs(*arrays, *args))


@pytest.mark.parametrize("boundary", ["wrap", "symm"])
@pytest.mark.parametrize("name", MATRICES)
def test_matrices_much_smaller_than_the_second(name, boundary):
    arrays = dense((2, 1), "float64", 0), dense((7, 6), "float64", 1)
    actual = getattr(signal, name)(*arrays, "same", boundary)
    assert_same(actual, getattr(scipy.signal, name)(*arrays, "same", boundary))


@pytest.mark.parametrize("name", NAMES)
def test_integers_are_exact_and_wrap(name):
    x, taps = np.array([2**40 + 1, -3, 2**62, 5]), np.array([3, 2**40, 7])
    for method in ("direct", "auto", "fft"):
        expected = getattr(scipy.signal, name)(x, taps, "full", "direct")
        assert_same(getattr(signal, name)(x, taps, "full", method), expected)


def test_bool_is_or_of_and():
    x, taps = np.array([True, False, False, True]), np.array([True, False, True])
    expected = scipy.signal.convolve(x, taps, "full", "direct")
    for method in ("auto", "direct", "fft"):
        assert_same(signal.convolve(x, taps, "full", method), expected)


@pytest.mark.parametrize("name", signal.__all__)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shapes", [((0, 3), (2, 2)), ((2, 3), (0, 2)), ((2, 3), (2, 0))])
def test_no_entries(name, mode, shapes):
    arrays = [np.zeros(shape) for shape in shapes]
    error = error_of(getattr(scipy.signal, name), *arrays, mode)
    if name in NAMES and mode == "valid" and error is None:
        return  # sizes of -1 and more: SciPy's are not sizes of anything
    if error is not None:
        with pytest.raises(type(error), match=r"^`\w+` must "):
            getattr(signal, name)(*arrays, mode)
        return
    assert_same(getattr(signal, name)(*arrays, mode), getattr(scipy.signal, name)(*arrays, mode))


@pytest.mark.parametrize("name", ALONG)
def test_axes_of_nothing_are_not_looked_at(name):
    for in1, in2, axes in ((2.0, 3.0, 0), (2.0, 3.0, []), (np.zeros((0, 2)), np.ones((2, 2)), 5)):
        expected = getattr(scipy.signal, name)(in1, in2, axes=axes)
        assert_same(getattr(signal, name)(in1, in2, axes=axes), np.asarray(expected))


@pytest.mark.parametrize("name", [*NAMES, *ALONG])
def test_no_axes(name):
    assert complex(getattr(signal, name)(2.0, 3j)) == (-6j if name == "correlate" else 6j)


# Errors

X, TAPS = dense((4, 5), "float64", 0), dense((2, 3), "float64", 1)
WRONG = [
    *((name, (X, TAPS[0])) for name in signal.__all__),
    *((name, (X, TAPS, mode)) for name in signal.__all__ for mode in ("some", None, 1)),
    *((name, (X, np.ones((5, 4)), "valid")) for name in signal.__all__),
    *((name, (X, TAPS, "full", method)) for name in NAMES for method in ("fourier", None, 0)),
    *((name, (X[0], TAPS[0])) for name in MATRICES),
    *((name, (X > 0, TAPS > 0)) for name in MATRICES),
    *((name, (X, TAPS, "full", boundary)) for name in MATRICES for boundary in ("reflect", None)),
    *((name, (X, TAPS, "full", "fill", value)) for name in MATRICES for value in ([1, 2], "a")),
    *(
        (name, (X, TAPS, "full", axes))
        for name in ALONG
        for axes in (0, 2, -3, (), (0, 0), 0.0, "0", [0.0])
    ),
]


@pytest.mark.parametrize(("name", "args"), WRONG)
def test_wrong_arguments_raise_what_scipy_raises(name, args):
    error = error_of(getattr(scipy.signal, name), *args)
    assert error is not None
    with pytest.raises(type(error), match=r"^`\w+` must .*; got .*\.$"):
        getattr(signal, name)(*args)


@pytest.mark.parametrize("name", signal.__all__)
@pytest.mark.parametrize("value", ["x", None, [object()]])
def test_what_is_no_array(name, value):
    with pytest.raises(TypeError, match="`in1` must be an array"):
        getattr(signal, name)(value, TAPS)
    with pytest.raises(TypeError, match="`in2` must be an array"):
        getattr(signal, name)(X, value)


@pytest.mark.parametrize("name", MATRICES)
def test_a_fill_that_integers_cannot_hold(name):
    """Of which SciPy warns, and then raises the same."""
    for dtype, value in (("uint8", -1), ("uint8", 300), ("int32", np.nan), ("int32", 2.0**40)):
        ones = np.ones((2, 2), dtype)
        with pytest.raises(ValueError, match=f"`fillvalue` must be a number that {dtype} can hold"):
            getattr(signal, name)(ones, ones, "full", "fill", value)
        assert_same(
            getattr(signal, name)(ones, ones, "full", "fill", 1.5),
            getattr(scipy.signal, name)(ones, ones, "full", "fill", 1),
        )


@pytest.mark.parametrize("name", MATRICES)
def test_a_complex_fill_of_real_matrices(name):
    with pytest.raises(ValueError, match="`fillvalue` must be real"):
        getattr(signal, name)(X, TAPS, "full", "fill", 1j)


# Derivatives

GRADIENTS = [
    ("convolve", X, TAPS, ("same",)),
    ("convolve", TAPS, X, ("full", "fft")),
    ("correlate", X, TAPS, ("valid", "direct")),
    ("correlate", X[0], TAPS[0], ("same",)),
    ("fftconvolve", X, TAPS[:1], ("full", 1)),
    ("oaconvolve", X[:1], dense((4, 2), "float64", 2), ("full", 1)),
    ("fftconvolve", X, dense((4, 3), "float64", 2), ("same", 1)),
    ("convolve2d", X, TAPS, ("full", "symm")),
    ("correlate2d", X, TAPS, ("same", "wrap")),
    ("correlate2d", TAPS, X, ("valid",)),
]


@pytest.mark.parametrize(("name", "in1", "in2", "args"), GRADIENTS)
def test_gradients_are_adjoints(name, in1, in2, args):
    """All are linear in either array."""

    @jax.jit
    def evaluate(in1, in2):
        y, transpose = jax.vjp(lambda a, b: getattr(signal, name)(a, b, *args), in1, in2)
        y_bar = jnp.asarray(dense(y.shape, "float64", 3))
        return y, y_bar, transpose(y_bar)

    y, y_bar, bars = evaluate(in1, in2)
    for a, bar in zip((in1, in2), bars, strict=True):
        assert bar.shape == a.shape
        np.testing.assert_allclose(np.vdot(y, y_bar), np.vdot(a, bar), rtol=1e-11)


def test_the_fill_value_is_differentiable():
    def f(value):
        return signal.convolve2d(X, TAPS, "full", "fill", value).sum()

    check_grads(jax.jit(f), (jnp.asarray(0.3),), order=1, modes=["rev"])


@pytest.mark.parametrize("name", signal.__all__)
def test_jit_and_vmap(name):
    batch = jnp.asarray(dense((3, 4, 5), "float64", 0)), jnp.asarray(dense((3, 2, 3), "float64", 1))
    gradients = jax.grad(lambda a, b: jnp.sin(getattr(signal, name)(a, b)).sum(), (0, 1))
    one = jax.jit(gradients)
    expected = [one(a, b) for a, b in zip(*batch, strict=True)]
    for actual, each in zip(
        jax.jit(jax.vmap(gradients))(*batch), zip(*expected, strict=True), strict=True
    ):
        np.testing.assert_allclose(actual, np.stack(each), atol=1e-12)


def test_the_rules_are_ours():
    for name in signal.__all__:
        program = jax.make_jaxpr(lambda a, b, name=name: getattr(signal, name)(a, b))(X, TAPS)
        assert "custom_vjp" in str(program)
