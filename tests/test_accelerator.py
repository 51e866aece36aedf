"""The script for accelerators: its reference is the definition, and it sees what is wrong."""

from functools import partial

import numpy as np
import pytest

import jconv
from experiments import accelerator
from experiments.speed import convolutions, poolings, reference, tables
from tests import definition, definition_pooling


@pytest.fixture(autouse=True)
def strict_jax():
    """Overrides the fixture of that name: experiments run as their users run them."""


LAYERS = [
    tables.Layer("1D", 2, 3, 2, (9,), (4,), (2,), (3,), (1,), 1),
    tables.Layer("2D", 2, 4, 6, (7, 6), (3, 2), (1, 2), (0, 2), (2, 1), 2),
    tables.Layer("3D", 1, 2, 2, (4, 3, 5), (2, 3, 1), (1, 1, 2), (1, 1, 0), (1, 1, 1), 2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_reference_is_the_definition(layer):
    x, kernel, y_bar = convolutions.arrays(layer)
    options = {
        "stride": layer.stride,
        "padding": [(p, p) for p in layer.padding],
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    found = reference.faces(layer, x, kernel, y_bar)
    expected = {
        "forward": definition.conv(x, kernel, **options),
        "input gradient": definition.conv_transpose(y_bar, kernel, size=layer.size, **options),
        "kernel gradient": definition.kernel_gradient(x, y_bar, layer.taps, **options),
    }
    for face, value in expected.items():
        np.testing.assert_allclose(found[face], value, rtol=1e-12, atol=1e-12)


POOLS = [
    tables.Pool("1D", 2, 3, (9,), (4,), (2,), (3,)),
    tables.Pool("2D", 2, 4, (7, 6), (3, 2), (1, 2), (0, 1)),
]
POOLINGS = {
    "max": lambda *args, **options: definition.max_pool(*args, **options)[0],
    "avg": definition.avg_pool,
    "prod": definition_pooling.prod_pool,
    "logsumexp": definition_pooling.logsumexp_pool,
    "cubes": partial(definition_pooling.lp_pool, p=3),
}


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.name)
def test_reference_of_pooling_is_the_definition(pool, kind):
    def loss(x):
        return np.vdot(reference.pooled(pool, kind, x, y_bar)["forward"], y_bar)

    x, y_bar = (a.astype(np.float64) for a in poolings.arrays(pool))
    found = reference.pooled(pool, kind, x, y_bar)
    padding = [(p, p) for p in pool.padding]
    expected = POOLINGS[kind](x, pool.window, stride=pool.stride, padding=padding)
    np.testing.assert_allclose(found["forward"], expected, rtol=1e-12, atol=1e-12)
    step = 1e-6 * np.random.default_rng(1).standard_normal(x.shape)
    slope = (loss(x + step) - loss(x - step)) / 2
    np.testing.assert_allclose(np.vdot(found["backward"], step), slope, rtol=1e-6)


def _run(results, only="wave_k3"):
    accelerator.main(["--quick", "--only", only, "--results", str(results)])


def test_every_method_is_checked(tmp_path, capsys):
    _run(tmp_path)
    text = (tmp_path / "accelerator.txt").read_text()
    for method in ("auto", "direct", "patches", "shifts", "toeplitz", "fourier", "winograd"):
        assert f"  {method}: 3 faces, worst error" in text
    assert text in capsys.readouterr().out


def test_what_a_method_refuses_is_listed_with_the_reason():
    found = list(accelerator.checks(LAYERS[1]))
    assert any("skipped: `method` must serve" in line for line in accelerator.summary(found))


def test_wrong_method_ends_the_script(monkeypatch, tmp_path):
    right = convolutions.jconv_faces

    def scaled(layer, method, precision=None):
        faces = right(layer, method, precision)
        forward = faces["forward"]
        wrong = lambda *arrays: 1.01 * forward(*arrays)  # noqa: E731
        return {**faces, "forward": wrong} if method == "patches" else faces

    monkeypatch.setattr(convolutions, "jconv_faces", scaled)
    with pytest.raises(SystemExit, match="too far from float64: wave_k3 forward by patches"):
        _run(tmp_path)


def test_each_pooling_is_checked(tmp_path):
    _run(tmp_path, only="pool2x2_32")
    text = (tmp_path / "accelerator.txt").read_text()
    for kind in POOLINGS:
        assert f"  {kind}: 6 faces, worst error" in text


def test_wrong_pooling_ends_the_script(monkeypatch, tmp_path):
    """As that of windows that nothing won, which gives no gradient."""
    wrong = lambda x, *args, **options: 1.01 * jconv.max_pool(x, *args, **options)  # noqa: E731
    monkeypatch.setitem(accelerator._POOLINGS, "max", wrong)
    with pytest.raises(SystemExit, match="pool2x2_32 of 9 channels backward by max"):
        _run(tmp_path, only="pool2x2_32")
