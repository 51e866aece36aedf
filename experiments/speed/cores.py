"""How far apart the cores of two threads are: under one last-level cache, or under two.

Threads that hand data to each other take up to 2.5 times as long under two, and a hypervisor moves
a machine's cores as it likes. So a measurement says where they were.
"""

import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROUNDS = 5_000
_PATIENCE = 10**8  # looks at the byte, a few seconds of them, until the other side is given up


def handover() -> float | None:
    """Median seconds in which a byte goes from one core to another and back.

    None where there are no two cores, or no way to choose them.
    """
    if not hasattr(os, "sched_setaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "byte"
        file.write_bytes(b"\0")
        echo = [sys.executable, "-m", __spec__.name, str(file), str(cores[1])]
        with subprocess.Popen(echo):
            os.sched_setaffinity(0, cores[:1])
            try:
                return _asked(_shared(file))
            finally:
                os.sched_setaffinity(0, cores)


def _asked(byte: mmap.mmap) -> float | None:
    """Writes odd numbers, and waits for the even ones behind them."""
    taken = []
    for number in _odd_numbers():
        start = time.perf_counter()
        byte[0] = number
        if not _comes(byte, number + 1):
            return None
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _answer(byte: mmap.mmap) -> None:
    """The other side of `_asked`."""
    for number in _odd_numbers():
        if not _comes(byte, number):
            return
        byte[0] = number + 1


def _odd_numbers() -> list[int]:
    """Of a byte, one for each round; none twice in a row."""
    return [1 + 2 * (n % 100) for n in range(_ROUNDS)]


def _comes(byte: mmap.mmap, number: int) -> bool:
    left = _PATIENCE
    while left and byte[0] != number:
        left -= 1
    return left > 0


def _shared(file: Path) -> mmap.mmap:
    with file.open("r+b") as opened:
        return mmap.mmap(opened.fileno(), 1)


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[2])})
    _answer(_shared(Path(sys.argv[1])))
