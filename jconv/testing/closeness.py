"""When two arrays agree: limits on rounding by dtype and number of terms, and the worst entry."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jconv.testing.trees import bracketed, is_inexact

FACTOR_LIMIT = 0.004


class Tolerance(NamedTuple):
    """Limits on rounding errors: the user's where given, else by dtype and number of terms."""

    rtol: float | None
    atol: float
    terms: int
    order: int = 1

    def entry(self, eps: float) -> float:
        """The limit on one entry's error, relative to the largest entry."""
        if self.rtol is not None:
            return self.rtol
        if is_half(eps):
            single = float(jnp.finfo(jnp.float32).eps)
            return self.order * (4 * eps + 8 * single * math.sqrt(self.terms))
        return min(8 * self.order * eps * math.sqrt(self.terms), FACTOR_LIMIT)

    def factor(self) -> float:
        """The limit on the distance from 1 of the overall factor."""
        return FACTOR_LIMIT if self.rtol is None else self.rtol


def assert_close(law, name, got, want, tolerance):
    """Compares an array drawn several times, `got`, with as many references, `want`."""
    inexact = [a.dtype for a in map(np.asarray, (got[0], want[0])) if is_inexact(a)]
    eps = spacing(inexact) if inexact else 0.0
    errors = np.stack(list(map(distances, got, want)))
    got, want = (np.stack([widened(a) for a in arrays]) for arrays in (got, want))
    if not got.size:
        return
    finite = np.isfinite(got) & np.isfinite(want)
    scale = np.max(np.abs(want[finite]), initial=0.0)
    limit = tolerance.entry(eps) * scale + tolerance.atol if inexact else 0.0
    worst = np.unravel_index(np.argmax(errors), errors.shape)
    report = (
        f"{law}: {name}: worst entry {bracketed(worst[1:])}: got {got[worst]:.9g}, "
        f"want {want[worst]:.9g}; error {errors[worst]:.3g}, tolerance {limit:.3g}"
    )
    if not errors[worst] <= limit:
        raise AssertionError(f"{report}.")
    if inexact and scale > tolerance.atol:
        for factor, noise in _factors(got[finite] / scale, want[finite] / scale, eps):
            if not abs(factor - 1) <= tolerance.factor() + noise:
                raise AssertionError(f"{report}; but overall got = {factor:.4f} * want.")


def _factors(got, want, eps):
    """Least-squares factors `got / want`, and what rounding may make of each.

    By the power of every entry, and with that of large ones cut to the median's: entries of which
    each is rounded in proportion tell alike, and the few largest would leave all others no say.
    """
    power = np.abs(want) ** 2
    known = power > 0
    power, ratio = power[known], (got[known] * want[known].conj()).real / power[known]
    for weight in (power, np.minimum(power, np.median(power))):
        total = weight.sum()
        factor = weight @ ratio / total
        entries = total**2 / (weight @ weight)  # effectively
        scatter = math.sqrt(weight @ (ratio - factor) ** 2 / total)
        noise = max(eps, 3 * scatter) / math.sqrt(entries)
        yield factor, max(noise, 4 * eps / entries)


def distances(got, want):
    """Distances; 0 for equal infinities and for two NaNs, infinite for any other non-number."""
    got, want = np.asarray(got), np.asarray(want)
    a, b = widened(got), widened(want)
    same = (got == want) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        distance = np.abs(a - b)
    distance = np.where(np.isfinite(distance), distance, np.inf)
    if not (is_inexact(got) or is_inexact(want)):
        distance = np.maximum(distance, 1.0)  # integers beyond 2**53 may look equal in float64
    return np.where(same, 0.0, distance)


def widened(array):
    """In float64 or complex128 NumPy."""
    array = np.asarray(array)
    wide = np.complex128 if jnp.issubdtype(array.dtype, jnp.complexfloating) else np.float64
    return array.astype(wide)


def spacing(dtypes):
    """The spacing at 1 of the coarsest dtype."""
    return max(float(jnp.finfo(dtype).eps) for dtype in dtypes)


def is_half(eps):
    return eps > 2 * float(jnp.finfo(jnp.float32).eps)
