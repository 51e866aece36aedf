"""Training in two processes is training in one: the same losses, and each other's checkpoints."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import train
from experiments.learning import devices
from tests.effort import environment

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def strict_jax():
    """Overrides the fixture of that name: experiments run as their users run them."""


def options(results):
    return ["--quick", "--rounds", "1", "--save-every", "30", "--results", str(results)]


def history(results):
    return json.loads((results / "train.json").read_text())["history"]


def run_in_two(results, *more):
    """Two processes of two devices each."""
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        _, port = unused.getsockname()
    command = [
        sys.executable, "-m", "experiments.train", *options(results), *more,
        "--coordinator", f"localhost:{port}", "--processes", "2", "--process",
    ]  # fmt: skip
    running = [
        subprocess.Popen(
            [*command, str(process)], cwd=ROOT, env=environment(2), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for process in range(2)
    ]  # fmt: skip
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output


def assert_alike(found, expected, exact=None):
    """To rounding; where only the first few losses are, beyond to two images of a batch of 64."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=0.04 if exact else 1e-5)
    np.testing.assert_allclose(found["loss"][:exact], expected["loss"][:exact], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    results = tmp_path_factory.mktemp("alone")
    train.main(options(results))
    return results


def test_images_in_two_processes(alone, tmp_path):
    run_in_two(tmp_path)
    # A quarter of a batch may be convolved by another method.
    assert_alike(history(tmp_path), history(alone), exact=4)


def test_rows_on_four_devices_from_where_one_stopped(alone, tmp_path):
    """A checkpoint of one device, restored on four, which cut the images too.

    In one process: on two busy cores the collectives of two may wait for each other without end.
    """
    shutil.copytree(alone / "checkpoints", tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "checkpoints" / "44")
    command = [sys.executable, "-m", "experiments.train", *options(tmp_path)]
    more = ["--mesh", "batch=2,rows=2", "--resume"]
    subprocess.run([*command, *more], cwd=ROOT, env=environment(4), check=True, timeout=300)
    assert_alike(history(tmp_path), history(alone))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("batch", "`mesh` must be like batch=2,rows=2; got 'batch'"),
        ("batch=0", "`mesh` must be like batch=2,rows=2; got 'batch=0'"),
        ("columns=2", "`mesh` must be like batch=2,rows=2; got 'columns=2'"),
        ("batch=1000", "`mesh` must take the .* devices; got 1000"),
    ],
)
def test_mesh_that_cannot_be(wanted, message):
    with pytest.raises(ValueError, match=message):
        devices.make_mesh(wanted)
