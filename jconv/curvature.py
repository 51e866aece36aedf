"""What single examples say about a kernel: their gradients, the norms of these, and curvature.

Throughout, `p[n, o]` is the patch of example `n` under output `o`, `[*taps, in // groups]` of each
group, as `unfold` gives it, and `y_bar[n]` the cotangent of the loss of example `n` alone.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from jconv import adjoint, checks, each
from jconv.blocks import at_once, sum_blocks
from jconv.call import Call, check_paired
from jconv.channels import accumulator, by_group, groups_first, matmul
from jconv.each import map_examples
from jconv.geometry import Ints, Padding, Spec
from jconv.methods import METHODS
from jconv.methods.patches import planar_rows
from jconv.operands import array, factor_dtype, inexact, merged, numbers
from jconv.padding import embed
from jconv.placement import placed
from jconv.windows import gather_patches

__all__ = [
    "kronecker_factors",
    "per_example_kernel_gradients",
    "per_example_kernel_norms",
]


@placed("x", "y_bar", axes=lambda x, y_bar: (x[0], y_bar[-1]))
def per_example_kernel_gradients(
    x: ArrayLike,
    y_bar: ArrayLike,
    taps: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    padding_mode: str = "constant",
    padding_value: ArrayLike = 0,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    groups: int = 1,
    flip: bool = False,
    method: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    custom_vjp: bool = True,
) -> Array:
    """The kernel gradient of every example by itself.

    `g[n, t] = sum_o x[n, stride*o + dilation*t - low] y_bar[n, o]`: `kernel_gradient` without its
    sum over the batch, with scratch for a few examples at a time. No convolution in it is grouped,
    unlike in `vmap` of a gradient, but those of grouped kernels on accelerators.

    Args:
      x: `[*batch, *size, in]`; no, one or many batch axes.
      y_bar: `[*batch, *out, out_channels]`.
      taps: as in `kernel_gradient`.
      method: `"auto"`, or what each example's gradient is computed by, one after the other.
      others: as in `conv`.

    Returns:
      `[*batch, *taps, in // groups, out_channels]`.

    Raises:
      ValueError, TypeError: as `kernel_gradient`.

    Source: Goodfellow (2015); Rochette, Manoel, Tramel (2019).

    >>> x, y_bar = jnp.array([[[1], [2]], [[3], [4]]]), jnp.array([[[1]], [[10]]])
    >>> per_example_kernel_gradients(x, y_bar, (2,)).squeeze()
    Array([[ 1,  2],
           [30, 40]], dtype=int32)
    """
    x, y_bar, call = check_paired(
        x, y_bar, taps, stride=stride, padding=padding, padding_mode=padding_mode,
        padding_value=padding_value, dilation=dilation, input_dilation=input_dilation,
        groups=groups, flip=flip, method=method, precision=precision,
        preferred_element_type=preferred_element_type, custom_vjp=custom_vjp,
    )  # fmt: skip
    x, y = _examples(call, x, y_bar)
    form = each.prepared(call.spec, call.method, x, y.shape[-1])
    g = each.kernels(form, x, y, call.custom_vjp)
    return _unflipped(call.spec, g, [1]).reshape(*call.batch, *g.shape[1:])


@placed("x", axes=lambda x: x[:1])
def per_example_kernel_norms(
    x: ArrayLike,
    y_bar: ArrayLike,
    taps: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    padding_mode: str = "constant",
    padding_value: ArrayLike = 0,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    groups: int = 1,
    flip: bool = False,
    method: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    custom_vjp: bool = True,
) -> Array:
    """The Euclidean norm of every example's kernel gradient, without holding all gradients at once.

    By the Gram matrices of a group's patches and cotangents,

        |g[n]|^2 = sum_(o, o') <p[n, o], p[n, o']> <y_bar[n, o], y_bar[n, o']>

    where that takes fewer FLOPs, `out * (k + m) < k * m` with `k` entries of a patch, `m` channels
    and `out` positions (of several groups, up to 1.5 times as many); then the Gram matrices are
    smaller than the gradient, or hardly larger. Elsewhere from the gradients of a few examples at a
    time. Where a gradient nearly cancels, Gram matrices keep half of its digits: its norm is off by
    about 3e-4 of what cancels in float32. The derivative of a norm that is zero is taken as zero.

    Args:
      x, y_bar, taps: as in `per_example_kernel_gradients`.
      method: `"auto"`, `"gram"`, or what each gradient is computed by.
      others: as in `conv`.

    Returns:
      `[*batch]`; the norms of integers are of the default float dtype.

    Raises:
      ValueError, TypeError: as `kernel_gradient`.

    Source: Goodfellow (2015); Bu, Mao, Xu (2022), section 4.

    >>> x, y_bar = jnp.array([[[3.0], [4.0]], [[6.0], [8.0]]]), jnp.ones((2, 1, 1))
    >>> per_example_kernel_norms(x, y_bar, (2,))
    Array([ 5., 10.], dtype=float32)
    """
    checks.choice("method", method, ("auto", *METHODS, "gram"))
    x, y_bar = map(inexact, numbers(x=x, y_bar=y_bar))
    x, y_bar, call = check_paired(
        x, y_bar, taps, stride=stride, padding=padding, padding_mode=padding_mode,
        padding_value=padding_value, dilation=dilation, input_dilation=input_dilation,
        groups=groups, flip=flip, method="auto" if method == "gram" else method,
        precision=precision, preferred_element_type=preferred_element_type, custom_vjp=custom_vjp,
    )  # fmt: skip
    x, y = _examples(call, x, y_bar)
    cheaper = method == "auto" and _gram_is_cheaper(call.spec, x.shape[-1], y.shape[-1])
    form = each.prepared(call.spec, call.method, x, y.shape[-1], written=False)
    static = (form, cheaper or method == "gram")
    plain, backward = partial(at_once, _norms), partial(at_once, _norms_adjoint)
    norms = adjoint.pointwise(plain, backward, static, x, y, ruled=call.custom_vjp)
    return norms.reshape(call.batch)


class KroneckerFactors(NamedTuple):
    """The factors of a layer's curvature, `curvature ~ kron(input, output)`."""

    input: Array
    output: Array


@placed(axes=tuple)  # not cut
def kronecker_factors(
    x: ArrayLike,
    y_bar: ArrayLike,
    taps: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "valid",
    padding_mode: str = "constant",
    padding_value: ArrayLike = 0,
    dilation: Ints = 1,
    input_dilation: Ints = 1,
    groups: int = 1,
    flip: bool = False,
    method: str = "auto",
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    custom_vjp: bool = True,
    approximation: str = "expand",
) -> KroneckerFactors:
    """The Kronecker factors of a convolution's curvature (KFC, K-FAC).

    Of `N` examples of `T` positions each, let `p[n, o]` be the patch of `x[n]` under the window at
    position `o`, as a vector, `b[n, o]` the channels of `y_bar[n]` there, and `'` a transpose:

        "expand"   A = 1/(N*T) sum_(n, o) p[n, o] p[n, o]'    G = 1/N sum_(n, o) b[n, o] b[n, o]'
        "reduce"   A = 1/N sum_n p[n] p[n]'                   G = 1/N sum_n b[n] b[n]'

    where `p[n] = 1/T sum_o p[n, o]` and `b[n] = sum_o b[n, o]`. `kron(A, G)` is for the mean over
    examples of `g g'`, with `g` the gradient of an example's loss in `kernel.ravel()`: the Fisher
    matrix where `y_bar` comes of labels drawn from the model, the empirical one where it comes of
    those in the data. Grosse and Martens have `T` times this `A` and a `T`-th of this `G`. Multiply
    the cotangents of a mean over the batch by `N`.

    In a net that is linear after the layer, `kron(A, sum_c G_c)` is the Gauss-Newton matrix of the
    squared error, with `G_c` from the cotangents of the net's output `c`: by `"expand"` where each
    output comes of one position and all positions share their weights, by `"reduce"` where the
    outputs come of the sum over positions.

    Args:
      x: `[*batch, *size, in]`; every batch axis counts examples.
      y_bar: `[*batch, *out, out_channels]`.
      taps: as in `kernel_gradient`.
      approximation: `"expand"` or `"reduce"`.
      method, custom_vjp: as in `conv`, for options to be shared, but without effect.
      others: as in `conv`.

    Returns:
      `KroneckerFactors(input, output)`: `A` `[k, k]` and `G` `[out_channels, out_channels]`, where
      `k = prod(taps) * in`, in the order of `kernel.reshape(k, -1)`. With more than one group,
      those of each group, `[groups, k // groups, k // groups]` and
      `[groups, out_channels // groups, out_channels // groups]`.

    Raises:
      ValueError, TypeError: as `kernel_gradient`; no examples, or an unknown approximation.

    Source: Grosse and Martens (2016), section 3.1; Eschenhagen et al. (2023).

    >>> x, y_bar = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([[[1.0], [2.0]]])
    >>> kronecker_factors(x, y_bar, (2,)).input
    Array([[2.5, 4. ],
           [4. , 6.5]], dtype=float32)
    >>> kronecker_factors(x, y_bar, (2,), approximation="reduce").output
    Array([[9.]], dtype=float32)
    """
    checks.choice("approximation", approximation, tuple(_FACTORS))
    x, y_bar = array(x, real=True), array(y_bar, real=True, name="y_bar")
    x, y_bar = map(inexact, numbers(x=x, y_bar=y_bar))
    x, y_bar, call = check_paired(
        x, y_bar, taps, stride=stride, padding=padding, padding_mode=padding_mode,
        padding_value=padding_value, dilation=dilation, input_dilation=input_dilation,
        groups=groups, flip=flip, method=method, precision=precision,
        preferred_element_type=preferred_element_type, custom_vjp=custom_vjp,
    )  # fmt: skip
    if not math.prod(call.batch):
        raise checks.wrong("x", "hold one or more examples", f"shape {x.shape}")
    factors = at_once(_FACTORS[approximation], call.spec, *_examples(call, x, y_bar))
    return factors if call.spec.groups > 1 else KroneckerFactors(*(f[0] for f in factors))


# ---------------------------------------------------------------- examples


def _examples(call: Call, x: Array, y: Array) -> tuple[Array, Array]:
    """Padded where zeros do not say it, with all batch axes as one, as what they are multiplied."""
    dtype = factor_dtype(x.dtype, call.spec.preferred)
    return (
        merged(call.pad(x), call.rank).astype(dtype),
        merged(y, call.rank).astype(dtype),
    )


def _unflipped(spec: Spec, a: Array, firsts: list[int]) -> Array:
    """`a` with the taps, which start at each of the axes `firsts`, in the kernel's order."""
    axes = [first + axis for first in firsts for axis in range(len(spec.taps))]
    return lax.rev(a, axes) if spec.flip else a


# ---------------------------------------------------------------- norms


def _gram_is_cheaper(spec: Spec, inputs: int, outputs: int) -> bool:
    """By FLOPs, which small products of groups take longer for than their Gram matrices.

    Batch 64, 4 groups of 32 to 64 channels, 3x3x3 taps in 4x4x4, take 6.5 ms by 1.07 times the
    FLOPs of the gradients, which take 15.
    """
    k, m = math.prod(spec.taps) * inputs // spec.groups, outputs // spec.groups
    return math.prod(spec.out) * (k + m) < (1.5 if spec.groups > 1 else 1) * k * m


def _norms(static: tuple[each.Static, bool], x: Array, y: Array) -> Array:
    form, by_gram = static
    # Squares are summed in what sums are kept in, whatever the result is rounded to.
    dtype = form.spec.result_dtype(x.dtype)
    form = form._replace(spec=replace(form.spec, preferred=accumulator(form.spec, x.dtype)))
    if by_gram:
        form = form._replace(together=_gram_together(form.spec, x, y), native=False)
    norms = map_examples(form, _norm_by_gram if by_gram else _norm, x, y)
    return norms.astype(jnp.finfo(dtype).dtype)


def _norm(form: each.Static, x: Array, y: Array) -> Array:
    g = each.kernel_of(form, x, y)
    return _root((g * g.conj()).real.sum())


def _gram_together(spec: Spec, x: Array, y: Array) -> int:
    """Examples that fit a block, or an eighth of one where there are few positions.

    Batch 64, 3x3 taps: 128 channels in 8x8 take 2.4 ms a block at a time and 4.1 in eighths, 256
    channels in 3x3 take 1.4 and 0.8.
    """
    positions, patch = math.prod(spec.out), math.prod(spec.taps) * x.shape[-1]
    entries = positions * (patch + y.shape[-1] + 2 * positions * spec.groups)
    return max(each.fitting(x.dtype.itemsize, entries, 1 if positions >= 32 else 1 / 8), 1)


def _norm_by_gram(form: each.Static, x: Array, y: Array) -> Array:
    spec, positions = form.spec, math.prod(form.spec.out)
    patches = gather_patches(spec.padded().windows, embed(x, spec.windows))
    patches = groups_first(spec, patches.reshape(positions, math.prod(spec.taps), -1))
    p = lax.optimization_barrier(patches.reshape(spec.groups, positions, -1))
    y = groups_first(spec, y.reshape(positions, -1))
    return _root((_gram(spec, p) * _gram(spec, y)).real.sum())


def _gram(spec: Spec, rows: Array) -> Array:
    """`[groups, n, k]` to the products of each two rows, `[groups, n, n]`."""
    return matmul(spec, rows, rows.conj(), ((2,), (2,)), ((0,), (0,)))


def _root(squared: Array) -> Array:
    """The root, with no derivative at zero, nor where rounding went below it."""
    none = squared <= 0
    return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, squared)))


