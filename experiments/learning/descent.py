"""What every training does: batches in an order that a seed decides, and a step for each."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

from experiments.learning.data import Dataset

Example = tuple[np.ndarray, np.ndarray, jax.Array]


def batches_of(dataset: Dataset, batch: int) -> int:
    """How many batches of this size the training images make."""
    count = len(dataset.train_images)
    if not 1 <= batch <= count:
        raise ValueError(f"`batch` must be 1 to {count}, the training images; got {batch}.")
    return count // batch


def batches(count: int, batch: int, seed: int, first: int) -> Iterator[np.ndarray]:
    """Which of `count` images each step sees, from step `first` on, without end.

    >>> order = batches(count=4, batch=2, seed=0, first=0)
    >>> sorted(np.concatenate([next(order), next(order)]).tolist())
    [0, 1, 2, 3]
    """
    begun, done = divmod(first, count // batch)
    for epoch in itertools.count(begun):
        order = np.random.default_rng((seed, epoch)).permutation(count)
        yield from order[: count // batch * batch].reshape(-1, batch)[done:]
        done = 0


def examples(dataset: Dataset, batch: int, steps: int, title: str) -> Iterator[Example]:
    """Images, labels and a random key for each of so many steps, the same ones always."""
    order = batches(len(dataset.train_images), batch, seed=0, first=0)
    progress = tqdm(itertools.islice(order, steps), title, steps, leave=False, unit="step")
    for number, rows in enumerate(progress):
        key = jax.random.fold_in(jax.random.key(1), number)
        yield dataset.train_images[rows], dataset.train_labels[rows], key


def minimize(
    loss: Callable[..., jax.Array],
    params: Any,
    optimizer: optax.GradientTransformation,
    batches: Iterable[tuple],
) -> tuple[Any, list[float]]:
    """The weights after a step for each batch, the arguments of `loss`, and the loss before it."""

    @jax.jit
    def step(params: Any, state: optax.OptState, *batch: Any):
        value, gradient = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state, losses = jax.jit(optimizer.init)(params), []
    for batch in batches:
        params, state, value = step(params, state, *batch)
        losses.append(float(value))
    return params, losses
