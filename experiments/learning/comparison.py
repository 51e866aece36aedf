"""Sets one training step with the hand-derived rules against the same step with autodiff."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.learning import net
from experiments.learning.training import State, Trainer, stepper
from experiments.speed import timing

Batch = tuple[np.ndarray, np.ndarray]


class Comparison(NamedTuple):
    """Median seconds of a step, and how far the gradients differ."""

    hand_derived_seconds: float
    autodiff_seconds: float
    largest_difference: float
    largest_gradient: float


def compare(trainer: Trainer, state: State, rounds: int) -> Comparison:
    """The two on the first batch, timed in alternation."""
    rows = slice(trainer.recipe.batch)
    batch = trainer.dataset.train_images[rows], trainer.dataset.train_labels[rows]
    ways = {"hand": net.HAND_DERIVED, "autodiff": net.AUTODIFF}
    seconds = timing.alternate(
        {name: _carried(trainer, layers, state, batch) for name, layers in ways.items()}, rounds
    )
    return Comparison(
        seconds["hand"], seconds["autodiff"], *_gradient_difference(state.params, batch)
    )


def _carried(
    trainer: Trainer, layers: net.Layers, state: State, batch: Batch
) -> Callable[[], State]:
    """One step a call, each from where the last one ended, as in training."""
    advance = stepper(trainer, layers)
    current = jax.tree.map(jnp.copy, state)

    def step() -> State:
        nonlocal current
        current, *_ = advance(current, *batch)
        return current

    return step


def _gradient_difference(params: net.Params, batch: Batch) -> tuple[float, float]:
    """The largest difference in any entry, and the largest entry."""
    gradient = jax.jit(jax.grad(net.loss, has_aux=True), static_argnames="layers")
    hand_derived, autodiff = (
        ravel_pytree(gradient(params, *batch, layers=layers)[0])[0]
        for layers in (net.HAND_DERIVED, net.AUTODIFF)
    )
    return float(jnp.abs(hand_derived - autodiff).max()), float(jnp.abs(autodiff).max())
