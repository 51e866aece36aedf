"""What XLA:CPU is left with once a program is compiled: nothing here is timed, so nothing is flaky.

Programs are compiled at the sizes of the layers that they are measured on, and never run.
"""

import functools
import itertools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import experiments
import jconv
from experiments.speed.convolutions import lax_conv
from experiments.speed.tables import Layer, read_layers, read_pools
from jconv import geometry
from jconv.faces import steps
from jconv.methods import METHODS
from jconv.problem import FACES, Problem
from jconv.rules.kernel_adjoint import SMALL
from tests.cases import CONV_CASES, each_case
from tests.effort import AS_USERS_COMPILE

TABLES = Path(experiments.__file__).parent
# Of the kinds that XLA:CPU is worst at, and of no layer that was tuned for.
OTHERS = [
    Layer("depthwise volume", 1, 24, 24, (10,) * 3, (3,) * 3, (1,) * 3, (1,) * 3, (1,) * 3, 24),
    Layer("strided depthwise", 2, 48, 48, (40, 36), (3, 5), (2, 2), (1, 2), (1, 1), 48),
    Layer("strided 4x4", 2, 24, 40, (30, 26), (4, 4), (2, 2), (1, 1), (1, 1), 1),
    Layer("tall", 2, 20, 12, (24, 31), (7, 3), (1, 1), (3, 0), (1, 1), 1),
    Layer("long", 1, 2, 2, (9000,), (400,), (1,), (0,), (1,), 1),
    Layer("dilated volume", 1, 8, 12, (12,) * 3, (3,) * 3, (1,) * 3, (2,) * 3, (2,) * 3, 1),
]
LAYERS = [*read_layers(TABLES / "layers.csv"), *OTHERS]
POOLS = read_pools(TABLES / "pools.csv")
SCRATCH = 32 * 2**20
PLANNED_ELSEWHERE = ["cifar_3x3", "depthwise3x3", "audio_k25s4", "volume3x3x3", "volume_time"]

each_layer = pytest.mark.parametrize("layer", LAYERS, ids=[layer.name for layer in LAYERS])
each_face = pytest.mark.parametrize("face", FACES)


def options(layer):
    return {
        "stride": layer.stride,
        "padding": [(p, p) for p in layer.padding],
        "dilation": layer.dilation,
        "groups": layer.groups,
    }


def compute(face, layer, method="auto"):
    """A face as a function of `x`, `kernel` and `y_bar`."""
    chosen = {**options(layer), "method": method}
    return {
        "forward": lambda x, k, y: jconv.conv(x, k, **chosen),
        "input_adjoint": lambda x, k, y: jconv.conv_transpose(y, k, size=layer.size, **chosen),
        "kernel_adjoint": lambda x, k, y: jconv.kernel_gradient(x, y, layer.taps, **chosen),
    }[face]


def compute_by_lax(face, layer):
    conv = functools.partial(lax_conv, **options(layer))
    return {
        "forward": lambda x, k, y: conv(x, k),
        "input_adjoint": lambda x, k, y: jax.vjp(lambda x: conv(x, k), x)[1](y),
        "kernel_adjoint": lambda x, k, y: jax.vjp(lambda k: conv(x, k), k)[1](y),
    }[face]


def arguments(shapes):
    return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def compiled(function, shapes):
    return jax.jit(function).lower(*arguments(shapes)).compile(AS_USERS_COMPILE)


@functools.cache
def compiled_face(face, layer):
    return compiled(compute(face, layer), layer.shapes)


def methods(face, layer):
    """What the planner takes on CPU, from the first rewrite to the last step."""
    windows = geometry.windows(
        layer.size, layer.taps, stride=layer.stride, dilation=layer.dilation,
        padding=options(layer)["padding"],
    )  # fmt: skip
    spec = geometry.Spec(windows, layer.groups)
    sizes = layer.batch, layer.inputs, layer.outputs
    problem = Problem(face, spec, *sizes, jnp.dtype(jnp.float32))
    return [rule.method for rule in steps(problem, "auto", "cpu")]


