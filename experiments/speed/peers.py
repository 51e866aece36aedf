"""What is set side by side: compiled JAX programs, and those of libraries that may not be there."""

import functools
import importlib
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Answer = dict[str, np.ndarray]

_TORCH_FORMATS = ("channels-last", "contiguous")


class Skipped(Exception):
    """Why a peer takes no part."""


class Program(NamedTuple):
    """Something to time, what it answers, and what JAX says of it."""

    call: Callable[[], Any]
    answer: Callable[[], Answer]
    compile_seconds: float | None = None
    scratch_bytes: int | None = None


def compiled(function: Callable[..., jax.Array], *arrays: np.ndarray) -> Program:
    """A JAX function of these arrays."""
    on_device = jax.device_put(arrays)
    executable, compile_seconds, scratch_bytes = compiled_ahead(jax.jit(function), *on_device)
    return Program(
        lambda: executable(*on_device),
        lambda: {"result": np.asarray(executable(*on_device))},
        compile_seconds,
        scratch_bytes,
    )


def compiled_ahead(function: Any, *arguments: Any) -> tuple[jax.stages.Compiled, float, int | None]:
    """A jitted function's executable, the seconds that it took to make, and the scratch it uses."""
    start = time.perf_counter()
    executable = function.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    analysis = executable.memory_analysis()
    return executable, seconds, analysis.temp_size_in_bytes if analysis else None


def optional(name: str) -> Any:
    """A module that need not be installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise Skipped(f"{name} is not installed") from None


def torch_on_cpu() -> Any:
    """PyTorch, with as many threads as JAX."""
    if jax.default_backend() != "cpu":
        raise Skipped("torch is a peer on CPU only")
    torch = optional("torch")
    torch.set_num_threads(threads())
    return torch


def torch_programs(make: Callable[[str], Program]) -> dict[str, Callable[[], Program]]:
    """How to make torch's program in each memory format."""
    return {f"torch {name}": functools.partial(make, name) for name in _TORCH_FORMATS}


def threads() -> int:
    """How many cores this process may use, hence how many threads JAX has."""
    return len(os.sched_getaffinity(0))


def to_torch(array: np.ndarray, memory_format: str) -> Any:
    """`[batch, *size, channels]` as torch's `[batch, channels, *size]`."""
    return _in_format(optional("torch").from_numpy(array).movedim(-1, 1), memory_format)


def kernel_to_torch(kernel: np.ndarray, memory_format: str) -> Any:
    """`[*taps, in, out]` as torch's `[out, in, *taps]`."""
    swapped = np.moveaxis(kernel, (-1, -2), (0, 1))
    return _in_format(optional("torch").from_numpy(swapped), memory_format)


def _in_format(tensor: Any, memory_format: str) -> Any:
    """Channels last is written by hand, since torch knows it by name in 2D and 3D only."""
    if memory_format == "channels-last":
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    return tensor.contiguous()


def from_torch(tensor: Any) -> np.ndarray:
    """The inverse of `to_torch`."""
    return tensor.detach().movedim(1, -1).numpy()


def kernel_from_torch(kernel: Any) -> np.ndarray:
    """The inverse of `kernel_to_torch`."""
    return np.moveaxis(kernel.detach().numpy(), (0, 1), (-1, -2))
