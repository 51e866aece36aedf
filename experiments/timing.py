"""Times functions side by side, so that a busy machine slows them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def alternate(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each: called once to compile, then in turn (A B A B ...), `rounds` times.

    >>> sorted(alternate({"sum": lambda: sum(range(9)), "max": lambda: max(range(9))}, rounds=3))
    ['max', 'sum']
    """
    for function in functions.values():
        jax.block_until_ready(function())
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
