"""How many cases are drawn: `TEST_EFFORT=20` draws twenty times as many, and new ones each time."""

import os

from hypothesis import settings

EFFORT = int(os.environ.get("TEST_EFFORT", "1"))


def drawn(examples):
    """Decorates a test of so many drawn cases."""
    return settings(max_examples=examples * EFFORT, derandomize=EFFORT == 1)
