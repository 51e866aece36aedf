"""Work in blocks gives what work at once gives, wherever the cuts fall."""

import functools

import jax
import numpy as np
import pytest

from jconv import blocks, faces
from jconv.geometry import Spec, Window
from jconv.methods import correlations, lanes, mixed, patches, winograd
from jconv.planner import choose
from jconv.problem import FACES, Problem
from tests.compare import assert_close

CASES = {
    "rows": (1, (13, 6), (3, 2), 3, 4, {}),
    "images": (6, (5, 4), (3, 2), 3, 4, {}),
    "images that do not divide": (7, (5, 4), (2, 2), 2, 3, {}),
    "strided rows": (2, (17, 6), (3, 2), 3, 4, {"stride": 2}),
    "tiles": (4, (9, 7), (3, 3), 2, 3, {}),
    "large tiles": (4, (9, 7), (5, 4), 2, 3, {}),
    "one axis": (3, (40,), (3,), 2, 3, {}),
    "pieces": (4, (33, 18), (3, 3), 32, 3, {}),
    "pieces of an axis": (2, (500,), (3,), 32, 5, {}),
    "dilated tiles": (4, (9, 7), (3, 4), 2, 3, {"dilation": 2}),
    "dilated pieces": (4, (33, 34), (3, 3), 32, 3, {"dilation": 2}),
    "dilated pieces of an axis": (2, (500,), (3,), 32, 5, {"dilation": 3}),
    "volume": (2, (9, 6, 5), (3, 3, 2), 9, 4, {}),
    "filled rows": (2, (5, 4, 9), (3, 2, 2), 2, 3, {}),
    "planes": (2, (9, 6, 5), (3, 1, 2), 2, 3, {"stride": 2}),
}
BUDGETS = (1, 1000, 3000, 10**7)


def _operands(case):
    n, size, taps, inputs, outputs, options = CASES[case]
    axes = zip(size, taps, strict=True)
    spec = Spec(tuple(Window(s, t, low=1, high=2, **options) for s, t in axes))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, *size, inputs))
    kernel = rng.normal(size=(*taps, inputs, outputs))
    y = rng.normal(size=(n, *spec.out, outputs))
    return spec, dict(zip(FACES, ((x, kernel), (y, kernel), (x, y)), strict=True))


def _evaluate(spec, method, operands):
    @jax.jit
    def every(operands):
        return {face: faces.evaluate(face, spec, method, *ab) for face, ab in operands.items()}

    return every(operands)


@functools.cache
def _expected(case):
    """At once, which knows no budget."""
    return jax.tree.map(np.asarray, _evaluate(_operands(case)[0], "direct", _operands(case)[1]))


@pytest.fixture(params=BUDGETS)
def small_blocks(request, monkeypatch):
    """Budgets that cut these sizes, and sums of products however few.

    Compiled programs know no budget, so none is kept.
    """
    monkeypatch.setattr(blocks, "BLOCK_BYTES", request.param)
    monkeypatch.setattr(winograd, "BUDGET", request.param)
    monkeypatch.setattr(mixed, "BUDGET", request.param)
    monkeypatch.setattr(lanes, "BUDGET", request.param)
    monkeypatch.setattr(faces, "BATCH_BYTES", request.param)
    monkeypatch.setattr(patches, "SUMMED", 0)
    monkeypatch.setattr(patches, "LONG", 1)
    jax.clear_caches()
    yield
    jax.clear_caches()


def _served(method, case):
    size, taps, options = CASES[case][1], CASES[case][2], CASES[case][5]
    unit = "stride" not in options
    return {
        "patches": case != "volume",
        "kn2row": unit and case != "volume",
        "mixed": unit,
        "winograd": unit and set(taps) <= {3, 4, 5} and len(size) <= 2,
    }[method]


@pytest.mark.parametrize(
    ("method", "case"),
    [(m, c) for m in ("patches", "kn2row", "mixed", "winograd") for c in CASES if _served(m, c)],
)
def test_blocks_change_nothing(small_blocks, method, case):
    spec, operands = _operands(case)
    actual = _evaluate(spec, method, operands)
    for face, (a, _) in operands.items():
        assert_close(actual[face], _expected(case)[face], "float64", terms=a.size)


@pytest.mark.parametrize(("size", "stride"), [((6, 99), 1), ((4, 3, 47), 2)], ids=str)
def test_products_of_rows_change_nothing(small_blocks, monkeypatch, size, stride):
    monkeypatch.setattr(patches, "SUMMED", 2**30)
    monkeypatch.setattr(patches, "LEAST", 0)
    spec = Spec(tuple(Window(s, 3, stride=stride, low=1, high=2) for s in size))
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, *size, 2)), rng.normal(size=(2, *spec.out, 24))
    expected = faces.evaluate("kernel_adjoint", spec, "direct", x, y)
    actual = faces.evaluate("kernel_adjoint", spec, "patches", x, y)
    assert_close(actual, expected, "float64", terms=x.size)


