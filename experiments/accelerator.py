"""Check convolution and pooling against float64 on the device that JAX has here. (4 minutes)

Made for a GPU or a TPU, and runs on a CPU too. Each method computes each face of small layers of
every kind in `layers.csv`, each pooling its values and gradient of those in `pools.csv`, and both
are set against float64 NumPy. What was skipped is listed with the reason.
`experiments.compare_layers` and `experiments.compare_steps` take times, there as here.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

import jconv
from experiments import command_line
from experiments.speed import convolutions, poolings, reference, side_by_side, tables
from jconv.methods import METHODS

_QUICK = "grouped3x3,wave_k3,pool2x2_32"
_TOLERANCE = 1e-4  # of the largest entry, with products in full float32
# A loop over few channels is made another way than one over many.
_CHANNELS = 3, 9, 64
_POOLINGS = {
    "max": jconv.max_pool,
    "avg": jconv.avg_pool,
    "prod": jconv.prod_pool,
    "logsumexp": jconv.logsumexp_pool,
    "cubes": partial(jconv.lp_pool, p=3),
}


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
    table = "a table of convolutions"
    parser.add_argument("--layers", type=Path, default=tables.LAYERS, help=table)
    parser.add_argument("--pools", type=Path, default=tables.POOLS, help="a table of poolings")
    side_by_side.add_only(parser)
    return command_line.parse(parser, arguments, only=_QUICK)


def checks(row: tables.Layer | tables.Pool) -> Iterator[Check]:
    """Of a small layer of the same kind: each method on each face, or each pooling."""
    if isinstance(row, tables.Layer):
        yield from _convolutions(tables.shrunk(row))
    else:
        yield from _poolings(tables.shrunk(row))


def _convolutions(small: tables.Layer) -> Iterator[Check]:
    arrays = convolutions.arrays(small)
    exact = reference.faces(small, *arrays)
    for method in ("auto", *METHODS):
        for face, function in convolutions.jconv_faces(small, method, "highest").items():
            yield _check(small.name, face, method, function, arrays, exact[face])


def _poolings(small: tables.Pool) -> Iterator[Check]:
    for channels in _CHANNELS:
        pool = small._replace(channels=channels)
        arrays, name = poolings.arrays(pool), f"{pool.name} of {channels} channels"
        for kind, function in _POOLINGS.items():
            exact = reference.pooled(pool, kind, *arrays)
            for face, program in poolings.faces(pool, function).items():
                yield _check(name, face, kind, program, arrays, exact[face])


def _check(layer, face, method, function, arrays, exact) -> Check:
    try:
        answer = np.asarray(jax.jit(function)(*arrays))
    except ValueError as refusal:
        if not str(refusal).startswith("`method` must serve"):
            raise
        return Check(layer, face, method, None, str(refusal))
    error = np.abs(answer - exact).max() / np.abs(exact).max()
    return Check(layer, face, method, float(error), None)


def summary(found: Sequence[Check]) -> list[str]:
    """A line for each method, then what is wrong, then what was skipped."""
    lines = [f"on {jax.devices()[0].device_kind}, against float64 NumPy:"]
    for method in dict.fromkeys(check.method for check in found):
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
    """Checks, then reports."""
    options = _options(arguments)
    with command_line.refusal():
        every = [*tables.read_layers(options.layers), *tables.read_pools(options.pools)]
        rows = side_by_side.selected(every, options.only)
    with ThreadPoolExecutor() as threads:  # most of the time goes into compiling
        each = tqdm(threads.map(lambda row: list(checks(row)), rows), total=len(rows), unit="layer")
        found = [check for done in each for check in done]
    text = summary(found)
    print(*text, sep="\n")
    (options.results / "accelerator.txt").write_text("\n".join([*text, ""]))
    if wrong := [str(check) for check in found if check.is_wrong]:
        sys.exit(f"too far from float64: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
