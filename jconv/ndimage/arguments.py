"""What SciPy's arguments mean, and the types of errors that SciPy raises for wrong ones."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from jconv import checks
from jconv.operands import array, number

MODES = {
    "reflect": "symmetric",
    "grid-mirror": "symmetric",
    "mirror": "reflect",
    "nearest": "edge",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "constant": "constant",
    "grid-constant": "constant",
}

Output = DTypeLike | None
Modes = str | Sequence[str]
Axes = int | Sequence[int] | None


def unfit(name: str, must: str, got: object) -> RuntimeError:
    """What does not fit the rest: SciPy's RuntimeError, in the one form of our errors."""
    return RuntimeError(str(checks.wrong(name, must, got)))


def traced(value: object) -> bool:
    """Whether JAX knows only the shape of `value`."""
    return isinstance(value, Tracer)


def real(name: str, value: object) -> float:
    """A Python number, not traced."""
    made = number(name, value, "be a Python number, no bool nor traced")
    if not abs(made) < checks.MOST:
        raise checks.wrong(name, "be less than 2**31 in size", value)
    return made


def each(name: str, value: object, count: int) -> list[Any]:
    """One thing for all of `count` axes, or one for each."""
    entries = checks.entries_of(value)
    if entries is None:
        return [value] * count
    if len(entries) != count:
        raise unfit(name, f"hold one entry for each of {count} axes", value)
    return list(entries)


def padding_mode(mode: object) -> str:
    """NumPy's word for a mode of SciPy's."""
    if not isinstance(mode, str) or mode not in MODES:
        raise unfit("mode", f"be one of {tuple(MODES)}", repr(mode))
    return MODES[mode]


def one_mode(mode: object) -> str:
    """`padding_mode` of a filter that takes all axes at once."""
    if checks.entries_of(mode) is not None:
        raise unfit("mode", "be one for all axes, which this filter takes at once", mode)
    return padding_mode(mode)


def one_axis(axis: object, ndim: int) -> int:
    """An axis from 0 up."""
    made = checks.whole("axis", axis)
    if not -ndim <= made < ndim:
        message = str(checks.wrong("axis", f"be an axis of an array of {ndim}", made))
        raise np.exceptions.AxisError(message)
    return made % ndim


def low_end(origin: object, size: int, flip: bool = False) -> int:
    """How many entries a window reads below its position."""
    moved = checks.whole("origin", origin)
    low = (size - 1) // 2 - moved if flip else size // 2 + moved
    if not 0 <= low < size:
        raise checks.wrong("origin", f"leave the position in its window of {size}", moved)
    return low


def low_ends(
    origin: object, sizes: Sequence[int], axes: Sequence[int], flip: bool = False
) -> list[int]:
    """`low_end` of every axis, of which `axes` alone are filtered."""
    origins = spread_over("origin", origin, axes, len(sizes))
    return [low_end(o, size, flip) for o, size in zip(origins, sizes, strict=True)]


def spread_over(name: str, value: object, axes: Sequence[int], ndim: int) -> list[Any]:
    """What is given for `axes`, and 0 for the others.

    As in SciPy, the order of `axes` tells which is whose only where some axis is left out.
    """
    made: list[Any] = [0] * ndim
    order = axes if len(axes) < ndim else range(ndim)
    for axis, entry in zip(order, each(name, value, len(axes)), strict=True):
        made[axis] = entry
    return made


def constant(cval: ArrayLike, x_dtype) -> ArrayLike:
    """`cval` as a Python number, or traced."""
    made = array(cval, name="cval", booleans=True)
    if made.ndim:
        raise checks.mistyped("cval", "be a number", cval)
    if jnp.iscomplexobj(made) and not jnp.issubdtype(x_dtype, jnp.complexfloating):
        raise checks.mistyped("cval", f"be real for an input of {x_dtype}", cval)
    return made if traced(made) else made.item()


def result_dtype(output: object, dtype, complex_result: bool = False) -> np.dtype:
    """The dtype of the result, from `output` or else that of the input."""
    if output is None:
        made = np.promote_types(dtype, np.complex64) if complex_result else dtype
        return jax.dtypes.canonicalize_dtype(made)
    if not isinstance(output, str | type | np.dtype):
        raise checks.mistyped("output", "be None or a dtype: JAX has no arrays to fill", output)
    try:
        made = jax.dtypes.canonicalize_dtype(jnp.dtype(output))
    except TypeError:
        raise checks.mistyped("output", "be None or a dtype of numbers", output) from None
    named = isinstance(output, str)  # SciPy takes bool itself, not its name
    if not jnp.issubdtype(made, jnp.number) and (named or not jnp.issubdtype(made, jnp.bool_)):
        raise unfit("output", "be a dtype of numbers", repr(output))
    if complex_result != bool(jnp.issubdtype(made, jnp.complexfloating)):
        kind = "complex" if complex_result else "real"
        raise unfit("output", f"be a {kind} dtype, as the result is", repr(output))
    return made