def convolutions(text):
    """The lines of the convolutions of a compiled program."""
    return [line for line in text.splitlines() if re.search(r"\bconvolution\(", line)]


def window_sizes(line):
    """Of a convolution's window; none for a matrix product written as a convolution."""
    found = re.search(r"window={size=([\dx]+)", line)
    return list(map(int, found[1].split("x"))) if found else []


def is_grouped(line):
    return bool(re.search(r"(feature|batch)_group_count=", line))


def is_spread(line):
    """Whether zeros stand between the inputs."""
    return "lhs_dilate=" in line


def is_scalar(line):
    """Whether XLA:CPU computes it number by number: axes out of order, or turned round."""
    ordered = re.search(r"dim_labels=b\d*f_\d*io->b\d*f\b", line)
    return "rhs_reversal" in line or not ordered


def pads_negatively(line):
    """Below an axis, and where XLA:CPU does not go number by number: it reads out of bounds."""
    return "rhs_reversal" not in line and bool(re.search(r"pad=(-?\d+_-?\d+x)*-", line))


# Convolution


@each_face
@each_layer
def test_no_more_is_left_to_xla_than_planned(layer, face):
    left = convolutions(compiled_face(face, layer).as_text())
    plan = methods(face, layer)
    if plan[-1] != "direct":
        assert not left
    zeros_between = face == "input_adjoint" and max(layer.stride) > 1 and "phases" not in plan
    for line in left:
        assert layer.groups > 1 or not is_grouped(line)
        assert zeros_between or not is_spread(line)
        assert not pads_negatively(line)
        # At most rows of an image slide, or small images, in place of the taps.
        sizes = window_sizes(line)
        is_row = face == "kernel_adjoint" and len(sizes) == 1
        most = max(*layer.taps, SMALL) if face == "kernel_adjoint" else max(layer.taps)
        assert is_row or max(sizes, default=0) <= most


def test_what_is_looked_for_is_found_in_lax():
    layers = {layer.name: layer for layer in LAYERS}

    def left(name, face, **changes):
        layer = layers[name]._replace(**changes)
        return convolutions(compiled(compute_by_lax(face, layer), layer.shapes).as_text())

    assert any(map(is_grouped, left("depthwise3x3", "input_adjoint")))
    assert any(map(is_spread, left("res3x3s2_56", "input_adjoint")))
    assert [32, 32] in map(window_sizes, left("cifar_3x3", "kernel_adjoint"))
    assert any(map(pads_negatively, left("wave_k3", "input_adjoint", padding=(5,))))


@each_face
@each_layer
def test_the_platform_is_resolved(layer, face):
    assert "conditional(" not in compiled_face(face, layer).as_text()


@each_face
@each_layer
def test_scratch_is_bounded_by_lax(layer, face):
    assert_bounded(layer, face)


@each_face
@each_layer
def test_scratch_is_bounded_whatever_the_batch(layer, face):
    # Of kernels as large as that of res3x3_7 what Winograd's tiles make of them is 24 MiB.
    layer = layer._replace(batch=16 * layer.batch)
    assert_bounded(layer, face, SCRATCH + (12 * 2**20 if layer.name == "res3x3_7" else 0))


def assert_bounded(layer, face, least=SCRATCH):
    scratch = compiled_face(face, layer).memory_analysis().temp_size_in_bytes
    if scratch > least:
        by_lax = compiled(compute_by_lax(face, layer), layer.shapes).memory_analysis()
        assert scratch <= 1.5 * by_lax.temp_size_in_bytes + least


@pytest.mark.parametrize("face", ["forward", "input_adjoint"])
@each_layer
def test_what_reads_a_face_copies_nothing_of_it(layer, face):
    assert_no_copy_for_a_reader(compute(face, layer), layer.shapes, compiled_face(face, layer))


