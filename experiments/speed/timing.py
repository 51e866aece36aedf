"""Times functions side by side, so that a busy machine slows them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

# Seconds of calls before one is timed. Idle threads of OpenMP wait for work for 10 ms of a core of
# their own, 40 where they share it, and after a pause as long goes by until those of XLA have found
# both cores: until then calls took up to three times as long.
_WARM = 0.06
# Calls that an accelerator is handed in a row, since a single one is over before the next is sent.
_QUEUE = 20

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
    """Seconds of a call, after others that warm up."""
    in_a_row = 1 if jax.default_backend() == "cpu" else _QUEUE
    begin = time.perf_counter()
    while True:
        start = time.perf_counter()
        jax.block_until_ready([function() for _ in range(in_a_row)])
        if start - begin >= _WARM:
            return (time.perf_counter() - start) / in_a_row
