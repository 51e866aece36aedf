"""On eight devices every public function does what it does on one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import jconv
from tests.effort import environment
from tests.public import PUBLIC

ROOT = Path(__file__).parents[1]
GROUPS = {
    "in_jit": len(PUBLIC) + 1,
    "in_explicit_mode": len(PUBLIC) + 2,
    "in_shard_map": 2 * len(PUBLIC),
    "in_small_blocks": 52,
    "in_shards": 25,
}


@pytest.mark.parametrize("group", GROUPS)
def test_on_eight_devices(group):
    """The checks of `tests.devices`, each a line of what went wrong."""
    command = [sys.executable, "-W", "error", "-m", "tests.devices", group]
    run = subprocess.run(command, cwd=ROOT, env=environment(8), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = dict(map(json.loads, run.stdout.splitlines()))
    assert not {name: wrong for name, wrong in found.items() if wrong}
    assert len(found) == GROUPS[group]


def test_every_public_function_is_among_them():
    covered = {public.name.partition(",")[0] for public in PUBLIC}
    assert set(jconv.__all__) - {"plan"} <= covered
