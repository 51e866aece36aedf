"""Time each face of each layer: jconv, jax.lax with autodiff, torch. (12 minutes)

The layers are those of two tables, `layers.csv` and `pools.csv` unless others are given. Answers
are checked first; a program whose answer differs is reported and not timed. The programs of a face
take turns, and with them a plain matrix product, so that a busy machine slows them alike.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments import command_line
from experiments.speed import convolutions, poolings, report, side_by_side, tables
from experiments.speed.bench import Case, Measurement
from jconv.methods import METHODS

_PEERS = ("lax", "torch")
_QUICK = "grouped3x3,wave_k3,volume_time,pool2x2_32"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__file__, __doc__)
    add = parser.add_argument
    add("--layers", type=Path, default=tables.LAYERS, help="a table of convolutions")
    add("--pools", type=Path, default=tables.POOLS, help="a table of poolings")
    add(
        "--drawn",
        type=command_line.from_zero,
        metavar="SEED",
        help="layers of the same kinds, drawn by this seed",
    )
    add("--batch", type=command_line.count, help="examples of every row, not those of the table")
    add("--method", choices=("auto", *METHODS), default="auto", help="of jconv's convolutions")
    add("--check", action="store_true", help="check small layers against float64, not lax")
    return side_by_side.parse(parser, arguments, only=_QUICK)


def _cases(options: argparse.Namespace) -> list[Case]:
    every = [*tables.read_layers(options.layers), *tables.read_pools(options.pools)]
    rows = side_by_side.selected(every, options.only)
    if options.drawn is not None:
        rows = [tables.drawn(row, options.drawn) for row in rows]
    if options.quick:
        rows = [tables.shrunk(row) for row in rows]
    if options.batch:
        rows = [row._replace(batch=options.batch) for row in rows]
    return [case for row in rows for case in _faces(row, options.method)]


def _faces(row: tables.Layer | tables.Pool, method: str) -> list[Case]:
    if isinstance(row, tables.Layer):
        return convolutions.cases(row, method)
    return poolings.cases(row)


def _summaries(measurements: Sequence[Measurement]) -> list[report.Summary]:
    groups = {
        "convolution": [m for m in measurements if m.flops],
        "pooling forward": [m for m in measurements if not m.flops and m.face == "forward"],
        "pooling backward": [m for m in measurements if not m.flops and m.face == "backward"],
    }
    return [
        summary
        for group, members in groups.items()
        for summary in report.summarize(group, members, _PEERS)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, then reports."""
    options = _options(arguments)
    with command_line.refusal():
        cases = _cases(options)
    measurements = side_by_side.run(cases, options, _PEERS, check=options.check)
    side_by_side.conclude("layers", measurements, _summaries(measurements), _PEERS, options)


if __name__ == "__main__":
    main()
