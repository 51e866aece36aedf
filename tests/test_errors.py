"""A wrong argument is refused by name, with what must hold and what was got, before any work."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jconv
from jconv import curvature, filters, flax, lax, matrix, sharding, spectrum, testing
from tests import definition
from tests.cases import dense, each_method
from tests.compare import assert_close
from tests.effort import drawn
from tests.modules import MODULES

X = dense((2, 6, 5, 4), "float32", 0)
KERNEL = dense((3, 2, 4, 6), "float32", 1)
Y = dense((2, 4, 4, 6), "float32", 2)
PATCHES = dense((2, 4, 4, 3, 2, 4), "float32", 3)
INDICES = np.zeros(X.shape, np.int32)

# Every public function, and arguments that it takes.
POOL = {"x": X, "window": (2, 2)}
FLAX_POOL = {"inputs": X, "window_shape": (2, 2)}
LAX = {
    "lhs": np.moveaxis(X, -1, 1), "rhs": KERNEL.transpose(3, 2, 0, 1), "window_strides": (1, 2),
    "padding": "SAME",
}  # fmt: skip
PLACE = {"mesh": jax.make_mesh((1, 1), ("rows", "columns")), "axes": ("rows", None)}
RIGHT = {
    jconv.conv: {"x": X, "kernel": KERNEL},
    jconv.conv_transpose: {"y": Y, "kernel": KERNEL},
    jconv.kernel_gradient: {"x": X, "y_bar": Y, "taps": (3, 2)},
    jconv.unfold: {"x": X, "taps": (3, 2)},
    jconv.fold: {"patches": PATCHES, "size": (6, 5)},
    jconv.pad: {"x": X, "padding": ((1, 2), (0, 1))},
    jconv.max_pool: POOL,
    jconv.min_pool: POOL,
    jconv.avg_pool: POOL,
    jconv.sum_pool: POOL,
    jconv.prod_pool: POOL,
    jconv.logsumexp_pool: POOL,
    jconv.lp_pool: {**POOL, "p": 2},
    jconv.blur_pool: {**POOL, "stride": 2},
    jconv.drop: {"x": X, "stride": (2, 2)},
    jconv.max_unpool: {"y": X, "indices": INDICES, "size": (6, 5)},
    jconv.adaptive_avg_pool: {"x": X, "output_size": (2, 3)},
    jconv.adaptive_max_pool: {"x": X, "output_size": (2, 3)},
    jconv.fractional_max_pool: {
        "key": jax.random.key(0), "x": X, "window": (2, 2), "output_size": (3, 3),
    },
    jconv.plan: {"x_shape": X.shape, "kernel_shape": KERNEL.shape, "platform": "tpu"},
    matrix.toeplitz: {"column": X[0, 0, 0], "row": X[0, 0, 1]},
    matrix.index_pattern: {"size": (6, 5), "taps": (3, 2)},
    matrix.conv_matrix: {"kernel": KERNEL, "size": (6, 5)},
    matrix.pool_matrix: {"window": (2, 2), "size": (6, 5)},
    spectrum.singular_values: {"kernel": KERNEL, "size": (6, 5)},
    spectrum.operator_norm: {"kernel": KERNEL, "size": (6, 5), "key": jax.random.key(0)},
    curvature.per_example_kernel_gradients: {"x": X, "y_bar": Y, "taps": (3, 2)},
    curvature.per_example_kernel_norms: {"x": X, "y_bar": Y, "taps": (3, 2)},
    curvature.kronecker_factors: {"x": X, "y_bar": Y, "taps": (3, 2)},
    flax.max_pool: FLAX_POOL,
    flax.min_pool: FLAX_POOL,
    flax.avg_pool: FLAX_POOL,
    lax.conv_general_dilated: LAX,
    lax.conv: LAX,
    lax.conv_with_general_padding: {**LAX, "lhs_dilation": None, "rhs_dilation": None},
    lax.conv_transpose: {"lhs": X, "rhs": KERNEL, "strides": (1, 2), "padding": "SAME"},
    lax.conv_general_dilated_patches: {
        "lhs": X, "filter_shape": (3, 2), "window_strides": (1, 2), "padding": "SAME",
    },
    filters.identity: {"n": 2},
    filters.box: {"taps": (3, 2)},
    filters.gaussian: {"sigma": (1.5, 0.5)},
    filters.sobel: {"axis": 1},
    filters.laplace: {},
    filters.laplace_of_gaussian: {"sigma": 1.5},
    filters.channel_mean: {"channels": 3},
    filters.apply: {"image": X, "taps": X[0, :3, :2, 0]},
    sharding.conv: {"x": X, "kernel": KERNEL, **PLACE},
    sharding.max_pool: POOL | PLACE,
    sharding.min_pool: POOL | PLACE,
    sharding.avg_pool: POOL | PLACE,
    sharding.sum_pool: POOL | PLACE,
    testing.assert_adjoint: {"f": jnp.sin, "f_adjoint": jnp.sin, "x": X, "y": X},
    testing.assert_rule: {"f_custom": jnp.sin, "f_plain": jnp.sin, "args": (X,)},
    testing.assert_agree: {"f": jnp.sin, "g": jnp.sin, "args": (X,)},
}  # fmt: skip

PER_EXAMPLE = [curvature.per_example_kernel_gradients, curvature.per_example_kernel_norms]
PAIRED = [jconv.kernel_gradient, *PER_EXAMPLE, curvature.kronecker_factors]
FACES = [
    jconv.conv, jconv.conv_transpose, jconv.kernel_gradient, jconv.plan, sharding.conv,
    *PER_EXAMPLE,
]  # fmt: skip
SHARDED_POOLS = [sharding.max_pool, sharding.min_pool, sharding.avg_pool, sharding.sum_pool]
PLAIN_POOLS = [
    jconv.max_pool, jconv.min_pool, jconv.avg_pool, jconv.sum_pool, jconv.prod_pool,
    jconv.logsumexp_pool, jconv.lp_pool, *SHARDED_POOLS,
]  # fmt: skip
POOLS = [*PLAIN_POOLS, jconv.blur_pool]
ADAPTIVE = [jconv.adaptive_avg_pool, jconv.adaptive_max_pool]
MAPS = [matrix.conv_matrix, spectrum.singular_values, spectrum.operator_norm]
WINDOWED = [*FACES, curvature.kronecker_factors, jconv.unfold, jconv.fold, *MAPS]
SLIDING = [*WINDOWED, matrix.index_pattern, matrix.pool_matrix, *PLAIN_POOLS]
FLAX_POOLS = [flax.max_pool, flax.min_pool, flax.avg_pool]
LAX_STRIDED = [
    lax.conv_general_dilated, lax.conv, lax.conv_with_general_padding,
    lax.conv_general_dilated_patches,
]  # fmt: skip
LAX_ALL = [*LAX_STRIDED, lax.conv_transpose]
LAX_KERNELS = [f for f in LAX_ALL if f is not lax.conv_general_dilated_patches]
LAX_LAID_OUT = [lax.conv_general_dilated, lax.conv_general_dilated_patches, lax.conv_transpose]
BELLS = [filters.gaussian, filters.laplace_of_gaussian]
AXES = [filters.identity, filters.sobel, filters.laplace, filters.channel_mean]
LAWS = [testing.assert_adjoint, testing.assert_rule, testing.assert_agree]
REAL = [
    jconv.max_pool, jconv.min_pool, jconv.logsumexp_pool, jconv.lp_pool, jconv.blur_pool,
    jconv.adaptive_max_pool, jconv.fractional_max_pool,
]  # fmt: skip

SMALL = [
    (0, ValueError, "be at least 1; got 0"),
    (-1, ValueError, "be at least 1; got -1"),
    (2**31, ValueError, "be less than 2**31 in size; got 2147483648"),
]
NO_INTS = [
    (1.0, TypeError, "be an int; got 1.0 of type float"),
    (np.float32(1), TypeError, "be an int; got np.float32(1.0) of type float32"),
    (True, TypeError, "be an int; got True of type bool"),
    ("1", TypeError, "be an int; got '1' of type str"),
    ({1, 2}, TypeError, "be an int; got {1, 2} of type set"),
]
NONE = [(None, TypeError, "be an int; got None of type NoneType")]
ENTRIES = [
    ((1, -1), ValueError, "be at least .*; got -1"),
    ((1, 1.0), TypeError, "be an int; got 1.0 of type float"),
    (((1, 1), (1, 1)), TypeError, "be an int; got (1, 1) of type tuple"),
]
LENGTHS = [
    ((1, 1, 1), ValueError, "hold one int for each of the 2 spatial axes; got (1, 1, 1)"),
    ((), ValueError, "hold one int for each of the 2 spatial axes; got ()"),
]
EMPTY = [((), ValueError, "hold one int for each of one or more spatial axes; got ()")]
INTS = [*SMALL, *NO_INTS, *ENTRIES, *LENGTHS]
TAPS = [*SMALL, *NO_INTS, *NONE, *ENTRIES, *EMPTY]  # where they tell the rank
TRIPLES = [(((1, 1, 1), (1, 1)), ValueError, "hold (low, high) pairs; got (1, 1, 1)")]
PADDINGS = [
    ("some", ValueError, "be one of ('valid', 'same', .*'causal') or hold ints; got 'some'"),
    ("", ValueError, "be one of .* or hold ints; got ''"),
    (None, TypeError, "be one of .* or hold ints; got None of type NoneType"),
    (1.0, TypeError, "be one of .* or hold ints; got 1.0 of type float"),
    (True, TypeError, "be one of .* or hold ints; got True of type bool"),
    ((1,), ValueError, "hold one int or (low, high) pair for each of the 2 spatial axes; got (1,)"),
    ((1, 1, 1), ValueError, "hold one int or (low, high) pair for each of the 2 .*; got (1, 1, 1)"),
    ((1, -(2**99)), ValueError, "be less than 2**31 in size; got -63.*"),
    ((1, 0.5), TypeError, "be an int; got 0.5 of type float"),
    ((("a", 1), 1), TypeError, "be an int; got 'a' of type str"),
    (("same", "same"), TypeError, "be an int; got 'same' of type str"),
    *TRIPLES,
]
MODES = [
    ("zeros", ValueError, "be one of ('constant', .*'wrap'); got 'zeros'"),
    ("Wrap", ValueError, "be one of .*; got 'Wrap'"),
    (None, TypeError, "be one of .*; got None of type NoneType"),
    (0, TypeError, "be one of .*; got 0 of type int"),
]
FLAGS = [
    (1, TypeError, "be True or False; got 1 of type int"),
    (None, TypeError, "be True or False; got None of type NoneType"),
    ("no", TypeError, "be True or False; got 'no' of type str"),
    (np.ones(2, bool), TypeError, "be True or False; got array(.*) of type ndarray"),
]
SCALARS = [
    ("0", TypeError, "be an array; got '0' of type str"),
    (None, TypeError, "be an array; got None of type NoneType"),
    (True, TypeError, "be an array of numbers; got dtype('bool')"),
    (1j, TypeError, "be a number that float32 can hold; got 1j of type complex"),
    (np.ones(4), ValueError, "be a scalar; got shape (4,)"),
]
ARRAYS = [
    (None, TypeError, "be an array; got None of type NoneType"),
    ("x", TypeError, "be an array; got 'x' of type str"),
    (b"x", TypeError, "be an array; got b'x' of type bytes"),
    (object, TypeError, "be an array; got <class 'object'> of type type"),
    ([[1, 2], [3]], TypeError, "be an array; got [[1, 2], [3]] of type list"),
    (np.array(["a"]), TypeError, "be an array; got array(.*) of type ndarray"),
    (X > 0, TypeError, "be an array of numbers; got dtype('bool')"),
]
PRECISIONS = [
    ("nope", ValueError, "be None, a jax.lax.Precision or its name, .*; got 'nope'"),
    (0, TypeError, "be None, a jax.lax.Precision or its name, .*; got 0 of type int"),
    (("high", None), TypeError, "be None, .*; got None of type NoneType"),
    (("high",), ValueError, "be one, or a pair; got ('high',)"),
    ([], ValueError, "be one, or a pair; got []"),
]
DTYPES = [
    ("nope", TypeError, "be a dtype; got 'nope' of type str"),
    (1, TypeError, "be a dtype; got 1 of type int"),
    ("int32", ValueError, "be no narrower than float32, of its kind .*; got int32"),
    ("complex64", ValueError, "be no narrower than float32, of its kind .*; got complex64"),
    ("bfloat16", ValueError, "be no narrower than float32, of its kind .*; got bfloat16"),
]
METHODS = [
    ("fastest", ValueError, "be one of ('auto', 'direct', .*); got 'fastest'"),
    (None, TypeError, "be one of .*; got None of type NoneType"),
    ("winograd", ValueError, "serve this convolution, and 'winograd' serves only .*; got 'wino.*'"),
]
GROUPS = [
    (0, ValueError, "be at least 1; got 0"),
    (1.0, TypeError, "be an int; got 1.0 of type float"),
    (True, TypeError, "be an int; got True of type bool"),
    ((1, 1), TypeError, "be an int; got (1, 1) of type tuple"),
]
COUNTS = [
    (0, ValueError, "be at least 1; got 0"),
    (1.5, TypeError, "be an int; got 1.5 of type float"),
    (True, TypeError, "be an int; got True of type bool"),
]
LIMITS = [
    (-0.1, ValueError, "be finite and not negative; got -0.1"),
    (float("nan"), ValueError, "be finite and not negative; got nan"),
    (float("inf"), ValueError, "be finite and not negative; got inf"),
    ("1", TypeError, "be a number; got '1'"),
]
SIGMAS = [
    (0, ValueError, "be positive and finite; got 0"),
    ((1, -1.5), ValueError, "be positive and finite; got -1.5"),
    (float("nan"), ValueError, "be positive and finite; got nan"),
    (float("inf"), ValueError, "be positive and finite; got inf"),
    ((), ValueError, "hold one number for each spatial axis; got ()"),
    (1e9, ValueError, "be small enough for 16777216 taps in all; got 1000000000.0"),
    *(
        (sigma, TypeError, "be a number, or one per spatial axis; got .*")
        for sigma in ("1", None, True, 1j, ((1, 1),), np.ones((2, 1)))
    ),
]
CALLABLES = [(1, TypeError, "be callable; got 1 of type int")]

SEQUENCES = [
    (1, TypeError, "hold one int .*; got 1 of type int"),
    ("1", TypeError, "hold one int .*; got '1' of type str"),
    ({1, 2}, TypeError, "hold one int .*; got {1, 2} of type set"),
]
LAX_PADDINGS = [
    ("CAUSAL", ValueError, "be one of ('VALID', .*) or hold one .*; got 'CAUSAL'"),
    (1, ValueError, "be one of .* or hold one (low, high) pair for each of the 2 .*; got 1"),
    ((1, 1), ValueError, "be one of .*; got (1, 1)"),
    (((1, 1), (0.5, 1)), ValueError, "be one of .*; got ((1, 1), (0.5, 1))"),
    (((1, 1),), TypeError, "be one of .*; got ((1, 1),) of type tuple"),
    (((-9, 0), (0, 0)), ValueError, "crop no more than there is; got ((-9, 0), (0, 0))"),
]
LAX_DTYPES = [
    *DTYPES[:2],
    ("int32", TypeError, "be no narrower than float32, of its kind .*; got 'int32' of type str"),
    ("bfloat16", TypeError, "be no narrower than float32, .*; got 'bfloat16' of type str"),
]
LAYOUTS = [
    (3, TypeError, "be None, three strings .*; got 3 of type int"),
    (("NCHW", "OIHW"), TypeError, "be None, three strings .*; got ('NCHW', 'OIHW') .*"),
    (("NCHW", "OIHW", "NCHH"), TypeError, "be None, three strings .*"),
    (
        jax.lax.ConvDimensionNumbers((0, 1, 1, 2), (0, 1, 2, 3), (0, 1, 2, 3)),
        ValueError, "be None, three strings .*; got ConvDimensionNumbers(.*)",
    ),
]  # fmt: skip
WHOLE_DILATIONS = [
    *SEQUENCES,
    ((0, 1), TypeError, "hold ints of at least 1; got (0, 1) of type tuple"),
    *LENGTHS,
]

# (functions, argument, [(value, error, "must; got"), ...])
TABLE = [
    (FLAX_POOLS, "inputs", ARRAYS),
    (FLAX_POOLS, "inputs", [(X[0, 0, 0], ValueError, "have 2 spatial axes .*; got shape (4,)")]),
    (FLAX_POOLS, "window_shape", [*SEQUENCES, *ENTRIES, *EMPTY]),
    (FLAX_POOLS, "strides", [*SEQUENCES, *ENTRIES, *LENGTHS]),
    (FLAX_POOLS, "padding", PADDINGS),
    ([flax.avg_pool], "count_include_pad", FLAGS),
    (LAX_ALL, "lhs", ARRAYS[:-1]),
    (LAX_KERNELS, "rhs", ARRAYS[:-1]),
    (
        LAX_KERNELS,
        "rhs",
        [(KERNEL[0], TypeError, "have 2 spatial axes, as `lhs`; got (2, 4, 6) of type tuple")],
    ),
    (LAX_STRIDED, "window_strides", [*SEQUENCES, *ENTRIES, *LENGTHS]),
    ([lax.conv_transpose], "strides", [*WHOLE_DILATIONS, *ENTRIES[1:]]),
    ([lax.conv_general_dilated_patches], "filter_shape", [*SEQUENCES, *ENTRIES]),
    (LAX_STRIDED, "padding", LAX_PADDINGS),
    ([lax.conv_transpose], "padding", LAX_PADDINGS[1:5]),
    ([f for f in LAX_ALL if f is not lax.conv], "rhs_dilation", WHOLE_DILATIONS),
    (
        [lax.conv_general_dilated, lax.conv_with_general_padding, lax.conv_general_dilated_patches],
        "lhs_dilation",
        WHOLE_DILATIONS,
    ),
    (LAX_LAID_OUT, "dimension_numbers", LAYOUTS),
    ([lax.conv_general_dilated], "feature_group_count", GROUPS),
    (
        [lax.conv_general_dilated],
        "batch_group_count",
        [*GROUPS, (4, ValueError, "divide the batch; got 4 for 2")],
    ),
    (LAX_KERNELS, "precision", PRECISIONS),
    (LAX_ALL, "preferred_element_type", LAX_DTYPES),
    ([lax.conv_transpose], "transpose_kernel", FLAGS),
    ([lax.conv_transpose], "use_consistent_padding", FLAGS),
    (
        [lax.conv_general_dilated],
        "out_sharding",
        [(3, TypeError, "be a NamedSharding, .*; got 3 of type int")],
    ),
    (SLIDING, "stride", INTS),
    ([*WINDOWED, matrix.index_pattern], "stride", NONE),
    (SLIDING, "dilation", [*INTS, *NONE]),
    (WINDOWED, "input_dilation", [*INTS, *NONE]),
    ([*SLIDING, jconv.blur_pool], "padding", PADDINGS),
    (WINDOWED, "padding_mode", MODES),
    ([*FACES, *PAIRED[3:], jconv.unfold, *MAPS], "padding_value", SCALARS),
    ([*FACES, *PAIRED[3:], *MAPS, jconv.unfold, jconv.fold, *POOLS], "custom_vjp", FLAGS),
    ([*FACES, *PAIRED[3:], *MAPS], "groups", GROUPS),
    ([*FACES, *PAIRED[3:], *MAPS], "flip", FLAGS),
    ([*FACES, *PAIRED[3:], *MAPS], "method", METHODS),
    ([*FACES, *PAIRED[3:], *MAPS], "precision", PRECISIONS),
    ([*FACES, *PAIRED[3:], *MAPS], "preferred_element_type", DTYPES),
    ([*PAIRED, jconv.unfold, matrix.index_pattern], "taps", TAPS),
    ([*POOLS, jconv.fractional_max_pool], "window", TAPS),
    (PLAIN_POOLS, "ceil_mode", FLAGS),
    (
        [jconv.max_pool, jconv.min_pool, jconv.adaptive_max_pool, jconv.fractional_max_pool],
        "return_indices",
        FLAGS,
    ),
    ([f for f in RIGHT if "x" in RIGHT[f] and f not in LAWS], "x", ARRAYS),
    ([jconv.conv, jconv.conv_transpose, *MAPS], "kernel", ARRAYS),
    ([jconv.conv_transpose, jconv.max_unpool], "y", ARRAYS),
    (PAIRED, "y_bar", ARRAYS),
    (
        [curvature.kronecker_factors],
        "approximation",
        [
            ("full", ValueError, "be one of ('expand', 'reduce'); got 'full'"),
            (None, TypeError, "be one of ('expand', 'reduce'); got None of type NoneType"),
        ],
    ),
    (
        [curvature.kronecker_factors],
        "x",
        [(X * 1j, TypeError, "be an array of real numbers; got .*complex64.*")],
    ),
    ([jconv.fold], "patches", ARRAYS),
    ([jconv.max_unpool], "indices", ARRAYS),
    ([matrix.toeplitz], "column", ARRAYS),
    ([matrix.toeplitz], "row", ARRAYS[1:]),
    (REAL, "x", [(X * 1j, TypeError, "be an array of real numbers; got .*complex64.*")]),
    (
        [jconv.conv, jconv.conv_transpose, *MAPS],
        "kernel",
        [
            (KERNEL[0, 0], ValueError, "have shape [*taps, in // groups, out] .*; got .*(4, 6)"),
            (KERNEL[:0], ValueError, "have no empty axis; got shape (0, 2, 4, 6)"),
        ],
    ),
    (
        [jconv.conv, jconv.unfold, *POOLS, jconv.drop],
        "x",
        [(X[0, 0], ValueError, "have 2 spatial axes and a channel axis; got shape (5, 4)")],
    ),
    ([jconv.conv, *MAPS], "groups", [(4, ValueError, "divide the .*; got .*=4, .*")]),
    (
        [jconv.conv_transpose, jconv.max_unpool, *MAPS],
        "size",
        [*SMALL, *NO_INTS, *ENTRIES],
    ),
    ([jconv.conv_transpose, *MAPS], "size", LENGTHS),
    (
        [jconv.fold],
        "size",
        [
            *TAPS,
            ((2, 5), ValueError, "hold at least one window .*; got size 2 .* for 3 taps.*"),
        ],
    ),
    (
        [sharding.conv, *SHARDED_POOLS],
        "mesh",
        [(1, TypeError, "be a jax.sharding.Mesh; got 1 of .*")],
    ),
    (
        [sharding.conv, *SHARDED_POOLS],
        "axes",
        [
            ("rows", TypeError, "hold a name or None for each spatial axis; got 'rows' of .*"),
            ((1, None), TypeError, "name axes of the mesh; got 1 of type int"),
            (("rows",), ValueError, "hold one entry for each of 2 spatial axes; got ('rows',)"),
            (("rows", "x"), ValueError, "name axes of the mesh, ('rows', 'columns'); got 'x'"),
            (("rows", "rows"), ValueError, "use each axis of the mesh once, .*; got .*"),
        ],
    ),
    (
        [sharding.conv, *SHARDED_POOLS],
        "batch_axis",
        [(1, TypeError, "name axes of the mesh; got 1 of type int")],
    ),
    (ADAPTIVE, "output_size", TAPS),
    ([jconv.fractional_max_pool], "output_size", [*INTS, *NONE]),
    ([jconv.blur_pool], "stride", [*INTS, *NONE]),
    ([jconv.drop], "stride", TAPS),
    (
        [jconv.drop],
        "offset",
        [
            *NO_INTS,
            *NONE,
            *ENTRIES,
            *LENGTHS,
            (-1, ValueError, "be at least 0; got -1"),
            (5, ValueError, "be less than size 5 on spatial axis 1; got 5"),
        ],
    ),
    ([jconv.blur_pool], "taps", [*SMALL, *NO_INTS, *NONE]),
    ([jconv.pad], "mode", MODES),
    ([jconv.pad], "value", SCALARS),
    (
        [jconv.pad],
        "padding",
        [
            *TRIPLES,
            ("same", TypeError, "hold one (low, high) pair per spatial axis; got 'same' of .*"),
            (1, TypeError, "hold one (low, high) pair per spatial axis; got 1 of type int"),
            ((1, 2), TypeError, "hold one (low, high) pair per spatial axis; got (1, 2) of .*"),
            ((), ValueError, "hold a pair for each of one or more spatial axes; got ()"),
            (((0, -9), (0, 0)), ValueError, "crop no more than there is; got (0, -9) for size 6.*"),
        ],
    ),
    ([jconv.avg_pool], "count_include_pad", FLAGS),
    (
        [jconv.avg_pool],
        "divisor",
        [
            (0, ValueError, "be a number other than 0; got 0"),
            (float("nan"), ValueError, "be a number other than 0; got nan"),
            ("4", TypeError, "be a number or None; got '4' of type str"),
            (True, TypeError, "be a number or None; got True of type bool"),
            (np.complex64(4), TypeError, "be a number or None; got np.complex64(4.*"),
            (np.ones(2), TypeError, "be a number or None; got array(.*"),
        ],
    ),
    ([jconv.logsumexp_pool], "temperature", SCALARS),
    (
        [jconv.logsumexp_pool],
        "temperature",
        [
            (t, ValueError, f"be positive; got {t}")
            for t in (0, -1.0, np.float32(-2), np.array(-1), jnp.float32(-1))
        ],
    ),
    (
        [jconv.lp_pool],
        "p",
        [
            (0.5, ValueError, "be at least 1; got 0.5"),
            (float("nan"), ValueError, "be at least 1; got nan"),
            ("2", TypeError, "be a number; got '2' of type str"),
            (np.complex64(2), TypeError, "be a number; got np.complex64(2.*"),
            (None, TypeError, "be a number; got None of type NoneType"),
        ],
    ),
    (
        [jconv.max_unpool],
        "indices",
        [
            (X, TypeError, "be an array of integers; got dtype('float32') .*"),
            (INDICES[0], ValueError, "have the shape (2, 6, 5, 4) of y; got shape (6, 5, 4)"),
        ],
    ),
    ([matrix.conv_matrix], "sparse", FLAGS),
    (
        [spectrum.operator_norm],
        "tol",
        [
            (0, ValueError, "be positive and finite; got 0"),
            (float("nan"), ValueError, "be positive and finite; got nan"),
            (float("inf"), ValueError, "be positive and finite; got inf"),
            ("1", TypeError, "be a number; got '1' of type str"),
            (True, TypeError, "be a number; got True of type bool"),
        ],
    ),
    ([spectrum.operator_norm], "max_iterations", [*SMALL, *NO_INTS, *NONE]),
    (
        [jconv.fractional_max_pool, spectrum.operator_norm],
        "key",
        [
            (0, TypeError, "be a JAX key; got 0 of type int"),
            (X, TypeError, "be a JAX key; got array(.*) of type ndarray"),
            (jax.random.split(jax.random.key(0)), ValueError, "be one JAX key; got .*shape (2,)"),
            (np.zeros(3, "uint32"), ValueError, "have shape (2,) where it is raw; got shape (3,)"),
        ],
    ),
    (
        [jconv.fractional_max_pool],
        "output_size",
        [((3, 5), ValueError, "be at most size - window + 1 = 4 on spatial axis 1; got 5")],
    ),
    ([jconv.fractional_max_pool], "window", [(7, ValueError, "be at most size 6 on .*; got 7")]),
    (
        [jconv.plan],
        "dtype",
        [*DTYPES[:2], (bool, TypeError, "be a dtype of numbers; got <class 'bool'> of type type")],
    ),
    (
        [jconv.plan],
        "platform",
        [
            ("abacus", ValueError, "be one of ('cpu', .*'tpu'); got 'abacus'"),
            (0, TypeError, "be one of ('cpu', .*'tpu'); got 0 of type int"),
        ],
    ),
    *(
        (
            [jconv.plan],
            name,
            [
                (4, TypeError, "be a shape; got 4 of type int"),
                ("4x4", TypeError, "be a shape; got '4x4' of type str"),
                ((2, 6, 5, 4.0), TypeError, "be an int; got 4.0 of type float"),
                ((2, -6, 5, 4), ValueError, "be at least 0; got -6"),
            ],
        )
        for name in ("x_shape", "kernel_shape")
    ),
    (
        [jconv.plan],
        "x_shape",
        [
            ((6, 4), ValueError, "have 2 spatial axes and a channel axis; got shape (6, 4)"),
            ((2, 0, 5, 4), ValueError, "have no empty spatial axis; got shape (2, 0, 5, 4)"),
            ((2, 2, 5, 4), ValueError, "hold at least one window .*; got size 2 .*"),
        ],
    ),
    (
        [jconv.plan],
        "kernel_shape",
        [
            ((3, 4), ValueError, "have shape [*taps, in // groups, out] .*; got shape (3, 4)"),
            ((3, 2, 0, 6), ValueError, "have no empty axis; got shape (3, 2, 0, 6)"),
            ((3, 2, 5, 6), ValueError, "have in // groups input channels; got .*"),
        ],
    ),
    ([matrix.toeplitz], "column", [(X, ValueError, "be a vector; got shape (2, 6, 5, 4)")]),
    ([matrix.toeplitz], "row", [(X, ValueError, "be a vector; got shape (2, 6, 5, 4)")]),
    (AXES, "n", [*SMALL, *NO_INTS, *NONE, (17, ValueError, "be at most 16; got 17")]),
    ([filters.box, filters.gaussian], "taps", [*SMALL, *NO_INTS, *ENTRIES, *EMPTY]),
    ([filters.gaussian], "taps", [((3,), ValueError, "hold one int for each of 2 axes; got (3,)")]),
    (BELLS, "sigma", SIGMAS),
    (
        [filters.sobel],
        "axis",
        [
            *NO_INTS,
            *NONE,
            (2, ValueError, "be one of the 2 spatial axes; got 2"),
            (-3, ValueError, "be one of the 2 spatial axes; got -3"),
        ],
    ),
    (
        [filters.laplace],
        "weights",
        [
            ("round", ValueError, "be one of ('isotropic', 'axis'); got 'round'"),
            (None, TypeError, "be one of ('isotropic', 'axis'); got None of type NoneType"),
        ],
    ),
    ([filters.channel_mean], "channels", [*SMALL, *NO_INTS, *NONE]),
    ([filters.apply], "image", ARRAYS),
    (
        [filters.apply],
        "image",
        [
            (X[0, 0], ValueError, "have 2 spatial axes and a channel axis; got shape (5, 4)"),
            (X[:, :0], ValueError, "have no empty spatial or channel axis; got .*(2, 0, 5, 4)"),
            (X[..., :0], ValueError, "have no empty spatial or channel axis; got .*(2, 6, 5, 0)"),
        ],
    ),
    ([filters.apply], "taps", ARRAYS),
    (
        [filters.apply],
        "taps",
        [
            (1.0, ValueError, "have one or more axes, none empty; got shape ()"),
            (X[0, 0, :0], ValueError, "have one or more axes, none empty; got shape (0, 4)"),
            (1j * X[0, 0], TypeError, "be an array of real numbers; got .*complex64.*"),
        ],
    ),
    ([filters.apply], "mode", MODES),
    (LAWS, "key", [(-1, ValueError, "not be negative; got -1"), (0.5, TypeError, "be an .*0.5")]),
    (LAWS, "key", [(jnp.zeros(2), TypeError, "be a JAX key; got .*")]),
    (LAWS[:2], "draws", [*COUNTS, (None, TypeError, "be an int; got None")]),
    (LAWS[1:2], "order", [*COUNTS, (None, TypeError, "be an int; got None")]),
    (LAWS, "terms", COUNTS),
    (LAWS, "rtol", LIMITS),
    (LAWS, "atol", [*LIMITS, (None, TypeError, "be a number; got None")]),
    (LAWS[2:], "check_dtypes", FLAGS),
    (LAWS[1:], "args", [(X, TypeError, "be a tuple; got ndarray")]),
    (LAWS[:1], "f", CALLABLES),
    (LAWS[:1], "f_adjoint", CALLABLES),
    (LAWS[1:2], "f_custom", CALLABLES),
    (LAWS[1:2], "f_plain", CALLABLES),
    (LAWS[:1], "x", [(3, TypeError, "hold floating or complex arrays; got 3")]),
    (LAWS[:1], "y", [((), ValueError, "hold at least one entry; got ()")]),
]

# Arguments that are wrong together: (function, arguments, error, message).
TOGETHER = [
    (
        jconv.conv, {"kernel": KERNEL[:, :, :3]},
        "`kernel` must have in // groups input channels; got .*",
    ),
    (jconv.conv, {"padding": -2}, "`x` must hold at least one window .*; got size 6 .*(-2, -2).*"),
    (jconv.conv, {"dilation": 3}, "`x` must hold .*; got size 6 .* dilation 3 on spatial axis 0"),
    (jconv.unfold, {"taps": 7}, "`x` must hold .*; got size 6 .* 7 taps .*"),
    *((pool, {"window": 7}, "`x` must hold .*; got size 6 .* 7 taps .*") for pool in POOLS),
    (jconv.unfold, {"x": X[0, 0], "taps": 2}, "`taps` must hold one .*; got 2 for .* 2 axes"),
    (jconv.conv_transpose, {"size": (9, 5)}, "`y` must have shape (2, 7, 4, 6); got shape .*"),
    (jconv.conv_transpose, {"size": (2, 5)}, "`size` must hold at least one .*; got size 2.*"),
    (jconv.conv_transpose, {"y": Y[:, :0]}, "`y` must have no empty spatial axis; got .*"),
    (jconv.conv_transpose, {"y": Y[..., :5]}, "`y` must have shape (2, 4, 4, 6); got shape .*5)"),
    (
        jconv.conv_transpose, {"input_dilation": 2},
        "`y` must have a size that the options can give; got size 4 on spatial axis 0",
    ),
    (jconv.kernel_gradient, {"taps": (2, 2)}, "`y_bar` must have shape (2, 5, 4, 6); got shape .*"),
    (jconv.kernel_gradient, {"groups": 4}, "`groups` must divide the output .*; got .*=4.*=6"),
    (jconv.kernel_gradient, {"x": X[..., :0]}, "`x` must have one or more channels; got shape .*"),
    (jconv.kernel_gradient, {"y_bar": Y[..., :0]}, "`y_bar` must have one or more .*; got .*"),
    (
        curvature.kronecker_factors, {"x": X[:0], "y_bar": Y[:0]},
        "`x` must hold one or more examples; got shape (0, 6, 5, 4)",
    ),
    *(
        (f, {"taps": (2, 2)}, "`y_bar` must have shape (2, 5, 4, 6); got shape .*")
        for f in PAIRED[1:]
    ),
    (jconv.fold, {"stride": 2}, "`patches` must have spatial size (2, 2); got shape .*"),
    (jconv.fold, {"size": (6, 5, 4)}, "`patches` must have .* 3 spatial axes; got .*"),
    (jconv.pad, {"x": X[:, :0], "mode": "edge"}, "`x` must have entries to .*; got size .*"),
    *(
        (f, {"x": X[:, :0], "padding": 3}, "`x` must have no empty spatial axis; got shape .*")
        for f in (jconv.conv, jconv.unfold, *PAIRED)
    ),
    (jconv.drop, {"x": X[:, :0]}, "`x` must have no empty spatial axis; got shape .*"),
    (jconv.blur_pool, {"x": X[..., :0]}, "`x` must have one or more channels; got shape .*"),
    *((pool, {"x": X[:, :0]}, "`x` must have entries on .*; got shape .*") for pool in ADAPTIVE),
    (
        jconv.conv, {"x": X.astype(int), "kernel": KERNEL.astype(int), "method": "fourier"},
        "`method` must serve this convolution, and 'fourier' .*; got 'fourier'",
    ),
    (
        jconv.conv, {"method": "kn2row", "stride": 2},
        "`method` must serve this convolution, and 'kn2row' serves only stride, .*; got 'kn2row'",
    ),
    (
        jconv.pad, {"x": INDICES.astype("uint8"), "value": -1},
        "`value` must be a number that uint8 can hold; got -1",
    ),
    (matrix.index_pattern, {"size": (2, 5)}, "`size` must hold at least one .*; got size 2 .*"),
    *((f, {"size": (2, 5)}, "`size` must hold at least one .*; got size 2 .*") for f in MAPS),
]  # fmt: skip


def named(function):
    return f"{function.__module__}.{function.__name__}"


def literal(message):
    """`message` as a pattern in which only `.*` is special."""
    return ".*".join(map(re.escape, message.split(".*")))


ROWS = [
    (function, {name: value}, error, f"`{name}` must {message}")
    for functions, name, values in TABLE
    for function in functions
    for value, error, message in values
] + [(function, changes, ValueError, message) for function, changes, message in TOGETHER]


def trace(function, arguments):
    """Calls it where nothing is computed."""

    def call():
        function(**arguments)

    jax.eval_shape(call)


def test_every_public_function_is_here():
    as_scipy = (jconv.ndimage, jconv.signal)  # raise what SciPy raises, and have tests of that
    for module in filter(lambda module: module not in as_scipy, MODULES):
        public = {getattr(module, name) for name in module.__all__}
        assert set(filter(callable, public)) <= set(RIGHT)
    assert set(RIGHT) == {function for function, *_ in ROWS}


@pytest.mark.parametrize("function", [f for f in RIGHT if f not in LAWS], ids=named)
def test_what_the_table_departs_from_is_right(function):
    trace(function, RIGHT[function])


@pytest.mark.parametrize(
    ("function", "changes", "error", "message"),
    ROWS,
    ids=[f"{named(row[0])}-{'-'.join(row[1])}-{i}" for i, row in enumerate(ROWS)],
)
def test_refused(function, changes, error, message):
    arguments = RIGHT[function] | changes
    pattern = f"(?s)^{literal(message)}"
    with pytest.raises(error, match=pattern):
        function(**arguments)
    with pytest.raises(error, match=pattern):
        trace(function, arguments)


# Junk

PIECES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 4),
    st.floats(width=32),
    st.complex_numbers(max_magnitude=9),
    st.sampled_from(["same", "VALID", "wrap", "high", "float64", "patches", "nope", "", b"same"]),
    st.sampled_from([{1, 2}, {1: 2}, object, range(1, 3), jnp.int8]),
    st.sampled_from([np.array(2), np.array([1, 2]), np.ones((2, 2), int), np.ones(2), np.ones(())]),
)
JUNK = st.recursive(PIECES, lambda junk: st.lists(junk, max_size=3).map(tuple), max_leaves=4)
ARGUMENTS = [
    (function, name)
    for function in RIGHT
    if function not in LAWS
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind != parameter.VAR_KEYWORD
]


@drawn(500)
@given(st.sampled_from(ARGUMENTS), JUNK)
def test_junk_is_taken_or_refused_by_name(argument, junk):
    function, name = argument
    try:
        with jax.numpy_dtype_promotion("standard"):
            trace(function, RIGHT[function] | {name: junk})
    except (TypeError, ValueError) as error:
        assert re.fullmatch(r"(?s)`\w+` must .*; got .*\.", str(error))  # noqa: PT017


# What is right, in other words


@pytest.mark.parametrize(
    ("spelled", "plain"),
    [
        ({"stride": np.array(2), "dilation": range(1, 3)}, {"stride": 2, "dilation": (1, 2)}),
        ({"stride": np.array([1, 2])}, {"stride": (1, 2)}),
        ({"padding": np.array([[0, 1], [2, -1]])}, {"padding": ((0, 1), (2, -1))}),
        ({"padding": [np.int8(1), (0, 2)]}, {"padding": ((1, 1), (0, 2))}),
        ({"padding": 1, "padding_value": np.float64(2)}, {"padding": 1, "padding_value": 2}),
        ({"padding": "Same", "precision": ["high", "highest"]}, {"padding": "same"}),
        ({"groups": np.int64(1), "preferred_element_type": "float32"}, {}),
        ({"flip": np.True_, "custom_vjp": np.False_}, {"flip": True}),
    ],
)
def test_other_spellings_mean_the_same(spelled, plain):
    actual = jax.jit(functools.partial(jconv.conv, **spelled))(X, KERNEL)
    assert_close(actual, definition.conv(X, KERNEL, **plain), "float32", 24)


def test_a_number_may_be_an_array_without_axes():
    pairs = [
        (jconv.avg_pool(X, 2, divisor=np.array(3.0)), jconv.avg_pool(X, 2, divisor=3)),
        (jconv.lp_pool(X, 2, jnp.asarray(3)), jconv.lp_pool(X, 2, 3)),
        (filters.box(np.array(3)), filters.box(3)),
        (filters.gaussian(np.array(0.5)), filters.gaussian(0.5)),
    ]
    for actual, expected in pairs:
        np.testing.assert_array_equal(actual, expected)
    testing.assert_agree(jnp.sin, jnp.sin, (X,), terms=np.prod(X.shape), rtol=np.float32(0))


def test_a_padding_value_is_of_the_common_dtype():
    x = X.astype("int32")
    with jax.numpy_dtype_promotion("standard"):
        y = jconv.conv(x, KERNEL, padding=1, padding_value=0.5)
    expected = definition.conv(x.astype("float32"), KERNEL, padding=1, padding_value=0.5)
    assert_close(y, expected, "float32", 4 * 24)


@each_method
def test_an_empty_batch_is_no_error(method):
    y, transpose = jax.vjp(functools.partial(jconv.conv, method=method), X[:0], KERNEL)
    x_bar, kernel_bar = transpose(y)
    assert (y.shape, x_bar.shape) == ((0, 4, 4, 6), (0, 6, 5, 4))
    np.testing.assert_array_equal(kernel_bar, np.zeros_like(KERNEL))


def test_a_plan_has_a_batch_and_a_dtype_as_conv_has():
    plan = jconv.plan((0, 6, 5, 4), KERNEL.shape, dtype="float64")
    assert (plan.forward.why, plan.y_shape) == ("no examples", (0, 4, 4, 6))
    assert plan.dtype == jnp.zeros((), float).dtype
