"""Reads tables of layers: what `layers.csv` and `pools.csv` list, a row each."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

LAYERS, POOLS = (Path(__file__).parents[1] / name for name in ("layers.csv", "pools.csv"))
_QUICK_POSITIONS = 300

Ints = tuple[int, ...]


class Layer(NamedTuple):
    """A convolution: `x [batch, *size, inputs]` to `y [batch, *out, outputs]`."""

    name: str
    batch: int
    inputs: int
    outputs: int
    size: Ints
    taps: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int

    @property
    def out(self) -> Ints:
        """The spatial size of the output."""
        reach = zip(self.taps, self.dilation, strict=True)
        return _out(self.size, [d * (t - 1) for t, d in reach], self.stride, self.padding)

    @property
    def shapes(self) -> tuple[Ints, Ints, Ints]:
        """Of `x`, `kernel` and `y`."""
        return (
            (self.batch, *self.size, self.inputs),
            (*self.taps, self.inputs // self.groups, self.outputs),
            (self.batch, *self.out, self.outputs),
        )

    @property
    def flops(self) -> int:
        """Of any one face, a multiplication and an addition a term."""
        _, kernel, y = self.shapes
        return 2 * math.prod(y) * math.prod(kernel[:-1])


class Pool(NamedTuple):
    """A pooling of `x [batch, *size, channels]`."""

    name: str
    batch: int
    channels: int
    size: Ints
    window: Ints
    stride: Ints
    padding: Ints

    @property
    def shapes(self) -> tuple[Ints, Ints]:
        """Of `x` and `y`."""
        out = _out(self.size, [w - 1 for w in self.window], self.stride, self.padding)
        return (self.batch, *self.size, self.channels), (self.batch, *out, self.channels)


Row = TypeVar("Row", Layer, Pool)


def read_layers(path: Path) -> list[Layer]:
    """Lengths are written as `3x5`, or as one for all axes."""
    columns = "name batch in out size taps stride padding dilation groups"
    return [
        Layer(
            *(row["name"], int(row["batch"]), int(row["in"]), int(row["out"])),
            *_lengths(row, ("size", "taps", "stride", "padding", "dilation")),
            groups=int(row["groups"]),
        )
        for row in _rows(path, columns)
    ]


def read_pools(path: Path) -> list[Pool]:
    """Lengths as in a table of layers."""
    columns = "name batch channels size window stride padding"
    return [
        Pool(
            *(row["name"], int(row["batch"]), int(row["channels"])),
            *_lengths(row, ("size", "window", "stride", "padding")),
        )
        for row in _rows(path, columns)
    ]


def shrunk(row: Row) -> Row:
    """The same kind of layer, small enough to run at once."""
    most = min(12, round(_QUICK_POSITIONS ** (1 / len(row.size))))
    size = tuple(min(s, max(most, n)) for s, n in zip(row.size, _extents(row), strict=True))
    return row._replace(batch=min(row.batch, 2), size=size)


def drawn(row: Row, seed: int) -> Row:
    """A layer of the same kind: examples, channels and sizes times 0.5 to 1.5, by this seed.

    Channels of up to 4, those of an image, say, stay as they are, and so do those of a group.
    """
    rng = np.random.default_rng([seed, *row.name.encode()])

    def some(n: int) -> int:
        return max(round(n * rng.choice([0.5, 0.75, 1, 1.25, 1.5])), 1)

    batch, by = some(row.batch), rng.uniform(0.5, 1.5)
    size = tuple(max(round(s * by), n) for s, n in zip(row.size, _extents(row), strict=True))
    row = row._replace(batch=batch, size=size)
    if isinstance(row, Pool):
        return row._replace(channels=some(row.channels))
    if row.groups > 1:
        groups = some(row.groups)
        inputs, outputs = (n // row.groups * groups for n in (row.inputs, row.outputs))
        return row._replace(groups=groups, inputs=inputs, outputs=outputs)
    inputs, outputs = (n if n <= 4 else some(n) for n in (row.inputs, row.outputs))
    return row._replace(inputs=inputs, outputs=inputs if row.inputs == row.outputs else outputs)


def _extents(row: Layer | Pool) -> list[int]:
    """What a window spans of each axis."""
    window = row.taps if isinstance(row, Layer) else row.window
    dilation = row.dilation if isinstance(row, Layer) else (1,) * len(window)
    return [d * (w - 1) + 1 for w, d in zip(window, dilation, strict=True)]


def _rows(path: Path, columns: str) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if missing := set(columns.split()) - set(rows.fieldnames or ()):
            raise ValueError(f"{path} must have the columns {columns}; it lacks {missing}.")
        return list(rows)


def _lengths(row: dict[str, str], columns: Iterable[str]) -> list[Ints]:
    rank = row["size"].count("x") + 1
    return [_per_axis(row, column, rank) for column in columns]


def _per_axis(row: dict[str, str], column: str, rank: int) -> Ints:
    lengths = tuple(map(int, row[column].split("x")))
    if len(lengths) == 1:
        lengths *= rank
    if len(lengths) != rank:
        raise ValueError(
            f"`{column}` of {row['name']} must be one length, or one for each of its {rank} axes; "
            f"got {row[column]}."
        )
    return lengths


def _out(size: Ints, reach: Iterable[int], stride: Ints, padding: Ints) -> Ints:
    axes = zip(size, reach, stride, padding, strict=True)
    return tuple((length + 2 * p - r - 1) // s + 1 for length, r, s, p in axes)
