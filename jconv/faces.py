"""The three faces of a convolution: the chosen method, through rewrites, on one platform."""

from collections.abc import Iterator
from functools import partial

import jax
from jax import Array, lax

from jconv import planner
from jconv.geometry import Spec
from jconv.methods import METHODS
from jconv.planner import Problem, Rule
from jconv.rewrites import REWRITES


@partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def evaluate(face: str, spec: Spec, method: str, a: Array, b: Array) -> Array:
    """One face by one method, `"auto"` for the planner's.

    Compiled as one program when called eagerly, since its loops would compile anew at every call;
    within another `jit` it leaves no trace.
    """
    if method != "auto":
        return _by(face, spec, method, a, b, "")
    on_cpu = partial(_auto, face, spec, "cpu")
    elsewhere = partial(_auto, face, spec, "default")
    problem = problem_of(face, spec, a, b)
    cpu, default = (planner.choose(problem, platform).method for platform in ("cpu", "default"))
    if cpu == default and cpu not in REWRITES:  # the same rewrite may lead to different ends
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


def steps(problem: Problem, platform: str) -> Iterator[Rule]:
    """The rules that `"auto"` follows, rewrite by rewrite, down to a method."""
    rule = planner.choose(problem, platform)
    yield rule
    if rule.method in REWRITES:
        rewrite = REWRITES[rule.method](problem.spec)
        x = jax.ShapeDtypeStruct((problem.batch, *problem.spec.size, problem.inputs), problem.dtype)
        x = jax.eval_shape(rewrite.to_x.apply, x)
        simpler = problem._replace(spec=rewrite.spec, batch=x.shape[0], inputs=x.shape[-1])
        yield from steps(simpler, platform)


def problem_of(face: str, spec: Spec, a: Array, b: Array) -> Problem:
    """What the planner must know of one face's operands."""
    inputs = b.shape[-2] * spec.groups if face == "input_adjoint" else a.shape[-1]
    return Problem(face, spec, a.shape[0], inputs, b.shape[-1], a.dtype)
