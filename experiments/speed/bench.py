"""Sets programs that compute the same side by side: answers first, then times."""

import functools
import math
import statistics
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed import cores, peers, timing
from experiments.speed.peers import Answer, Program, Skipped

_PRODUCT_SIZE = 1024
_EXACT_FLOPS = 5e9  # what float64 answers in seconds


class Case(NamedTuple):
    """Programs that compute the same, each made when it is asked for, and the exact answer.

    The FLOPs are those of a convolution; None for what has no matrix product to compare with.
    """

    name: str
    face: str
    flops: int | None
    programs: Mapping[str, Callable[[], Program]]
    exact: Callable[[], Answer] | None = None


class Plan(NamedTuple):
    """How long to measure, how far answers may differ, and whether float64 is asked."""

    rounds: int
    budget: float
    tolerance: float
    check: bool = False


class Measurement(NamedTuple):
    """A case measured; the mappings are by program. `handover` is that of `cores`, just before."""

    name: str
    face: str
    flops: int | None
    seconds: dict[str, list[float]]
    compile_seconds: dict[str, float]
    scratch_bytes: dict[str, int]
    errors: dict[str, float]
    notes: dict[str, str]
    handover: float | None

    def median(self, peer: str) -> float | None:
        """Of a peer's fastest program: torch has one for each memory format."""
        medians = [
            statistics.median(taken)
            for program, taken in self.seconds.items()
            if program.split()[0] == peer
        ]
        return min(medians, default=None)

    def ratio(self, peer: str) -> float | None:
        """How many times as long as jconv a peer takes."""
        ours, theirs = self.median("jconv"), self.median(peer)
        return theirs / ours if ours and theirs else None

    def fraction_of_product(self) -> float | None:
        """The time of a matrix product of the same FLOPs, over jconv's."""
        ours, product = self.median("jconv"), self.median("product")
        if not (self.flops and ours and product):
            return None
        return product * self.flops / (2 * _PRODUCT_SIZE**3) / ours


def measure(case: Case, plan: Plan) -> Measurement:
    """All of its programs, but those that are not there or whose answers differ."""
    product = _product()  # before the first case, so that JAX is ready when compilation is timed
    programs, answers, notes = _run_once(case)
    reference = _reference(case, plan, answers)
    errors = {name: _error(answer, reference) for name, answer in answers.items()}
    for name, error in errors.items():
        if not error <= plan.tolerance:
            notes[name] = f"not timed: its answer is off by {error:.1e} of the largest entry"
    timed = {name: program.call for name, program in programs.items() if name not in notes}
    if case.flops:
        timed["product"] = product.call
    handover = cores.handover()
    return Measurement(
        case.name,
        case.face,
        case.flops,
        timing.samples(timed, plan.rounds, plan.budget),
        {n: p.compile_seconds for n, p in programs.items() if p.compile_seconds is not None},
        {n: p.scratch_bytes for n, p in programs.items() if p.scratch_bytes is not None},
        errors,
        notes,
        handover,
    )


def in_float64(function: Callable[..., jax.Array], *arrays: np.ndarray) -> Answer:
    """What a JAX function answers to the same numbers in float64."""
    with jax.enable_x64(True):
        wide = [array.astype(np.float64) for array in arrays]
        return {"result": np.asarray(jax.jit(function)(*wide))}


def _run_once(case: Case) -> tuple[dict[str, Program], dict[str, Answer], dict[str, str]]:
    """The programs that ran, their answers, and why the others did not."""
    programs, answers, notes = {}, {}, {}
    for name, make in case.programs.items():
        try:
            program = make()
            answers[name] = program.answer()
            programs[name] = program
        except Skipped as reason:
            notes[name] = str(reason)
        except Exception as error:  # one library's failure shall not end a run of minutes
            notes[name] = f"failed: {type(error).__name__}: {error}".split("\n")[0]
    return programs, answers, notes


def _reference(case: Case, plan: Plan, answers: Mapping[str, Answer]) -> Answer:
    """The exact answer, which lax gives, where it is asked for and cheap; else lax's, else any."""
    affordable = (case.flops or 0) <= _EXACT_FLOPS
    if plan.check and affordable and case.exact and "lax" in answers:
        return case.exact()
    return answers.get("lax", next(iter(answers.values()), {}))


def _error(answer: Answer, reference: Answer) -> float:
    """The largest difference, relative to the largest entry of its array."""
    if any(answer[name].shape != reference[name].shape for name in reference):
        return math.inf
    differences = [
        np.abs(answer[name] - reference[name]).max() / np.abs(reference[name]).max()
        for name in reference
    ]
    return float(np.max(differences))


@functools.cache
def _product() -> Program:
    """A plain matrix product, to show what the machine gives at the moment."""
    a, b = np.random.default_rng(0).standard_normal(
        (2, _PRODUCT_SIZE, _PRODUCT_SIZE), dtype=np.float32
    )
    return peers.compiled(jnp.matmul, a, b)
