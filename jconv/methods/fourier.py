"""The convolution theorem: sums over taps become products over frequencies.

With `^` the transform over the spatial axes at a common length, and `~` that of the sequence read
backwards:

    forward         y[p]  = sum_j xp[p + j] k[j]     y^  = xp^ k~    kept at every `stride`-th p
    input_adjoint   xp[p] = sum_j y[p - j] k[j]      xp^ = y^ k^     zeros put into y first
    kernel_adjoint  k[j]  = sum_p xp[p + j] y[p]     k^  = xp^ y~    kept at every `dilation`-th j

The common length is that of the padded input, so what wraps around is never kept. Rounding errors
are relative to the largest entry, and a NaN or an inf spreads everywhere.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from jconv.channels import accumulator, in_groups, precision_of
from jconv.geometry import Spec
from jconv.padding import crop, embed, extract, grow


def forward(spec: Spec, x: Array, k: Array) -> Array:
    x_hat = _transform(spec, _grouped(spec, embed(x, spec.windows)))
    k_hat = _transform(spec, _taps(spec, k), backwards=True)
    y = _inverse(spec, _contract(spec, "ngc...,cgm...->ngm...", x_hat, k_hat), x.dtype)
    return _ungrouped(_every(y, spec.out, [w.stride for w in spec.windows]))


def input_adjoint(spec: Spec, y: Array, k: Array) -> Array:
    y_hat = _transform(spec, _zeros_between(_grouped(spec, y), [w.stride for w in spec.windows]))
    k_hat = _transform(spec, _taps(spec, k))
    xp = _inverse(spec, _contract(spec, "ngm...,cgm...->ngc...", y_hat, k_hat), y.dtype)
    extent = [w.extent for w in spec.windows]
    return extract(_ungrouped(_every(xp, extent, [1] * len(extent))), spec.windows)


def kernel_adjoint(spec: Spec, x: Array, y: Array) -> Array:
    x_hat = _transform(spec, _grouped(spec, embed(x, spec.windows)))
    y = _zeros_between(_grouped(spec, y), [w.stride for w in spec.windows])
    y_hat = _transform(spec, y, backwards=True)
    k = _inverse(spec, _contract(spec, "ngc...,ngm...->cgm...", x_hat, y_hat), x.dtype)
    k = _every(k, spec.taps, [w.dilation for w in spec.windows])
    return _channels_last(k, 3).reshape(*spec.taps, k.shape[0], -1)


# ---------------------------------------------------------------- layout: channels first, by group


def _grouped(spec: Spec, a: Array) -> Array:
    """`[n, *size, groups * c]` to `[n, groups, c, *size]`."""
    a = jnp.moveaxis(a, -1, 1)
    return a.reshape(a.shape[0], spec.groups, a.shape[1] // spec.groups, *a.shape[2:])


def _ungrouped(a: Array) -> Array:
    """`[n, groups, c, *size]` to `[n, *size, groups * c]`."""
    n, groups, c, *size = a.shape
    return jnp.moveaxis(a.reshape(n, groups * c, *size), 1, -1)


def _taps(spec: Spec, k: Array) -> Array:
    """`[*taps, c, groups * m]` to `[c, groups, m, *reach]`, with zeros between dilated taps."""
    rank = len(spec.windows)
    k = jnp.moveaxis(in_groups(k, spec.groups), range(rank), range(3, 3 + rank))
    return _zeros_between(k, [w.dilation for w in spec.windows])


def _channels_last(a: Array, count: int) -> Array:
    """The first `count` axes moved to the end."""
    return jnp.moveaxis(a, range(count), range(-count, 0))


def _zeros_between(a: Array, steps: Sequence[int]) -> Array:
    return grow(a, 3, [(0, 0, step - 1) for step in steps])


def _every(a: Array, counts: Sequence[int], steps: Sequence[int]) -> Array:
    """`counts` entries of the last axes, `steps` apart."""
    bounds = [(0, (n - 1) * step + 1) for n, step in zip(counts, steps, strict=True)]
    return crop(a, 3, bounds, steps)


# ---------------------------------------------------------------- the transform


def _contract(spec: Spec, equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, precision=precision_of(spec, a.dtype))


def _transform(spec: Spec, a: Array, backwards: bool = False) -> Array:
    """The transform of the last axes of `a`, or of `a` read backwards about its first entry."""
    a = a.astype(accumulator(spec, a.dtype))
    lengths = _lengths(spec)
    if jnp.iscomplexobj(a):
        # Reading backwards turns the sign of the exponent.
        a = _each_axis(jnp.fft.ifft if backwards else jnp.fft.fft, a, lengths)
        return a * jnp.prod(jnp.asarray(lengths, a.dtype)) if backwards else a
    a = _each_axis(jnp.fft.fft, jnp.fft.rfft(a, lengths[-1]), lengths[:-1], last=-2)
    return jnp.conj(a) if backwards else a


def _inverse(spec: Spec, a: Array, dtype) -> Array:
    lengths = _lengths(spec)
    if jnp.iscomplexobj(jnp.zeros((), accumulator(spec, dtype))):
        return _each_axis(jnp.fft.ifft, a, lengths)
    return jnp.fft.irfft(_each_axis(jnp.fft.ifft, a, lengths[:-1], last=-2), lengths[-1])


def _each_axis(transform, a: Array, lengths: Sequence[int], last: int = -1) -> Array:
    """One axis at a time, so that any rank works; `last` is the axis of the last length."""
    for axis, length in enumerate(lengths, last + 1 - len(lengths)):
        a = transform(a, length, axis)
    return a


def _lengths(spec: Spec) -> tuple[int, ...]:
    return tuple(fast_length(w.extent) for w in spec.windows)


def fast_length(least: int) -> int:
    """The smallest length of at least `least` with no prime factor above 5."""
    length = least
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
