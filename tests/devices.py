"""Checks on eight devices, in a process of its own: `python -m tests.devices GROUP`.

XLA:CPU takes the number of its devices once, when it starts. Each check prints a line of JSON, its
name and what went wrong, if anything did.
"""

import functools
import json
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jconv
from jconv import blocks, faces
from jconv.methods import METHODS, lanes, mixed, winograd
from tests.cases import CONV_CASES, PLANNED_CASES, named
from tests.compare import assert_close
from tests.effort import AS_USERS_COMPILE
from tests.public import PUBLIC

AXES = {"b": "batch", "r": "rows", "c": "channels"}
TERMS = 1000


def mesh(kind):
    return jax.make_mesh((2, 2, 2), tuple(AXES.values()), axis_types=(kind,) * 3)


def specs(public):
    return tuple(P(*(AXES.get(axis) for axis in cut)) for cut in public.cuts)


def with_cotangents(f):
    """`f`, and the cotangents of its arguments for one of its result that no sum makes alike."""

    def value_and_cotangents(*arrays):
        y, transpose = jax.vjp(f, *arrays)
        return y, transpose(jnp.cos(y))

    return value_and_cotangents


def assert_equal(actual, expected):
    def check(a, b):
        assert_close(np.asarray(a), np.asarray(b), "float64", TERMS)

    jax.tree.map(check, actual, expected)


# ---------------------------------------------------------------- one program over all devices


def check_jit(public, kind):
    """A sharding changes no number. An explicit one is kept by the cotangents."""
    where = mesh(kind)
    with jax.set_mesh(where):
        compare_with_one_device(public, where, kind)


def compare_with_one_device(public, where, kind):
    f, arrays = with_cotangents(public.apply), public.arrays("float64")
    shardings = [NamedSharding(where, spec) for spec in specs(public)]
    placed = [jax.device_put(*pair) for pair in zip(arrays, shardings, strict=True)]
    actual = jax.jit(f)(*placed)
    assert_equal(actual, jax.jit(f)(*arrays))
    if kind == AxisType.Explicit:
        for cotangent, sharding in zip(actual[1], shardings, strict=True):
            assert cotangent.sharding.is_equivalent_to(sharding, cotangent.ndim)


def check_result_is_placed_as_documented():
    where = mesh(AxisType.Explicit)
    x = jnp.ones((4, 8, 6, 4), device=NamedSharding(where, P("batch", "rows")))
    kernel = jnp.ones((3, 3, 4, 6), device=NamedSharding(where, P(None, None, None, "channels")))
    results = {
        P("batch", "rows", None, "channels"): jconv.conv(x, kernel, padding="same"),
        P("batch", None, None, "channels"): jconv.conv(x, kernel, padding=((0, 1), (0, 0))),
        P(None, None, None, "channels"): jconv.kernel_gradient(
            x, jconv.conv(x, kernel, padding="same"), (3, 3), padding="same"
        ),
        P("batch", "rows", None, None, None, None): jconv.unfold(x, (3, 3), padding="same"),
        P("batch", "rows", None, None): jconv.max_pool(x, (2, 2), return_indices=True)[1],
    }
    for spec, y in results.items():
        assert y.sharding.is_equivalent_to(NamedSharding(where, spec), y.ndim), (spec, y.sharding)


def check_orders(kind):
    """Derivatives of the second order, both ways, and `vmap` over what the mesh cuts."""
    where = mesh(kind)
    public = PUBLIC[0]
    arrays = public.arrays("float64")
    placed = [
        jax.device_put(a, NamedSharding(where, s))
        for a, s in zip(arrays, specs(public), strict=True)
    ]

    def loss(x, kernel):
        return jnp.sum(jnp.tanh(public.apply(x, kernel)))

    gradient = jax.grad(loss, (0, 1))

    def every(x, kernel):
        forward = jax.jvp(gradient, (x, kernel), (x, kernel))[1]
        reverse = jax.grad(lambda *a: jnp.sum(gradient(*a)[1] ** 2), (0, 1))(x, kernel)
        return forward, reverse, jax.vmap(gradient, (0, None))(x, kernel)

    assert_equal(jax.jit(every)(*placed), jax.jit(every)(*arrays))


