"""The three faces of a convolution: the chosen method, through rewrites, on one platform."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import jax
from jax import Array, lax

from jconv import planner
from jconv.blocks import map_blocks, split, sum_blocks
from jconv.divisions import DIVISIONS
from jconv.fusion import alone
from jconv.geometry import Spec
from jconv.methods import METHODS
from jconv.problem import Problem
from jconv.rewrites import REWRITES
from jconv.rules.shared import Rule

PLATFORMS = "cpu", "default"


@partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def evaluate(face: str, spec: Spec, method: str, a: Array, b: Array) -> Array:
    """One face by one method, `"auto"` for the planner's.

    Compiled as one program when called eagerly, since its loops would compile anew at every call;
    within another `jit` it leaves no trace.
    """
    problem = problem_of(face, spec, a, b)
    cpu, default = (taken(problem, method, platform).method for platform in PLATFORMS)
    on_cpu, elsewhere = (partial(_on, platform, method, face, spec) for platform in PLATFORMS)
    # The same step may lead to different ends.
    if cpu == default and cpu in METHODS:
        return on_cpu(a, b)
    return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere)


def taken(problem: Problem, method: str, platform: str) -> Rule:
    """What a method comes to, and why: `"auto"` to the planner's."""
    if not isinstance(problem.batch, int):
        # Blocks need a batch whose size is known, which an exported one's need not be.
        method = "direct" if method == "auto" else method
    elif not problem.batch:
        return _always("shifts", "no examples")
    if method == "auto":
        return planner.choose(problem, platform)
    if method == "direct" and platform != "cpu":
        # XLA:GPU ends with an error, or ends the process, where it has no such convolution.
        rule = planner.choose(problem, platform)
        if rule.method != "direct":
            return rule
    return _always(method, "asked for")


def _always(method: str, why: str) -> Rule:
    return Rule(method, lambda p: True, why)


def _on(platform: str, method: str, face: str, spec: Spec, a: Array, b: Array) -> Array:
    asked, method = method, taken(problem_of(face, spec, a, b), method, platform).method
    whole = partial(_by, face, spec, method, partial(_part, platform))
    if asked != "auto" or platform != "cpu" or method not in COPYING:
        return whole(a, b)
    return _in_batches(face, spec, method, whole, a, b)


def _part(platform: str, face: str, spec: Spec, a: Array, b: Array) -> Array:
    """One face of what another convolution is rewritten to, or divided into.

    XLA:CPU would put an input's adjoint back in place, number by number, in the loop that adds it
    up: 4x4 taps of stride 2, 3 -> 8 channels on 8x96x96, took 1.4 ms by phases, and take 0.46.
    """
    computed = partial(_on, platform, "auto", face, spec)
    method = taken(problem_of(face, spec, a, b), "auto", platform).method
    is_loop = platform == "cpu" and method == "lanes" and face == "input_adjoint"
    return alone(computed, inlined=True)(a, b) if is_loop else computed(a, b)


# What may copy all of its operand to rearrange or to pad it.
COPYING = {"fourier", *DIVISIONS, *REWRITES} - {"bands", "overhang", "turned"}
# Those of which outputs stay where they are: 2x2 taps of stride 2, 14 -> 96 channels on 8x103x157,
# take 2.4 ms in turns, whose results one thread puts together, and 1.1 at once.
ONE_SIDED = {"fold", "phases", "decimated"}
# Bytes of what is copied up to which that is done at once.
BATCH_BYTES = 24 * 2**20


def _in_batches(face: str, spec: Spec, method: str, whole: Callable, a: Array, b: Array) -> Array:
    """`whole(a, b)`, a few examples at a time where scratch as large as they are is too much."""
    outputs = b.shape[-1] * math.prod(spec.out)
    copies = {"fold": -(-spec.taps[0] // spec.windows[0].stride), "phases": 2}.get(method, 1)
    inputs = copies * problem_of(face, spec, a, b).inputs * math.prod(spec.size)
    copied = len(a) * (inputs if method in ONE_SIDED else inputs + outputs)
    blocks = split(len(a), 1, (inputs + outputs) * a.dtype.itemsize, BATCH_BYTES)
    if blocks.steps == 1 or copied * a.dtype.itemsize <= BATCH_BYTES:
        return whole(a, b)

    some = blocks.whole
    if face == "kernel_adjoint":
        return sum_blocks(blocks, lambda step: whole(some(a, step), some(b, step)))
    rows = spec.size if face == "input_adjoint" else spec.out
    return map_blocks(blocks, lambda step: whole(some(a, step), b), rows[0])


def _by(face: str, spec: Spec, method: str, compute: Callable, a: Array, b: Array) -> Array:
    """By a method, or by what `compute(face, spec, a, b)` gives of a simpler convolution."""
    if method in DIVISIONS:
        return DIVISIONS[method](face, spec, compute, a, b)
    if method not in REWRITES:
        c = getattr(METHODS[method], face)(spec, a, b)
        return c.astype(spec.result_dtype(a.dtype))
    simple, to_x, to_kernel, from_y = REWRITES[method](spec)
    inner = partial(compute, face, simple)
    match face:
        case "forward":
            return from_y.apply(inner(to_x.apply(a), to_kernel.apply(b)))
        case "input_adjoint":
            return to_x.adjoint(inner(from_y.adjoint(a), to_kernel.apply(b)))
        case _:
            return to_kernel.adjoint(inner(to_x.apply(a), from_y.adjoint(b)))


def steps(problem: Problem, method: str, platform: str) -> Iterator[Rule]:
    """What a method comes to, rewrite by rewrite, down to what computes.

    Of several phases, those of the one that most taps meet.
    """
    rule = taken(problem, method, platform)
    yield rule
    parts = [] if rule.method in METHODS else _parts(problem, rule.method)
    if parts:
        yield from steps(max(parts, key=lambda part: part.taps), "auto", platform)


def _parts(problem: Problem, method: str) -> list[Problem]:
    """The simpler convolutions that a division or a rewrite leads to."""
    face, spec, parts = problem.face, problem.spec, []

    def noted(face: str, spec: Spec, a: Array, b: Array) -> Array:
        parts.append(problem_of(face, spec, a, b))
        return _by(face, spec, "direct", noted, a, b)

    jax.eval_shape(partial(_by, face, spec, method, noted), *problem.operands)
    return parts


def problem_of(face: str, spec: Spec, a: Array, b: Array) -> Problem:
    """What the planner must know of one face's operands."""
    inputs = b.shape[-2] * spec.groups if face == "input_adjoint" else a.shape[-1]
    return Problem(face, spec, a.shape[0], inputs, b.shape[-1], a.dtype)
