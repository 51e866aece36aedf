"""Drawn poolings against ONNX's operators, as the reference evaluator of its package computes them.

In a few options the evaluator departs from the operators' specification. These are left out, each
where its reason is written.
"""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

import jconv
from tests.cases import dense
from tests.compare import assert_close, assert_same

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")

OPSET = 22
SEEDS = range(4)
CASES = 8
each_seed = pytest.mark.parametrize("seed", SEEDS)


def to_onnx(x):
    """`[batch, *size, channels]` with the channels second."""
    return np.moveaxis(np.asarray(x), -1, 1)


def from_onnx(y):
    return np.moveaxis(y, 1, -1)


def evaluate(operator, arrays, outputs=1, **attributes):
    """What the operator gives for arrays that have their channels second."""
    inputs = [f"x{i}" for i in range(len(arrays))]
    results = [f"y{i}" for i in range(outputs)]
    node = onnx.helper.make_node(operator, inputs, results, **attributes)
    untyped = functools.partial(onnx.helper.make_tensor_value_info, shape=None)
    graph = onnx.helper.make_graph(
        [node],
        operator,
        [
            untyped(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
            for name, array in zip(inputs, arrays, strict=True)
        ],
        [untyped(name, onnx.TensorProto.FLOAT) for name in results],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    return reference.ReferenceEvaluator(model).run(None, dict(zip(inputs, arrays, strict=True)))


def draw(rng, *, dilated):
    """A window, a size that gives an output, and options; no window is of only padding."""
    rank = int(rng.integers(1, 4))
    window = rng.integers(1, 4, rank)
    dilation = rng.integers(1, 3, rank) if dilated else np.ones(rank, int)
    padding = rng.integers(0, window[:, None], (rank, 2))
    size = np.maximum((window - 1) * dilation + 1, 2) + rng.integers(0, 4, rank)
    return (
        tuple(window.tolist()),
        tuple(size.tolist()),
        {
            "stride": tuple(rng.integers(1, 4, rank).tolist()),
            "padding": tuple(map(tuple, padding.tolist())),
            "dilation": tuple(dilation.tolist()),
            "ceil_mode": bool(rng.integers(2)),
        },
    )


def attributes_of(window, stride, padding, dilation, ceil_mode):
    """The same options as attributes of an ONNX operator."""
    lows, highs = zip(*padding, strict=True)
    return {
        "kernel_shape": window,
        "strides": stride,
        "pads": [*lows, *highs],
        "dilations": dilation,
        "ceil_mode": int(ceil_mode),
    }


def partial_by(size, window, options):
    """Per axis, by how much the last window of `ceil_mode` reaches over the padded input."""
    if not options["ceil_mode"]:
        return [0] * len(size)
    y = jax.eval_shape(
        lambda x: jconv.sum_pool(x, window, **options), jax.ShapeDtypeStruct((*size, 1), "float32")
    )
    axes = zip(
        y.shape, size, window, options["stride"], options["padding"], options["dilation"],
        strict=False,
    )  # fmt: skip
    return [
        max((out - 1) * s + (taps - 1) * d + 1 - (low + n + high), 0)
        for out, n, taps, s, (low, high), d in axes
    ]


def cases_of(seed, partial):
    """Cases whose last windows reach over by at most `partial`."""
    rng = np.random.default_rng(seed)
    drawn = (draw(rng, dilated=True) for _ in itertools.count())
    fitting = (case for case in drawn if max(partial_by(case[1], case[0], case[2])) <= partial)
    for number, (window, size, options) in enumerate(itertools.islice(fitting, CASES)):
        yield window, options, dense((2, *size, 2), "float32", number)


def compiled(pools, xs):
    """Every pool at its input, compiled as one program."""
    return jax.jit(lambda xs: [pool(x) for pool, x in zip(pools, xs, strict=True)])(xs)


def global_indices(indices, size):
    """Positions per channel as ONNX counts them: in the whole tensor, its channels second."""
    planes = np.arange(indices.shape[0] * indices.shape[-1]).reshape(indices.shape[0], -1)
    planes = planes.reshape(len(planes), *(1,) * (indices.ndim - 2), -1)
    return np.asarray(indices, np.int64) + planes * math.prod(size)


@each_seed
def test_max_pool(seed):
    # Where no stride and no dilation is above 1, the evaluator reads `pads` in an order of its own,
    # or not at all, and counts the indices in the output.
    cases = [
        (window, options, x)
        for window, options, x in cases_of(seed, partial=9)
        if max(*options["stride"], *options["dilation"]) > 1
    ]
    assert len(cases) > CASES // 2
    results = compiled(
        [
            functools.partial(jconv.max_pool, window=window, return_indices=True, **options)
            for window, options, _ in cases
        ],
        [x for *_, x in cases],
    )
    for (window, options, x), (y, winners) in zip(cases, results, strict=True):
        expected, indices = evaluate(
            "MaxPool", [to_onnx(x)], outputs=2, **attributes_of(window, **options)
        )
        assert_same(y, from_onnx(expected))
        assert_same(global_indices(winners, x.shape[1:-1]), from_onnx(indices))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool_of_stride_1(rank):
    x, window = dense((2, *(6, 5, 4)[:rank], 3), "float32", seed=0), (3, 2, 2)[:rank]
    (expected,) = evaluate("MaxPool", [to_onnx(x)], kernel_shape=window)
    assert_same(jconv.max_pool(x, window, stride=1), from_onnx(expected))


@each_seed
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_average_pool(seed, count_include_pad):
    # A last window that reaches over by 2 or more moves all windows of the evaluator: it puts half
    # of what is missing at the low end.
    cases = list(cases_of(seed, partial=1))
    pool = functools.partial(jconv.avg_pool, count_include_pad=count_include_pad)
    results = compiled(
        [functools.partial(pool, window=window, **options) for window, options, _ in cases],
        [x for *_, x in cases],
    )
    for (window, options, x), y in zip(cases, results, strict=True):
        (expected,) = evaluate(
            "AveragePool", [to_onnx(x)], count_include_pad=int(count_include_pad),
            **attributes_of(window, **options),
        )  # fmt: skip
        assert_close(y, from_onnx(expected), "float32", terms=math.prod(window))


@each_seed
@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(seed, p):
    # The evaluator scales the norm of a partial window up to a whole one.
    cases = list(cases_of(seed, partial=0))
    results = compiled(
        [functools.partial(jconv.lp_pool, window=w, p=p, **options) for w, options, _ in cases],
        [x for *_, x in cases],
    )
    for (window, options, x), y in zip(cases, results, strict=True):
        attributes = attributes_of(window, **options)
        (expected,) = evaluate("LpPool", [to_onnx(x)], p=p, **attributes)
        assert_close(y, from_onnx(expected), "float32", terms=4 * math.prod(window))


WORDS = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER", "valid": "VALID"}


@pytest.mark.parametrize("padding", WORDS)
@pytest.mark.parametrize("pool", ["max", "avg"])
def test_padding_words(padding, pool):
    if (pool, padding) == ("max", "same_lower"):
        pytest.skip("the evaluator rounds the output size of SAME_LOWER down, not up")
    x = dense((2, 7, 6, 2), "float32", seed=0)
    operator, defined, options = {
        "max": ("MaxPool", jconv.max_pool, {}),
        "avg": ("AveragePool", jconv.avg_pool, {"count_include_pad": False}),
    }[pool]
    y = defined(x, (3, 2), stride=(2, 1), padding=padding, **options)
    (expected,) = evaluate(
        operator, [to_onnx(x)], kernel_shape=(3, 2), strides=(2, 1), auto_pad=WORDS[padding]
    )
    assert_close(y, from_onnx(expected), "float32", terms=6)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("overlapping", [False, True])
def test_max_unpool(rank, overlapping):
    # The size is the one that the options imply: the evaluator counts the indices in that, also
    # where another is asked for.
    stride = (1 if overlapping else 2,) * rank
    size = (6, 4, 4)[:rank]
    x = dense((2, *size, 3), "float32", seed=0)
    y, indices = jconv.max_pool(x, (2,) * rank, stride=stride, return_indices=True)
    (expected,) = evaluate(
        "MaxUnpool", [to_onnx(y), to_onnx(global_indices(indices, size))],
        kernel_shape=(2,) * rank, strides=stride,
    )  # fmt: skip
    assert_same(jconv.max_unpool(y, indices, size), from_onnx(expected))


def test_global_max_pool():
    # Of one or three spatial axes the evaluator reduces the wrong two.
    x = dense((2, 5, 6, 3), "float32", seed=0)
    (expected,) = evaluate("GlobalMaxPool", [to_onnx(x)])
    assert_same(jconv.max_pool(x, (5, 6)), from_onnx(expected))
    assert_same(jconv.adaptive_max_pool(x, 1), from_onnx(expected))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_average_pool(rank):
    size = (5, 6, 4)[:rank]
    x = dense((2, *size, 3), "float32", seed=0)
    (expected,) = evaluate("GlobalAveragePool", [to_onnx(x)])
    assert_close(jconv.avg_pool(x, size), from_onnx(expected), "float32", terms=math.prod(size))
    assert_close(jconv.adaptive_avg_pool(x, 1), from_onnx(expected), "float32", math.prod(size))
