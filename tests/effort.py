"""How the tests run, by the environment.

`TEST_EFFORT=20` draws twenty times as many cases, and new ones each time. `TEST_X64=0` leaves JAX
without float64: what asks for that computes in float32, and is held to the rounding of that.
"""

import os

import jaxlib.version
from hypothesis import settings

# Values are tested of programs that XLA compiles in little time. `XLA_FLAGS= python -m pytest`
# tests what users run. Programs that are looked at are the users', down to their fusions: only
# LLVM, which comes after, keeps to little.
LITTLE_COMPILING = "--xla_backend_optimization_level=0"
AS_USERS_COMPILE = {}
if jaxlib.version.__version_info__ < (0, 11):  # later ones have no other fusions
    LITTLE_COMPILING += " --xla_cpu_use_fusion_emitters=false"
    AS_USERS_COMPILE = {"xla_cpu_use_fusion_emitters": True}

EFFORT = int(os.environ.get("TEST_EFFORT", "1"))
X64 = os.environ.get("TEST_X64", "1") == "1"


def environment(devices):
    """For a process that compiles as this one does, for so many devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags = f"{flags} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags}


def drawn(examples):
    """Decorates a test of so many drawn cases."""
    return settings(max_examples=examples * EFFORT, derandomize=EFFORT == 1)
