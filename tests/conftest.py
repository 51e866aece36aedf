import os

import jax
import pytest
from hypothesis import settings

from tests.effort import X64

# Compiling takes most of the time of these tests, and its effort has no say in what they prove.
# `XLA_FLAGS= python -m pytest` compiles as users do.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

settings.register_profile("strict", deadline=None, derandomize=True, database=None)
settings.load_profile("strict")


@pytest.fixture(autouse=True)
def strict_jax():
    """Nothing broadcasts or promotes unasked. Doctests keep JAX's defaults."""
    with (
        jax.enable_x64(X64),
        jax.enable_checks(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        yield


@pytest.fixture
def no_nans():
    """An error where a program returns a NaN."""
    with jax.debug_nans(True):
        yield
