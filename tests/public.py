"""Every public function of arrays, as a function of arrays alone, for what must hold of all.

A cut says of each axis of an array whether a mesh may cut it: along the `b`atch, the `r`ows (the
first spatial axis), the `c`hannels, or not at all (`.`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import jconv
from jconv import curvature, filters, lax, matrix, ndimage, signal, spectrum
from tests.cases import dense

ROWS, SIZE = 8, (8, 5)


class Public(NamedTuple):
    """`apply` is a public function with all but its arrays given."""

    name: str
    apply: Callable
    shapes: tuple[tuple[int, ...], ...]
    cuts: tuple[str, ...]

    def arrays(self, dtype):
        return tuple(jnp.asarray(dense(shape, dtype, i)) for i, shape in enumerate(self.shapes))


X, KERNEL, Y, PLANE = (4, *SIZE, 4), (3, 2, 4, 6), (4, *SIZE, 6), (ROWS, 6)
SAME = {"padding": "same"}
OVERLAPPING = {"window": (3, 2), "stride": (2, 1), "padding": 1}


def of_x(name, apply, cut="br.c"):
    return Public(name, apply, (X,), (cut,))


def pool(name, **options):
    return of_x(name, lambda x: getattr(jconv, name)(x, **OVERLAPPING, **options))


def everywhere(y):
    """Indices that differ, for `max_unpool`: the positions in reverse."""
    count = y.shape[1] * y.shape[2]
    at = jnp.arange(count, dtype=jnp.int32)[::-1].reshape(1, *y.shape[1:3], 1)
    return jnp.broadcast_to(at, y.shape)


PUBLIC = (
    Public(
        "conv",
        lambda x, k: jconv.conv(x, k, padding=1, padding_mode="wrap", stride=(2, 1)),
        (X, KERNEL),
        ("br.c", "..c."),
    ),
    Public(
        "conv, groups",
        lambda x, k: jconv.conv(x, k, groups=x.shape[-1], **SAME),
        (X, (3, 2, 1, 4)),
        ("br.c", "...c"),
    ),
    Public(
        "conv_transpose",
        lambda y, k: jconv.conv_transpose(y, k, **SAME),
        (Y, KERNEL),
        ("br.c", "...c"),
    ),
    Public(
        "kernel_gradient",
        lambda x, y: jconv.kernel_gradient(x, y, (3, 2), **SAME),
        (X, Y),
        ("br..", "br.c"),
    ),
    Public(
        "curvature.per_example_kernel_gradients",
        lambda x, y: curvature.per_example_kernel_gradients(x, y, (3, 2), **SAME),
        (X, Y),
        ("br..", "br.c"),
    ),
    Public(
        "curvature.per_example_kernel_norms",
        lambda x, y: curvature.per_example_kernel_norms(x, y, (3, 2), **SAME),
        (X, Y),
        ("br..", "br.c"),
    ),
    Public(
        "curvature.kronecker_factors",
        lambda x, y: curvature.kronecker_factors(x, y, (3, 2), **SAME).input,
        (X, Y),
        ("br..", "br.."),
    ),
    of_x("unfold", lambda x: jconv.unfold(x, (3, 2), **SAME)),
    Public(
        "fold",
        lambda p: jconv.fold(p, p.shape[1:3], **SAME),
        ((4, *SIZE, 3, 2, 4),),
        ("br...c",),
    ),
    of_x("pad", lambda x: jconv.pad(x, ((1, 2), (0, 1)), mode="reflect")),
    pool("max_pool"),
    pool("min_pool"),
    pool("avg_pool"),
    pool("sum_pool"),
    pool("prod_pool"),
    pool("logsumexp_pool"),
    pool("lp_pool", p=3),
    of_x("blur_pool", lambda x: jconv.blur_pool(x, (2, 2), stride=2)),
    of_x("drop", lambda x: jconv.drop(x, (2, 2), offset=1)),
    of_x("max_unpool", lambda y: jconv.max_unpool(y, everywhere(y), (9, 7))),
    of_x("adaptive_avg_pool", lambda x: jconv.adaptive_avg_pool(x, (3, 2))),
    of_x("adaptive_max_pool", lambda x: jconv.adaptive_max_pool(x, (2, 3))),
    of_x(
        "fractional_max_pool",
        lambda x: jconv.fractional_max_pool(jax.random.key(0), x, (2, 2), (3, 3)),
    ),
    Public("matrix.toeplitz", matrix.toeplitz, ((8,), (6,)), ("c", "r")),
    Public(
        "matrix.conv_matrix",
        lambda k: matrix.conv_matrix(k, SIZE, **SAME),
        (KERNEL,),
        ("..cb",),
    ),
    Public(
        "spectrum.singular_values",
        lambda k: spectrum.singular_values(k, SIZE, padding_mode="wrap", **SAME),
        (KERNEL,),
        ("..cb",),
    ),
    Public(
        "spectrum.operator_norm",
        lambda k: spectrum.operator_norm(k, SIZE, key=jax.random.key(0), **SAME),
        (KERNEL,),
        ("..cb",),
    ),
    of_x("filters.apply", lambda x: filters.apply(x, filters.sobel(0))),
    Public(
        "lax.conv_general_dilated",
        lambda x, k: lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        (X, KERNEL),
        ("br.c", "..c."),
    ),
    Public(
        "signal.convolve",
        lambda a, b: signal.convolve(a, b, mode="same"),
        (PLANE, (3, 4)),
        ("rc", ".."),
    ),
    Public("ndimage.gaussian_filter", lambda a: ndimage.gaussian_filter(a, 1.0), (PLANE,), ("rc",)),
    Public("ndimage.maximum_filter", lambda a: ndimage.maximum_filter(a, 3), (PLANE,), ("rc",)),
)

each_public = pytest.mark.parametrize("public", PUBLIC, ids=[public.name for public in PUBLIC])
