"""The three faces of a convolution: the chosen method, through rewrites, on one platform."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
from jax import Array, lax

from jconv import planner
from jconv.blocks import split, sum_blocks
from jconv.channels import swap_channels
from jconv.geometry import Spec, transposed
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
        return _by(face, spec, method, a, b, platform="")
    on_cpu = partial(_auto, face, spec, "cpu")
    elsewhere = partial(_auto, face, spec, "default")
    problem = problem_of(face, spec, a, b)
    cpu, default = (planner.choose(problem, platform).method for platform in ("cpu", "default"))
    # The same rewrite may lead to different ends.
    if cpu == default and cpu not in (*REWRITES, "by_phase"):
        return on_cpu(a, b)
    return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere)


def _auto(face: str, spec: Spec, platform: str, a: Array, b: Array) -> Array:
    method = planner.choose(problem_of(face, spec, a, b), platform).method
    whole = partial(_by, face, spec, method, platform=platform)
    if platform != "cpu" or method not in COPYING:
        return whole(a, b)
    return _in_batches(face, spec, whole, a, b)


# What copies all of its operand to rearrange or to pad it.
COPYING = {"lanes", "fourier", "apart", "by_phase", "bundles", *REWRITES} - {"overhang"}
# Bytes of both operands up to which that is done at once.
BATCH_BYTES = 24 * 2**20


def _in_batches(face: str, spec: Spec, whole: Callable, a: Array, b: Array) -> Array:
    """`whole(a, b)`, a few examples at a time where scratch as large as they are is too much."""
    outputs = b.shape[-1] * math.prod(spec.out)
    inputs = problem_of(face, spec, a, b).inputs * math.prod(spec.size)
    blocks = split(len(a), 1, (inputs + outputs) * a.dtype.itemsize, BATCH_BYTES)
    if blocks.steps == 1:
        return whole(a, b)

    def some(c: Array, step: Array | int) -> Array:
        return lax.dynamic_slice_in_dim(c, step * blocks.images, blocks.images)

    if face == "kernel_adjoint":
        return sum_blocks(blocks, lambda step: whole(some(a, step), some(b, step)))
    parts = lax.map(lambda step: whole(some(a, step), b), jnp.arange(blocks.steps))
    return parts.reshape(-1, *parts.shape[2:])


def _apart(face: str, spec: Spec, a: Array, b: Array, platform: str) -> Array:
    """One dense convolution after the other, a group each."""
    each = partial(_auto, face, dataclasses.replace(spec, groups=1), platform)
    return _by_groups(spec, each, a, b)


def _bundles(face: str, spec: Spec, a: Array, b: Array) -> Array:
    """A few groups' patches and products at a time: of one alone they are too small."""
    if face == "input_adjoint":
        face, spec = "forward", transposed(spec)
        b = swap_channels(lax.rev(b, range(b.ndim - 2)), spec.groups)
    each = partial(getattr(METHODS["patches"], face), dataclasses.replace(spec, groups=1))
    return _by_groups(spec, each, a, b, math.gcd(spec.groups, 4))


def _by_groups(spec: Spec, each: Callable, a: Array, b: Array, at_once: int = 1) -> Array:
    def split_groups(c: Array) -> Array:
        return jnp.moveaxis(c.reshape(*c.shape[:-1], spec.groups, -1), -2, 0)

    operands = split_groups(a), split_groups(b)
    parts = lax.map(lambda pair: each(*pair), operands, batch_size=at_once if at_once > 1 else None)
    joined = jnp.moveaxis(parts, 0, -2)
    return joined.reshape(*joined.shape[:-2], -1)


def _by_phase(spec: Spec, y: Array, k: Array, platform: str) -> Array:
    """The input's adjoint of a stride, each phase of the input by the taps that meet it.

    `x[s*q + r] = sum_u y[q - u] k[s*u + r]`: no zeros between outputs, none among the taps.
    """
    rewrite = REWRITES["phases"](spec)
    strides = [w.stride for w in spec.windows]
    parts = []
    for r in product(*map(range, strides)):
        taps = k[tuple(slice(first, None, s) for first, s in zip(r, strides, strict=True))]
        phase = _one_phase(rewrite.spec, taps.shape)
        parts.append(_auto("input_adjoint", phase, platform, y, taps))
    return rewrite.to_x.adjoint(jnp.concatenate(parts, -1))


def _one_phase(spec: Spec, taps: Sequence[int]) -> Spec:
    windows = [
        dataclasses.replace(w, taps=n, high=w.high + n - w.taps)
        for w, n in zip(spec.windows, taps, strict=False)
    ]
    return dataclasses.replace(spec, windows=tuple(windows))


def _by(face: str, spec: Spec, method: str, a: Array, b: Array, platform: str) -> Array:
    if method == "apart":
        return _apart(face, spec, a, b, platform)
    if method == "by_phase":
        return _by_phase(spec, a, b, platform)
    if method not in REWRITES:
        compute = partial(_bundles, face) if method == "bundles" else getattr(METHODS[method], face)
        c = compute(spec, a, b)
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
    if rule.method == "apart":
        spec = dataclasses.replace(problem.spec, groups=1)
        inputs, outputs = problem.per_group
        yield from steps(problem._replace(spec=spec, inputs=inputs, outputs=outputs), platform)
    if rule.method == "by_phase":
        spec = REWRITES["phases"](problem.spec).spec  # the phase that most taps meet
        yield from steps(problem._replace(spec=spec), platform)
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
