"""Which method serves which face."""

from jconv.geometry import Spec

FACES = ("forward", "input_adjoint", "kernel_adjoint")


def choose(face: str, spec: Spec, method: str) -> str:
    """The method that evaluates one face."""
    return "direct" if method == "auto" else method
