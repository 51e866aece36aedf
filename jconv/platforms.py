"""One computation, which a CPU does in one way and other platforms in another."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import Array, lax


@partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def per_platform(cpu: Callable, others: Callable, static: Any, *arrays: Array) -> Any:
    """`cpu(static, *arrays)` or `others(static, *arrays)`, as one program when called eagerly."""
    return lax.platform_dependent(
        *arrays, cpu=partial(cpu, static), default=partial(others, static)
    )
