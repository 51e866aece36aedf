import jax
import pytest
from hypothesis import settings

settings.register_profile("strict", deadline=None, derandomize=True, database=None)
settings.load_profile("strict")


@pytest.fixture(autouse=True)
def strict_jax():
    """Float64 exists, and nothing broadcasts or promotes unasked. Doctests keep JAX's defaults."""
    with (
        jax.enable_x64(True),
        jax.enable_checks(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        yield