# ---------------------------------------------------------------- a program on each device


def of_pieces(public):
    """What `shard_map` means: the function of each device's pieces, along three new axes."""

    def over(axis, f):
        mapped = [0 if axis in cut else None for cut in public.cuts]
        return jax.vmap(f, mapped) if 0 in mapped else lambda *a: jnp.stack([f(*a)] * 2)

    def cut_up(a, cut):
        for axis in AXES:
            if axis in cut:
                new = a.ndim - len(cut)
                at = new + cut.index(axis)
                a = a.reshape(*a.shape[:at], 2, a.shape[at] // 2, *a.shape[at + 1 :])
                a = jnp.moveaxis(a, at, new)
        return a

    f = functools.reduce(lambda f, axis: over(axis, f), reversed(AXES), public.apply)
    return lambda *arrays: f(*map(cut_up, arrays, public.cuts))


def on_each(public, f, out_specs, check_vma):
    return jax.shard_map(
        f, mesh=mesh(AxisType.Auto), in_specs=specs(public), out_specs=out_specs,
        check_vma=check_vma,
    )  # fmt: skip


def stacked(y):
    """The results of all devices, along three new axes."""
    return varying(y)[None, None, None]


def varying(y):
    missing = set(AXES.values()) - jax.typeof(y).manual_axis_type.varying
    return lax.pcast(y, tuple(missing), to="varying") if missing else y


def check_shard_map(public, check_vma):
    """The gradient of `shard_map`, and with types that vary also the gradient within it."""
    arrays = public.arrays("float64")
    expected = jax.jit(with_cotangents(of_pieces(public)))(*arrays)
    lie = P(*AXES.values())
    mark = stacked if check_vma else lambda y: y[None, None, None]
    around = on_each(public, lambda *a: mark(public.apply(*a)), lie, check_vma)
    assert_equal(jax.jit(with_cotangents(around))(*arrays), expected)
    if check_vma and set(AXES) <= set("".join(public.cuts)):

        def within(*arrays):
            y, cotangents = with_cotangents(public.apply)(*arrays)
            return stacked(y), cotangents

        within = on_each(public, within, (lie, specs(public)), True)
        assert_equal(jax.jit(within)(*arrays), expected)


def check_varying_types(case, method):
    """No loop of any method starts from sums that do not vary as its terms do."""
    x, kernel, y = case.shapes
    x, y = (8 * x[0], *x[1:]), (8 * y[0], *y[1:])

    def gradients(x, kernel):
        y, transpose = jax.vjp(lambda *a: jconv.conv(*a, method=method, **case.options), x, kernel)
        return y, transpose(y)

    over = P(tuple(AXES.values()))
    mapped = jax.shard_map(
        gradients, mesh=mesh(AxisType.Auto), in_specs=(over, P()), out_specs=(over, (over, P()))
    )
    results = jax.eval_shape(mapped, *(jax.ShapeDtypeStruct(s, "float32") for s in (x, kernel)))
    assert [a.shape for a in jax.tree.leaves(results)] == [y, x, kernel]


# ---------------------------------------------------------------- spatial shards


def drawn_shards(seed):
    """A mesh of 2, 4 or 8, and how it cuts one or two spatial axes and perhaps the batch."""
    rng = np.random.default_rng(seed)
    shape, names, cut = (
        ((2,), ("rows",), (("rows", None), None)),
        ((4,), ("rows",), ((None, "rows"), None)),
        ((8,), ("rows",), (("rows", None), None)),
        ((4, 2), ("rows", "columns"), (("rows", "columns"), None)),
        ((2, 4), ("batch", "rows"), (("rows", None), "batch")),
        ((2, 2, 2), ("batch", "rows", "columns"), (("columns", "rows"), "batch")),
    )[seed % 6]
    kind = AxisType.Explicit if rng.integers(2) else AxisType.Auto
    where = jax.make_mesh(
        shape, names, axis_types=(kind,) * len(names), devices=jax.devices()[: np.prod(shape)]
    )
    return rng, {"mesh": where, "axes": cut[0], "batch_axis": cut[1]}


def drawn_windows(rng, pooling):
    """Even sizes and uneven ones, halos within a neighbour and beyond."""
    taps = tuple(map(int, rng.integers(1, 5, 2)))
    most = [(t - 1) // 2 if pooling else 5 for t in taps]
    pads = tuple((int(rng.integers(0, m + 1)), int(rng.integers(0, m + 1))) for m in most)
    options = {
        "stride": tuple(map(int, rng.integers(1, 4, 2))),
        "dilation": tuple(map(int, rng.integers(1, 3, 2))),
        "padding": str(rng.choice(["same", "valid", "same_lower"])) if rng.integers(2) else pads,
    }
    size = (16, 8) if rng.integers(2) else tuple(map(int, rng.integers(8, 20, 2)))
    return size, taps, options


def check_sharded_conv(seed):
    rng, place = drawn_shards(seed)
    size, taps, options = drawn_windows(rng, pooling=False)
    mode = ("constant", "reflect", "symmetric", "edge", "wrap", "constant")[rng.integers(6)]
    groups = int(rng.integers(1, 3))
    options |= {
        "input_dilation": tuple(map(int, rng.integers(1, 3, 2))),
        "padding_mode": mode,
        "groups": groups,
        "flip": bool(rng.integers(2)),
    }
    x, kernel = rng.normal(size=(4, *size, 2)), rng.normal(size=(*taps, 2 // groups, 4))
    value = (jnp.asarray(rng.normal()),) if mode == "constant" else ()

    def conv(f, **place):
        def apply(x, kernel, *value):
            extra = {"padding_value": value[0]} if value else {}
            return f(x, kernel, **options, **extra, **place)

        return jax.jit(with_cotangents(apply))(jnp.asarray(x), jnp.asarray(kernel), *value)

    assert_equal(conv(jconv.sharding.conv, **place), conv(jconv.conv))


def check_sharded_pooling(seed, name):
    rng, place = drawn_shards(seed)
    size, taps, options = drawn_windows(rng, pooling=True)
    x = jnp.asarray(rng.normal(size=(4, *size, 3)))
    options["ceil_mode"] = bool(rng.integers(2))

    def pool(module, **place):
        operation = getattr(module, name)
        return jax.jit(with_cotangents(lambda x: operation(x, taps, **options, **place)))

    assert_equal(pool(jconv.sharding, **place)(x), pool(jconv)(x))


def check_sizes_that_do_not_divide():
    """What wraps around comes from a device that is not full."""
    for size, devices in ((7, 3), (5, 4), (4, 2), (2, 4)):
        where = jax.make_mesh((devices,), ("rows",), devices=jax.devices()[:devices])
        x, kernel = jnp.arange(1.0, size + 1)[:, None], jnp.ones((1, 1, 1))
        for pads in ((1, 0), (0, 1), (2, 5)):

            def wrapped(f, pads=pads, kernel=kernel, **place):
                f = with_cotangents(functools.partial(
                    f, kernel=kernel, padding=[pads], padding_mode="wrap", **place
                ))  # fmt: skip
                return jax.jit(f)

            with jax.set_mesh(where):
                actual = wrapped(jconv.sharding.conv, mesh=where, axes=("rows",))(x)
            assert_equal(actual, wrapped(jconv.conv)(x))


def check_one_of_two_axes_divides():
    where = jax.make_mesh((4, 2), ("rows", "columns"), axis_types=(AxisType.Explicit,) * 2)
    options = {"window": (3, 3), "stride": 1, "padding": "same"}
    for shape in ((6, 12, 1), (3, 12, 1), (8, 11, 1)):
        x = jnp.arange(np.prod(shape, dtype=float)).reshape(shape) % 7
        for name in ("sum_pool", "max_pool"):
            place = {"mesh": where, "axes": ("rows", "columns")}
            pool = functools.partial(getattr(jconv.sharding, name), **options, **place)
            expected = with_cotangents(functools.partial(getattr(jconv, name), **options))(x)
            assert_equal(pool(x), expected[0])
            with jax.set_mesh(where):
                assert_equal(with_cotangents(pool)(x), expected)


def check_a_cotangent_may_lie_anywhere():
    where = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit,))
    place = {"mesh": where, "axes": ("rows", None)}
    x, kernel = jnp.arange(48.0).reshape(1, 16, 3, 1), jnp.ones((2, 1, 1, 1))
    for f in (
        lambda x: jconv.sharding.conv(x, kernel, stride=(2, 1), **place),
        lambda x: jconv.sharding.sum_pool(x, (2, 1), **place),
        lambda x: jconv.sharding.max_pool(x, (2, 1), **place),
    ):
        y, transpose = jax.vjp(f, x)
        whole = jnp.asarray(np.cos(np.asarray(y)))
        assert_equal(transpose(whole), transpose(jnp.cos(y)))


def check_no_device_holds_the_whole(kind):
    """Halos alone travel. Of eight devices each needs what one needs for an eighth of the rows."""

    def compiled(devices, rows):
        where = jax.make_mesh(
            (devices,), ("rows",), axis_types=(kind,), devices=jax.devices()[:devices]
        )
        place = {"mesh": where, "axes": ("rows", None)}

        def step(x, kernel):
            y = jconv.sharding.conv(x, kernel, padding="same", padding_mode="wrap", **place)
            return jnp.tanh(jconv.sharding.max_pool(y, (2, 2), padding=0, **place))

        x = jax.ShapeDtypeStruct(
            (1, rows, 64, 4), "float32", sharding=NamedSharding(where, P(None, "rows"))
        )
        kernel = jax.ShapeDtypeStruct((3, 3, 4, 4), "float32", sharding=NamedSharding(where, P()))
        with jax.set_mesh(where):
            return jax.jit(with_cotangents(step)).lower(x, kernel).compile(AS_USERS_COMPILE)

    one, eight = compiled(1, 512), compiled(8, 4096)
    assert "collective-permute" in eight.as_text()
    assert "all-gather" not in eight.as_text()
    for kind in ("temp", "argument", "output"):
        sizes = [
            getattr(program.memory_analysis(), f"{kind}_size_in_bytes") for program in (one, eight)
        ]
        assert sizes[1] < 1.1 * sizes[0], (kind, sizes)


# ---------------------------------------------------------------- the groups


def in_jit():
    for public in PUBLIC:
        yield public.name, check_jit, public, AxisType.Auto
    yield "orders", check_orders, AxisType.Auto


def in_explicit_mode():
    for public in PUBLIC:
        yield public.name, check_jit, public, AxisType.Explicit
    yield "orders", check_orders, AxisType.Explicit
    yield "results", check_result_is_placed_as_documented


def in_shard_map():
    for public in PUBLIC:
        for check_vma in (True, False):
            yield f"{public.name}, {check_vma=}", check_shard_map, public, check_vma


def in_small_blocks():
    blocks.BLOCK_BYTES = winograd.BUDGET = mixed.BUDGET = lanes.BUDGET = faces.BATCH_BYTES = 100
    for case in (*PLANNED_CASES, *named(CONV_CASES, "depthwise", "many groups", "rank 4")):
        yield case.name, check_varying_types, case, "auto"
    (case,) = named(PLANNED_CASES, "3x3 taps")
    for method in METHODS:
        yield method, check_varying_types, case, method


def in_shards():
    for seed in range(12):
        yield f"conv {seed}", check_sharded_conv, seed
    for seed in range(8):
        name = ("max_pool", "avg_pool", "min_pool", "sum_pool")[seed % 4]
        yield f"{name} {seed}", check_sharded_pooling, seed, name
    yield "wrapped around", check_sizes_that_do_not_divide
    yield "one axis divides", check_one_of_two_axes_divides
    yield "cotangents", check_a_cotangent_may_lie_anywhere
    for kind in (AxisType.Auto, AxisType.Explicit):
        yield f"memory, {kind}", check_no_device_holds_the_whole, kind


ALL = (in_jit, in_explicit_mode, in_shard_map, in_small_blocks, in_shards)
GROUPS = {f.__name__: f for f in ALL}


def main(group):
    with (
        jax.enable_x64(True),
        jax.enable_checks(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
    ):
        for name, check, *arguments in GROUPS[group]():
            try:
                wrong = check(*arguments)
            except Exception:
                wrong = traceback.format_exc()
            print(json.dumps([name, wrong]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
