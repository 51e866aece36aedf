"""Training as a pure function of a recipe, so that a run can stop anywhere and go on.

The order of the images follows from the seed and the epoch, the random shifts from the seed and
the step: no state is hidden, and what a checkpoint holds is all there is.
"""

import copy
import functools
import itertools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from experiments.learning import descent, devices, net
from experiments.learning.augment import shifted
from experiments.learning.checkpoints import Checkpoint
from experiments.learning.data import Dataset

_PIXELS_PER_SHIFT = 14  # MNIST's 28 shift by two, the 8 of scikit-learn's digits by none
_EVALUATED_AT_ONCE = 500
_STEPS_SHOWN = 20


class Recipe(NamedTuple):
    """What decides the numbers of a run, beside the data."""

    epochs: int
    batch: int
    seed: int
    learning_rate: float


class State(NamedTuple):
    """What a step changes."""

    step: jax.Array
    params: net.Params
    optimizer: optax.OptState


class Trainer(NamedTuple):
    """A recipe made ready for a set of images, and the devices that share the work, if many."""

    recipe: Recipe
    dataset: Dataset
    steps_per_epoch: int
    steps: int
    optimizer: optax.GradientTransformation
    mesh: Mesh | None = None


def prepare(recipe: Recipe, dataset: Dataset, mesh: Mesh | None = None) -> Trainer:
    """Adam, with a warm-up and then a cosine down to zero."""
    steps_per_epoch = descent.batches_of(dataset, recipe.batch)
    parts = 1 if mesh is None else devices.images_of(mesh)
    if recipe.batch % parts:
        raise ValueError(
            f"`batch` must be a multiple of {parts}, the parts it is cut in; got {recipe.batch}."
        )
    if recipe.epochs < 1:
        raise ValueError(f"`epochs` must be at least 1; got {recipe.epochs}.")
    steps = recipe.epochs * steps_per_epoch
    schedule = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, steps // 10, steps)
    return Trainer(recipe, dataset, steps_per_epoch, steps, optax.adam(schedule), mesh)


def settings(trainer: Trainer) -> dict[str, Any]:
    """What a resumed run must have in common with the run that was stopped."""
    dataset = trainer.dataset
    checksum = zlib.crc32(dataset.train_images.tobytes() + dataset.test_images.tobytes())
    return {**trainer.recipe._asdict(), "data": f"{len(dataset.train_images)} images, {checksum}"}


def start(trainer: Trainer) -> Checkpoint:
    """A run before its first step."""
    params = weights(trainer.dataset, trainer.recipe.seed)
    state = State(jnp.int32(0), params, jax.jit(trainer.optimizer.init)(params))
    if trainer.mesh is not None:
        state = devices.everywhere(state, trainer.mesh)
    return Checkpoint(0, state, {"loss": [], "accuracy": [], "test_loss": [], "test_accuracy": []})


def weights(dataset: Dataset, seed: int = 0) -> net.Params:
    """Of the net for these images, before the first step."""
    init = jax.jit(net.init, static_argnames=("image_shape", "classes"))
    return init(jax.random.key(seed), dataset.train_images.shape[1:], len(dataset.names))


@functools.partial(
    jax.jit,
    static_argnames=("optimizer", "layers", "seed", "reach", "mesh"),
    donate_argnames="state",
)
def _step(
    state: State,
    images: jax.Array,
    labels: jax.Array,
    *,
    optimizer: optax.GradientTransformation,
    layers: net.Layers,
    seed: int,
    reach: int,
    mesh: Mesh | None,
) -> tuple[State, jax.Array, jax.Array]:
    images = shifted(jax.random.fold_in(jax.random.key(seed), state.step), images, reach)
    (loss, accuracy), gradient = jax.value_and_grad(net.loss, has_aux=True)(
        state.params, images, labels, layers
    )
    updates, optimizer_state = optimizer.update(gradient, state.optimizer)
    params = cast(net.Params, optax.apply_updates(state.params, updates))
    after = State(state.step + 1, params, optimizer_state), loss, accuracy
    return after if mesh is None else devices.kept_everywhere(after, mesh)


def stepper(trainer: Trainer, layers: net.Layers) -> Callable[..., tuple[State, Any, Any]]:
    """The jitted step: state, images, labels -> the next state, loss, accuracy."""
    size = min(trainer.dataset.train_images.shape[1:3])
    return functools.partial(
        _step,
        optimizer=trainer.optimizer,
        layers=layers,
        seed=trainer.recipe.seed,
        reach=size // _PIXELS_PER_SHIFT,
        mesh=trainer.mesh,
    )


def scores(params: net.Params, images: np.ndarray) -> np.ndarray:
    """The net's logits for any number of images."""
    parts = range(0, len(images), _EVALUATED_AT_ONCE)
    return np.concatenate([_scores(params, images[at : at + _EVALUATED_AT_ONCE]) for at in parts])


def accuracy(params: net.Params, dataset: Dataset) -> float:
    """The share of test images whose class the net guesses."""
    return float((scores(params, dataset.test_images).argmax(-1) == dataset.test_labels).mean())


@jax.jit
def _scores(params: net.Params, images: jax.Array) -> jax.Array:
    return net.logits(params, images, net.HAND_DERIVED)


def layers_of(trainer: Trainer) -> net.Layers:
    """What the net is trained with, on the trainer's devices."""
    return net.HAND_DERIVED if trainer.mesh is None else devices.layers(trainer.mesh)


def fit(
    trainer: Trainer, begin: Checkpoint, save: Callable[[Checkpoint], None], save_every: int
) -> Checkpoint:
    """Goes on from a checkpoint to the last step, saving every so many steps and at the end."""
    recipe, dataset = trainer.recipe, trainer.dataset
    step, state, history = begin.step, begin.state, copy.deepcopy(begin.history)
    state = jax.tree.map(jnp.copy, state)  # since a step uses up the state it is given
    advance = stepper(trainer, layers_of(trainer))
    rows = descent.batches(len(dataset.train_images), recipe.batch, recipe.seed, first=step)
    with _progress(trainer, step) as bar:
        for chosen in itertools.islice(rows, trainer.steps - step):
            batch = dataset.train_images[chosen], dataset.train_labels[chosen]
            if trainer.mesh is not None:
                batch = [devices.by_batch(part, trainer.mesh) for part in batch]
            state, loss, accuracy = advance(state, *batch)
            step += 1
            history["loss"].append(float(loss))
            history["accuracy"].append(float(accuracy))
            if step % trainer.steps_per_epoch == 0:
                _test(state, dataset, history)
            if step % save_every == 0 or step == trainer.steps:
                save(Checkpoint(step, state, history))
            bar.set_postfix_str(_summary(history), refresh=False)
            bar.update(recipe.batch)
    return Checkpoint(step, state, history)


def _progress(trainer: Trainer, step: int) -> tqdm:
    batch = trainer.recipe.batch
    total, initial = trainer.steps * batch, step * batch
    quiet = jax.process_index() > 0
    return tqdm(total=total, initial=initial, unit=" images", unit_scale=True, disable=quiet)


def _test(state: State, dataset: Dataset, history: dict[str, list[float]]) -> None:
    logits = scores(state.params, dataset.test_images)
    loss, accuracy = jax.jit(net.measure)(logits, dataset.test_labels)
    history["test_loss"].append(float(loss))
    history["test_accuracy"].append(float(accuracy))


def _summary(history: dict[str, list[float]]) -> str:
    loss, accuracy = (np.mean(history[name][-_STEPS_SHOWN:]) for name in ("loss", "accuracy"))
    return f"loss {loss:.4f}, accuracy {accuracy:.1%}"
