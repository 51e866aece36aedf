"""How the tests run, by the environment.

`TEST_EFFORT=20` draws twenty times as many cases, and new ones each time. `TEST_X64=0` leaves JAX
without float64: what asks for that computes in float32, and is held to the rounding of that.
"""

import os

from hypothesis import settings

EFFORT = int(os.environ.get("TEST_EFFORT", "1"))
X64 = os.environ.get("TEST_X64", "1") == "1"


def drawn(examples):
    """Decorates a test of so many drawn cases."""
    return settings(max_examples=examples * EFFORT, derandomize=EFFORT == 1)