def _norms_adjoint(static: tuple[each.Static, bool], x: Array, y: Array, norms: Array, c: Array):
    """The derivative of `|g|` in `g` is `g / |g|`, and `g` is bilinear in `x` and `y`."""
    none = norms == 0
    scale = jnp.where(none, 0, c / jnp.where(none, 1, norms))
    form, (x, y, scale) = each.of_cotangents(static[0], x, y, scale)
    return map_examples(form, _cotangents, x, y, scale)


def _cotangents(form: each.Static, x: Array, y: Array, scale: Array) -> tuple[Array, Array]:
    g = each.kernel_of(form, x, y).conj() * scale
    return each.input_of(form, y, g), each.output_of(form, x, g)


# ---------------------------------------------------------------- Kronecker factors


def _expanded(spec: Spec, x: Array, y: Array) -> KroneckerFactors:
    n, positions = y.shape[0], math.prod(spec.out)
    blocks, rows = planar_rows(spec, x)

    # Checkpointed, or a derivative would keep the patches of every block.
    @jax.checkpoint
    def block(step):
        p = rows(step)
        if blocks.padded_rows > spec.out[0]:
            inside = jnp.repeat(blocks.inside(step, spec.out[0]), positions // spec.out[0])
            p = jnp.where(inside[None, None], p, jnp.zeros((), p.dtype))
        return matmul(spec, p, p, ((2,), (2,)), ((0,), (0,)))

    y = by_group(spec, y)
    return _factors(spec, sum_blocks(blocks, block) / (n * positions), _moment(spec, y) / n, x)


def _reduced(spec: Spec, x: Array, y: Array) -> KroneckerFactors:
    n, positions = y.shape[0], math.prod(spec.out)
    exact = replace(spec, preferred=accumulator(spec, x.dtype))
    form = each.prepared(exact, "auto", x, spec.groups)
    ones = jnp.ones((*y.shape[:-1], spec.groups), x.dtype)
    sums = each.to_kernels(form, x, ones)  # [n, *taps, in // groups, groups]
    p = jnp.moveaxis(sums, -1, 0).reshape(spec.groups, n, -1) / positions
    y = by_group(spec, y.astype(p.dtype).sum(range(1, y.ndim - 1)))
    return _factors(spec, _moment(spec, p) / n, _moment(spec, y) / n, x)


def _moment(spec: Spec, rows: Array) -> Array:
    """`[groups, n, k]` to the sum of the outer products of rows, `[groups, k, k]`."""
    return matmul(spec, rows, rows, ((1,), (1,)), ((0,), (0,)))


def _factors(spec: Spec, a: Array, g: Array, x: Array) -> KroneckerFactors:
    """`A` in the kernel's order of taps, and both in the dtype of the result."""
    shape = (*spec.taps, x.shape[-1] // spec.groups)
    by_tap = a.reshape(spec.groups, *shape, *shape)
    a = _unflipped(spec, by_tap, [1, 1 + len(shape)]).reshape(a.shape)
    dtype = spec.result_dtype(x.dtype)
    return KroneckerFactors(a.astype(dtype), g.astype(dtype))


_FACTORS: dict[str, Callable[[Spec, Array, Array], KroneckerFactors]] = {
    "expand": _expanded,
    "reduce": _reduced,
}
