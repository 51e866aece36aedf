"""Check every method and face against float64 and time them beside jax.lax, here. (12 minutes)

Made for a GPU or a TPU, and runs on a CPU too. First each method computes each face of small layers
of every kind in `layers.csv`, and is set against float64 NumPy; then the layers are timed in full
size by `"auto"` and by `jax.lax` with autodiff. What was skipped is listed with the reason.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from experiments import command_line
from experiments.speed import bench, convolutions, reference, report, side_by_side, tables
from jconv.methods import METHODS

_PEERS = ("lax",)
_QUICK = "grouped3x3,wave_k3"
_TOLERANCE = 1e-4  # of the largest entry, with products in full float32


class Check(NamedTuple):
    """How far one face by one method is from float64, or why it was not computed."""

    layer: str
    face: str
    method: str
    error: float | None
    skipped: str | None

    @property
    def is_wrong(self) -> bool:
        return self.error is not None and not self.error <= _TOLERANCE

    def __str__(self) -> str:
        return f"{self.layer} {self.face} by {self.method}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__file__, __doc__)
    add = parser.add_argument
    add("--layers", type=Path, default=tables.LAYERS, help="a table of convolutions")
    return side_by_side.parse(parser, arguments, only=_QUICK)


def checks(layer: tables.Layer) -> Iterator[Check]:
    """Each method on each face of a small layer of the same kind."""
    small = tables.shrunk(layer)
    arrays = convolutions.arrays(small)
    exact = reference.faces(small, *arrays)
    for method in ("auto", *METHODS):
        for face, function in convolutions.jconv_faces(small, method, "highest").items():
            yield _check(layer.name, face, method, function, arrays, exact[face])


def _check(layer, face, method, function, arrays, exact) -> Check:
    try:
        answer = np.asarray(jax.jit(function)(*arrays))
    except ValueError as refusal:
        if not str(refusal).startswith("`method` must serve"):
            raise
        return Check(layer, face, method, None, str(refusal))
    error = np.abs(answer - exact).max() / np.abs(exact).max()
    return Check(layer, face, method, float(error), None)


def _case(case: bench.Case) -> bench.Case:
    return case._replace(programs={name: case.programs[name] for name in ("jconv", *_PEERS)})


def summary(found: Sequence[Check]) -> list[str]:
    """A line for each method, then what is wrong, then what was skipped."""
    lines = [f"on {jax.devices()[0].device_kind}, against float64 NumPy:"]
    for method in ("auto", *METHODS):
        done = [check for check in found if check.method == method and check.error is not None]
        worst = max(done, key=lambda check: check.error or 0, default=None)
        detail = f", worst error {worst.error:.1e} ({worst.layer} {worst.face})" if worst else ""
        lines.append(f"  {method}: {len(done)} faces{detail}")
    lines += [f"  WRONG: {check}, error {check.error:.1e}" for check in found if check.is_wrong]
    skipped = {check.skipped: f"{check}" for check in reversed(found) if check.skipped}
    counts = Counter(check.skipped for check in found)
    lines += [f"  skipped: {why} ({case}, of {counts[why]})" for why, case in skipped.items()]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks, measures, then reports."""
    options = _options(arguments)
    with command_line.refusal():
        rows = side_by_side.selected(tables.read_layers(options.layers), options.only)
    found = [check for row in tqdm(rows, unit="layer") for check in checks(row)]
    text = summary(found)
    print(*text, sep="\n")
    (options.results / "accelerator.txt").write_text("\n".join([*text, ""]))
    timed = [tables.shrunk(row) for row in rows] if options.quick else rows
    cases = [_case(case) for row in timed for case in convolutions.cases(row, "auto")]
    measurements = side_by_side.run(cases, options, _PEERS)
    summaries = report.summarize("convolution", measurements, _PEERS)
    side_by_side.conclude("accelerator", measurements, summaries, _PEERS, options)
    if wrong := [str(check) for check in found if check.is_wrong]:
        sys.exit(f"too far from float64: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
