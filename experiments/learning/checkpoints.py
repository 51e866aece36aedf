"""Checkpoints of a run: saved whole or not at all, restored bit for bit or refused.

Orbax writes a checkpoint beside its final place and then renames it, so a run that is killed
leaves the one before intact. A digest goes with it, since not every damaged byte makes a file
unreadable. The settings that decide a run's numbers go with it too: a run is resumed with the same
ones or not at all.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

_KEPT = 2
_SAVED = re.compile(r"\d+(\.orbax.*)?")  # a step, or what a stop left of one


class Checkpoint(NamedTuple):
    """A run after `step` steps: its state, a pytree of arrays, and its history, anything JSON."""

    step: int
    state: Any
    history: dict[str, list[float]]


def set_aside(directory: Path) -> Path | None:
    """Renames a directory of checkpoints, so that a new run overwrites nothing; says to what."""
    found = sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []
    if not found:
        return None
    foreign = [name for name in found if not _SAVED.fullmatch(name)]
    if foreign:
        raise ValueError(
            f"{directory} must be new, or hold checkpoints alone; it holds {foreign[0]}."
        )
    number = 1
    while (aside := directory.with_name(f"{directory.name}-{number}")).exists():
        number += 1
    return directory.rename(aside)


def save(directory: Path, settings: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Saves; on return it is on disk."""
    step, state, history = checkpoint
    record = {"settings": settings, "history": history, "digest": _digest(state, history)}
    items = {"state": ocp.args.StandardSave(state), "record": ocp.args.JsonSave(record)}
    with _manager(directory, create=True) as manager:
        manager.save(step, args=ocp.args.Composite(**items))


def restore(directory: Path, settings: dict[str, Any], like: Any) -> Checkpoint:
    """The latest checkpoint, its state shaped `like`; `ValueError` where that can't be had."""
    with _manager(directory, create=False) as manager:
        step = manager.latest_step()
        if step is None:
            raise ValueError(f"{directory} must hold a checkpoint to resume from; it has none.")
        record = _read(manager, step, "record", ocp.args.JsonRestore())
        _check_settings(record["settings"], settings)
        state = _read(manager, step, "state", ocp.args.StandardRestore(like))
        if record["digest"] != _digest(state, record["history"]):
            raise _damaged(manager, step, "its content is not what was saved")
    return Checkpoint(step, state, record["history"])


def _manager(directory: Path, *, create: bool) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        create=create,
        preservation_policy=ocp.checkpoint_managers.LatestN(_KEPT),
        enable_async_checkpointing=False,
    )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def _check_settings(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if saved.get(name) != value:
            raise ValueError(
                f"A resumed run must keep its settings; `{name}` was {saved.get(name)!r}, "
                f"got {value!r}."
            )


def _read(manager: ocp.CheckpointManager, step: int, item: str, how: Any) -> Any:
    try:
        return manager.restore(step, args=ocp.args.Composite(**{item: how}))[item]
    except Exception as error:  # what is raised depends on which byte of which file is damaged
        raise _damaged(manager, step, _root_cause(error)) from error


def _root_cause(error: BaseException) -> str:
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def _damaged(manager: ocp.CheckpointManager, step: int, reason: str) -> ValueError:
    return ValueError(
        f"The checkpoint {manager.directory / str(step)} must be whole; it is damaged: {reason}. "
        "Nothing was changed. Move it elsewhere to resume from the one before it, if there is one."
    )


def _digest(state: Any, history: dict[str, list[float]]) -> str:
    digest = hashlib.sha256(json.dumps(history).encode())
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
