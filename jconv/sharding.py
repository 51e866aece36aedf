"""Convolution and pooling of an input whose spatial axes are cut over a mesh of devices.

Each device takes what its windows read beyond its own entries from its neighbours, and then
computes its own outputs: no device ever holds the whole input. The values and the derivatives are
those of the functions of the same names in `jconv`.

    y[d] = conv(gathered(x)[d], kernel, padding="valid")

on device `d`, where `gathered(x)[d]` is all that its outputs read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from jconv import checks, halos, pool
from jconv.call import check
from jconv.conv import conv as local_conv
from jconv.geometry import Ints, Padding, Window
from jconv.operands import array, inexact, is_zero, numbers, wide
from jconv.padding import crop, outside, padded
from jconv.placement import lay
from jconv.pool_options import Pooling, pooling_of
from jconv.pooling.extremes import neutral
from jconv.pooling.sums import divided

__all__ = ["avg_pool", "conv", "max_pool", "min_pool", "sum_pool"]

Axes = Sequence[str | None]
Place = tuple[Mesh | AbstractMesh, Axes, str | None]


def conv(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    mesh: Mesh | AbstractMesh,
    axes: Axes,
    batch_axis: str | None = None,
    stride: Ints = 1,
    padding: Padding = "valid",
    padding_mode: str = "constant",
    padding_value: ArrayLike = 0,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    groups: int = 1,
    flip: bool = False,
    method: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    custom_vjp: bool = True,
) -> Array:
    """`jconv.conv` with spatial axes cut over a mesh.

    `y[o] = sum_t x[stride*o + dilation*t - low] . kernel[t]`, each device its own `o`. Spatial
    sizes need not divide: the last devices then have less to do. With an explicit mesh,
    differentiate within `jax.set_mesh(mesh)`.

    Args:
      x: `[*batch, *size, in]`; it is cut first if it is not yet.
      kernel: `[*taps, in // groups, out]`, whole on every device.
      mesh: the devices.
      axes: per spatial axis the name of the mesh axis that cuts it, or None.
      batch_axis: the name of the mesh axis that cuts the first batch axis, evenly, or None.
      others: as in `jconv.conv`.

    Returns:
      `[*batch, *out, out_channels]`, cut as `axes` and `batch_axis` say; but on an explicit mesh,
      which has no type for uneven parts, not along an axis that its devices do not divide.

    Raises:
      ValueError, TypeError: as `jconv.conv`; axes that are not the mesh's, or a batch axis that its
        devices do not divide.

    Source: Jin, Ginsburg, Keutzer (2018), Spatially Parallel Convolutions.

    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> x, kernel = jnp.array([[1], [2], [3], [4]]), jnp.array([1, 0, -1]).reshape(3, 1, 1)
    >>> conv(x, kernel, mesh=mesh, axes=["rows"]).ravel()
    Array([-2, -2], dtype=int32)
    """
    x, kernel = numbers(x=x, kernel=kernel)
    call = check(
        x.shape, kernel.shape, x.dtype, stride=stride, padding=padding, padding_mode=padding_mode,
        padding_value=padding_value, dilation=dilation, input_dilation=input_dilation,
        groups=groups, flip=flip, method=method, precision=precision,
        preferred_element_type=preferred_element_type, custom_vjp=custom_vjp,
    )  # fmt: skip

    def local(x: Array, kernel: Array) -> Array:
        return local_conv(
            x, kernel, stride=stride, dilation=dilation, groups=groups, flip=flip, method=method,
            precision=precision, preferred_element_type=preferred_element_type,
            custom_vjp=custom_vjp,
        )  # fmt: skip

    spec = _spec(mesh, axes, batch_axis, x, call.rank)
    return _over_shards(local, x, [kernel], call.windows, mesh, spec, call.mode, call.value)


def max_pool(
    x: ArrayLike,
    window: Ints,
    *,
    mesh: Mesh | AbstractMesh,
    axes: Axes,
    batch_axis: str | None = None,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    custom_vjp: bool = True,
) -> Array:
    """`jconv.max_pool` with spatial axes cut over a mesh.

    `y[o] = max_t x[stride*o + dilation*t - low]`, each device its own `o`. There are no indices,
    and a window that sees nothing but `-inf` gives no gradient.

    Args:
      x: `[*batch, *size, channels]`, as in `conv`.
      mesh, axes, batch_axis: as in `conv`.
      window, others: as in `jconv.max_pool`.

    Returns:
      `[*batch, *out, channels]`, cut as the result of `conv` is.

    Raises:
      ValueError, TypeError: as `jconv.max_pool`, and as `conv` for where it lies.

    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> max_pool(jnp.array([[1], [3], [3], [2]]), (2,), mesh=mesh, axes=["rows"]).ravel()
    Array([3, 3], dtype=int32)
    """
    x = array(x, real=True)
    pooling = pooling_of(x, window, stride, padding, dilation, ceil_mode)
    fill = neutral(x.dtype, least=False)
    return _pooled(pool.max_pool, fill, x, pooling, (mesh, axes, batch_axis), custom_vjp)


def min_pool(
    x: ArrayLike,
    window: Ints,
    *,
    mesh: Mesh | AbstractMesh,
    axes: Axes,
    batch_axis: str | None = None,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    custom_vjp: bool = True,
) -> Array:
    """`jconv.min_pool` with spatial axes cut over a mesh.

    `y[o] = min_t x[stride*o + dilation*t - low]`; arguments as in `max_pool`.

    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> min_pool(jnp.array([[1], [3], [3], [2]]), (2,), mesh=mesh, axes=["rows"]).ravel()
    Array([1, 2], dtype=int32)
    """
    x = array(x, real=True)
    pooling = pooling_of(x, window, stride, padding, dilation, ceil_mode)
    fill = neutral(x.dtype, least=True)
    return _pooled(pool.min_pool, fill, x, pooling, (mesh, axes, batch_axis), custom_vjp)


def sum_pool(
    x: ArrayLike,
    window: Ints,
    *,
    mesh: Mesh | AbstractMesh,
    axes: Axes,
    batch_axis: str | None = None,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    custom_vjp: bool = True,
) -> Array:
    """`jconv.sum_pool` with spatial axes cut over a mesh.

    `y[o] = sum_t x[stride*o + dilation*t - low]`; arguments as in `max_pool`.

    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> sum_pool(jnp.array([[1], [3], [3], [2]]), (2,), mesh=mesh, axes=["rows"]).ravel()
    Array([4, 5], dtype=int32)
    """
    x = array(x)
    pooling = pooling_of(x, window, stride, padding, dilation, ceil_mode)
    return _pooled(pool.sum_pool, 0, x, pooling, (mesh, axes, batch_axis), custom_vjp)


def avg_pool(
    x: ArrayLike,
    window: Ints,
    *,
    mesh: Mesh | AbstractMesh,
    axes: Axes,
    batch_axis: str | None = None,
    stride: Ints | None = None,
    padding: Padding = "valid",
    dilation: Ints = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: float | None = None,
    custom_vjp: bool = True,
) -> Array:
    """`jconv.avg_pool` with spatial axes cut over a mesh.

    `y[o] = sum_t x[stride*o + dilation*t - low] / count[o]`; `mesh`, `axes` and `batch_axis` as in
    `conv`, the others as in `jconv.avg_pool`.

    >>> mesh = jax.make_mesh((1,), ("rows",))
    >>> avg_pool(jnp.array([[1.0], [3.0], [3.0], [2.0]]), (2,), mesh=mesh, axes=["rows"]).ravel()
    Array([2. , 2.5], dtype=float32)
    """
    x = inexact(array(x))
    pooling = pooling_of(x, window, stride, padding, dilation, ceil_mode)
    counts = pooling.counts(checks.flag("count_include_pad", count_include_pad), divisor)
    place = mesh, axes, batch_axis
    y = _pooled(pool.sum_pool, 0, x.astype(wide(x.dtype)), pooling, place, custom_vjp)
    return divided(y, counts).astype(x.dtype)


# ---------------------------------------------------------------- options


def _spec(mesh, axes, batch_axis, x: Array, rank: int) -> PartitionSpec:
    """How `x` is cut."""
    if not isinstance(mesh, Mesh | AbstractMesh):
        raise checks.mistyped("mesh", "be a jax.sharding.Mesh", mesh)
    names = checks.entries_of(axes)
    if names is None:
        raise checks.mistyped("axes", "hold a name or None for each spatial axis", axes)
    if len(names) != rank:
        raise checks.wrong("axes", f"hold one entry for each of {rank} spatial axes", axes)
    given = [("axes", name) for name in names] + [("batch_axis", batch_axis)]
    for argument, name in given:
        if not isinstance(name, str | None):
            raise checks.mistyped(argument, "name axes of the mesh", name)
        if name is not None and name not in mesh.axis_names:
            raise checks.wrong(argument, f"name axes of the mesh, {mesh.axis_names}", repr(name))
    used = [name for _, name in given if name is not None]
    if len(set(used)) < len(used):
        raise checks.wrong("axes", "use each axis of the mesh once, `batch_axis` too", used)
    lead = x.ndim - rank - 1
    if batch_axis is None:
        return PartitionSpec(*(None,) * lead, *names, None)
    if not lead or x.shape[0] % mesh.shape[batch_axis]:
        must = f"cut a first batch axis evenly in {mesh.shape[batch_axis]}"
        raise checks.wrong("batch_axis", must, f"{batch_axis!r} for shape {x.shape}")
    return PartitionSpec(batch_axis, *(None,) * (lead - 1), *names, None)


# ---------------------------------------------------------------- evaluation


def _pooled(
    operation: Callable, fill: ArrayLike, x: Array, pooling: Pooling, place: Place, custom_vjp
) -> Array:
    """A pooling whose padding is `fill`."""
    taps, stride, dilation = (
        [getattr(w, name) for w in pooling.windows] for name in ("taps", "stride", "dilation")
    )
    checks.flag("custom_vjp", custom_vjp)

    def local(x: Array) -> Array:
        return operation(x, taps, stride=stride, dilation=dilation, custom_vjp=custom_vjp)

    spec = _spec(*place, x, pooling.rank)
    x = crop(x, x.ndim - pooling.rank - 1, pooling.kept)
    return _over_shards(local, x, [], pooling.windows, place[0], spec, value=fill)


def _over_shards(
    local: Callable[..., Array],
    x: Array,
    operands: Sequence[Array],
    windows: Sequence[Window],
    mesh: Mesh | AbstractMesh,
    spec: PartitionSpec,
    mode: str = "constant",
    value: ArrayLike = 0,
) -> Array:
    """`local(xp, *operands)` on each device, where `xp` is what its outputs read."""
    lead = x.ndim - len(windows) - 1
    cuts = {
        axis: halos.cut(w, name, mesh.shape[name], mode)
        for axis, (w, name) in enumerate(zip(windows, spec[lead:-1], strict=True), lead)
        if name is not None
    }
    zeros = mode != "constant" or is_zero(value)
    values = [] if zeros else [jnp.asarray(value, x.dtype)]

    def still(size: Sequence[int]) -> list[Window]:
        """The windows, with single entries along the axes that are cut."""
        return [
            Window(n, 1) if axis in cuts else w
            for axis, (n, w) in enumerate(zip(size, windows, strict=True), lead)
        ]

    def of_shard(x: Array, values: Sequence[Array], operands: Sequence[Array]) -> Array:
        x = padded(x, still(x.shape[lead:-1]), mode)
        for axis, cut in cuts.items():
            x = halos.gathered(x, axis, cut)
        if values:
            beyond = lax.expand_dims(outside(still((1,) * len(windows))), range(lead))
            for axis, cut in cuts.items():
                beyond = beyond | halos.outside(x, axis, cut)
            x = jnp.where(beyond, values[0], x)
        return local(x, *operands)

    whole = PartitionSpec()
    over = jax.shard_map(of_shard, mesh=mesh, in_specs=(spec, whole, whole), out_specs=spec)
    x = _resized(x, mesh, spec, {axis: cut.devices * cut.shard for axis, cut in cuts.items()})
    rest = jax.tree.map(lambda a: lay(a, mesh, whole), (values, list(operands)))
    y = lay(over(lay(x, mesh, spec), *rest), mesh, spec)  # and a cotangent, wherever it lies
    return _resized(y, mesh, spec, {axis: windows[axis - lead].out for axis in cuts})


def _resized(a: Array, mesh, spec: PartitionSpec, sizes: Mapping[int, int]) -> Array:
    """Zeros at the end of axes that the devices do not divide, or what was computed there cut off.

    An explicit mesh has no type for an axis cut unevenly, so such an axis is then cut nowhere.
    """
    changed = [axis for axis, size in sizes.items() if a.shape[axis] != size]
    uncut = PartitionSpec(*(None if axis in changed else name for axis, name in enumerate(spec)))
    a = lay(a, mesh, uncut) if changed else a
    for axis in changed:
        missing = max(sizes[axis] - a.shape[axis], 0)
        # Zeros that lie as `a` does.
        zeros = jnp.zeros_like(lax.slice_in_dim(a, 0, 1, axis=axis))
        zeros = jnp.broadcast_to(zeros, (*a.shape[:axis], missing, *a.shape[axis + 1 :]))
        a = crop(lax.concatenate([a, zeros], axis), axis, [(0, sizes[axis])])
    return a
