"""What every core operation means: NumPy loops in float64, with no thought of speed.

Arguments are those of the public functions. A convolution is taken apart into four steps, each
with its adjoint: spread the samples (input dilation), pad, bring positions to taps, mix channels.
"""

import math
from itertools import product
from typing import NamedTuple

import numpy as np


def wide(array):
    """The array in float64, or complex128: exact for every narrower dtype."""
    array = np.asarray(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def per_axis(value, rank):
    return (value,) * rank if np.ndim(value) == 0 else tuple(value)


# Sizes


def extent(taps, dilation):
    """How many positions a dilated window spans."""
    return (taps - 1) * dilation + 1


def dilated_size(size, input_dilation):
    return tuple((n - 1) * d + 1 for n, d in zip(size, input_dilation, strict=True))


def word_pair(word, n, taps, stride, dilation):
    reach = extent(taps, dilation) - 1
    total = max((math.ceil(n / stride) - 1) * stride + reach + 1 - n, 0)
    return {
        "valid": (0, 0),
        "same": (total // 2, total - total // 2),
        "same_lower": (total - total // 2, total // 2),
        "full": (reach, reach),
        "causal": (reach, 0),
    }[word.lower()]


def padding_pairs(padding, size, taps, stride, dilation):
    """One `(low, high)` per axis, for a signal whose size includes its input dilation."""
    if isinstance(padding, str):
        axes = zip(size, taps, stride, dilation, strict=True)
        return tuple(word_pair(padding, *axis) for axis in axes)
    return tuple(per_axis(p, 2) for p in per_axis(padding, len(size)))


class Geometry(NamedTuple):
    """The options that place windows, one entry per axis."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]


def geometry(size, taps, *, stride=1, padding="valid", dilation=1, input_dilation=1):
    rank = len(taps)
    stride, dilation = per_axis(stride, rank), per_axis(dilation, rank)
    input_dilation = per_axis(input_dilation, rank)
    pairs = padding_pairs(padding, dilated_size(size, input_dilation), taps, stride, dilation)
    return Geometry(stride, pairs, dilation, input_dilation)


def padded_size(size, placed):
    size = dilated_size(size, placed.input_dilation)
    return tuple(n + low + high for n, (low, high) in zip(size, placed.padding, strict=True))


def output_size(size, taps, **options):
    placed = geometry(size, taps, **options)
    axes = zip(padded_size(size, placed), taps, placed.stride, placed.dilation, strict=True)
    return tuple((n - extent(t, d)) // s + 1 for n, t, s, d in axes)


def smallest_size(out, taps, **options):
    """The least spatial size, axis by axis, whose output size is `out`."""

    def along(value, axis):
        return value if isinstance(value, str) else (per_axis(value, len(taps))[axis],)

    def search(axis):
        options_along = {name: along(value, axis) for name, value in options.items()}
        n = 1
        while output_size((n,), (taps[axis],), **options_along)[0] < out[axis]:
            n += 1
        return n

    return tuple(search(axis) for axis in range(len(taps)))


# Boundaries


def folded(i, n, mode):
    """The index in `range(n)` that position `i` reads, or None where the padding value stands."""
    if 0 <= i < n:
        return i
    if mode == "constant":
        return None
    if mode == "edge" or (mode == "reflect" and n == 1):
        return min(max(i, 0), n - 1)
    if mode == "wrap":
        return i % n
    if mode == "symmetric":
        i %= 2 * n
        return min(i, 2 * n - 1 - i)
    assert mode == "reflect"
    i %= 2 * (n - 1)
    return min(i, 2 * (n - 1) - i)


def pad(x, padding, *, mode="constant", value=0):
    x = wide(x)
    for axis, (low, high) in enumerate(padding, start=x.ndim - 1 - len(padding)):
        x = np.moveaxis(x, axis, 0)
        padded = np.full((len(x) + low + high, *x.shape[1:]), value, x.dtype)
        for position in range(len(padded)):
            source = folded(position - low, len(x), mode)
            if source is not None:
                padded[position] = x[source]
        x = np.moveaxis(padded, 0, axis)
    return x


def pad_adjoint(padded_bar, padding, *, mode="constant"):
    x_bar = wide(padded_bar)
    for axis, (low, high) in enumerate(padding, start=x_bar.ndim - 1 - len(padding)):
        padded_bar = np.moveaxis(x_bar, axis, 0)
        n = len(padded_bar) - low - high
        x_bar = np.zeros((n, *padded_bar.shape[1:]), padded_bar.dtype)
        for position in range(len(padded_bar)):
            source = folded(position - low, n, mode)
            if source is not None:
                x_bar[source] += padded_bar[position]
        x_bar = np.moveaxis(x_bar, 0, axis)
    return x_bar


def spaced(input_dilation):
    """Selects the samples among the zeros that input dilation puts between them."""
    return (..., *(slice(None, None, d) for d in input_dilation), slice(None))


def spread(x, input_dilation):
    rank = len(input_dilation)
    size = dilated_size(x.shape[-1 - rank : -1], input_dilation)
    wider = np.zeros((*x.shape[: -1 - rank], *size, x.shape[-1]), x.dtype)
    wider[spaced(input_dilation)] = x
    return wider


# Windows


def window_positions(out, taps, stride, dilation):
    """Every output, every tap (row-major), and the padded position where they meet."""
    for o, t in product(np.ndindex(*out), np.ndindex(*taps)):
        yield o, t, tuple(s * i + d * j for s, i, d, j in zip(stride, o, dilation, t, strict=True))


def at(*index):
    """Selects one entry of the spatial axes of `[*batch, *size, channels]`."""
    return (..., *index, slice(None))


def unfold(x, taps, *, padding_mode="constant", padding_value=0, **options):
    x, rank = wide(x), len(taps)
    batch, size = x.shape[: -1 - rank], x.shape[-1 - rank : -1]
    placed = geometry(size, taps, **options)
    spread_x = spread(x, placed.input_dilation)
    padded = pad(spread_x, placed.padding, mode=padding_mode, value=padding_value)
    out = output_size(size, taps, **options)
    patches = np.zeros((*batch, *out, *taps, x.shape[-1]), x.dtype)
    for o, t, position in window_positions(out, taps, placed.stride, placed.dilation):
        patches[at(*o, *t)] = padded[at(*position)]
    return patches


def fold(patches, size, *, padding_mode="constant", **options):
    """The adjoint of the linear part of `unfold`: the padding value has no say."""
    patches, rank = wide(patches), len(size)
    batch = patches.shape[: -1 - 2 * rank]
    out, taps = patches.shape[-1 - 2 * rank : -1 - rank], patches.shape[-1 - rank : -1]
    placed = geometry(size, taps, **options)
    padded_bar = np.zeros((*batch, *padded_size(size, placed), patches.shape[-1]), patches.dtype)
    for o, t, position in window_positions(out, taps, placed.stride, placed.dilation):
        padded_bar[at(*position)] += patches[at(*o, *t)]
    spread_bar = pad_adjoint(padded_bar, placed.padding, mode=padding_mode)
    return spread_bar[spaced(placed.input_dilation)]


# Convolution


def group_blocks(channels_in, channels_out, groups):
    """Which inputs and which outputs belong together."""
    width_in, width_out = channels_in // groups, channels_out // groups
    for g in range(groups):
        yield slice(g * width_in, (g + 1) * width_in), slice(g * width_out, (g + 1) * width_out)


def flipped(kernel, flip):
    return np.flip(kernel, range(kernel.ndim - 2)) if flip else kernel


def dense_kernel(kernel, groups, flip):
    """The kernel of the same map as a cross-correlation without groups: zeros between groups."""
    kernel = flipped(wide(kernel), flip)
    *taps, width_in, channels_out = kernel.shape
    dense = np.zeros((*taps, groups * width_in, channels_out), kernel.dtype)
    for inputs, outputs in group_blocks(groups * width_in, channels_out, groups):
        dense[..., inputs, outputs] = kernel[..., outputs]
    return dense


def conv(x, kernel, *, groups=1, flip=False, **windowing):
    kernel = dense_kernel(kernel, groups, flip)
    rank = kernel.ndim - 2
    patches = unfold(x, kernel.shape[:-2], **windowing)
    return np.tensordot(patches, kernel, axes=rank + 1)


def conv_transpose(
    y,
    kernel,
    *,
    size=None,
    groups=1,
    flip=False,
    padding_mode="constant",
    padding_value=0,
    **options,
):
    """The adjoint of the linear part of `conv`: the padding value has no say."""
    del padding_value
    y, kernel = wide(y), dense_kernel(kernel, groups, flip)
    rank, taps = kernel.ndim - 2, kernel.shape[:-2]
    if size is None:
        size = smallest_size(y.shape[-1 - rank : -1], taps, **options)
    patches_bar = np.tensordot(y, kernel, axes=(-1, -1))
    return fold(patches_bar, size, padding_mode=padding_mode, **options)


def kernel_gradient(x, y_bar, taps, *, groups=1, flip=False, **windowing):
    y_bar, patches = wide(y_bar), unfold(x, taps, **windowing)
    positions = range(y_bar.ndim - 1)
    dense_bar = np.tensordot(patches, y_bar, axes=(positions, positions))
    width_in = patches.shape[-1] // groups
    kernel_bar = np.zeros((*taps, width_in, y_bar.shape[-1]), dense_bar.dtype)
    for inputs, outputs in group_blocks(patches.shape[-1], y_bar.shape[-1], groups):
        kernel_bar[..., outputs] = dense_bar[..., inputs, outputs]
    return flipped(kernel_bar, flip)


def conv_matrix(kernel, size, *, groups=1, **options):
    """Column by column: what `conv` makes of each unit vector."""
    shape = (*size, np.shape(kernel)[-2] * groups)
    units = np.eye(math.prod(shape)).reshape(-1, *shape)
    return conv(units, kernel, groups=groups, **options).reshape(len(units), -1).T


# Pooling


def pooled_size(size, window, placed, ceil_mode):
    """Torch's: in `ceil_mode` the last window may be partial, starting before the high padding."""

    def along(n, w, s, pair, d):
        low, high = pair
        spare = n + low + high - extent(w, d)
        if not ceil_mode:
            return spare // s + 1
        last = math.ceil(spare / s)
        return last if last * s >= n + low else last + 1

    return tuple(map(along, size, window, placed.stride, placed.padding, placed.dilation))


def pooling_windows(size, window, stride=None, padding="valid", dilation=1, ceil_mode=False):
    """Every output, and its window as `[(position, real, padded), ...]`.

    A position counts from the unpadded signal's start. It is real inside the signal, padded inside
    the signal or its padding (only `ceil_mode` reaches beyond both).
    """
    stride = window if stride is None else stride
    placed = geometry(size, window, stride=stride, padding=padding, dilation=dilation)
    ends = tuple(n + high for n, (_, high) in zip(size, placed.padding, strict=True))
    out = pooled_size(size, window, placed, ceil_mode)
    windows = {o: [] for o in np.ndindex(*out)}
    for o, _, shifted in window_positions(out, window, placed.stride, placed.dilation):
        position = tuple(i - low for i, (low, _) in zip(shifted, placed.padding, strict=True))
        padded = all(i < end for i, end in zip(position, ends, strict=True))
        real = padded and all(0 <= i < n for i, n in zip(position, size, strict=True))
        windows[o].append((position, real, padded))
    return out, windows


def spatial_split(x, window):
    """`window` per axis, and the leading batch and spatial sizes of `x`."""
    window = per_axis(window, np.ndim(x) - 2)
    rank = len(window)
    return window, np.shape(x)[: -1 - rank], np.shape(x)[-1 - rank : -1]


def extreme_pool(x, window, better, neutral, **options):
    x = np.asarray(x)
    window, batch, size = spatial_split(x, window)
    out, windows = pooling_windows(size, window, **options)
    best = np.full((*batch, *out, x.shape[-1]), neutral, x.dtype)
    indices = np.full(best.shape, -1, np.int32)
    for o, candidates in windows.items():
        for position, real, _ in candidates:
            if not real:
                continue
            value, held = x[at(*position)], best[at(*o)]
            first_nan = np.isnan(value) & ~np.isnan(held)
            wins = (indices[at(*o)] < 0) | better(value, held) | first_nan
            best[at(*o)] = np.where(wins, value, held)
            flat = np.ravel_multi_index(position, size)
            indices[at(*o)] = np.where(wins, flat, indices[at(*o)])
    return best, indices


def max_pool(x, window, **options):
    """Values and indices; a window that sees nothing gives the dtype's least value and index -1."""
    integer = np.issubdtype(x.dtype, np.integer)
    neutral = np.iinfo(x.dtype).min if integer else -np.inf
    return extreme_pool(x, window, np.greater, neutral, **options)


def min_pool(x, window, **options):
    integer = np.issubdtype(x.dtype, np.integer)
    neutral = np.iinfo(x.dtype).max if integer else np.inf
    return extreme_pool(x, window, np.less, neutral, **options)


def max_unpool(y, indices, size):
    y = wide(y)
    batch, channels = y.shape[: -1 - len(size)], y.shape[-1]
    x = np.zeros((*batch, math.prod(size), channels), y.dtype)
    for entry in np.ndindex(*y.shape):
        if indices[entry] >= 0:
            x[(*entry[: len(batch)], indices[entry], entry[-1])] = y[entry]
    return x.reshape(*batch, *size, channels)


def extreme_pool_gradient(y_bar, indices, size):
    """Each winner takes the cotangents of all windows that it won."""
    y_bar = wide(y_bar)
    batch, channels = y_bar.shape[: -1 - len(size)], y_bar.shape[-1]
    x_bar = np.zeros((*batch, math.prod(size), channels), y_bar.dtype)
    for entry in np.ndindex(*y_bar.shape):
        if indices[entry] >= 0:
            x_bar[(*entry[: len(batch)], indices[entry], entry[-1])] += y_bar[entry]
    return x_bar.reshape(*batch, *size, channels)


def mean_weights(size, window, count_include_pad, divisor, **options):
    """`[(output, position, weight), ...]` of an average, over real positions."""
    out, windows = pooling_windows(size, window, **options)
    weights = []
    for o, candidates in windows.items():
        counted = [padded if count_include_pad else real for _, real, padded in candidates]
        weight = 1 / (divisor or max(sum(counted), 1))
        weights += [(o, position, weight) for position, real, _ in candidates if real]
    return out, weights


def avg_pool(x, window, *, count_include_pad=True, divisor=None, **options):
    x = wide(x)
    window, batch, size = spatial_split(x, window)
    out, weights = mean_weights(size, window, count_include_pad, divisor, **options)
    y = np.zeros((*batch, *out, x.shape[-1]), x.dtype)
    for o, position, weight in weights:
        y[at(*o)] += weight * x[at(*position)]
    return y


def avg_pool_gradient(y_bar, size, window, *, count_include_pad=True, divisor=None, **options):
    y_bar = wide(y_bar)
    window = per_axis(window, len(size))
    _, weights = mean_weights(size, window, count_include_pad, divisor, **options)
    x_bar = np.zeros((*y_bar.shape[: -1 - len(size)], *size, y_bar.shape[-1]), y_bar.dtype)
    for o, position, weight in weights:
        x_bar[at(*position)] += weight * y_bar[at(*o)]
    return x_bar


def sum_pool(x, window, **options):
    return avg_pool(x, window, divisor=1, **options)


def sum_pool_gradient(y_bar, size, window, **options):
    return avg_pool_gradient(y_bar, size, window, divisor=1, **options)


def drop(x, stride, *, offset=0):
    x = np.asarray(x)
    rank = x.ndim - 2 if np.ndim(stride) == 0 else len(stride)
    steps = zip(per_axis(offset, rank), per_axis(stride, rank), strict=True)
    return x[(..., *(slice(start, None, step) for start, step in steps), slice(None))]
