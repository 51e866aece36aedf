"""Arguments that are Python values, checked, and the one form of the errors about any."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

MOST = 2**31  # what no size reaches, and what C's integers hold


def wrong(name: str, must: str, got: object) -> ValueError:
    """The one form of a wrong value: which argument, what must hold, what was got."""
    return ValueError(f"`{name}` must {must}; got {got}.")


def mistyped(name: str, must: str, got: object) -> TypeError:
    """The one form of a wrong type."""
    return TypeError(f"`{name}` must {must}; got {got!r} of type {type(got).__name__}.")


def whole(name: str, value: object, *, least: int | None = None, must: str = "be an int") -> int:
    """`value` as a Python int of at least `least`."""
    if isinstance(value, bool):
        raise mistyped(name, must, value)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise mistyped(name, must, value) from None
    if least is not None and number < least:
        raise wrong(name, f"be at least {least}", number)
    if abs(number) >= MOST:
        raise wrong(name, "be less than 2**31 in size", number)
    return number


def entries_of(value: object) -> tuple[Any, ...] | None:
    """What `value` holds, in order; None for one thing: text, a set, an array without axes."""
    if isinstance(value, str | bytes):
        return None
    is_array = hasattr(value, "__iter__") and getattr(value, "ndim", 0) > 0
    return tuple(value) if is_array or isinstance(value, Sequence) else None  # type: ignore[arg-type]


def per_axis(name: str, value: object, rank: int, *, least: int | None = None) -> tuple[int, ...]:
    """An int for every axis, or one int per spatial axis, as a tuple of `rank` ints."""
    entries = entries_of(value)
    if entries is None:
        return (whole(name, value, least=least),) * rank
    if len(entries) != rank:
        raise wrong(name, f"hold one int for each of the {rank} spatial axes", value)
    return tuple(whole(name, entry, least=least) for entry in entries)


def window_taps(name: str, value: object, ndim: int) -> tuple[int, ...]:
    """One int per spatial axis, or an int for all axes but the first and the last of `ndim`."""
    entries = entries_of(value)
    if entries is None:
        count = whole(name, value, least=1)
        if ndim < 3:
            raise wrong(
                name, "hold one int per spatial axis where there is no batch axis",
                f"{count} for an array of {ndim} axes",
            )  # fmt: skip
        return (count,) * (ndim - 2)
    if not entries:
        raise wrong(name, "hold one int for each of one or more spatial axes", value)
    return per_axis(name, entries, len(entries), least=1)


def distinct_axes(name: str, value: object, ndim: int) -> list[int]:
    """Distinct axes from 0 up, all of them for None; negative ones count from the last."""
    if value is None:
        return list(range(ndim))
    entries = entries_of(value)
    made = [whole(name, a) for a in ((value,) if entries is None else entries)]
    if any(not -ndim <= a < ndim for a in made):
        raise wrong(name, f"be axes of an array of {ndim}", value)
    made = [a % ndim for a in made]
    if len(set(made)) != len(made):
        raise wrong(name, "be distinct", value)
    return made


def choice(name: str, value: object, known: Sequence[str]) -> str:
    """One of the words that are known."""
    if not isinstance(value, str):
        raise mistyped(name, f"be one of {tuple(known)}", value)
    if value not in known:
        raise wrong(name, f"be one of {tuple(known)}", repr(value))
    return value


def flag(name: str, value: object) -> bool:
    """A plain bool: anything else is a slip that truthiness would hide."""
    if not isinstance(value, bool | np.bool):
        raise mistyped(name, "be True or False", value)
    return bool(value)
