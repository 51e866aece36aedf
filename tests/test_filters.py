"""The filters' taps have the moments of their definitions, and are applied to every channel."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jconv import conv, filters
from tests.cases import dense
from tests.compare import assert_close

# SciPy's names of the same boundaries.
SCIPY_MODES = {
    "reflect": "mirror", "symmetric": "reflect", "edge": "nearest", "wrap": "grid-wrap",
    "constant": "constant",
}  # fmt: skip
EVERY = {
    "identity": lambda: filters.identity(2),
    "box": lambda: filters.box((2, 3)),
    "gaussian": lambda: filters.gaussian((0.7, 1.2)),
    "sobel": lambda: filters.sobel(0),
    "laplace": filters.laplace,
    "laplace_of_gaussian": lambda: filters.laplace_of_gaussian(0.7),
    "channel_mean": lambda: filters.channel_mean(3),
}
each_rank = pytest.mark.parametrize("n", [1, 2, 3, 4])


def moment(taps, *powers):
    """`sum_t prod_i t_i^powers_i taps[t]`, positions from the centre."""
    total = 0.0
    for position in np.ndindex(taps.shape):
        centred = [t - (size - 1) / 2 for t, size in zip(position, taps.shape, strict=True)]
        total += float(taps[position]) * np.prod(np.power(centred, powers))
    return total


def unit(n, **entries):
    """A moment's powers: `entries` are `a0=2` for the square of axis 0."""
    return [entries.get(f"a{axis}", 0) for axis in range(n)]


@each_rank
def test_identity_changes_nothing(n):
    image = dense((2, *(4, 3, 5, 2)[:n], 3), "float64", 0)
    np.testing.assert_array_equal(filters.apply(image, filters.identity(n)), image)
    assert filters.identity(n).shape == (3,) * n


@pytest.mark.parametrize(("taps", "shape"), [(3, (3, 3)), ((4,), (4,)), ((2, 3, 5), (2, 3, 5))])
def test_box_is_the_mean(taps, shape):
    assert_close(filters.box(taps), np.full(shape, 1 / np.prod(shape)), "float64")


def test_too_many_taps_are_refused():
    for f in (filters.box, functools.partial(filters.gaussian, 1)):
        with pytest.raises(ValueError, match=r"`taps` must be \d+ or fewer in all; got 1000000"):
            f(10**6)
    with pytest.raises(ValueError, match="`sigma` must be small enough for"):
        filters.gaussian(1e6)


