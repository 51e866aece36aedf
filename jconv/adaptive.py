"""Pooling to a given output size: bins in place of a stride."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jconv import checks, geometry
from jconv.geometry import Ints, Window
from jconv.operands import array, inexact, require_key, wide
from jconv.placement import placed
from jconv.pooling import sums
from jconv.pooling.bins import Bins, axis_by_axis, equal, greatest, summed
from jconv.pooling.extremes import extremes, positions, winners
from jconv.pooling.views import FEW


@placed("x")
def adaptive_avg_pool(x: ArrayLike, output_size: Ints) -> Array:
    """The mean of every bin.

    `y[o] = mean x[floor(o*size / out) : ceil((o + 1)*size / out)]` along every axis: torch's bins,
    which overlap where `out` does not divide `size`, and repeat entries where `out > size`. The
    dtype is kept; bfloat16 and float16 are summed in float32, and integers give the default float
    dtype.

    Args:
      x: `[*batch, *size, channels]`.
      output_size: one int per spatial axis, or an int for all axes of `x` but the first and the
        last.

    Returns:
      `[*batch, *output_size, channels]`.

    Raises:
      ValueError: a wrong value, TypeError: a wrong type, before anything is computed.

    Source: He, Zhang, Ren, Sun (2014), section 2.2, one level of the pyramid.

    >>> adaptive_avg_pool(jnp.array([[0.0], [2.0], [4.0], [6.0], [8.0]]), (2,)).ravel()
    Array([2., 6.], dtype=float32)
    """
    x = inexact(array(x))
    bins = _checked(x, output_size)

    def by_windows(windows: Sequence[Window], y: Array) -> list[Array]:
        return [sums.summed(y, windows)]

    (y,) = axis_by_axis(bins, summed, by_windows, x.astype(wide(x.dtype)), fill=0)
    return sums.divided(y, [b.counts for b in bins]).astype(x.dtype)


@placed("x")
def adaptive_max_pool(
    x: ArrayLike, output_size: Ints, *, return_indices: bool = False
) -> Array | tuple[Array, Array]:
    """The greatest entry of every bin.

    The bins are those of `adaptive_avg_pool`; winners, ties, NaN and gradient are as in `max_pool`.

    Args:
      x: `[*batch, *size, channels]`, real.
      output_size: as in `adaptive_avg_pool`.
      return_indices: also where the winners are.

    Returns:
      `[*batch, *output_size, channels]`; with `return_indices` also the winners, as in `max_pool`.

    Raises:
      ValueError, TypeError: as `adaptive_avg_pool`.

    Source: He, Zhang, Ren, Sun (2014), section 2.2, one level of the pyramid.

    >>> adaptive_max_pool(jnp.array([[1], [5], [2], [4], [3]]), (2,)).ravel()
    Array([5, 4], dtype=int32)
    """
    x = array(x, real=True)
    wanted = checks.flag("return_indices", return_indices)
    bins = _checked(x, output_size)
    places = [positions(x.shape[-len(bins) - 1 : -1], x.ndim)] if wanted else []

    def by_windows(windows: Sequence[Window], y: Array, *places: Array) -> Sequence[Array]:
        return winners(y, windows, places[0]) if places else [extremes(y, windows)]

    y, *places = axis_by_axis(bins, greatest, by_windows, x, *places)
    return (y, places[0]) if wanted else y


@placed("x")
def fractional_max_pool(
    key: ArrayLike,
    x: ArrayLike,
    window: Ints,
    output_size: Ints,
    *,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """Max pooling by a factor that is no integer, at random places.

    `y[o] = max_t x[start[o] + t]` along every axis, with `start[o] = floor((o + u)*a) - floor(u*a)`
    but for the last, `start[out - 1] = size - window`, where `a = (size - window) / (out - 1)` and
    `u` is uniform in [0, 1), all in float32: torch's pseudo-random sequence, whose steps are
    `floor(a)` and `ceil(a)`. One `u` is drawn per spatial axis, and serves all batch entries and
    channels. Winners, ties, NaN and gradient are as in `max_pool`.

    Args:
      key: a JAX key.
      x: `[*batch, *size, channels]`, real.
      window: one int per spatial axis, or an int for all axes of `x` but the first and the last.
      output_size: an int, or one int per spatial axis; at most `size - window + 1`.
      return_indices: also where the winners are.

    Returns:
      `[*batch, *output_size, channels]`; with `return_indices` also the winners, as in `max_pool`.

    Raises:
      ValueError: a wrong value, TypeError: a wrong type, before anything is computed.

    Source: Graham (2014), section 2.1, pseudorandom and overlapping.

    >>> fractional_max_pool(jax.random.key(0), jnp.arange(8).reshape(8, 1), (2,), (7,)).ravel()
    Array([1, 2, 3, 4, 5, 6, 7], dtype=int32)
    """
    require_key(key)
    x = array(x, real=True)
    taps = checks.window_taps("window", window, x.ndim)
    size, _ = geometry.split_shape("x", x.shape, len(taps))
    out = checks.per_axis("output_size", output_size, len(taps), least=1)
    wanted = checks.flag("return_indices", return_indices)
    for axis, (n, k, o) in enumerate(zip(size, taps, out, strict=True)):
        if k > n:
            raise checks.wrong("window", f"be at most size {n} on spatial axis {axis}", k)
        if o + k - 1 > n:
            raise checks.wrong(
                "output_size",
                f"be at most size - window + 1 = {n - k + 1} on spatial axis {axis}",
                o,
            )
    shifts = jax.random.uniform(key, (len(taps),), jnp.float32)
    steps = [(n - k) / max(o - 1, 1) for n, k, o in zip(size, taps, out, strict=True)]
    starts = [_starts(*axis) for axis in zip(size, taps, out, steps, shifts, strict=True)]
    pooled = [x, *([positions(size, x.ndim)] if wanted else [])]
    if max(taps) > FEW:
        windows = [Window(n, k) for n, k in zip(size, taps, strict=True)]
        pooled = winners(x, windows, pooled[1]) if wanted else [extremes(x, windows)]
        size, taps = [w.out for w in windows], (1,) * len(taps)
    for axis in reversed(range(len(taps))):
        b = _drawn(size[axis], taps[axis], starts[axis], steps[axis])
        pooled = greatest(x.ndim - len(taps) - 1 + axis, b, *pooled)
    return (pooled[0], pooled[1]) if wanted else pooled[0]


def _drawn(size: int, taps: int, starts: Array, step: float) -> Bins:
    last = jnp.searchsorted(starts, np.arange(size, dtype=np.int32), side="right") - 1
    # Starts are at least a whole step apart, but for rounding, which may leave two in one place.
    apart = max(int(step - size * 2.0**-20), 0)
    shared = -(-taps // apart) if apart else taps + 1
    return Bins(starts, starts + taps, last.astype(jnp.int32), taps, min(shared, len(starts)))


def _starts(size: int, window: int, out: int, step: float, shift: Array) -> Array:
    """Where each window starts."""
    last = size - window
    starts = jnp.floor((np.arange(out, dtype=np.float32) + shift) * step) - jnp.floor(shift * step)
    starts = jnp.clip(starts.astype(jnp.int32), 0, last)
    return jnp.where(np.arange(out) == out - 1, np.int32(last), starts)


def _checked(x: Array, output_size: Ints) -> list[Bins]:
    """The bins of every spatial axis."""
    out = checks.window_taps("output_size", output_size, x.ndim)
    size, _ = geometry.split_shape("x", x.shape, len(out))
    for axis, n in enumerate(size):
        if n < 1:
            raise checks.wrong("x", f"have entries on spatial axis {axis}", f"shape {x.shape}")
    return [equal(n, o) for n, o in zip(size, out, strict=True)]
