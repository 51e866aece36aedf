"""Times functions side by side, so that a busy machine slows them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

_SPIN = 0.01  # seconds that idle threads of OpenMP wait for work and take a core

Functions = Mapping[str, Callable[[], Any]]


def alternate(functions: Functions, rounds: int) -> dict[str, float]:
    """Median seconds of each.

    >>> sorted(alternate({"sum": lambda: sum(range(9)), "max": lambda: max(range(9))}, rounds=3))
    ['max', 'sum']
    """
    taken = samples(functions, rounds)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def samples(functions: Functions, rounds: int, budget: float = math.inf) -> dict[str, list[float]]:
    """Seconds of each: called in turn (A B A B ...), `rounds` times, the first time to compile.

    A function has no more turns once so many at its best would exceed `budget`.
    """
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            if len(taken[name]) * min(taken[name], default=0) <= budget:
                taken[name].append(_turn(function))
    return taken


def _turn(function: Callable[[], Any]) -> float:
    """Seconds of a call, after others for as long as the threads of another library may spin."""
    begin = time.perf_counter()
    while True:
        start = time.perf_counter()
        jax.block_until_ready(function())
        if start - begin >= _SPIN:
            return time.perf_counter() - start