@pytest.mark.parametrize("groups", [20, 10, 2])
def test_batches_change_nothing(small_blocks, groups):
    """All ways of groups that take a large batch a few examples at a time."""
    spec = Spec((Window(6, 5, low=1, high=1), Window(5, 5, low=2)), groups)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 6, 5, 20))
    kernel = rng.normal(size=(*spec.taps, 20 // groups, 20))
    y = rng.normal(size=(6, *spec.out, 20))
    for face, (a, b) in zip(FACES, ((x, kernel), (y, kernel), (x, y)), strict=True):
        problem = Problem(face, spec, 6, 20, 20, x.dtype)
        assert choose(problem, "cpu").method in {"lanes", "patches", *faces.COPYING}
        expected = faces.evaluate(face, spec, "direct", a, b)
        actual = faces.evaluate(face, spec, "auto", a, b)
        assert_close(actual, np.asarray(expected), "float64", terms=a.size)


@pytest.mark.parametrize(
    ("size", "taps", "window"),
    [
        ((23, 6), (3, 3), {"low": 1, "high": 1}),  # read in place
        ((23, 6), (3, 3), {"low": -1, "high": 2, "stride": 2}),
        ((17, 14), (4, 7), {"low": 2, "high": 1, "dilation": 2}),
        ((9, 5, 6), (3, 2, 3), {"low": 1, "high": -1}),
        ((40,), (4,), {"low": 3, "stride": 3}),
        ((19,), (3,), {"low": 2, "high": 1, "input_dilation": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [1, 2])
def test_correlations_of_rows_change_nothing(small_blocks, monkeypatch, size, taps, window, width):
    monkeypatch.setattr(correlations, "UNCUT", 0)
    axes = zip(size, taps, strict=True)
    spec = Spec(tuple(Window(s, t, **window) for s, t in axes), 16)
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, *size, 16 * width))
    y = rng.normal(size=(2, *spec.out, 16))
    expected = faces.evaluate("kernel_adjoint", spec, "direct", x, y)
    actual = faces.evaluate("kernel_adjoint", spec, "lanes", x, y)
    assert_close(actual, expected, "float64", terms=x.size)


@pytest.mark.parametrize("width", [1, 2])
def test_blocks_of_channels_change_nothing(monkeypatch, width):
    """Depthwise layers, and groups of two, of more channels than the first cache holds."""
    monkeypatch.setattr(lanes, "CACHED", 1000)
    spec = Spec((Window(6, 5, low=2, high=1), Window(7, 6 // width, low=1)), 24)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 6, 7, 24 * width))
    kernel = rng.normal(size=(*spec.taps, width, 24 * width))
    y = rng.normal(size=(2, *spec.out, 24 * width))
    for face, a in (("forward", x), ("input_adjoint", y)):
        expected = faces.evaluate(face, spec, "direct", a, kernel)
        actual = faces.evaluate(face, spec, "lanes", a, kernel)
        assert_close(actual, np.asarray(expected), "float64", terms=a.size)


@pytest.mark.parametrize(
    ("method", "face", "window"),
    [
        ("by_phase", "input_adjoint", {"taps": 4, "low": 1, "high": 2, "stride": 3}),
        *(("phases", face, {"taps": 2, "low": 1, "high": 2, "stride": 4}) for face in FACES),
        *(
            ("turned", face, {"taps": 4, "low": -1, "high": 2, "dilation": 2})
            for face in ("forward", "kernel_adjoint")
        ),
    ],
)
def test_detours_change_nothing(method, face, window):
    spec = Spec((Window(11, **window), Window(9, 3, low=-1, stride=window.get("stride", 1))))
    rng = np.random.default_rng(2)
    x, kernel = rng.normal(size=(2, 11, 9, 4)), rng.normal(size=(*spec.taps, 4, 5))
    y = rng.normal(size=(2, *spec.out, 5))
    a, b = dict(zip(FACES, ((x, kernel), (y, kernel), (x, y)), strict=True))[face]
    expected = faces.evaluate(face, spec, "direct", a, b)
    actual = faces.evaluate(face, spec, method, a, b)
    assert_close(actual, np.asarray(expected), "float64", terms=a.size)


@pytest.mark.parametrize("budget", [1, 2000, 10**9])
@pytest.mark.parametrize(
    "first",
    [
        Window(23, 3, low=1, high=1),
        Window(29, 4, low=-1, high=2, dilation=2),
        Window(31, 7, stride=2, low=3, high=3),
        Window(30, 5, stride=2, low=6, high=5),
        Window(30, 1, stride=3, low=-4, high=-2),
    ],
    ids=str,
)
def test_bands_change_nothing(monkeypatch, budget, first):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", budget)
    spec = Spec((first, Window(7, 2, low=1, stride=first.stride)), 2)
    rng = np.random.default_rng(5)
    y, kernel = rng.normal(size=(2, *spec.out, 4)), rng.normal(size=(*spec.taps, 2, 4))
    expected = faces.evaluate("input_adjoint", spec, "direct", y, kernel)
    jax.clear_caches()  # compiled programs know no budget
    actual = faces.evaluate("input_adjoint", spec, "bands", y, kernel)
    assert_close(actual, np.asarray(expected), "float64", terms=y.size)


@pytest.mark.parametrize("budget", [1, 100, 10**9])
@pytest.mark.parametrize(("n", "rows"), [(1, 1), (6, 5), (7, 3), (1, 40)])
def test_blocks_cover_all_rows(n, rows, budget):
    cut = blocks.split(n, rows, 10, budget)
    assert n % cut.images == 0
    assert rows <= cut.padded_rows < rows + cut.rows
    assert cut.steps == (n // cut.images) * cut.row_blocks
    assert 1 in (cut.images, cut.row_blocks)
