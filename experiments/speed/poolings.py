"""Pooling and its gradient, as jconv, `jax.lax` with autodiff, and torch compute them.

Each backward program of JAX is given `x` and `y_bar`, and finds the winners itself. Torch is given
more: the winners that its forward stored.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jconv
from experiments.speed import bench, peers
from experiments.speed.tables import Ints, Pool

Face = Callable[[jax.Array, jax.Array], jax.Array]
Pairs = Sequence[tuple[int, int]]


def cases(pool: Pool) -> list[bench.Case]:
    """Forward and backward, of max and of average pooling."""
    return [_case(pool, kind, face) for kind in ("max", "avg") for face in ("forward", "backward")]


def _case(pool: Pool, kind: str, face: str) -> bench.Case:
    def torch(memory_format: str) -> peers.Program:
        return _torch_program(pool, kind, face, memory_format)

    lax = faces(pool, _LAX[kind])[face]
    return bench.Case(
        f"{kind}_{pool.name}",
        face,
        None,
        {
            "jconv": lambda: peers.compiled(faces(pool, _JCONV[kind])[face], *arrays(pool)),
            "lax": lambda: peers.compiled(lax, *arrays(pool)),
            **peers.torch_programs(torch),
        },
        lambda: bench.in_float64(lax, *arrays(pool)),
    )


def lax_max_pool(x: jax.Array, window: Ints, **options: Any) -> jax.Array:
    """`jconv.max_pool` by `jax.lax`."""
    return _reduce(x, -jnp.inf, jax.lax.max, window, **options)


def lax_avg_pool(x: jax.Array, window: Ints, **options: Any) -> jax.Array:
    """`jconv.avg_pool` by `jax.lax`; what is padded counts as zeros."""
    return _reduce(x, 0.0, jax.lax.add, window, **options) / math.prod(window)


def _reduce(
    x: jax.Array,
    start: float,
    monoid: Callable,
    window: Ints,
    *,
    stride: Ints | None = None,
    padding: Pairs | None = None,
) -> jax.Array:
    strides = (1, *(stride or window), 1)
    pairs = [(0, 0), *(padding or [(0, 0)] * len(window)), (0, 0)]
    return jax.lax.reduce_window(x, start, monoid, (1, *window, 1), strides, pairs)


def arrays(pool: Pool) -> list[np.ndarray]:
    """`x` and `y_bar`."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32) for shape in pool.shapes]


def faces(pool: Pool, function: Callable[..., Any]) -> dict[str, Face]:
    """Of `x` and `y_bar`: the pooling by a function, and its gradient."""
    padding = [(p, p) for p in pool.padding]

    def forward(x: jax.Array, y_bar: jax.Array) -> jax.Array:
        return function(x, pool.window, stride=pool.stride, padding=padding)

    def backward(x: jax.Array, y_bar: jax.Array) -> jax.Array:
        _, pull = jax.vjp(lambda x: forward(x, y_bar), x)
        return pull(y_bar)[0]

    return {"forward": forward, "backward": backward}


def _torch_program(pool: Pool, kind: str, face: str, memory_format: str) -> peers.Program:
    torch, rank = peers.torch_on_cpu(), len(pool.window)
    if rank > 3:
        raise peers.Skipped(f"torch pools up to 3 axes, not {rank}")
    x, y_bar = (peers.to_torch(array, memory_format) for array in arrays(pool))
    function = getattr(torch.nn.functional, f"{kind}_pool{rank}d")
    apply = functools.partial(function, x, pool.window, pool.stride, pool.padding)
    if face == "forward":
        return peers.Program(apply, lambda: {"result": peers.from_torch(apply())})
    x.requires_grad_()
    y = apply()

    def backward():
        return torch.autograd.grad(y, x, y_bar, retain_graph=True)[0]

    return peers.Program(backward, lambda: {"result": peers.from_torch(backward())})


_JCONV = {"max": jconv.max_pool, "avg": jconv.avg_pool}
_LAX = {"max": lax_max_pool, "avg": lax_avg_pool}