@pytest.mark.parametrize("taps", [(321,), (17, 19)])
def test_many_taps_keep_to_their_windows(taps):
    image = np.zeros((700,) if len(taps) == 1 else (60, 60))
    image[tuple(n // 2 for n in image.shape)] = np.nan
    spoiled = np.isnan(filters.apply(image[..., None], filters.box(taps)))
    assert spoiled.sum() == np.prod(taps)


@pytest.mark.parametrize("sigma", [(0.75,), (1.0, 2.5), (0.7, 1.0, 1.25)])
def test_gaussian_has_its_moments(sigma):
    taps, n = filters.gaussian(sigma), len(sigma)
    assert taps.shape == tuple(2 * int(4 * s + 0.5) + 1 for s in sigma)
    assert moment(taps, *unit(n)) == pytest.approx(1, abs=1e-14)
    for axis, s in enumerate(sigma):
        assert moment(taps, *unit(n, **{f"a{axis}": 1})) == pytest.approx(0, abs=1e-13)
        assert moment(taps, *unit(n, **{f"a{axis}": 2})) == pytest.approx(s**2, rel=5e-3)


def test_gaussian_is_its_definition():
    taps = filters.gaussian((0.9, 1.7), taps=(4, 5))
    expected = np.empty((4, 5))
    for i, j in np.ndindex(4, 5):
        expected[i, j] = np.exp(-((i - 1.5) ** 2) / (2 * 0.81) - (j - 2) ** 2 / (2 * 2.89))
    assert_close(taps, expected / expected.sum(), "float64")


@pytest.mark.parametrize(
    ("sigma", "taps", "shape"),
    [
        (1, None, (9, 9)),
        (1, 5, (5, 5)),
        (1, (5,), (5,)),
        (1, (3, 5, 7), (3, 5, 7)),
        ((1, 2, 1), 3, (3, 3, 3)),
        (np.array([1.0]), None, (9,)),
        (0.1, None, (1, 1)),
        (1e-320, 3, (3, 3)),
        (0.01, 2, (2, 2)),
        (1e-320, 2, (2, 2)),
    ],
)
def test_gaussian_axes(sigma, taps, shape):
    made = filters.gaussian(sigma, taps)
    assert made.shape == shape
    assert made.sum() == pytest.approx(1)


@pytest.mark.parametrize(("axis", "n"), [(0, 1), (0, 2), (1, 2), (-1, 2), (2, 3), (1, 4)])
def test_sobel_is_the_slope(axis, n):
    """On a ramp of a slope an axis; the difference spans two pixels and each smoothing sums 4."""
    slopes = np.array([3.0, -2.0, 5.0, 7.0])[:n]
    image = np.tensordot(slopes, np.indices((5, 4, 6, 3)[:n]), 1)[..., None]
    expected = slopes[axis] * 2 * 4 ** (n - 1)
    filtered = conv(image, filters.sobel(axis, n)[..., None, None])
    np.testing.assert_allclose(filtered, expected, rtol=1e-12)


def test_laplace_in_two_dimensions():
    np.testing.assert_array_equal(filters.laplace(), [[1, 4, 1], [4, -20, 4], [1, 4, 1]])
    np.testing.assert_array_equal(
        filters.laplace(2, weights="axis"), [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    )


@each_rank
@pytest.mark.parametrize(("weights", "scale"), [("isotropic", 6), ("axis", 1)])
def test_laplace_has_its_moments(n, weights, scale):
    """Second moments 2 an axis; fourth: `sum_i x_i^4 / 12` of the error's symbol, isotropic."""
    taps = filters.laplace(n, weights)
    assert moment(taps, *unit(n)) == 0
    for i in range(n):
        assert moment(taps, *unit(n, **{f"a{i}": 1})) == 0
        assert moment(taps, *unit(n, **{f"a{i}": 2})) == 2 * scale
        assert moment(taps, *unit(n, **{f"a{i}": 4})) == 2 * scale
    for i, j in itertools.combinations(range(n), 2):
        assert moment(taps, *unit(n, **{f"a{i}": 1, f"a{j}": 1})) == 0
        mixed = moment(taps, *unit(n, **{f"a{i}": 2, f"a{j}": 2}))
        assert mixed == (4 if weights == "isotropic" else 0)


def test_isotropic_laplace_treats_directions_alike():
    """A wave's answer depends on its length alone, up to the sixth power of its frequency."""

    def answer(weights, angle):
        t = np.indices((3, 3)) - 1
        phase = 0.2 * (np.cos(angle) * t[0] + np.sin(angle) * t[1])
        return float((np.asarray(filters.laplace(2, weights)) * np.cos(phase)).sum())

    def spread(weights):
        along, across = answer(weights, 0.0), answer(weights, np.pi / 4)
        return abs(along / across - 1)

    assert spread("isotropic") < 1e-5 < 1e-3 < spread("axis")


@pytest.mark.parametrize("sigma", [(0.7,), (1.0, 1.6), (0.8, 0.9, 1.1)])
def test_laplace_of_gaussian_has_its_moments(sigma):
    taps, n = filters.laplace_of_gaussian(sigma), len(sigma)
    assert taps.shape == filters.gaussian(sigma).shape
    assert moment(taps, *unit(n)) == pytest.approx(0, abs=1e-13)
    for axis in range(n):
        assert moment(taps, *unit(n, **{f"a{axis}": 1})) == pytest.approx(0, abs=1e-12)
        assert moment(taps, *unit(n, **{f"a{axis}": 2})) == pytest.approx(2, rel=2e-2)


def test_laplace_of_hardly_any_gaussian():
    np.testing.assert_array_equal(filters.laplace_of_gaussian((1e-82, 1e-200)), [[0.0]])


def test_laplace_of_gaussian_is_its_definition():
    taps = filters.laplace_of_gaussian((1.1, 1.8))
    expected = np.empty(taps.shape)
    for i, j in np.ndindex(taps.shape):
        x, y = i - taps.shape[0] // 2, j - taps.shape[1] // 2
        curved = x**2 / 1.1**4 - 1 / 1.1**2 + y**2 / 1.8**4 - 1 / 1.8**2
        expected[i, j] = curved * np.exp(-(x**2) / (2 * 1.1**2) - y**2 / (2 * 1.8**2))
    np.testing.assert_allclose(taps, expected / (2 * np.pi * 1.1 * 1.8), atol=2e-4)


@pytest.mark.parametrize("mode", SCIPY_MODES)
def test_filters_agree_with_scipy(mode):
    image = dense((11, 13), "float64", 0)
    there = {"mode": SCIPY_MODES[mode]}
    taps = dense((3, 5), "float64", 1)
    expected = {
        "taps": (taps, ndimage.correlate(image, taps, **there)),
        "sobel": (filters.sobel(0), ndimage.sobel(image, 0, **there)),
        "laplace": (filters.laplace(weights="axis"), ndimage.laplace(image, **there)),
        "gaussian": (filters.gaussian(0.9), ndimage.gaussian_filter(image, 0.9, **there)),
    }
    for name, (filter_taps, filtered) in expected.items():
        actual = filters.apply(image[..., None], filter_taps, mode=mode)[..., 0]
        np.testing.assert_allclose(actual, filtered, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_apply_filters_each_channel_alone_and_keeps_the_rest(dtype):
    image = dense((2, 3, 4, 5, 3), dtype, 0)
    taps = dense((2, 3), "float64", 1)
    filtered = filters.apply(image, taps, mode="wrap")
    assert (filtered.shape, filtered.dtype) == (image.shape, image.dtype)
    for index in np.ndindex(2, 3):
        for channel in range(3):
            one = np.asarray(image[*index, ..., channel], "float64")
            # An even count of taps reaches one further to the high end.
            expected = ndimage.correlate(one, taps, mode="grid-wrap", origin=(-1, 0))
            assert_close(filtered[*index, ..., channel], expected, dtype, 6)


def test_integers_become_floats():
    image = np.arange(12, dtype="uint8").reshape(3, 4, 1)
    filtered = filters.apply(image, filters.box(3), mode="edge")
    assert filtered.dtype == jnp.float64
    assert filtered[1, 1, 0] == pytest.approx(5)


def test_apply_is_differentiable_in_both():
    image, taps = dense((4, 5, 2), "float64", 0), dense((3, 3), "float64", 1)
    y_bar = dense((4, 5, 2), "float64", 2)
    y, transpose = jax.vjp(filters.apply, image, taps)
    image_bar, taps_bar = transpose(jnp.asarray(y_bar))
    product = float((np.asarray(y) * y_bar).sum())
    assert (image * image_bar).sum() == pytest.approx(product)
    assert (taps * taps_bar).sum() == pytest.approx(product)


def test_channel_mean_makes_grey():
    image = dense((2, 4, 5, 3), "float64", 0)
    grey = conv(image, filters.channel_mean(3))
    assert_close(grey, image.mean(-1, keepdims=True), "float64", 3)
    assert filters.channel_mean(4, 3).shape == (1, 1, 1, 4, 1)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("wide", [True, False])
def test_taps_are_of_the_default_float_also_within_jit(name, wide):
    with jax.enable_x64(wide):
        made = EVERY[name]()
        assert made.dtype == ("float64" if wide else "float32")
        np.testing.assert_array_equal(jax.jit(EVERY[name])(), made)


def test_a_traced_sigma_is_refused():
    with pytest.raises(TypeError, match="`sigma` must be a number, or one per spatial axis"):
        jax.jit(functools.partial(filters.gaussian, taps=3))(1.0)
