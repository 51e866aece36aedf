"""Training steps of a net, jitted, with the convolution and pooling of jconv, JAX or Flax."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jconv
from experiments.speed import convolutions, nets, peers, poolings


def program(net: nets.Net, library: str, count: int = 1) -> peers.Program:
    """Steps of Adam, each from where the last one ended, whose memory it takes over.

    More than one a call are the turns of a `lax.scan`.
    """
    differentiate = jax.value_and_grad(functools.partial(net.loss, using=_OPERATIONS[library]()))
    optimizer = optax.adam(nets.LEARNING_RATE)
    batch = jax.device_put(net.batch())

    def advance(state: tuple, x: jax.Array, target: jax.Array) -> tuple[tuple, jax.Array]:
        params, moments = state
        loss, gradient = differentiate(params, x, target)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    def turns(state: tuple, x: jax.Array, target: jax.Array) -> tuple[tuple, jax.Array]:
        def turn(state: tuple, _: None) -> tuple[tuple, jax.Array]:
            return advance(state, x, target)

        state, losses = jax.lax.scan(turn, state, length=count)
        return state, losses[-1]

    params = jax.device_put(net.init())
    state = jax.tree.map(jnp.copy, (params, optimizer.init(params)))
    donating = jax.jit(turns if count > 1 else advance, donate_argnums=0)
    executable, compile_seconds, scratch_bytes = peers.compiled_ahead(donating, state, *batch)

    def step() -> jax.Array:
        nonlocal state
        state, loss = executable(state, *batch)
        return loss

    def answer() -> peers.Answer:
        return nets.answer(*jax.jit(differentiate)(params, *batch))

    return peers.Program(step, answer, compile_seconds, scratch_bytes)


def _jconv_operations() -> nets.Operations:
    return nets.Operations(jconv.conv, jconv.max_pool)


def _lax_operations() -> nets.Operations:
    return nets.Operations(convolutions.lax_conv, poolings.lax_max_pool)


def _flax_operations() -> nets.Operations:
    """Flax's layers, given the weights that the others have."""
    linen = peers.optional("flax.linen")

    def conv(x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
        *taps, _, features = kernel.shape
        layer = linen.Conv(
            *(features, taps),
            padding=options["padding"],
            kernel_dilation=options["dilation"],
            feature_group_count=options["groups"],
            use_bias=False,
        )
        return layer.apply({"params": {"kernel": kernel}}, x)

    def max_pool(x: jax.Array, window: tuple[int, ...]) -> jax.Array:
        return linen.max_pool(x, window, window)

    return nets.Operations(conv, max_pool)


_OPERATIONS = {"jconv": _jconv_operations, "lax": _lax_operations, "flax": _flax_operations}
