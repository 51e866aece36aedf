"""Which method serves which face, on which platform, and why.

The rules are tables of (method, condition, reason), tried in order. Every reason cites the layers
of `python -m experiments.compare_layers` on which it was measured; a rewrite is followed by the
choice for what it leads to.
"""

from jconv.problem import Problem
from jconv.rules import forward, input_adjoint, kernel_adjoint
from jconv.rules.shared import MOST_TAPS, Rule

CPU = {
    "forward": forward.RULES,
    "input_adjoint": input_adjoint.RULES,
    "kernel_adjoint": kernel_adjoint.RULES,
}

ACCELERATOR = (
    Rule("shifts", lambda p: p.is_integer, "NVIDIA's library convolves no integers"),
    Rule("fold", lambda p: p.rank > 3, "XLA has windows of at most three axes there"),
    Rule("direct", lambda p: True, "the vendor's convolution"),
)


def local(taps: int, is_signal: bool = False) -> str:
    """A method by which no entry is felt beyond its windows, of channels that each are filtered
    alone, or of one signal.

    For more taps `"auto"` has transforms: faster by far, but one NaN is everywhere then, and means
    of numbers that are not negative may be. Loops over so many take 2 s to compile and more; one
    signal of 100,000 numbers under 801 taps takes 54 ms so, and 33 as it is.
    """
    if taps <= MOST_TAPS:
        return "auto"
    return "direct" if is_signal or taps > 2000 else "lanes"


def choose(problem: Problem, platform: str) -> Rule:
    """The first rule that applies."""
    rules = CPU[problem.face] if platform == "cpu" else ACCELERATOR
    return next(rule for rule in rules if rule.when(problem))
