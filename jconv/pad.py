"""Padding and cropping as a public function."""

from collections.abc import Sequence

from jax import Array
from jax.typing import ArrayLike

from jconv import checks, geometry
from jconv.geometry import Window
from jconv.operands import array, scalar
from jconv.padding import padded
from jconv.placement import placed


@placed("x")
def pad(
    x: ArrayLike,
    padding: Sequence[Sequence[int]],
    *,
    mode: str = "constant",
    value: ArrayLike = 0,
) -> Array:
    """Pads or crops the spatial axes.

    `y[i] = x[fold(i - low)]` for `-low <= i - low < size + high`, where `fold` is the boundary rule
    that `mode` names (NumPy's words and meanings, repeated as often as the amounts ask):
    `"constant"` gives `value` outside, `"reflect"` mirrors about the end entry, `"symmetric"` about
    its outer edge, `"edge"` repeats the end entry, `"wrap"` starts again from the other end.
    Negative amounts crop the result.

    Args:
      x: `[*batch, *size, in]`.
      padding: one `(low, high)` pair per spatial axis.
      mode: one of the five words.
      value: the constant; it is differentiable.

    Returns:
      `[*batch, *(low + size + high), in]`, differentiable in reverse mode by a hand-derived rule.

    Raises:
      ValueError: an unknown mode, a malformed pair, too few axes, or a crop of more than there is.

    >>> import jax.numpy as jnp
    >>> pad(jnp.array([[1], [2], [3]]), [(2, -1)], mode="reflect").ravel()
    Array([3, 2, 1, 2], dtype=int32)
    """
    x = array(x)
    geometry.padding_mode(mode, "mode")
    value = scalar("value", value, x.dtype)
    entries = checks.entries_of(padding)
    if entries is None or any(checks.entries_of(entry) is None for entry in entries):
        raise checks.mistyped("padding", "hold one (low, high) pair per spatial axis", padding)
    if not entries:
        raise checks.wrong("padding", "hold a pair for each of one or more spatial axes", padding)
    pairs = geometry.pairs("padding", entries, len(entries))
    size, _ = geometry.split_shape("x", x.shape, len(pairs))
    _require_source(size, pairs, mode)
    made = tuple(
        Window(n, 1, low=low, high=high) for n, (low, high) in zip(size, pairs, strict=True)
    )
    return padded(x, made, mode, value)


def _require_source(size: Sequence[int], pairs: Sequence[tuple[int, int]], mode: str) -> None:
    for axis, (n, (low, high)) in enumerate(zip(size, pairs, strict=True)):
        if low + n + high < 0:
            raise checks.wrong(
                "padding",
                "crop no more than there is",
                f"{(low, high)} for size {n} on axis {axis}",
            )
        if n == 0 and mode != "constant" and low + high > 0:
            raise checks.wrong("x", f"have entries to pad from with mode {mode!r}", f"size {size}")
