"""The drop-ins within flax, Equinox and Haiku: one training step gives the same parameters.

The recipes are README's own, run from there.
"""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jconv
from tests.cases import dense
from tests.compare import assert_close

README = (Path(__file__).parents[1] / "README.md").read_text()
OPTIONS = [
    {"padding": "SAME", "strides": (2, 1)},
    {"padding": "CIRCULAR", "kernel_dilation": (1, 2)},
    {"padding": "REFLECT"},
    {"padding": ((1, 0), (2, 1)), "feature_group_count": 2, "use_bias": False},
    {"padding": "VALID", "input_dilation": (1, 1)},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
X = dense((3, 7, 6, 4), "float32", 0)


@pytest.fixture(autouse=True)
def strict_jax():
    """Overrides the fixture of that name: other libraries are not strict."""


def recipe(library, name):
    """What README's recipe for `library` defines as `name`."""
    peer = pytest.importorskip(library)
    blocks = re.findall(r"```python\n(.*?)\n```", README, re.DOTALL)
    (code,) = (block for block in blocks if f"{library}." in block and f"def {name}" in block)
    words = {"jax": jax, "jnp": jnp, "np": np, "jconv": jconv, library: peer}
    exec(code, words)
    return words[name]


def stepped(loss, parameters):
    """The parameters after a step of gradient descent."""
    gradient = jax.jit(jax.grad(loss))(parameters)
    return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradient)


def mean_square(y):
    return (jnp.sin(y) * y).mean()


def assert_same_step(loss, other_loss, parameters):
    """They differ by no more than rounding, and the step did something."""
    left, right = (jax.tree.leaves(stepped(f, parameters)) for f in (loss, other_loss))
    for a, b, p in zip(left, right, jax.tree.leaves(parameters), strict=True):
        assert_close(a, np.asarray(b), "float32", 4)
        assert np.abs(np.asarray(a) - np.asarray(p)).max() > 1e-4


@each_option
def test_linen(options):
    linen = pytest.importorskip("flax.linen")
    plain = linen.Conv(6, (3, 2), **options)
    dropped = linen.Conv(6, (3, 2), conv_general_dilated=jconv.lax.conv_general_dilated, **options)
    losses = [lambda p, m=m: mean_square(m.apply(p, X)) for m in (plain, dropped)]
    assert_same_step(*losses, plain.init(jax.random.key(0), X))


def test_linen_causal():
    linen = pytest.importorskip("flax.linen")
    make = partial(linen.Conv, 6, (3,), padding="CAUSAL")
    models = make(), make(conv_general_dilated=jconv.lax.conv_general_dilated)
    losses = [lambda p, m=m: mean_square(m.apply(p, X[0])) for m in models]
    assert_same_step(*losses, models[0].init(jax.random.key(0), X[0]))


@each_option
def test_nnx(options):
    nnx = pytest.importorskip("flax.nnx")
    losses = []
    for function in (jax.lax.conv_general_dilated, jconv.lax.conv_general_dilated):
        model = nnx.Conv(4, 6, (3, 2), conv_general_dilated=function, rngs=nnx.Rngs(0), **options)
        graph, state = nnx.split(model)
        losses.append(lambda s, g=graph: mean_square(nnx.merge(g, s)(X)))
    assert_same_step(*losses, state)


@pytest.mark.parametrize("mode", ["ZEROS", "REFLECT", "REPLICATE", "CIRCULAR"])
@pytest.mark.parametrize("padding", ["SAME", ((1, 0), (2, 1))])
def test_equinox(mode, padding):
    with_jconv = recipe("equinox", "with_jconv")
    equinox = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0))
    layers = [
        equinox.nn.Conv2d(4, 6, (3, 2), (2, 1), padding, groups=2, padding_mode=mode, key=keys[0]),
        equinox.nn.Lambda(jnp.tanh),
        equinox.nn.Conv2d(6, 3, 2, use_bias=False, dilation=(1, 2), key=keys[1]),
    ]
    parameters, static = equinox.partition(equinox.nn.Sequential(layers), equinox.is_array)
    images = np.moveaxis(X, -1, 1)

    def loss(parameters, wrap=lambda model: model):
        return mean_square(jax.vmap(wrap(equinox.combine(parameters, static)))(images))

    assert_same_step(loss, partial(loss, wrap=with_jconv), parameters)
    twice = partial(loss, wrap=lambda model: with_jconv(with_jconv(model)))
    assert_same_step(loss, twice, parameters)


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("batched", [True, False])
def test_haiku(data_format, batched):
    with_jconv = recipe("haiku", "with_jconv")
    haiku = pytest.importorskip("haiku")
    x = X if data_format == "NHWC" else np.moveaxis(X, -1, 1)

    def network(x):
        x = haiku.Conv2D(6, (3, 2), 2, data_format=data_format, feature_group_count=2)(x)
        mask = np.arange(72).reshape(2, 3, 6, 2) % 3
        last = haiku.Conv2D(2, (2, 3), rate=2, with_bias=False, mask=mask, data_format=data_format)
        return last(inputs=jnp.tanh(x))

    def intercepted(x):
        with haiku.intercept_methods(with_jconv):
            return network(x)

    models = [haiku.without_apply_rng(haiku.transform(f)) for f in (network, intercepted)]
    x = x if batched else x[0]
    first, second = (model.init(jax.random.key(0), x) for model in models)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, second))
    losses = [lambda p, m=m: mean_square(m.apply(p, x)) for m in models]
    assert_same_step(*losses, first)


# Pooling


@pytest.mark.parametrize("name", ["max_pool", "min_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("shape", "window", "options"),
    [
        ((3, 7, 6, 4), (3, 2), {}),
        ((7, 6, 4), (2, 3), {"strides": (2, 1), "padding": "SAME"}),
        ((2, 9, 3), (3,), {"strides": (2,), "padding": ((1, 2),)}),
        ((2, 3, 7, 5, 2), (2, 2), {"strides": (1, 2), "padding": "VALID"}),
        ((2, 4, 3, 5, 2), (2, 1, 3), {"padding": "SAME"}),
    ],
)
@pytest.mark.parametrize("ties", [False, True])
def test_pooling(name, shape, window, options, ties):
    pooling = pytest.importorskip("flax.nnx")
    with pytest.raises(ValueError, match="`inputs` must hold at least one window"):
        getattr(jconv.flax, name)(dense(shape, "float32", 0), [99] * len(window))
    x = dense(shape, "float32", 0)
    x = np.round(x) if ties else x
    for extra in ({}, {"count_include_pad": False}) if name == "avg_pool" else ({},):
        results = []
        for library in (jconv.flax, pooling):
            pool = partial(getattr(library, name), window_shape=window, **options, **extra)
            y, transpose = jax.vjp(pool, jnp.asarray(x))
            results.append((y, *transpose(jnp.asarray(dense(y.shape, "float32", 1)))))
        for actual, expected in zip(*results, strict=True):
            assert_close(actual, np.asarray(expected), "float32", 2)
