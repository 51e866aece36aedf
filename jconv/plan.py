"""What a convolution would do, before it is done."""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jconv import checks
from jconv.call import check
from jconv.faces import evaluate, steps
from jconv.operands import factor_dtype, number_dtype
from jconv.problem import FACES, Problem


@dataclasses.dataclass(frozen=True)
class FacePlan:
    """One face: the methods that serve it, from the first rewrite to the last step, and why."""

    face: str
    method: str
    why: str
    flops: int
    scratch: int | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The three faces of one convolution, its sizes, and the matrix that it stands for."""

    platform: str
    dtype: str
    x_shape: tuple[int, ...]
    kernel_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    matrix_shape: tuple[int, int]
    forward: FacePlan
    input_adjoint: FacePlan
    kernel_adjoint: FacePlan

    def __str__(self) -> str:
        rows = [("face", "method", "FLOPs", "scratch", "why")]
        for face in (self.forward, self.input_adjoint, self.kernel_adjoint):
            scratch = "unknown" if face.scratch is None else f"{face.scratch / 2**20:.1f} MiB"
            rows.append((face.face, face.method, f"{face.flops:.3g}", scratch, face.why))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )
        matrix = " x ".join(map(str, self.matrix_shape))
        return "\n".join(
            (
                f"x {self.x_shape} * kernel {self.kernel_shape} -> y {self.y_shape},"
                f" {self.dtype} on {self.platform}",
                f"the matrix of one example: {matrix}",
                *lines,
            )
        )


def plan(
    x_shape: Sequence[int],
    kernel_shape: Sequence[int],
    *,
    dtype: DTypeLike = jnp.float32,
    platform: str | None = None,
    **options: Any,
) -> Plan:
    """What `conv` of these shapes does: each face's method and why, its FLOPs and its scratch.

    A face takes `2 * prod(out) * prod(taps) * in // groups * out_channels` FLOPs an example by
    definition, however few a method needs. Its scratch is what XLA reports for the compiled face;
    it is unknown for a platform that is not at hand.

    Args:
      x_shape: `[*batch, *size, in]`.
      kernel_shape: `[*taps, in // groups, out]`.
      dtype: the dtype of both.
      platform: `"cpu"`, `"gpu"`, `"cuda"`, `"rocm"` or `"tpu"`; default the one in use.
      options: as in `conv`.

    Returns:
      A frozen record, which `print` shows as a table: `platform`, `dtype`, `x_shape`,
      `kernel_shape`, `y_shape`, `matrix_shape`, and the faces `forward`, `input_adjoint` and
      `kernel_adjoint`, each with its `method` (those of `conv`, or the rewrites that lead to one,
      as in `"phases > patches"`), `why`, `flops` and `scratch` in bytes.

    Raises:
      ValueError, TypeError: as `conv`.

    >>> plan((8, 32, 32, 16), (3, 3, 1, 16), groups=16, platform="cpu").forward.method
    'lanes'
    """
    x_shape, kernel_shape = _shape("x_shape", x_shape), _shape("kernel_shape", kernel_shape)
    dtype = number_dtype("dtype", dtype)
    call = check(x_shape, kernel_shape, dtype, sized="x_shape", shaped="kernel_shape", **options)
    platform = jax.default_backend() if platform is None else platform
    checks.choice("platform", platform, ("cpu", "gpu", "cuda", "rocm", "tpu"))
    inputs, outputs = x_shape[-1], kernel_shape[-1]
    size = tuple(w.size for w in call.windows)
    factors = factor_dtype(dtype, call.spec.preferred)
    problems = [
        Problem(f, call.spec, math.prod(call.batch), inputs, outputs, factors) for f in FACES
    ]
    faces = {p.face: _face_plan(p, call.method, platform) for p in problems}
    return Plan(
        platform,
        dtype.name,
        x_shape,
        kernel_shape,
        (*call.batch, *call.spec.out, outputs),
        (math.prod(call.spec.out) * outputs, math.prod(size) * inputs),
        **faces,
    )


def _shape(name: str, shape: object) -> tuple[int, ...]:
    sizes = checks.entries_of(shape)
    if sizes is None:
        raise checks.mistyped(name, "be a shape", shape)
    return tuple(checks.whole(name, size, least=0) for size in sizes)


def _face_plan(problem: Problem, method: str, platform: str) -> FacePlan:
    rules = list(steps(problem, method, platform))
    return FacePlan(
        problem.face,
        " > ".join(rule.method for rule in rules),
        "; ".join(dict.fromkeys(rule.why for rule in rules)),
        2 * problem.products,
        _scratch(problem, method, platform),
    )


def _scratch(problem: Problem, method: str, platform: str) -> int | None:
    try:
        device, *_ = jax.devices(platform)
    except RuntimeError:  # none is at hand
        return None
    with jax.default_device(device):
        program = jax.jit(partial(evaluate, problem.face, problem.spec, method))
        compiled = program.lower(*problem.operands).compile()
    analysis = compiled.memory_analysis()
    return None if analysis is None else analysis.temp_size_in_bytes
