"""The ways to evaluate a convolution: one file a way, each with the same three faces.

    forward(spec, x, kernel) -> y      input_adjoint(spec, y, kernel) -> x      kernel_adjoint(spec, x, y) -> kernel

`x` is `[n, *size, in]`, `kernel` `[*taps, in // groups, out]`, `y` `[n, *out, out_channels]`; outside `x` are zeros, and the
kernel is not flipped: a method knows nothing of batch axes, boundary modes or `flip`.
"""

from jconv.methods import direct, fourier, patches, shifts, toeplitz

METHODS = {
    "direct": direct,
    "patches": patches,
    "shifts": shifts,
    "toeplitz": toeplitz,
    "fourier": fourier,
}
