"""Sizes without arrays: windows, paddings, output sizes, and what is static about a convolution.

Nothing here touches an array, so everything here runs while JAX traces, before anything is
computed.
"""

import dataclasses
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from jconv.checks import choice, entries_of, flag, per_axis, whole, wrong

WORDS = ("valid", "same", "same_lower", "full", "causal")
MODES = ("constant", "reflect", "symmetric", "edge", "wrap")

Ints = int | Sequence[int]
Padding = str | int | Sequence[int | Sequence[int]]


@dataclasses.dataclass(frozen=True)
class Window:
    """One axis of a sliding window: output `o` reads position `stride*o + dilation*tap - low`.

    Positions count in the input after `input_dilation - 1` zeros went between its samples.
    `low` and `high` are what is added at each end; negative amounts crop.
    """

    size: int
    taps: int
    stride: int = 1
    low: int = 0
    high: int = 0
    dilation: int = 1
    input_dilation: int = 1

    @property
    def reach(self) -> int:
        """Distance from the first tap to the last."""
        return (self.taps - 1) * self.dilation

    @property
    def spread(self) -> int:
        """Size of the input once zeros stand between its samples."""
        return spread(self.size, self.input_dilation)

    @property
    def extent(self) -> int:
        """Size of what the window slides over: dilated, then padded or cropped."""
        return self.low + self.spread + self.high

    @property
    def out(self) -> int:
        """How many whole windows fit."""
        return max((self.extent - self.reach - 1) // self.stride + 1, 0)

    @property
    def covered(self) -> int:
        """How much of `extent` the windows reach; the rest is an uncovered tail."""
        return (self.out - 1) * self.stride + self.reach + 1

    def grown_to(self, extent: int) -> "Window":
        """The window padded behind, or cropped, to this extent."""
        return dataclasses.replace(self, high=extent - self.low - self.spread)

    def padded(self) -> "Window":
        """The same window over an input that is already dilated and padded."""
        return dataclasses.replace(self, size=self.extent, low=0, high=0, input_dilation=1)


@dataclasses.dataclass(frozen=True)
class Spec:
    """All that is static about one convolution: what every face of every method is given.

    What is `transposable` by JAX itself is linear in every step.
    """

    windows: tuple[Window, ...]
    groups: int = 1
    flip: bool = False
    precision: Any = None
    preferred: Any = None
    transposable: bool = False

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(w.size for w in self.windows)

    @property
    def taps(self) -> tuple[int, ...]:
        return tuple(w.taps for w in self.windows)

    @property
    def out(self) -> tuple[int, ...]:
        return tuple(w.out for w in self.windows)

    @property
    def is_unit_stride(self) -> bool:
        return all(w.stride == w.input_dilation == 1 for w in self.windows)

    def result_dtype(self, dtype: Any) -> Any:
        """The dtype of the result of operands of this dtype."""
        return dtype if self.preferred is None else self.preferred

    def padded(self) -> "Spec":
        """The same convolution of an input that is already dilated and padded."""
        return dataclasses.replace(self, windows=tuple(w.padded() for w in self.windows))


def transposed(spec: Spec) -> Spec:
    """The convolution of `y` by the reversed kernel that is the input adjoint of `spec`.

    Strides become zeros between the entries of `y`, and zeros between inputs strides.
    """
    return dataclasses.replace(spec, windows=tuple(map(transposed_window, spec.windows)))


def transposed_window(w: Window) -> Window:
    """One axis of it."""
    return dataclasses.replace(
        w,
        size=w.out,
        stride=w.input_dilation,
        low=w.reach - w.low,
        high=w.spread + w.low - spread(w.out, w.stride),
        input_dilation=w.stride,
    )


def spread(size: int, dilation: int) -> int:
    """The size of an axis once `dilation - 1` zeros stand between its entries."""
    return (size - 1) * dilation + 1 if size else 0


# ---------------------------------------------------------------- padding


def pairs(name: str, padding: object, rank: int) -> tuple[tuple[int, int], ...]:
    """An int, one int per axis, or one `(low, high)` pair per axis, as pairs."""
    entries = entries_of(padding)
    if entries is None:
        amount = whole(name, padding, must=f"be one of {WORDS} or hold ints")
        return ((amount, amount),) * rank
    if len(entries) != rank:
        raise wrong(
            name, f"hold one int or (low, high) pair for each of the {rank} spatial axes", padding
        )
    return tuple(_pair(name, entry) for entry in entries)


def _pair(name: str, entry: object) -> tuple[int, int]:
    amounts = entries_of(entry)
    if amounts is None:
        amount = whole(name, entry)
        return amount, amount
    if len(amounts) != 2:
        raise wrong(name, "hold (low, high) pairs", entry)
    return whole(name, amounts[0]), whole(name, amounts[1])


def _word(word: str, size: int, reach: int, stride: int) -> tuple[int, int]:
    """What a padding word adds to an axis of `size` for taps that span `reach + 1` positions."""
    match word:
        case "valid":
            return 0, 0
        case "full":
            return reach, reach
        case "causal":
            return reach, 0
    total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
    less = total // 2
    return (less, total - less) if word == "same" else (total - less, less)


def amounts(
    padding: object,
    size: Sequence[int],
    taps: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """Any form of `padding` as one `(low, high)` pair per axis."""
    if not isinstance(padding, str):
        return pairs("padding", padding, len(size))
    word = padding.lower()
    if word not in WORDS:
        raise wrong("padding", f"be one of {WORDS} or hold ints", repr(padding))
    return tuple(
        _word(word, n, (t - 1) * d, s)
        for n, t, s, d in zip(size, taps, stride, dilation, strict=True)
    )


def padding_mode(mode: object, name: str = "padding_mode") -> str:
    """A known padding mode."""
    return choice(name, mode, MODES)


# ---------------------------------------------------------------- windows


def windows(
    size: Sequence[int],
    taps: Sequence[int],
    *,
    stride: object = 1,
    padding: object = "valid",
    dilation: object = 1,
    input_dilation: object = 1,
    ceil_mode: bool = False,
) -> tuple[Window, ...]:
    """The window of each spatial axis."""
    rank = len(taps)
    strides = per_axis("stride", stride, rank, least=1)
    dilations = per_axis("dilation", dilation, rank, least=1)
    spacings = per_axis("input_dilation", input_dilation, rank, least=1)
    spreads = [spread(n, d) for n, d in zip(size, spacings, strict=True)]
    pads = amounts(padding, spreads, taps, strides, dilations)
    made = tuple(
        Window(n, t, s, low, high, d, i)
        for n, t, s, (low, high), d, i in zip(
            size, taps, strides, pads, dilations, spacings, strict=True
        )
    )
    return tuple(_ceiled(w) for w in made) if flag("ceil_mode", ceil_mode) else made


def _ceiled(w: Window) -> Window:
    """Torch's `ceil_mode`: a last, partial window counts, unless it starts in the high padding."""
    out = -(-(w.extent - w.reach - 1) // w.stride) + 1
    out -= (out - 1) * w.stride >= w.low + w.spread
    high = (out - 1) * w.stride + w.reach + 1 - w.low - w.spread
    return dataclasses.replace(w, high=high)


def require_output(name: str, made: Sequence[Window]) -> None:
    """Every axis must hold at least one window."""
    for axis, w in enumerate(made):
        if w.out < 1:
            raise wrong(
                name,
                "hold at least one window on every spatial axis",
                f"size {w.size} with padding ({w.low}, {w.high}) for {w.taps} taps of dilation "
                f"{w.dilation} on spatial axis {axis}",
            )


# ---------------------------------------------------------------- convolution


def split_shape(name: str, shape: Sequence[int], rank: int) -> tuple[tuple[int, ...], int]:
    """`[*batch, *size, channels]` as `size` and `channels`."""
    if len(shape) < rank + 1:
        raise wrong(name, f"have {rank} spatial axes and a channel axis", f"shape {tuple(shape)}")
    return tuple(shape[len(shape) - rank - 1 : -1]), shape[-1]


def require_entries(name: str, size: Sequence[int], shape: Sequence[int]) -> None:
    """No spatial axis may be empty."""
    if min(size) < 1:
        raise wrong(name, "have no empty spatial axis", f"shape {tuple(shape)}")


def kernel_rank(shape: Sequence[int], name: str = "kernel") -> int:
    """The number of spatial axes of a kernel `[*taps, in // groups, out]`."""
    if len(shape) < 3:
        raise wrong(
            name,
            "have shape [*taps, in // groups, out] with one or more taps axes",
            f"shape {tuple(shape)}",
        )
    if min(shape) < 1:
        raise wrong(name, "have no empty axis", f"shape {tuple(shape)}")
    return len(shape) - 2


def channel_groups(groups: object, inputs: int, outputs: int) -> int:
    """`groups`, which must divide the channels of both sides."""
    count = whole("groups", groups, least=1)
    for side, channels in (("input", inputs), ("output", outputs)):
        if channels % count:
            raise wrong(
                "groups", f"divide the {side} channels", f"groups={count}, channels={channels}"
            )
    return count


def smallest_size(out: Sequence[int], taps: Sequence[int], **options: object) -> tuple[int, ...]:
    """The smallest input size whose output has size `out`, one axis at a time."""
    return tuple(
        _smallest_axis(axis, o, t, _axis_options(options, axis, len(taps)))
        for axis, (o, t) in enumerate(zip(out, taps, strict=True))
    )


def _axis_options(options: dict[str, Any], axis: int, rank: int) -> dict[str, object]:
    """The options of one axis alone."""
    picked: dict[str, object] = {
        name: per_axis(name, options[name], rank, least=1)[axis]
        for name in ("stride", "dilation", "input_dilation")
    }
    padding = options["padding"]
    picked["padding"] = (
        padding if isinstance(padding, str) else (pairs("padding", padding, rank)[axis],)
    )
    return picked


def _smallest_axis(axis: int, out: int, taps: int, options: dict[str, Any]) -> int:
    def out_of(size: int) -> int:
        return windows((size,), (taps,), **options)[0].out

    # Output sizes never fall as the input grows, so the smallest is found by bisection.
    low, high = (0, 0) if isinstance(options["padding"], str) else options["padding"][0]
    limit = out * options["stride"] + taps * options["dilation"] + abs(low) + abs(high) + 1
    size = bisect_left(range(1, limit + 1), out, key=out_of) + 1
    if out_of(size) != out:
        raise wrong(
            "y", "have a size that the options can give", f"size {out} on spatial axis {axis}"
        )
    return size
