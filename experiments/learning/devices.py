"""Several devices in one process or many: joining, the mesh, and what lies on it."""

import functools
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jconv
from experiments.learning.net import Layers

_BATCH, _ROWS = "batch", "rows"


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Makes this process one of many; what is not given, JAX asks the launcher for."""
    jax.distributed.initialize(coordinator, processes, process)


def wait() -> None:
    """Until every process is here."""
    multihost_utils.sync_global_devices("wait")


def make_mesh(wanted: str | None) -> Mesh | None:
    """The mesh called e.g. `batch=2,rows=2`; default all devices along the batch; None for one."""
    sizes = {_BATCH: jax.device_count()} if wanted is None else _sizes(wanted)
    count = sizes.get(_BATCH, 1) * sizes.get(_ROWS, 1)
    if count > jax.device_count() or (jax.process_count() > 1 and count != jax.device_count()):
        raise ValueError(f"`mesh` must take the {jax.device_count()} devices; got {count}.")
    if count == 1:
        return None
    shape = sizes.get(_BATCH, 1), sizes.get(_ROWS, 1)
    devices = jax.devices()[:count]
    return jax.make_mesh(shape, (_BATCH, _ROWS), (AxisType.Auto,) * 2, devices=devices)


def _sizes(wanted: str) -> dict[str, int]:
    pairs = [part.partition("=") for part in wanted.split(",")]
    known = all(name in (_BATCH, _ROWS) for name, _, _ in pairs)
    if not known or not all(size.isdecimal() and int(size) for *_, size in pairs):
        raise ValueError(f"`mesh` must be like batch=2,rows=2; got {wanted!r}.")
    return {name: int(size) for name, _, size in pairs}


def layers(mesh: Mesh) -> Layers:
    """The net's layers with hand-derived rules, each device with its images and rows."""
    axes = (_ROWS if mesh.shape[_ROWS] > 1 else None, None)
    place = {"mesh": mesh, "axes": axes, "batch_axis": _BATCH}
    return Layers(
        conv=functools.partial(jconv.sharding.conv, padding="same", **place),
        max_pool=functools.partial(jconv.sharding.max_pool, window=2, **place),
    )


def images_of(mesh: Mesh) -> int:
    """How many parts a batch is cut in."""
    return mesh.shape[_BATCH]


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process has, whole on every device."""
    return jax.tree.map(lambda a: _placed(np.asarray(a), mesh, PartitionSpec()), tree)


def by_batch(a: np.ndarray, mesh: Mesh) -> jax.Array:
    """An array that every process has, its first axis cut along the batch."""
    return _placed(a, mesh, PartitionSpec(_BATCH))


def _placed(a: np.ndarray, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    return jax.make_array_from_callback(a.shape, NamedSharding(mesh, spec), a.__getitem__)


def kept_everywhere(tree: Any, mesh: Mesh) -> Any:
    """Within a program: whole on every device."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))
