"""Where arrays lie on a mesh of devices: the one place that knows of shardings.

Within `shard_map` a loop's sums must vary over the mesh as what is added does: `zeros` are so. With
an explicit mesh (`AxisType.Explicit`) the sharding of every result is part of its type, and of most
steps here it is ambiguous. So a public function is computed as a whole with the sharding left to
XLA, and `placed` states that of the result.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

Params = ParamSpec("Params")
Result = TypeVar("Result")
Axes = tuple[Any, ...]  # of each axis of an array, the mesh axes along which it is cut


def varying(a: Any) -> frozenset[str]:
    """The axes of `shard_map`'s mesh along which the devices hold an `a` of their own."""
    return jax.typeof(a).manual_axis_type.varying


def zeros(shape: Sequence[int], dtype: Any, *like: Any) -> Array:
    """Zeros that vary over the mesh as a sum of these arrays does: what such a sum starts from."""
    return varied(jnp.zeros(shape, dtype), *like)


def varied(a: Array, *like: Any) -> Array:
    """`a`, the same on all devices, as one that varies over the mesh as a sum of these does."""
    axes = frozenset().union(*map(varying, like))
    return lax.pcast(a, tuple(axes), to="varying") if axes else a


def lay(a: Array, mesh: Mesh | AbstractMesh, spec: PartitionSpec) -> Array:
    """`a` cut over the mesh as `spec` says, where the mesh is explicit; else XLA will see to it."""
    explicit = AxisType.Explicit in mesh.axis_types
    return jax.sharding.reshard(a, NamedSharding(mesh, spec)) if explicit else a


def whole(a: Array, axes: Sequence[int]) -> Array:
    """`a` with these axes on every device, where a mesh in context leaves them to XLA.

    XLA (jaxlib 0.10.2) adds up a convolution that is cut along its window once for every device
    that holds the same cut, and so gives a multiple of the sum.
    """
    if AxisType.Auto not in jax.sharding.get_abstract_mesh().axis_types:
        return a
    free = PartitionSpec.UNCONSTRAINED
    spec = PartitionSpec(*(None if axis in axes else free for axis in range(a.ndim)))
    return lax.with_sharding_constraint(a, spec)


def as_first(*operands: Axes) -> Axes:
    """Of a result that has the axes of its first operand."""
    return operands[0]


def placed(
    *names: str, axes: Callable[..., Axes] = as_first
) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """Makes a function's results lie on an explicit mesh as its arguments of these `names` do.

    `axes` maps how these are cut to how the result is; an axis that its mesh axes do not divide is
    not cut, nor by a mesh axis that cuts an earlier one. Without such a mesh nothing is done.
    """

    def decorate(function: Callable[Params, Result]) -> Callable[Params, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapped(*args: Params.args, **kwargs: Params.kwargs) -> Result:
            mesh = _explicit_mesh([*args, *kwargs.values()])
            if mesh is None:
                return function(*args, **kwargs)
            given = signature.bind(*args, **kwargs).arguments
            cuts = axes(*(_axes_of(given[name]) for name in names))
            return _stated(mesh, function, given, cuts)

        return wrapped

    return decorate


def _explicit_mesh(arguments: Sequence[Any]) -> AbstractMesh | None:
    """The mesh whose axes are explicit: that of the context, or of an argument."""
    of_arguments = (jax.typeof(a).sharding.mesh for a in arguments if isinstance(a, Array))
    for mesh in (jax.sharding.get_abstract_mesh(), *of_arguments):
        if AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def _axes_of(a: Any) -> Axes:
    return tuple(jax.typeof(a).sharding.spec) if isinstance(a, Array) else (None,) * np.ndim(a)


def _stated(mesh: AbstractMesh, function: Callable, given: Mapping[str, Any], cuts: Axes) -> Any:
    """`function(**given)`, computed without explicit axes, as an array that is cut so."""
    arrays = {name: a for name, a in given.items() if isinstance(a, Array)}
    names = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    explicit = tuple(name for name, kind in names.items() if kind == AxisType.Explicit)

    def computed(out_sharding: Any) -> Callable:
        return jax.sharding.auto_axes(
            lambda arrays: function(**{**given, **arrays}),
            axes=explicit,
            out_sharding=out_sharding,
        )

    uncut = NamedSharding(mesh, PartitionSpec())
    results = jax.eval_shape(computed(uncut), arrays)
    return computed(
        jax.tree.map(lambda y: NamedSharding(mesh, _fitting(mesh, cuts, y.shape)), results)
    )(arrays)


def _fitting(mesh: AbstractMesh, cuts: Axes, shape: Sequence[int]) -> PartitionSpec:
    """The cuts that fit the shape. New axes stand before the last one."""
    lead, last = cuts[:-1][: len(shape) - 1], cuts[-1:]
    new = (None,) * (len(shape) - len(lead) - len(last))
    used: set[str] = set()
    fitting = []
    for size, cut in zip(shape, (*lead, *new, *last), strict=True):
        names = (cut,) if isinstance(cut, str) else cut or ()
        parts = math.prod(mesh.shape[name] for name in names)
        fits = names and size % parts == 0 and used.isdisjoint(names)
        fitting.append(names if fits else None)
        used.update(names if fits else ())
    return PartitionSpec(*fitting)
