"""One machine exports for every platform: each public function, saved, loaded and called."""

import re
from functools import partial

import jax
import numpy as np
import pytest

import jconv
from experiments.speed.convolutions import lax_conv
from jconv.curvature import (
    kronecker_factors,
    per_example_kernel_gradients,
    per_example_kernel_norms,
)
from tests.cases import conv_case, dense, each_case
from tests.compare import assert_close
from tests.public import each_public

PLATFORMS = ("cpu", "cuda", "tpu")


def with_cotangents(f):
    def value_and_cotangents(*arrays):
        y, transpose = jax.vjp(f, *arrays)
        return y, transpose(y)

    return value_and_cotangents


@each_public
def test_exported_for_all_called_on_one(public):
    f, arrays = jax.jit(with_cotangents(public.apply)), public.arrays("float32")
    exported = jax.export.export(f, platforms=PLATFORMS)(*arrays)
    loaded = jax.export.deserialize(exported.serialize())
    assert loaded.platforms == PLATFORMS

    def check(a, b):
        assert_close(a, np.asarray(b), "float32", terms=100)

    jax.tree.map(check, loaded.call(*arrays), f(*arrays))


BATCHES = {
    "conv": lambda x: jconv.conv(x, KERNEL, padding="same", stride=2, groups=2),
    "conv of a value outside": lambda x: jconv.conv(x[..., :3], KERNEL, padding=1, padding_value=2),
    "conv_transpose": lambda x: jconv.conv_transpose(x, KERNEL),
    "kernel_gradient": lambda x: jconv.kernel_gradient(x, x, (3, 3), padding="same"),
    "unfold": lambda x: jconv.unfold(x, (3, 3)),
    "max_pool": lambda x: jconv.max_pool(x, 3, stride=2),
    "avg_pool": lambda x: jconv.avg_pool(x, 3, stride=2),
    "prod_pool": lambda x: jconv.prod_pool(x, 2),
    "lp_pool": lambda x: jconv.lp_pool(x, 2, 3),
    "logsumexp_pool": lambda x: jconv.logsumexp_pool(x, 2),
    "adaptive_max_pool": lambda x: jconv.adaptive_max_pool(x, (3, 4)),
    "blur_pool": lambda x: jconv.blur_pool(x, 2, stride=2),
    "per_example_kernel_gradients": lambda x: per_example_kernel_gradients(x, x[:, 1:6], (3, 1)),
    "per_example_kernel_norms": lambda x: per_example_kernel_norms(x, x[:, 1:6], (3, 1)),
    "by gram": lambda x: per_example_kernel_norms(x, x[:, :3, :3], (5, 6), method="gram"),
    "kronecker_factors": lambda x: kronecker_factors(x, x[:, 1:6, 1:7], (3, 3)),
    "reduced": lambda x: kronecker_factors(x, x[:, 1:6, 1:7], (3, 3), approximation="reduce"),
}
KERNEL = dense((3, 3, 3, 6), "float32", 0)


@pytest.mark.parametrize("name", BATCHES)
def test_exported_for_any_batch(name):
    f = jax.jit(with_cotangents(BATCHES[name]))
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(f)(jax.ShapeDtypeStruct((batch, 7, 8, 6), "float32"))
    for count in (1, 3):
        x = dense((count, 7, 8, 6), "float32", count)
        for found, expected in zip(exported.call(x), f(x), strict=True):
            assert_close(jax.tree.leaves(found)[0], jax.tree.leaves(expected)[0], "float32", 500)


@pytest.mark.parametrize("method", jconv.methods.METHODS)
def test_each_method_exported_for_any_batch(method):
    case = conv_case("", (5, 6), (3, 3), (8, 8), (3,), padding="same")
    x, kernel, y = case.data("float32")
    of_kernel = case.faces(method)

    def faces(x, y):
        return of_kernel(x, kernel, y)

    (batch,) = jax.export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype) for a in (x, y)]
    found = jax.export.export(jax.jit(faces))(*shapes).call(x, y)
    for actual, expected in zip(found, case.defined_faces(x, kernel, y), strict=True):
        assert_close(actual, expected, "float32", case.terms)


@pytest.mark.parametrize("platform", PLATFORMS[1:])
@pytest.mark.parametrize("taps", [(70,), (3, 3), (3, 3, 3)], ids=len)
@pytest.mark.parametrize("groups", [1, 16])
def test_accelerators_get_convolutions_and_no_loop(taps, groups, platform):
    """Of sizes for which a CPU gets other methods, in loops."""
    case = conv_case("", tuple(t + 9 for t in taps), taps, (16, 16), groups=groups, padding="same")
    arguments = [jax.ShapeDtypeStruct(shape, "float32") for shape in case.shapes[:2]]
    f = jax.jit(with_cotangents(lambda x, kernel: jconv.conv(x, kernel, **case.options)))

    def program(platform):
        return jax.export.export(f, platforms=[platform])(*arguments).mlir_module()

    assert program(platform).count("stablehlo.convolution") == 3
    assert "stablehlo.while" not in program(platform)


@pytest.mark.parametrize("platform", PLATFORMS[1:])
def test_accelerators_get_long_filters_as_convolutions(platform):
    """Where a CPU gets loops, lest one NaN be everywhere."""
    x, box = jax.ShapeDtypeStruct((9, 400), "float32"), np.ones(321, "float32") / 321
    for f in (
        lambda x: jconv.ndimage.correlate1d(x, box, mode="constant", cval=2.5),
        lambda x: jconv.filters.apply(x[..., None], box[None]),
    ):
        program = jax.export.export(jax.jit(f), platforms=[platform])(x).mlir_module()
        assert program.count("stablehlo.convolution") == 1
        assert "stablehlo.add" not in program


