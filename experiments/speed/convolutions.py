"""The three faces of a convolution, as jconv, `jax.lax` with autodiff, and torch compute them.

A face is a function of `x`, `kernel` and `y_bar` that uses two of them.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np

import jconv
from experiments.speed import bench, peers
from experiments.speed.tables import Ints, Layer

Face = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def cases(layer: Layer, method: str) -> list[bench.Case]:
    """One for each face."""
    ours, lax = jconv_faces(layer, method), _lax_faces(layer)
    return [_case(layer, face, ours[face], lax[face]) for face in ours]


def _case(layer: Layer, face: str, ours: Face, lax: Face) -> bench.Case:
    def torch(memory_format: str) -> peers.Program:
        return _torch_program(layer, face, memory_format)

    return bench.Case(
        layer.name,
        face,
        layer.flops,
        {
            "jconv": lambda: peers.compiled(ours, *arrays(layer)),
            "lax": lambda: _lax_program(layer, lax),
            **peers.torch_programs(torch),
        },
        lambda: bench.in_float64(lax, *arrays(layer)),
    )


def lax_conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    padding: Sequence[tuple[int, int]],
    dilation: Ints,
    groups: int,
    stride: Ints | None = None,
) -> jax.Array:
    """`jconv.conv` by `jax.lax`, channels last, in any rank."""
    rank = kernel.ndim - 2
    channels_last = (0, rank + 1, *range(1, rank + 1))
    taps_first = (rank + 1, rank, *range(rank))
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        stride or (1,) * rank,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=jax.lax.ConvDimensionNumbers(channels_last, taps_first, channels_last),
        feature_group_count=groups,
    )


def arrays(layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`x`, `kernel` and `y_bar`; `y` has entries of unit size."""
    rng = np.random.default_rng(0)
    x, kernel, y_bar = (rng.standard_normal(shape, np.float32) for shape in layer.shapes)
    return x, kernel / np.float32(math.sqrt(math.prod(kernel.shape[:-1]))), y_bar


def jconv_faces(layer: Layer, method: str, precision: str | None = None) -> dict[str, Face]:
    """jconv's, each a program of its own."""
    options = {**_options(layer), "method": method, "precision": precision}
    return {
        "forward": lambda x, kernel, y_bar: jconv.conv(x, kernel, **options),
        "input gradient": lambda x, kernel, y_bar: jconv.conv_transpose(
            y_bar, kernel, size=layer.size, **options
        ),
        "kernel gradient": lambda x, kernel, y_bar: jconv.kernel_gradient(
            x, y_bar, layer.taps, **options
        ),
    }


def _lax_faces(layer: Layer) -> dict[str, Face]:
    conv = functools.partial(lax_conv, **_options(layer))
    return {
        "forward": lambda x, kernel, y_bar: conv(x, kernel),
        "input gradient": lambda x, kernel, y_bar: _vjp(lambda x: conv(x, kernel), x, y_bar),
        "kernel gradient": lambda x, kernel, y_bar: _vjp(lambda k: conv(x, k), kernel, y_bar),
    }


def _lax_program(layer: Layer, face: Face) -> peers.Program:
    if (rank := len(layer.taps)) > 3 and jax.default_backend() != "cpu":
        raise peers.Skipped(f"XLA convolves up to 3 axes there, not {rank}, and ends the process")
    return peers.compiled(face, *arrays(layer))


def _vjp(
    function: Callable[[jax.Array], jax.Array], argument: jax.Array, y_bar: jax.Array
) -> jax.Array:
    _, pull = jax.vjp(function, argument)
    return pull(y_bar)[0]


def _options(layer: Layer) -> dict:
    return {
        "stride": layer.stride,
        "padding": [(p, p) for p in layer.padding],
        "dilation": layer.dilation,
        "groups": layer.groups,
    }


def _torch_program(layer: Layer, face: str, memory_format: str) -> peers.Program:
    torch, rank = peers.torch_on_cpu(), len(layer.taps)
    if rank > 3:
        raise peers.Skipped(f"torch convolves up to 3 axes, not {rank}")
    x, kernel, y_bar = arrays(layer)
    x, y_bar = (peers.to_torch(array, memory_format) for array in (x, y_bar))
    kernel = peers.kernel_to_torch(kernel, memory_format)
    not_transposed = (False, [0] * rank)
    options = (layer.stride, layer.padding, layer.dilation, *not_transposed, layer.groups)

    def forward():
        return torch.ops.aten.convolution(x, kernel, None, *options)

    def gradients(*wanted: bool) -> tuple:
        return torch.ops.aten.convolution_backward(y_bar, x, kernel, None, *options, wanted)

    call, convert = {
        "forward": (forward, peers.from_torch),
        "input gradient": (lambda: gradients(True, False, False)[0], peers.from_torch),
        "kernel gradient": (lambda: gradients(False, True, False)[1], peers.kernel_from_torch),
    }[face]
    return peers.Program(call, lambda: {"result": convert(call())})