def assert_no_copy_for_a_reader(function, shapes, program):
    # XLA:CPU hands a sum that is reduced over to a library, together with a copy of every term.
    def reduced(*arrays):
        y = function(*arrays)
        return (y * y).sum(range(1, y.ndim - 1))

    def scratch(program):
        return program.memory_analysis().temp_size_in_bytes

    result = jax.eval_shape(function, *arguments(shapes))
    extra = scratch(compiled(reduced, shapes)) - scratch(program)
    assert extra <= 2 * result.size * result.dtype.itemsize


@pytest.mark.parametrize("face", ["forward", "input_adjoint"])
@pytest.mark.parametrize("name", ["depthwise3x3", "depthwise1d_k4", "strided depthwise"])
def test_few_taps_read_their_input_where_it_is(name, face):
    layer = next(layer for layer in LAYERS if layer.name == name)
    assert compiled_face(face, layer).memory_analysis().temp_size_in_bytes <= 1024


def test_groups_are_never_left_to_xla():
    grouped = [layer for layer in LAYERS if layer.groups > 1 and max(layer.stride) == 1]
    assert grouped
    for layer, face in itertools.product(grouped, FACES):
        assert "direct" not in methods(face, layer)


@pytest.mark.parametrize(("stride", "unrolled"), [(8, True), (16, False)])
def test_no_loop_is_unrolled_over_many_phases(stride, unrolled):
    """Of a loop for each of 256 phases XLA:CPU compiles minutes."""
    layer = Layer("patches", 1, 8, 8, (64, 64), (stride,) * 2, (stride,) * 2, (0,) * 2, (1,) * 2, 8)
    assert (methods("input_adjoint", layer) == ["lanes"]) is unrolled


@each_face
@pytest.mark.parametrize(("padding", "dilation"), [(0, 1), (1, 1), (3, 1), (3, 2)])
def test_no_rewrite_is_undone(padding, dilation, face):
    """What a convolution is rewritten to leads on, and never back to itself."""
    channels = 16, 32, 48, 64, 96, 128
    for n, taps, c, m in itertools.product((9, 22, 40), (2, 3), channels, channels):
        pairs = [(a, a) for a in (n, taps, 1, padding, dilation)]
        assert methods(face, Layer("drawn", 1, c, m, *pairs, 1))[-1] in METHODS


def test_kernel_gradients_of_images_are_never_left_to_xla():
    """But of small ones, where it is as fast."""
    images = [
        layer
        for layer in LAYERS
        if len(layer.taps) > 1 and math.prod(layer.taps) > 1 and max(layer.shapes[2][1:-1]) > SMALL
    ]
    assert images
    for layer in images:
        assert methods("kernel_adjoint", layer)[0] != "direct"


@pytest.mark.parametrize(("batch", "size", "channels"), [(4, 7, 256), (1, 7, 512), (2, 14, 128)])
def test_large_kernel_gradients_are_not_turned_by_a_copy(batch, size, channels):
    """It takes as long as several of the products that it follows."""
    size, taps, ones = (size,) * 2, (3,) * 2, (1,) * 2
    layer = Layer("deep", batch, channels, channels, size, taps, ones, ones, ones, 1)
    text = compiled_face("kernel_adjoint", layer).as_text()
    copied = re.findall(r"f32\[([\d,]+)\]\S* copy\(", text)
    entries = [math.prod(map(int, shape.split(","))) for shape in copied]
    assert max(entries, default=0) < channels**2


def left_in_a_loop(face, layer):
    """The convolutions of a face of two batches, one after the other."""

    def loop(*pairs):
        return jax.lax.map(lambda each: face(*each), pairs)

    return convolutions(compiled(loop, [(2, *shape) for shape in layer.shapes]).as_text())


@pytest.mark.parametrize("face", ["input_adjoint", "kernel_adjoint"])
@pytest.mark.parametrize("padding", [(0,), (8,), (1, 1), (3, 0)])
def test_adjoints_in_a_loop_are_vectorized(padding, face):
    size, ones = (30, 8)[: len(padding)], (1,) * len(padding)
    layer = Layer("looped", 4, 3, 5, size, (3,) * len(padding), ones, padding, ones, 1)
    by_hand = compute(face, layer, method="direct")
    assert not any(map(is_scalar, left_in_a_loop(by_hand, layer)))
    assert any(map(is_scalar, left_in_a_loop(compute_by_lax(face, layer), layer)))