def test_an_asked_method_is_not_cut_into_batches():
    x, kernel = (jax.ShapeDtypeStruct(s, "float32") for s in ((64, 99, 99, 8), (9, 9, 8, 8)))
    for method, loops in (("fourier", 0), ("auto", 1)):
        f = jax.jit(partial(jconv.conv, method=method))
        program = jax.export.export(f, platforms=["cpu"])(x, kernel).mlir_module()
        assert program.count("stablehlo.while") == loops


@pytest.mark.parametrize("method", ["auto", "direct"])
@pytest.mark.parametrize(("rank", "dtype"), [(4, "float32"), (1, "int32")])
def test_accelerators_get_no_convolution_that_they_lack(rank, dtype, method):
    """XLA:GPU has none of more than three axes, which ends the process, and none of integers."""
    case = conv_case("", (5,) * rank, (3,) * rank, (2, 4), groups=2, stride=2, padding="same")
    found = convolutions(case.faces(method), case, dtype)
    axes = [numbers.split("]")[0].count(",") - 1 for numbers, _ in found]
    assert set(axes) == ({3} if dtype == "float32" else set())


SAME_AS_LAX = [
    conv_case("7x7 taps of stride 2", (24, 25), (7, 7), padding=((3, 3), (3, 3)), stride=(2, 2)),
    conv_case("groups", (6, 8), (3, 2), (4, 8), groups=2, padding=((1, 1), (0, 0)), stride=(1, 2)),
    conv_case("stride beyond the taps", (13,), (2,), padding=((0, 0),), stride=(4,)),
    conv_case("dilation", (9, 8), (3, 2), padding=((1, 2), (0, 1)), dilation=(2, 1)),
]


@each_case(SAME_AS_LAX, *(case.name for case in SAME_AS_LAX))
def test_accelerators_get_the_convolutions_of_lax(case):
    """Libraries have a face for each, which XLA finds by how the convolution is written."""

    def faces(conv):
        def f(x, kernel, y):
            value, pull = jax.vjp(lambda x: conv(x, kernel), x)
            _, pull_kernel = jax.vjp(lambda kernel: conv(x, kernel), kernel)
            return value, *pull(y), *pull_kernel(y)

        return f

    strides = {"stride": (1,) * len(case.taps), "dilation": (1,) * len(case.taps), "groups": 1}
    options = {**strides, **case.options}
    ours = convolutions(faces(partial(jconv.conv, **options)), case)
    assert ours == convolutions(faces(partial(lax_conv, **options)), case)


GROUPED = [
    conv_case("groups", (9, 8), (3, 2), (6, 4), (5,), groups=2, padding=((1, 1), (0, 1))),
    conv_case("2D", (9, 8), (3, 2), (6, 12), (5,), groups=6, padding=((1, 1), (0, 1)), stride=2),
    conv_case("1D", (13,), (4,), (6, 6), (5,), groups=6, padding=((3, 0),)),
]


@each_case(GROUPED, *(case.name for case in GROUPED))
def test_accelerators_get_grouped_gradients_of_examples_as_lax_has_them(case):
    ones = {"stride": 1, "dilation": 1, **case.options}
    per_axis = {name: (ones[name],) * len(case.taps) for name in ("stride", "dilation")}
    conv = partial(lax_conv, **{**ones, **per_axis})

    def ours(x, kernel, y):
        return per_example_kernel_gradients(x, y, case.taps, **case.options)

    def norms(x, kernel, y):
        return per_example_kernel_norms(x, y, case.taps, **case.options)

    def of_lax(x, kernel, y):
        def one(x, y):
            return jax.vjp(lambda kernel: conv(x[None], kernel), kernel)[1](y[None])[0]

        return jax.vmap(one)(x, y)

    expected = convolutions(of_lax, case)
    assert convolutions(ours, case) == convolutions(norms, case) == expected
    assert len(expected) == 1


def test_accelerators_get_dense_gradients_of_examples_as_products():
    case = conv_case("", (9, 8), (3, 2), (4, 6), (5,))

    def gradients(x, kernel, y):
        return per_example_kernel_gradients(x, y, case.taps)

    assert not convolutions(gradients, case)


@pytest.mark.parametrize("platform", PLATFORMS[1:])
@pytest.mark.parametrize("kind", ["avg", "sum", "prod", "logsumexp"])
def test_accelerators_fuse_pooling_as_they_like(kind, platform):
    """What keeps XLA:CPU from computing an entry again would cost others passes over memory."""
    pool = partial(getattr(jconv, f"{kind}_pool"), window=(3, 3), stride=2, padding=1)
    x = jax.ShapeDtypeStruct((2, 24, 24, 8), "float32")

    def program(f):
        return jax.export.export(jax.jit(f), platforms=[platform])(x).mlir_module()

    def gradient(x):
        return jax.grad(lambda x: pool(x).sum())(x)

    assert "stablehlo.optimization_barrier" not in program(pool) + program(gradient)
    assert ("stablehlo.reduce_window" in program(pool)) == (kind != "logsumexp")


def convolutions(f, case, dtype="float32"):
    """What each convolution of a GPU's program is, and the operation that makes its kernel."""
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in case.shapes]
    text = jax.export.export(jax.jit(f), platforms=["cuda"])(*arguments).mlir_module()
    made, found = {}, []
    for line in text.splitlines():  # each function names its values anew
        made.update(re.findall(r"(%\w+) = (stablehlo\.\w+)", line))
        if read := re.search(r"convolution\(%\w+, (%\w+)\) dim_numbers = (.*?) loc", line):
            found.append((read[2], made.get(read[1])))
    return found
