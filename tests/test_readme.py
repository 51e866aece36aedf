"""README keeps its word. Its examples run as doctests; here are its commands and its names."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.modules import MODULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NAMES = sorted(set(re.findall(r"`jconv\.([\w.]+)`", README)))
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -e '.[{}]' && .venv/bin/python -m {}"


def test_two_commands_do_all_set_up():
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert commands == [
        SET_UP.format("experiments", "experiments.train"),
        SET_UP.format("test", "pytest"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_name_in_readme_exists(name):
    *module, function = name.split(".")
    assert callable(getattr(import_module(".".join(["jconv", *module])), function))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_public_name_is_in_readme(module):
    public = {f"{module.__name__}.{name}" for name in module.__all__}
    assert public <= {f"jconv.{name}" for name in NAMES}


def test_library_needs_jax_and_numpy_alone():
    """The extras may be missing: an import of any of them would fail."""
    absent = ["beartype", "chex", "equinox", "flax", "haiku", "jaxtyping", "matplotlib", "optax",
              "scipy.signal", "sklearn"]  # fmt: skip
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in absent)
    modules = ", ".join(module.__name__ for module in MODULES)
    command = f"import sys; {blocked}; import {modules}"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True)
