"""The command line of a script: what all have in common, so that each says only what is its own."""

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written, and the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default is None or action.default is False
        return action.help if has_none else super()._get_help_string(action)


def parser(file: str, docstring: str | None) -> argparse.ArgumentParser:
    """For the options of the script in this file."""
    name = f"python -m experiments.{Path(file).stem}"
    return argparse.ArgumentParser(name, description=docstring, formatter_class=_Help)


def parse(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    *,
    results: Path | None = RESULTS,
    **quick: Any,
) -> argparse.Namespace:
    """Reads them, and those that all scripts have; `quick` is what `--quick` makes of defaults.

    `results` is where the script's files go by default, a folder that is there afterwards; None is
    for a script that leaves none.
    """
    parser.add_argument("--quick", action="store_true", help="small and few, in seconds")
    if results:
        where = "where its files go, those of a quick run to results/quick"
        parser.add_argument("--results", type=Path, default=results, help=where)
        quick["results"] = RESULTS / "quick"
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**quick)
    options = parser.parse_args(arguments)
    if results:
        with refusal():
            options.results.mkdir(parents=True, exist_ok=True)
    return options


def count(text: str) -> int:
    """The type of an option that is at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {text}")
    return number


def from_zero(text: str) -> int:
    """The type of an option that is at least 0."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"must not be negative; got {text}")
    return number


def positive(text: str) -> float:
    """The type of an option that is more than 0."""
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be positive and finite; got {text}")
    return number


def not_negative(text: str) -> float:
    """The type of an option that may be 0 or more than that."""
    if not 0 <= (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be finite and not negative; got {text}")
    return number


@contextlib.contextmanager
def refusal() -> Iterator[None]:
    """Ends the script with the reason where what it is asked for is wrong or not there."""
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(f"{error}")
