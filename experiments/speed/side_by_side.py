"""What the scripts that compare libraries share: options, the run, and what is left of it."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import jax
from tqdm import tqdm

from experiments import command_line
from experiments.speed import bench, charts, report
from experiments.speed.bench import Case, Measurement

_TOLERANCE = 1e-4
_ACCELERATOR_TOLERANCE = 1e-2  # they multiply float32 with fewer bits


class Named(Protocol):
    """What `--only` can select."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, **quick: Any
) -> argparse.Namespace:
    """`command_line.parse` with the options that all of them share."""
    add = parser.add_argument
    add_only(parser)
    add("--rounds", type=command_line.count, default=15, help="how often each program is timed")
    add(
        "--budget",
        type=command_line.positive,
        default=3,
        help="seconds, after which a program has no more rounds",
    )
    return command_line.parse(parser, arguments, rounds=2, **quick)


def add_only(parser: argparse.ArgumentParser) -> None:
    """The option whose value `selected` takes."""
    parser.add_argument("--only", metavar="NAME[,NAME]", help="these rows instead of all")


def selected(rows: Sequence[Row], only: str | None) -> list[Row]:
    """The rows that `--only` names, or all; `ValueError` where there is none of a name."""
    if only is None:
        return list(rows)
    names, known = only.split(","), [row.name for row in rows]
    if unknown := set(names) - set(known):
        raise ValueError(f"`only` must name any of {', '.join(known)}; got {', '.join(unknown)}.")
    return [row for row in rows if row.name in names]


def run(
    cases: Sequence[Case], options: argparse.Namespace, peers: Sequence[str], *, check: bool = False
) -> list[Measurement]:
    """Measures the cases, and prints a line of the table after each."""
    plan = bench.Plan(options.rounds, options.budget, _tolerance(), check)
    measurements = []
    print(report.heading(peers))
    with tqdm(cases, unit="case") as progress:
        for case in progress:
            progress.set_postfix_str(f"{case.name} {case.face}")
            measurements.append(bench.measure(case, plan))
            tqdm.write(report.line(measurements[-1], peers))
    return measurements


def _tolerance() -> float:
    return _TOLERANCE if jax.default_backend() == "cpu" else _ACCELERATOR_TOLERANCE


def conclude(
    script: str,
    measurements: Sequence[Measurement],
    summaries: Sequence[report.Summary],
    peers: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """Prints what the measurements amount to, and leaves them as a file and as a figure.

    Exits with a reason if an answer of jconv is wrong or missing.
    """
    print("", *summaries, *report.whereabouts(measurements), *report.notes(measurements), sep="\n")
    beyond = report.beyond_limits(measurements)
    print("beyond the limits of scratch and compile time:", *(beyond or ["none"]), sep="\n  ")
    path = options.results / f"{script}.json"
    report.save(path, measurements, summaries, vars(options))
    charts.ratios(measurements, peers).savefig(path.with_suffix(".png"), dpi=150)
    print(f"Every time is in {path}, the figure beside it.")
    if wrong := report.failures(measurements):
        sys.exit(f"jconv did not answer rightly in: {', '.join(wrong)}")
