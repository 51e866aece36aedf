"""The drop-ins for `jax.lax` equal it, over the parameter grids of JAX's own tests and beyond.

JAX's results are taken in float64: its gradients in float32 can be garbage where padding is wider
than the kernel reaches.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jconv
from tests.cases import dense
from tests.compare import assert_close, assert_same

CANONICAL = ("NCHW", "OIHW", "NCHW")
LAYOUTS = (
    CANONICAL,
    ("NHWC", "HWIO", "NHWC"),
    ("NCHW", "HWIO", "NHWC"),
    ("NHWC", "OIHW", "NCHW"),
    ("CWNH", "IWOH", "HCNW"),
)
GROUPS = ((1, 1), (2, 1), (1, 2))  # of batch and of features
BATCHES = range(4)
TERMS = 64  # of the grids' sums; the longest have more, of random signs

each_batch = pytest.mark.parametrize("batch", BATCHES)


def named(function):
    """The same function in both libraries."""
    return getattr(jconv.lax, function), getattr(lax, function)


def arranged(shape, spec, names):
    """`shape`, whose axes have these names, in the order of `spec`."""
    return tuple(shape[names.index(name)] for name in spec)


def case_of(layout, lhs, rhs, **options):
    """Shapes in the layout that `options` name, from shapes in the canonical one."""
    return (
        arranged(lhs, layout[0], CANONICAL[0]),
        arranged(rhs, layout[1], CANONICAL[1]),
        {"dimension_numbers": layout, **options},
    )


def grid_of_values():
    for (split, groups), width, (b, i, j) in itertools.product(
        GROUPS, (0, 10), itertools.product((2, 3), repeat=3)
    ):
        shapes = (b * split, i * groups, 9, width), (j * groups * split, i, 4, 5)
        for layout, strides, padding, lhs_dilation, rhs_dilation in itertools.product(
            LAYOUTS,
            ((1, 1), (2, 1)),
            (((1, 2), (2, 0)), ((10, 8), (7, 13))),
            ((1, 1), (1, 2), (1, 4)),
            ((1, 1), (1, 2), (1, 4)),
        ):
            yield case_of(
                layout, *shapes, window_strides=strides, padding=padding,
                lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
                feature_group_count=groups, batch_group_count=split,
            )  # fmt: skip


def grid_of_gradients():
    for (split, groups), height, (b, i, j) in itertools.product(
        GROUPS, (6, 0), itertools.product((1, 2), repeat=3)
    ):
        shapes = (b * split, i * groups, height, 7), (j * groups * split, i, 1, 2)
        paddings = [((0, 0), (0, 0)), ((1, 0), (0, 1)), ((0, -1), (0, 0))][: 3 if height else 2]
        for layout, strides, padding, lhs_dilation, rhs_dilation in itertools.product(
            LAYOUTS, ((1, 1), (1, 2), (2, 1)), paddings, ((1, 1), (2, 1)), ((1, 1), (2, 2))
        ):
            yield case_of(
                layout, *shapes, window_strides=strides, padding=padding,
                lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation,
                feature_group_count=groups, batch_group_count=split,
            )  # fmt: skip


def grid_of_words():
    for layout, strides, rhs_dilation, word in itertools.product(
        LAYOUTS, ((1, 1), (2, 3)), (None, (2, 1)), ("VALID", "same", "Same_Lower")
    ):
        yield case_of(layout, (2, 3, 8, 7), (4, 3, 3, 2), window_strides=strides, padding=word,
                      rhs_dilation=rhs_dilation)  # fmt: skip


def sample(cases, count, seed):
    cases = list(cases)
    chosen = np.random.default_rng(seed).choice(len(cases), count, replace=False)
    return [cases[i] for i in chosen]


def value_and_cotangents(function, lhs, rhs, y_bar):
    y, transpose = jax.vjp(function, lhs, rhs)
    return y, *transpose(y_bar.astype(y.dtype))


def each(functions, data):
    return [value_and_cotangents(f, *arrays) for f, arrays in zip(functions, data, strict=True)]


def assert_equal(name, cases, dtype="float32"):
    """Values and both gradients, all cases compiled as one program each."""
    ours, theirs = named(name)
    functions = [[partial(f, **options) for *_, options in cases] for f in (ours, theirs)]
    data = []
    for i, (lhs, rhs, _) in enumerate(cases):
        lhs, rhs = dense(lhs, dtype, (i, 0)), dense(rhs, dtype, (i, 1))
        data.append((lhs, rhs, dense(jax.eval_shape(functions[1][i], lhs, rhs).shape, dtype, i)))
    wide = [tuple(a.astype("float64") for a in arrays) for arrays in data]
    actual, expected = (
        jax.jit(partial(each, functions))(arrays)
        for functions, arrays in zip(functions, (data, wide), strict=True)
    )
    for got, truth in zip(actual, expected, strict=True):
        for a, b in zip(got, truth, strict=True):
            assert_close(a, np.asarray(b), dtype, TERMS)


@each_batch
def test_conv_general_dilated_over_the_grid_of_values(batch):
    assert_equal("conv_general_dilated", sample(grid_of_values(), 8, batch))


@each_batch
def test_conv_general_dilated_over_the_grid_of_gradients(batch):
    assert_equal("conv_general_dilated", sample(grid_of_gradients(), 8, batch))


def test_padding_words():
    assert_equal("conv_general_dilated", sample(grid_of_words(), 10, 0))


def test_conv_and_conv_with_general_padding():
    shapes = (2, 3, 8, 7), (4, 3, 3, 2)
    options = {"window_strides": (1, 2), "padding": "SAME", "precision": "highest"}
    assert_equal("conv", [(*shapes, options)])
    options |= {"padding": ((1, -1), (0, 2)), "lhs_dilation": (2, 1), "rhs_dilation": None}
    assert_equal("conv_with_general_padding", [(*shapes, options)])


@pytest.mark.parametrize(("side", "name"), [(0, "NCHW"), (1, "OIHW"), (2, "NCHW")])
def test_every_layout_of_two_axes(side, name):
    """Strides, dilations and padding differ from axis to axis, so a swap shows."""
    cases = []
    for spec in map("".join, itertools.permutations(name)):
        layout = (*LAYOUTS[4][:side], spec, *LAYOUTS[4][side + 1 :])
        cases.append(
            case_of(layout, (2, 4, 7, 5), (6, 2, 3, 2), window_strides=(1, 2), rhs_dilation=(2, 1),
                    lhs_dilation=(1, 2), padding=((1, 0), (2, 1)), feature_group_count=2)
        )  # fmt: skip
    ours, theirs = named("conv_general_dilated")
    data = [(dense(lhs, "float32", 0), dense(rhs, "float32", 1)) for lhs, rhs, _ in cases]
    actual, expected = (
        jax.jit(lambda data, f=f: [f(*d, **c[2]) for d, c in zip(data, cases, strict=True)])(data)
        for f in (ours, theirs)
    )
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, np.asarray(b), "float32", 12)


@pytest.mark.parametrize("rank", [0, 1, 3, 4])
def test_layouts_as_dimension_numbers_in_any_rank(rank):
    rng = np.random.default_rng(rank)
    size, taps = (5, 4, 3, 4)[:rank], (2, 3, 1, 2)[:rank]
    cases = []
    for _ in range(3):
        specs = [tuple(rng.permutation(rank + 2).tolist()) for _ in range(3)]
        lhs, rhs = np.zeros(rank + 2, int), np.zeros(rank + 2, int)
        lhs[list(specs[0])] = (2, 4, *size)
        rhs[list(specs[1])] = (6, 2, *taps)
        options = {"window_strides": (1, 2, 1, 1)[:rank], "padding": ((1, 0),) * rank}
        options |= {"feature_group_count": 2}
        options["dimension_numbers"] = lax.ConvDimensionNumbers(*specs)
        cases.append((tuple(lhs.tolist()), tuple(rhs.tolist()), options))
    options = {"window_strides": (1,) * rank, "padding": "SAME"}
    cases.append(((3, 2, *size), (4, 2, *taps), options))
    assert_equal("conv_general_dilated", cases)


@pytest.mark.parametrize("padding", [((4, 0),), ((0, 6),), ((5, 7),)])
def test_gradients_in_float32_are_right_where_padding_exceeds_the_reach(padding):
    options = {"window_strides": (1,), "padding": padding}
    assert_equal("conv_general_dilated", [((2, 3, 8), (32, 3, 3), options)])


# Transposed convolution


def grid_of_transposes():
    for strides, padding, rhs_dilation, transpose_kernel, consistent in itertools.product(
        ((1, 1), (1, 2), (3, 2), (4, 3)),
        ("VALID", "SAME", ((0, 1), (2, 0)), ((-1, 2), (4, 3))),
        (None, (2, 1)),
        (False, True),
        (False, True),
    ):
        yield {
            "strides": strides, "padding": padding, "rhs_dilation": rhs_dilation,
            "transpose_kernel": transpose_kernel, "use_consistent_padding": consistent,
        }  # fmt: skip


@each_batch
def test_conv_transpose(batch):
    cases = []
    for options in sample(grid_of_transposes(), 8, batch):
        channels = (4, 3) if options["transpose_kernel"] else (3, 4)
        cases.append(((2, 6, 5, 3), (3, 2, *channels), options))
    assert_equal("conv_transpose", cases)


def test_conv_transpose_in_other_ranks_and_layouts():
    cases = [
        ((2, 3), (3, 4), {"strides": (), "padding": "SAME"}),
        ((2, 5, 3), (3, 3, 4), {"strides": (2,), "padding": "VALID"}),
        ((1, 2, 3, 2, 3), (2, 1, 3, 3, 4), {"strides": (2, 1, 3), "padding": "SAME"}),
        ((2, 3, 5), (2, 3, 3), {"strides": (1,), "padding": "same_lower"}),
    ]
    for case in cases[3:]:
        case[2]["dimension_numbers"] = ("NCH", "OIH", "NCH")
    assert_equal("conv_transpose", cases)


# Patches


def patches_of(library, taps, options):
    function = library.conv_general_dilated_patches
    return lambda lhs, _: function(lhs, taps, **options)


@pytest.mark.parametrize(
    ("layout", "taps", "options"),
    [
        (None, (3, 2), {"padding": "SAME"}),
        (LAYOUTS[4], (2, 3), {"padding": ((1, -1), (0, 3)), "rhs_dilation": (1, 2)}),
        (LAYOUTS[1], (1, 2), {"padding": ((1, 2), (5, 0)), "lhs_dilation": (2, 1)}),
        (LAYOUTS[1], (9, 9), {"padding": "VALID", "precision": lax.Precision.HIGH}),
    ],
)
def test_patches(layout, taps, options):
    shape = arranged((2, 3, 6, 5), (layout or CANONICAL)[0], CANONICAL[0])
    options = {"window_strides": (2, 1), "dimension_numbers": layout, **options}
    lhs, unused = dense(shape, "float32", 0), np.zeros((), "float32")
    ours, theirs = (patches_of(library, taps, options) for library in (jconv.lax, lax))
    y_bar = dense(jax.eval_shape(theirs, lhs, unused).shape, "float32", 1)
    actual, expected = (value_and_cotangents(f, lhs, unused, y_bar) for f in (ours, theirs))
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, np.asarray(b), "float32", 6)


def test_patches_without_spatial_axes_and_of_other_dtypes():
    for dtype, options in (("bool", {}), ("int8", {"preferred_element_type": "int32"})):
        lhs = dense((2, 3), "float32", 0) > 0
        actual, expected = (
            library.conv_general_dilated_patches(lhs.astype(dtype), (), (), "VALID", **options)
            for library in (jconv.lax, lax)
        )
        assert actual.dtype == expected.dtype
        assert_same(actual, expected)


def test_a_nan_stays_in_the_patches_that_hold_it():
    lhs = dense((1, 1, 6), "float32", 0)
    lhs[0, 0, 0] = np.nan
    patches = jconv.lax.conv_general_dilated_patches(lhs, (2,), (1,), "VALID")
    assert_same(patches[0], np.stack([lhs[0, 0, :-1], lhs[0, 0, 1:]]))


# Dtypes


DTYPES = ["bool", "int8", "uint8", "int32", "uint32", "bfloat16", "float16", "float32",
          "float64", "complex64"]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    """Equal, or refused by both."""
    lhs, rhs = (dense(s, "int8", i) % 3 for i, s in enumerate([(2, 3, 5), (4, 3, 3)]))
    lhs, rhs = jnp.asarray(lhs.astype(dtype)), jnp.asarray(rhs.astype(dtype))
    for preferred in (None, *DTYPES):
        call = [(1,), "SAME"]
        options = {"preferred_element_type": preferred}
        try:
            expected = lax.conv_general_dilated(lhs, rhs, *call, **options)
        except TypeError:
            with pytest.raises(TypeError, match="`preferred_element_type` must"):
                jconv.lax.conv_general_dilated(lhs, rhs, *call, **options)
            continue
        actual = jconv.lax.conv_general_dilated(lhs, rhs, *call, **options)
        assert actual.dtype == expected.dtype
        assert_same(actual, np.asarray(expected))  # sums of small integers: exact in all dtypes


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_gradients_have_the_dtype_of_the_arguments(dtype):
    lhs, rhs = dense((2, 3, 5), dtype, 0), dense((4, 3, 3), dtype, 1)
    options = {"window_strides": (1,), "padding": "SAME", "preferred_element_type": "float32"}
    y_bar = dense((2, 4, 5), "float32", 2)
    actual, expected = (
        value_and_cotangents(partial(f, **options), jnp.asarray(lhs), jnp.asarray(rhs), y_bar)
        for f in named("conv_general_dilated")
    )
    for a, b in zip(actual, expected, strict=True):
        assert_close(a, np.asarray(b, "float64"), b.dtype, 10)


@pytest.mark.parametrize("precision", [
    None, "highest", "fastest", "bfloat16", "tensorfloat32", ("high", "highest"),
    lax.Precision.HIGH, lax.DotAlgorithmPreset.F32_F32_F32, "BF16_BF16_F32_X3",
])  # fmt: skip
def test_precisions(precision):
    lhs, rhs = dense((2, 3, 5), "float32", 0), dense((4, 3, 3), "float32", 1)
    actual, expected = (f(lhs, rhs, (1,), "SAME", precision=precision) for f in named(
        "conv_general_dilated"))  # fmt: skip
    assert_close(actual, np.asarray(expected), "float32", 9)


# Transforms


@pytest.mark.parametrize("axes", [(0, None), (None, 1), (2, 0)])
@pytest.mark.parametrize("split", [1, 2])
def test_vmap(axes, split):
    shapes = [(4, 3, 5), (4, 3, 2)]
    data = [
        dense(s if axis is None else (*s[:axis], 3, *s[axis:]), "float32", i)
        for i, (s, axis) in enumerate(zip(shapes, axes, strict=True))
    ]
    actual, expected = (
        jax.vmap(
            lambda lhs, rhs, f=f: f(lhs, rhs, (1,), "SAME", batch_group_count=split), in_axes=axes
        )(*data)
        for f in named("conv_general_dilated")
    )
    assert_close(actual, np.asarray(expected), "float32", 6)


def test_the_rule_is_ours():
    lhs, rhs = dense((2, 3, 5), "float32", 0), dense((4, 3, 3), "float32", 1)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda lhs: jconv.lax.conv(lhs, rhs, (1,), "SAME"), (lhs,), (lhs,))


@pytest.mark.parametrize("spec", [PartitionSpec("d"), PartitionSpec(None, None, "d")])
def test_out_sharding(spec):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        lhs = jax.device_put(dense((2, 3, 5), "float32", 0), PartitionSpec("d"))
        rhs = jax.device_put(dense((4, 3, 3), "float32", 1), PartitionSpec())
        for sharding in (spec, NamedSharding(mesh, spec)):
            actual, expected = (
                jax.jit(lambda *data, f=f, s=sharding: f(*data, (1,), "SAME", out_sharding=s))
                (lhs, rhs) for f in named("conv_general_dilated")
            )  # fmt: skip
            assert jax.typeof(actual).sharding == jax.typeof(expected).sharding
            assert_close(actual, np.asarray(expected), "float32", 9)
        with pytest.raises(ValueError, match=r"`out_sharding` must .* got P\('q',\)"):
            jconv.lax.conv_general_dilated(lhs, rhs, (1,), "SAME", out_sharding=PartitionSpec("q"))


# Errors


LHS, RHS = np.ones((2, 3, 5), "float32"), np.ones((4, 3, 3), "float32")
RIGHT = {"lhs": LHS, "rhs": RHS, "window_strides": (1,), "padding": "VALID"}
REFUSED = [
    {"lhs": np.ones((2, 4, 5), "float32")},
    {"lhs": LHS.astype("int32")},
    {"rhs": np.ones((4, 3), "float32")},
    {"rhs": np.ones((4, 3, 0), "float32")},
    {"window_strides": 1},
    {"window_strides": (0,)},
    {"window_strides": (1, 1)},
    {"padding": 1},
    {"padding": (1,)},
    {"padding": ((1, 1, 1),)},
    {"padding": ((1.0, 1),)},
    {"padding": ((1, 1), (1, 1))},
    {"padding": ((-3, -3),)},
    {"padding": "SAME", "lhs_dilation": (2,)},
    {"padding": ((0, 0),), "lhs_dilation": (0,)},
    {"padding": ((0, 0),), "lhs_dilation": (1, 1)},
    {"rhs_dilation": (0,)},
    {"rhs_dilation": (1, 1)},
    {"rhs_dilation": 1},
    {"dimension_numbers": 3},
    {"dimension_numbers": ("NCH", "OIH")},
    {"dimension_numbers": ("NCC", "OIH", "NCH")},
    {"dimension_numbers": ("NCH", "OIW", "NCH")},
    {"dimension_numbers": ("NCHW", "OIHW", "NCHW")},
    {"dimension_numbers": lax.ConvDimensionNumbers((0, 1, 1), (0, 1, 2), (0, 1, 2))},
    {"feature_group_count": 0},
    {"feature_group_count": 2},
    {"feature_group_count": 3},
    {"feature_group_count": "1"},
    {"batch_group_count": 0},
    {"batch_group_count": 3},
    {"rhs": RHS[:3], "batch_group_count": 2},
    {"feature_group_count": 3, "rhs": RHS[:3, :1], "batch_group_count": 3},
    {"precision": "nope"},
    {"precision": ("high",)},
    {"preferred_element_type": "int32"},
    {"preferred_element_type": "bfloat16"},
    {"out_sharding": 3},
    {"out_sharding": PartitionSpec("d")},
]


@pytest.mark.parametrize("changes", REFUSED, ids=range(len(REFUSED)))
def test_errors_are_of_the_types_that_jax_raises(changes):
    ours, theirs = named("conv_general_dilated")
    with np.errstate(divide="ignore"), pytest.raises((TypeError, ValueError)) as expected:
        theirs(**RIGHT | changes)
    with pytest.raises(expected.type, match=r"(?s)^`\w+` must .*; got .*\.$"):
        ours(**RIGHT | changes)


@pytest.mark.parametrize("strides", [(0, 1), (-1, 1), 2, None])
def test_errors_of_strides_of_conv_transpose(strides):
    lhs, rhs = dense((2, 5, 6, 3), "float32", seed=0), dense((3, 2, 3, 4), "float32", seed=1)
    for library, must in ((lax, None), (jconv.lax, "`strides` must")):
        with pytest.raises(TypeError, match=must):
            library.conv_transpose(lhs, rhs, strides, "SAME")


def test_pairs_of_conv_transpose_may_be_an_array():
    lhs, rhs = dense((2, 5, 6, 3), "float32", seed=0), dense((3, 2, 3, 4), "float32", seed=1)
    pairs = np.array([(1, 2), (0, 1)])
    actual = jconv.lax.conv_transpose(lhs, rhs, (2, 1), pairs)
    expected = lax.conv_transpose(lhs, rhs, (2, 1), pairs.tolist())
    assert_close(actual, np.asarray(expected), "float32", terms=18)
