"""Every transformation of JAX goes through the rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jconv
from jconv.testing import assert_agree
from tests import definition
from tests.cases import CONV_CASES, dense, each_case, each_method
from tests.compare import assert_close

COUNT = 3


def stacks(case):
    """`COUNT` inputs, kernels and cotangents."""
    return tuple(dense((COUNT, *shape), "float64", i) for i, shape in enumerate(case.shapes))


def conv_of(case, method="auto", **options):
    return lambda x, kernel: jconv.conv(x, kernel, method=method, **case.options, **options)


def curved_loss(conv):
    """A scalar with derivatives of every order in both arguments."""
    return lambda x, kernel: jnp.sum(jnp.tanh(conv(x, kernel)))


def operands(stacked, axes):
    """The whole stack where it is mapped over, one of it elsewhere."""
    return tuple(a if axis == 0 else a[1] for a, axis in zip(stacked, axes, strict=True))


def example(args, axes, i):
    """What the `i`-th call of a mapped function sees."""
    return tuple(a[i] if axis == 0 else a for a, axis in zip(args, axes, strict=True))


each_vmapped = pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=str)


@each_vmapped
@each_method
@each_case(CONV_CASES, "groups", "symmetric")
def test_vmap(case, method, axes):
    xs, kernels, _ = stacks(case)
    args = operands((xs, kernels), axes)
    ys = jax.jit(jax.vmap(conv_of(case, method), axes))(*args)
    for i in range(COUNT):
        expected = definition.conv(*example(args, axes, i), **case.options)
        assert_close(ys[i], expected, "float64", case.terms)


@each_case(CONV_CASES, "crop and pad")
def test_vmap_over_another_axis(case):
    xs, kernels, _ = stacks(case)
    batched = jax.vmap(conv_of(case), (-1, 1), out_axes=-2)
    ys = batched(np.moveaxis(xs, 0, -1), np.moveaxis(kernels, 0, 1))
    for i in range(COUNT):
        expected = definition.conv(xs[i], kernels[i], **case.options)
        assert_close(ys[..., i, :], expected, "float64", case.terms)


@each_vmapped
@each_method
@each_case(CONV_CASES, "crop and pad")
def test_vmap_of_grad(case, method, axes):
    xs, kernels, _ = stacks(case)
    args = operands((xs, kernels), axes)
    grad = jax.grad(curved_loss(conv_of(case, method)), argnums=(0, 1))
    one_by_one = [jax.jit(grad)(*example(args, axes, i)) for i in range(COUNT)]
    batched = jax.jit(jax.vmap(grad, axes))(*args)
    assert_agree(batched, jax.tree.map(lambda *gradients: jnp.stack(gradients), *one_by_one))


@each_vmapped
@each_method
@each_case(CONV_CASES, "crop and pad")
def test_grad_of_vmap(case, method, axes):
    """What is mapped over gets a cotangent each; what is shared gets their sum."""
    xs, kernels, y_bars = stacks(case)
    args = operands((xs, kernels), axes)
    batched = jax.vmap(conv_of(case, method), axes)
    cotangents = jax.jit(lambda y_bars, *args: jax.vjp(batched, *args)[1](y_bars))(y_bars, *args)
    each = []
    for i, y_bar in enumerate(y_bars):
        x, kernel = example(args, axes, i)
        x_bar = definition.conv_transpose(y_bar, kernel, size=case.size, **case.options)
        each.append((x_bar, definition.kernel_gradient(x, y_bar, case.taps, **case.options)))
    for actual, parts, axis in zip(cotangents, zip(*each, strict=True), axes, strict=True):
        expected = np.stack(parts) if axis == 0 else sum(parts)
        assert_close(actual, expected, "float64", COUNT * case.terms)


@each_method
@each_case(CONV_CASES, "groups", "crop and pad")
def test_forward_over_reverse(case, method):
    """A Hessian-vector product through the rule is that of the plain computation."""
    point = case.data("float64")[:2]
    direction = case.data("float64", seed=1)[:2]

    def product(custom_vjp):
        loss = curved_loss(conv_of(case, method, custom_vjp=custom_vjp))
        grad = jax.grad(loss, argnums=(0, 1))
        return jax.jit(lambda p, d: jax.jvp(grad, p, d)[1])(point, direction)

    assert_agree(product(custom_vjp=True), product(custom_vjp=False))


def layer(x, kernel):
    return jnp.tanh(jconv.conv(x, kernel, padding="same"))


def network_loss(layers):
    def loss(x, kernels):
        return jnp.sum(layers(x, kernels) ** 2)

    return jax.grad(loss, argnums=(0, 1))


def unrolled(x, kernels):
    for kernel in kernels:
        x = layer(x, kernel)
    return x


def scanned(x, kernels):
    return lax.scan(lambda x, kernel: (layer(x, kernel), None), x, kernels)[0]


def checkpointed(x, kernels):
    return jax.checkpoint(unrolled)(x, kernels)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("layers", [scanned, checkpointed])
def test_gradients_through_layers(layers, jit):
    x, kernels = dense((2, 6, 5, 3), "float64", 0), dense((COUNT, 3, 2, 3, 3), "float64", 1)
    grad = network_loss(layers)
    args = jnp.asarray(x), jnp.asarray(kernels)
    assert_agree((jax.jit(grad) if jit else grad)(*args), network_loss(unrolled)(*args))
