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


def slope(y):
    """The derivative of the loss in what it sums."""
    return 1 - np.tanh(y) ** 2


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
    gradients = jax.jit(jax.vmap(grad, axes))(*args)
    for i in range(COUNT):
        x, kernel = example(args, axes, i)
        y_bar = slope(definition.conv(x, kernel, **case.options))
        _, *expected = case.defined_faces(x, kernel, y_bar)
        for actual, want in zip(gradients, expected, strict=True):
            assert_close(actual[i], want, "float64", case.terms)


@each_vmapped
@each_method
@each_case(CONV_CASES, "crop and pad")
def test_grad_of_vmap(case, method, axes):
    """What is mapped over gets a cotangent each; what is shared gets their sum."""
    xs, kernels, y_bars = stacks(case)
    args = operands((xs, kernels), axes)
    batched = jax.vmap(conv_of(case, method), axes)
    cotangents = jax.jit(lambda y_bars, *args: jax.vjp(batched, *args)[1](y_bars))(y_bars, *args)
    each = [
        case.defined_faces(*example(args, axes, i), y_bar)[1:] for i, y_bar in enumerate(y_bars)
    ]
    for actual, parts, axis in zip(cotangents, zip(*each, strict=True), axes, strict=True):
        expected = np.stack(parts) if axis == 0 else sum(parts)
        assert_close(actual, expected, "float64", COUNT * case.terms)


@each_method
@each_case(CONV_CASES, "groups", "crop and pad")
def test_forward_over_reverse(case, method):
    """A Hessian-vector product, against the product rule applied to the definition."""
    x, kernel, _ = case.data("float64")
    x_dot, kernel_dot, _ = case.data("float64", seed=1)
    grad = jax.grad(curved_loss(conv_of(case, method)), argnums=(0, 1))
    product = jax.jit(lambda *p: jax.jvp(grad, p[:2], p[2:])[1])(x, kernel, x_dot, kernel_dot)

    y = definition.conv(x, kernel, **case.options)
    y_dot = definition.conv(x_dot, kernel, **case.options)
    y_dot += definition.conv(x, kernel_dot, **case.options)
    y_bar, y_bar_dot = slope(y), -2 * np.tanh(y) * slope(y) * y_dot
    _, x_by_kernel, kernel_by_x = case.defined_faces(x_dot, kernel_dot, y_bar)
    _, x_by_y, kernel_by_y = case.defined_faces(x, kernel, y_bar_dot)
    # `y_bar_dot` is as large as `y_dot`, a sum of products itself.
    terms = case.terms**2
    assert_close(product[0], x_by_kernel + x_by_y, "float64", terms)
    assert_close(product[1], kernel_by_x + kernel_by_y, "float64", terms)


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
