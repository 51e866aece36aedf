"""Convolution and pooling in pure functions of JAX, with hand-derived derivatives.

A convolution of `x` `[*batch, *size, in]` by a kernel `[*taps, in // groups, out]` is

    y[o] = sum_t x[stride*o + dilation*t - low] . kernel[t]                     `conv`

where `o`, `t` and the rest have one entry a spatial axis, of which there are as many as the kernel
has taps axes, and `.` contracts channels. It is linear in `x` and in `kernel`. So it is one
trilinear form with three faces,

    <conv(x, kernel), y> == <x, conv_transpose(y, kernel)> == <kernel, kernel_gradient(x, y)>

and the derivative of each face is the other two: backpropagation transposes a Toeplitz matrix, and
the transpose is again a convolution, with the kernel flipped; the kernel's update correlates the
input with the incoming gradient. `jconv.matrix` writes these matrices out, `jconv.spectrum`
measures them, `jconv.curvature` has what the single examples of a batch add to a gradient,
`jconv.sharding` cuts spatial axes over devices, `jconv.testing` checks the laws for rules of yours,
and `plan` says how each face of a convolution would be computed. `jconv.filters` are the classical
filters; `jconv.lax`, `jconv.flax`, `jconv.signal` and `jconv.ndimage` are drop-ins for what they
are named after, on the same rules.

The rules are for reverse mode, of any order. `jax.jvp` is for functions called with
`custom_vjp=False`, where they have that option, and for derivatives.

Words: a *tap* is one position of a kernel; `y_bar` is the cotangent of `y`; `"valid"`, `"same"`,
`"same_lower"`, `"full"` and `"causal"` are amounts of padding; a `padding_mode` says what lies
outside; a `method` says how, never what. Pooling speaks of windows: `max_pool`, `avg_pool` and the
rest take the same `stride`, `padding` and `dilation`.
"""

from jconv import curvature as curvature
from jconv import filters as filters
from jconv import flax as flax
from jconv import lax as lax
from jconv import matrix as matrix
from jconv import ndimage as ndimage
from jconv import sharding as sharding
from jconv import signal as signal
from jconv import spectrum as spectrum
from jconv import testing as testing
from jconv.adaptive import adaptive_avg_pool, adaptive_max_pool, fractional_max_pool
from jconv.blur import blur_pool
from jconv.conv import conv, conv_transpose, kernel_gradient
from jconv.pad import pad
from jconv.plan import plan
from jconv.pool import (
    avg_pool,
    drop,
    logsumexp_pool,
    lp_pool,
    max_pool,
    min_pool,
    prod_pool,
    sum_pool,
)
from jconv.unfold import fold, unfold
from jconv.unpool import max_unpool

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "blur_pool",
    "conv",
    "conv_transpose",
    "drop",
    "fold",
    "fractional_max_pool",
    "kernel_gradient",
    "logsumexp_pool",
    "lp_pool",
    "max_pool",
    "max_unpool",
    "min_pool",
    "pad",
    "plan",
    "prod_pool",
    "sum_pool",
    "unfold",
]
