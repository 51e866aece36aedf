"""The three faces of a convolution: the chosen method applied, through rewrites, on the platform at hand."""

from functools import partial

import jax
from jax import Array, lax

from jconv import planner
from jconv.geometry import Spec
from jconv.methods import METHODS
from jconv.planner import Problem
from jconv.rewrites import REWRITES


@partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def evaluate(face: str, spec: Spec, method: str, a: Array, b: Array) -> Array:
    """One face by one method, `"auto"` for the planner's.

    Compiled as one program when called eagerly, since its loops would compile anew at every call; within
    another `jit` it leaves no trace.
    """
    if method != "auto":
        return _by(face, spec, method, a, b, "")
    on_cpu = partial(_auto, face, spec, "cpu")
    elsewhere = partial(_auto, face, spec, "default")
    problem = problem_of(face, spec, a, b)
    if planner.choose(problem, "cpu").method == planner.choose(problem, "default").method:
        return on_cpu(a, b)
    return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere)


def _auto(face: str, spec: Spec, platform: str, a: Array, b: Array) -> Array:
    method = planner.choose(problem_of(face, spec, a, b), platform).method
    return _by(face, spec, method, a, b, platform)


def _by(face: str, spec: Spec, method: str, a: Array, b: Array, platform: str) -> Array:
    if method not in REWRITES:
        c = getattr(METHODS[method], face)(spec, a, b)
        return c.astype(a.dtype if spec.preferred is None else spec.preferred)
    simple, to_x, to_kernel, from_y = REWRITES[method](spec)
    inner = partial(_auto, face, simple, platform)
    match face:
        case "forward":
            return from_y.apply(inner(to_x.apply(a), to_kernel.apply(b)))
        case "input_adjoint":
            return to_x.adjoint(inner(from_y.adjoint(a), to_kernel.apply(b)))
        case _:
            return to_kernel.adjoint(inner(to_x.apply(a), from_y.adjoint(b)))


def problem_of(face: str, spec: Spec, a: Array, b: Array) -> Problem:
    """What the planner must know of one face's operands."""
    inputs = b.shape[-2] * spec.groups if face == "input_adjoint" else a.shape[-1]
    return Problem(face, spec, a.shape[0], inputs, b.shape[-1], a.dtype)