@pytest.mark.parametrize("custom_vjp", [True, False])
@each_case(
    CONV_CASES, "low padding beyond the reach", "high padding beyond the reach", "crop and pad",
    "padding beyond the reach", "stride beyond the kernel", "uncovered tail",
    "crop between samples", "groups",
)  # fmt: skip
def test_no_window_is_padded_negatively(case, custom_vjp):
    # XLA:CPU reads out of bounds where one is.
    conv = functools.partial(jconv.conv, **case.options, method="direct", custom_vjp=custom_vjp)

    def gradients(x, kernel, y_bar):
        return jax.vjp(conv, x, kernel)[1](y_bar)

    def twice(x, kernel, y_bar):
        return jax.vjp(gradients, x, kernel, y_bar)[1]((x, kernel))

    lines = convolutions(compiled(twice, case.shapes).as_text())
    assert lines
    assert not any(map(pads_negatively, lines))


# Pooling


each_pool = pytest.mark.parametrize("pool", POOLS, ids=[pool.name for pool in POOLS])


def pooling(kind, pool):
    return functools.partial(
        getattr(jconv, f"{kind}_pool"), window=pool.window, stride=pool.stride,
        padding=[(p, p) for p in pool.padding],
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["max", "avg"])
@each_pool
def test_pooling_has_no_scatter_and_little_scratch(pool, kind):
    def value_and_gradient(x, y_bar):
        y, transpose = jax.vjp(pooling(kind, pool), x)
        return y, transpose(y_bar)

    program = compiled(value_and_gradient, pool.shapes)
    assert not re.search(r"\b(select-and-scatter|scatter|conditional)\(", program.as_text())
    assert program.memory_analysis().temp_size_in_bytes <= SCRATCH


@pytest.mark.parametrize("kind", ["max", "sum", "prod"])
@each_pool
def test_what_reads_a_pooling_copies_nothing_of_it(pool, kind):
    pool_it = pooling(kind, pool)
    faces = [lambda x, y_bar: pool_it(x), lambda x, y_bar: jax.vjp(pool_it, x)[1](y_bar)[0]]
    for face in faces:
        assert_no_copy_for_a_reader(face, pool.shapes, compiled(face, pool.shapes))


@pytest.mark.parametrize(
    "pool", [p for p in POOLS if p.stride == p.window], ids=lambda pool: pool.name
)
def test_gradients_of_maxima_hold_a_byte_a_window(pool):
    def gradient(x, y_bar):
        return jax.vjp(pooling("max", pool), x)[1](y_bar)[0]

    program = compiled(gradient, pool.shapes)
    assert program.memory_analysis().temp_size_in_bytes <= math.prod(pool.shapes[1]) + 2**10


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_images_in_turns_are_pooled_in_vectors(kind):
    """What keeps a loop over few channels from being unrolled stays with it, in every turn."""
    pool = functools.partial(getattr(jconv, f"{kind}_pool"), window=(5, 5), stride=1, padding=2)
    text = compiled(pool, [(8, 128, 128, 16)]).as_text()
    assert "while(" in text
    assert not re.search(r"pred\[16\]\S* get-tuple-element", text)


# Other platforms


@each_face
@pytest.mark.parametrize(
    "layer",
    [layer for layer in LAYERS if layer.name in PLANNED_ELSEWHERE],
    ids=PLANNED_ELSEWHERE,
)
def test_accelerators_get_convolutions_and_no_loop(layer, face):
    exported = jax.export.export(jax.jit(compute(face, layer)), platforms=("cuda", "tpu"))
    text = exported(*arguments(layer.shapes)).mlir_module()
    assert "stablehlo.convolution" in text
    assert "stablehlo.while" not in text
