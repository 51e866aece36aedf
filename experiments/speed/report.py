"""Reports measurements: a table, what they amount to, and a machine-readable file."""

import importlib.metadata
import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.speed import peers
from experiments.speed.bench import Measurement

_LIBRARIES = ("jax", "jaxlib", "numpy", "flax", "torch")
_MEGABYTE = 1 << 20


class Summary(NamedTuple):
    """How many times as long as jconv a peer takes, over so many cases."""

    group: str
    peer: str
    cases: int
    geometric_mean: float
    worst: float
    worst_case: str

    def __str__(self) -> str:
        return (
            f"{self.group}, {self.peer} / jconv: geometric mean {self.geometric_mean:.2f}, "
            f"worst {self.worst:.2f} ({self.worst_case}), of {self.cases}"
        )


def summarize(
    group: str, measurements: Sequence[Measurement], peer_names: Iterable[str]
) -> list[Summary]:
    """One for each peer that took part."""
    summaries = []
    for peer in peer_names:
        found = [(m.ratio(peer), f"{m.name} {m.face}") for m in measurements]
        ratios = [(ratio, case) for ratio, case in found if ratio is not None]
        if ratios:
            mean = statistics.geometric_mean(ratio for ratio, _ in ratios)
            summaries.append(Summary(group, peer, len(ratios), mean, *min(ratios)))
    return summaries


def heading(peer_names: Sequence[str]) -> str:
    """The two lines above a table."""
    top = [
        *("", "", "ms", *[""] * len(peer_names)),
        *("times as long", *[""] * (len(peer_names) - 1)),
        *("of a", "scratch MB", "", "compile s", "", "error", "", "cores"),
    ]
    names = [
        *("layer", "face", "jconv", *peer_names),
        *peer_names,
        *("product", "jconv", "lax", "jconv", "lax", "jconv", "lax", "ns"),
    ]
    return f"{_aligned(top)}\n{_aligned(names)}"


def line(m: Measurement, peer_names: Sequence[str]) -> str:
    """A measurement's line of the table."""
    milliseconds = (m.median(peer) for peer in ("jconv", *peer_names))
    both = ("jconv", "lax")
    return _aligned(
        [
            *(m.name, m.face),
            *(_cell(seconds and 1e3 * seconds, ".2f") for seconds in milliseconds),
            *(_cell(m.ratio(peer), ".2f") for peer in peer_names),
            _cell(m.fraction_of_product(), ".0%"),
            *(_cell(_megabytes(m.scratch_bytes.get(name)), ".1f") for name in both),
            *(_cell(m.compile_seconds.get(name), ".2f") for name in both),
            *(_cell(m.errors.get(name), ".0e") for name in both),
            _cell(m.handover and 1e9 * m.handover, ".0f"),
        ]
    )


def _aligned(cells: Sequence[str]) -> str:
    name, face, *numbers = cells
    return " ".join([f"{name:<18} {face:<15}", *(f"{number:>9}" for number in numbers)]).rstrip()


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _megabytes(count: int | None) -> float | None:
    return None if count is None else count / _MEGABYTE


def beyond_limits(measurements: Iterable[Measurement]) -> list[str]:
    """Which programs of jconv take more scratch or longer to compile than is allowed."""
    lines = []
    for m in measurements:
        case = f"{m.name} {m.face}"
        ours, theirs = (m.scratch_bytes.get(name) for name in ("jconv", "lax"))
        if ours is not None and theirs is not None and ours > 1.5 * theirs + 32 * _MEGABYTE:
            lines.append(f"{case}: more scratch than 1.5 times lax's and 32 MB")
        ours, theirs = (m.compile_seconds.get(name) for name in ("jconv", "lax"))
        if ours is not None and theirs is not None and ours > 2 * theirs + 0.5:
            lines.append(f"{case}: longer to compile than 2 times lax's and 0.5 s")
    return lines


def notes(measurements: Iterable[Measurement]) -> list[str]:
    """Why programs were not timed, each reason once with the first case and how many there are."""
    cases: dict[str, list[str]] = {}
    for m in measurements:
        for program, reason in m.notes.items():
            cases.setdefault(f"{program}: {reason}", []).append(f"{m.name} {m.face}")
    return [f"{reason} ({names[0]}, of {len(names)})" for reason, names in cases.items()]


def whereabouts(measurements: Iterable[Measurement]) -> list[str]:
    """How far apart the cores were: under one last-level cache all along, or not."""
    taken = [1e9 * m.handover for m in measurements if m.handover]
    if not taken:
        return []
    return [
        f"from core to core and back: {statistics.median(taken):.0f} ns "
        f"({min(taken):.0f} to {max(taken):.0f})"
    ]


def failures(measurements: Iterable[Measurement]) -> list[str]:
    """The cases in which jconv itself did not answer, or wrongly."""
    return [f"{m.name} {m.face}" for m in measurements if "jconv" in m.notes]


def save(
    path: Path,
    measurements: Iterable[Measurement],
    summaries: Iterable[Summary],
    options: dict[str, Any],
) -> None:
    """Every time and what it was measured with, as JSON."""
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "processor": _processor(),
        "threads": peers.threads(),
        "versions": {"python": platform.python_version(), **_versions()},
        "options": options,
        "summary": [summary._asdict() for summary in summaries],
        "measurements": [m._asdict() for m in measurements],
    }
    path.write_text(json.dumps(content, indent=1, default=_file_name))


def _file_name(path: Path) -> str:
    """Which table was read; where it lay says nothing to others."""
    return path.name


def _processor() -> str:
    """Its model, where Linux tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _versions() -> dict[str, str]:
    installed = {found.name for found in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in _LIBRARIES if name in installed}
