"""Measure what bounds convolutions on this machine, apart from any method. (0.5 minutes)

On a CPU: what matrix products of XLA, a large one, those of first layers' kernel gradients and
of a ResNeXt's groups, and convolutions of torch make of its cores, how many of them XLA's own
2D convolution keeps busy, what it makes of an odd number of channels, how many calls of a short
loop go without the second thread, and what it costs to write to memory that the system has to map
first.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from experiments import command_line
from experiments.speed import convolutions, peers, tables, timing

_FEW_INPUTS = ("rgb3x3", "volume_first")
_SLOW = 1.5  # times the fastest tenth of all calls


def limits(seconds: float, scale: int) -> Iterator[tuple[str, str]]:
    """What is measured, for so many seconds each, and the figure; sizes are divided by `scale`."""
    size, side, channels = 1024 // scale, 32 // scale, 64 // scale
    a = _normal(size, size)
    flops = 2 * size**3
    yield "matrix product by XLA", _rate(flops, _times(_jitted(jnp.matmul, a, a), seconds))
    for layer in tables.read_layers(tables.LAYERS):
        if layer.name in _FEW_INPUTS:
            layer = tables.shrunk(layer) if scale > 1 else layer
            yield from _kernel_gradient(layer, seconds)
    groups, image, few = 32 // scale, 14, 16
    each = _normal(groups, 8 * image**2, 9 * few), _normal(groups, 9 * few, few)
    flops = 2 * each[0].size * few
    grouped = _jitted(jnp.matmul, *each)
    yield "    of 32 groups of 16 channels, 3x3 taps", _rate(flops, _times(grouped, seconds))
    x, kernel = _normal(8, image, image, groups * few), _normal(3, 3, few, groups * few)
    torch = _torch_conv(x, kernel, groups)
    if torch is not None:
        yield "    their convolution by torch", _rate(flops, _times(torch, seconds))
    x, kernel = _normal(32, side, side, channels), _normal(3, 3, channels, channels)
    flops = 2 * x.size * kernel.size // channels
    torch = _torch_conv(x, kernel)
    if torch is not None:
        yield "3x3 convolution by torch", _rate(flops, _times(torch, seconds))
    options = {"stride": (1, 1), "padding": [(1, 1)] * 2, "dilation": (1, 1), "groups": 1}
    by_lax = _jitted(partial(convolutions.lax_conv, **options), x, kernel)
    yield "3x3 convolution by XLA", _rate(flops, _times(by_lax, seconds))
    yield "    threads that it keeps busy", f"{_busy(by_lax, seconds):.1f} of {peers.threads()}"
    for inputs in (4, 3):
        x, kernel = _normal(8, side, side, inputs), _normal(3, 3, inputs, 72)
        flops = 2 * x.size * kernel.size // inputs
        for by, conv in (("", convolutions.lax_conv), (", by jconv", jconv.conv)):
            taken = _times(_jitted(partial(conv, **options), x, kernel), seconds)
            yield f"    of {inputs} to 72 channels{by}", _rate(flops, taken)
    x, kernel = _normal(4, 56 // scale, 56 // scale, 96), _normal(7, 7, 1, 96)
    short = _jitted(lambda x, k: jconv.conv(x, k, padding="same", groups=96), x, kernel)
    taken = _times(short, seconds)
    fast = statistics.quantiles(taken, n=10)[0]
    slow = statistics.mean(t > _SLOW * fast for t in taken)
    yield f"calls of a depthwise 7x7 over {_SLOW} times the fastest tenth", f"{slow:.0%}"
    for mebibytes in (24 // scale, 48 // scale):
        ones = np.ones(mebibytes * 2**18, np.float32)
        rate = ones.nbytes / min(_times(_jitted(lambda x: x + 1, ones), seconds)) / 1e9
        yield f"a new array of {mebibytes} MiB", f"{rate:.1f} GB/s"


def _kernel_gradient(layer: tables.Layer, seconds: float) -> Iterator[tuple[str, str]]:
    """Its bare product, of patches at hand, and all of it by torch."""
    _, (*taps, inputs, outputs), (*positions, _) = layer.shapes
    rows, columns = math.prod(taps) * inputs, math.prod(positions)
    product = _jitted(jnp.matmul, _normal(rows, columns), _normal(columns, outputs))
    name = f"    of {rows} rows, {layer.name}'s kernel gradient"
    yield name, _rate(layer.flops, _times(product, seconds))
    yield "    threads that it keeps busy", f"{_busy(product, seconds):.1f} of {peers.threads()}"
    *_, gradient = convolutions.cases(layer, "auto")
    try:
        torch = gradient.programs["torch channels-last"]().call
    except peers.Skipped:
        return
    yield "    that gradient by torch", _rate(layer.flops, _times(torch, seconds))


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _jitted(function: Callable[..., jax.Array], *arrays: np.ndarray) -> Callable[[], Any]:
    """A call that returns when it is done."""
    call = peers.compiled(function, *arrays).call
    return lambda: jax.block_until_ready(call())


def _torch_conv(x: np.ndarray, kernel: np.ndarray, groups: int = 1) -> Callable[[], Any] | None:
    try:
        torch = peers.torch_on_cpu()
    except peers.Skipped:
        return None
    a = peers.to_torch(x, "channels-last")
    k = peers.kernel_to_torch(kernel, "channels-last")
    return lambda: torch.conv2d(a, k, padding=1, groups=groups)


def _times(call: Callable[[], Any], seconds: float) -> list[float]:
    """Of all calls within so many seconds, three at least."""
    call()
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 3:
        taken += timing.samples({"call": call}, rounds=1)["call"]
    return taken


def _rate(flops: int, taken: Sequence[float]) -> str:
    return f"{flops / statistics.median(taken) / 1e9:.0f} GFLOP/s"


def _busy(call: Callable[[], Any], seconds: float) -> float:
    """Seconds of the processor that a second takes."""
    start, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() < begin + seconds:
        call()
    return (time.process_time() - start) / (time.perf_counter() - begin)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures, a line each."""
    parser = command_line.parser(__file__, __doc__)
    parser.add_argument("--seconds", type=command_line.positive, default=3, help="for each figure")
    options = command_line.parse(parser, arguments, results=None, seconds=0.05)
    for what, figure in limits(options.seconds, scale=8 if options.quick else 1):
        print(f"{what:<62} {figure:>14}", flush=True)


if __name__ == "__main__":
    main()
