"""Natural-gradient steps of the net by Kronecker factors, as pure functions (K-FAC).

The Fisher matrix of each kernel is taken as `kron(A, G)` from `kronecker_factors`, with labels
drawn from the net, so that its inverse times a gradient is `inv(A) gradient inv(G)`. Each bias has
its Fisher matrix whole. The factors are damped after Martens and Grosse (2015), and a step is cut
where it would change the net's predictions too much (Ba, Grosse and Martens, 2017).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from experiments.learning import layerwise, net
from jconv.curvature import KroneckerFactors, kronecker_factors

_DECAY = 0.9  # of the factors of earlier steps

Factors = dict[str, dict[str, Any]]
State = tuple[Array, Factors]


def factors(params: net.Params, images: Array, key: Array) -> Factors:
    """Of the Fisher matrix of every layer: `A` and `G` of its kernel, and that of its bias."""
    labels = jax.random.categorical(key, net.logits(params, images, net.HAND_DERIVED))
    found = {}
    for name, (x, y_bar, taps) in layerwise.trace(params, images, labels).items():
        both = functools.partial(kronecker_factors, x, y_bar, taps, padding="same")
        found[name] = {"kernel": both(), "bias": both(approximation="reduce").output}
    return found


def natural(gradients: net.Params, fisher: Factors, damping: float) -> net.Params:
    """The gradients times the inverse of the damped Fisher matrix."""
    return {
        name: {
            "kernel": _divided(layer["kernel"], fisher[name]["kernel"], damping),
            "bias": _solve(fisher[name]["bias"], layer["bias"], damping),
        }
        for name, layer in gradients.items()
    }


def _divided(gradient: Array, factors: KroneckerFactors, damping: float) -> Array:
    """`inv(A) gradient inv(G)`, with the damping shared out by their mean eigenvalues."""
    a, g = factors
    root = jnp.sqrt(damping)
    share = jnp.sqrt((jnp.trace(a) / len(a)) / (jnp.trace(g) / len(g)))
    rows = gradient.reshape(len(a), len(g))
    left = _solve(a, rows, root * share)
    return _solve(g, left.T, root / share).T.reshape(gradient.shape)


def _solve(matrix: Array, right: Array, damping: Array | float) -> Array:
    damped = matrix + damping * jnp.eye(len(matrix))
    return jax.scipy.linalg.solve(damped, right, assume_a="pos")


def start(params: net.Params, images: Array) -> State:
    """Before the first step, in which these factors of zeros do not count."""
    shapes = jax.eval_shape(factors, params, images, jax.random.key(0))
    return jnp.int32(0), jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)


def step(
    params: net.Params,
    state: State,
    images: Array,
    labels: Array,
    key: Array,
    *,
    rate: float,
    damping: float,
    change: float,
) -> tuple[net.Params, State, Array]:
    """The next weights and state, and the loss; predictions change by `change`, a divergence."""
    measured = jax.value_and_grad(net.loss, has_aux=True)
    (loss, _), gradients = measured(params, images, labels, net.HAND_DERIVED)
    state = _averaged(state, factors(params, images, key))
    steps = natural(gradients, state[1], damping)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, steps, gradients)))
    size = jnp.minimum(rate, jnp.sqrt(change / slope))
    return jax.tree.map(lambda p, s: p - size * s, params, steps), state, loss


def _averaged(state: State, new: Factors) -> State:
    """With one step more, as far into the mean as it has come, so that the first count in full."""
    count, old = state
    weight = jnp.maximum(1 - _DECAY, 1 / (count + 1))
    return count + 1, jax.tree.map(lambda old, new: old + weight * (new - old), old, new)
