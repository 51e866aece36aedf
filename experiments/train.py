"""Train a small CNN on real images, and set the hand-derived rules against autodiff. (2 minutes)

Reports the accuracy on images that training never saw, how long a training step takes with jconv's
rules and with JAX's derivative of `jax.lax`, and how far their gradients differ. Draws the loss,
the learned kernels, what the layers make of one image, and which classes are confused.
"""

import argparse
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from experiments import command_line
from experiments.learning import checkpoints, comparison, data, devices, pictures, training


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__file__, __doc__)
    add = parser.add_argument
    add("--data", default="mnist", help=data.SOURCES)
    add("--epochs", type=int, default=40, help="how often training sees every image")
    add("--batch", type=int, default=64, help="images a step")
    add(
        "--seed",
        type=command_line.from_zero,
        default=0,
        help="of the first weights, the order and the shifts",
    )
    add("--learning-rate", type=command_line.positive, default=2e-3, help="at its peak")
    add("--rounds", type=command_line.count, default=30, help="steps timed for the comparison")
    add("--checkpoint-dir", type=Path, help="where the run is saved (RESULTS/checkpoints)")
    add("--save-every", type=command_line.count, default=50, help="steps between checkpoints")
    add("--resume", action="store_true", help="go on with the run saved there")
    add("--mesh", help="devices that share the work, batch=2,rows=2 say (all, along the batch)")
    add("--distributed", action="store_true", help="be one of the launcher's processes")
    add("--coordinator", help="HOST:PORT of the first process, where the launcher does not say it")
    add("--processes", type=int, help="how many there are, likewise")
    add("--process", type=int, help="which of them this is, from 0 on, likewise")
    options = command_line.parse(parser, arguments, data="digits", epochs=2, rounds=3)
    options.checkpoint_dir = options.checkpoint_dir or options.results / "checkpoints"
    return options


def _begin(options: argparse.Namespace, trainer: training.Trainer) -> checkpoints.Checkpoint:
    """Where to go on from: the saved run if it is resumed, else a new one."""
    new = training.start(trainer)
    if options.resume:
        settings = training.settings(trainer)
        saved = checkpoints.restore(options.checkpoint_dir, settings, like=new.state)
        print(f"Resuming after step {saved.step} of {trainer.steps}.")
        return saved
    aside = checkpoints.set_aside(options.checkpoint_dir) if jax.process_index() == 0 else None
    devices.wait()
    if aside:
        print(f"The checkpoints of an earlier run are now in {aside}.")
    return new


def _report(options: argparse.Namespace, trainer: training.Trainer, run: checkpoints.Checkpoint):
    """Prints the table, and leaves it with the history and the pictures in the results."""
    # Both are about one device, and about the first process alone.
    trainer = trainer._replace(mesh=None)
    run = run._replace(state=jax.tree.map(np.asarray, run.state))
    found = comparison.compare(trainer, run.state, options.rounds)
    accuracy = run.history["test_accuracy"][-1]
    print(_table(trainer, accuracy, found))
    content = {
        "settings": training.settings(trainer),
        "test_accuracy": accuracy,
        "comparison": found._asdict(),
        "history": run.history,
    }
    (options.results / "train.json").write_text(json.dumps(content, indent=1))
    for name, figure in pictures.draw(trainer, run).items():
        figure.savefig(options.results / f"{name}.png", dpi=150)
    print(f"Pictures and figures are in {options.results}.")


def _table(trainer: training.Trainer, accuracy: float, found: comparison.Comparison) -> str:
    hand, autodiff = found.hand_derived_seconds, found.autodiff_seconds
    rows = [
        ("test accuracy", f"{accuracy:.2%}", f"{len(trainer.dataset.test_labels)} images"),
        ("step, hand-derived rules", f"{hand * 1e3:.1f} ms", f"{trainer.recipe.batch} images"),
        ("step, autodiff of jax.lax", f"{autodiff * 1e3:.1f} ms", f"{autodiff / hand:.2f} times"),
        (
            "largest difference of their gradients",
            f"{found.largest_difference:.1e}",
            f"the largest entry is {found.largest_gradient:.1e}",
        ),
    ]
    return "\n".join(f"{name:<38} {value:>9}  ({remark})" for name, value, remark in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, then reports."""
    options = _options(arguments)
    recipe = training.Recipe(options.epochs, options.batch, options.seed, options.learning_rate)
    with command_line.refusal():
        place = options.coordinator, options.processes, options.process
        if options.distributed or any(part is not None for part in place):
            devices.join(*place)
        mesh = devices.make_mesh(options.mesh)
        trainer = training.prepare(recipe, data.load(options.data), mesh)
        begin = _begin(options, trainer)
    save = functools.partial(checkpoints.save, options.checkpoint_dir, training.settings(trainer))
    run = training.fit(trainer, begin, save, options.save_every)
    if jax.process_index() == 0:
        _report(options, trainer, run)


if __name__ == "__main__":
    main()
