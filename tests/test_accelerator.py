"""The script for accelerators: its reference is the definition, and it sees what is wrong."""

import numpy as np
import pytest

from experiments import accelerator
from experiments.speed import convolutions, reference, tables
from tests import definition


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


def _run(results):
    accelerator.main(["--quick", "--only", "wave_k3", "--results", str(results)])


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
