import os

import jax
import pytest
from hypothesis import settings

from tests.effort import LITTLE_COMPILING, X64

os.environ.setdefault("XLA_FLAGS", LITTLE_COMPILING)

settings.register_profile("strict", deadline=None, derandomize=True, database=None)
settings.load_profile("strict")


@pytest.fixture(autouse=True)
def strict_jax():
    """Nothing broadcasts or promotes unasked. Doctests keep JAX's defaults."""
    with (
        jax.enable_x64(X64),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        yield


@pytest.fixture
def no_nans():
    """An error where a program returns a NaN."""
    with jax.debug_nans(True):
        yield


@pytest.fixture
def elsewhere(monkeypatch):
    """What other platforms than a CPU are given. Compiled programs do not know, so none is kept."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    jax.clear_caches()
    yield
    jax.clear_caches()
