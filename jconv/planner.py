"""Which method serves which face, on which platform, and why.

The rules are tables of (method, condition, reason), tried in order. Every reason cites the layers
of `python -m experiments.compare_layers` on which it was measured; a rewrite is followed by the
choice for what it leads to.
"""

from jconv.problem import Problem
from jconv.rules import forward, input_adjoint, kernel_adjoint
from jconv.rules.shared import Rule

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


def choose(problem: Problem, platform: str) -> Rule:
    """The first rule that applies."""
    rules = CPU[problem.face] if platform == "cpu" else ACCELERATOR
    return next(rule for rule in rules if rule.when(problem))
