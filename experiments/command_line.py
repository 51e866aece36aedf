"""The command line of a script: what all have in common, so that each says only what is its own."""

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
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


def _bounded(name: str, kind: Callable, holds: Callable[[Any], bool], must: str) -> Callable:
    """The type of an option, which argparse calls by its name where it is no number at all."""

    def read(text: str) -> Any:
        if not holds(number := kind(text)):
            raise argparse.ArgumentTypeError(f"must {must}; got {text}")
        return number

    read.__name__ = name
    return read


count = _bounded("count", int, lambda n: n >= 1, "be at least 1")
from_zero = _bounded("from_zero", int, lambda n: n >= 0, "not be negative")
positive = _bounded("positive", float, lambda n: 0 < n < math.inf, "be positive and finite")
not_negative = _bounded(
    "not_negative", float, lambda n: 0 <= n < math.inf, "be finite and not negative"
)


@contextlib.contextmanager
def refusal() -> Iterator[None]:
    """Ends the script with the reason where what it is asked for is wrong or not there."""
    try:
        yield
    except (OSError, ValueError) as error:
        sys.exit(f"{error}")
