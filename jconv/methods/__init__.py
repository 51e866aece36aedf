"""The ways to evaluate a convolution: a module of three faces each, beside what several share.

    forward(spec, x, kernel) -> y
    input_adjoint(spec, y, kernel) -> x
    kernel_adjoint(spec, x, y) -> kernel

`x` is `[n, *size, in]`, `kernel` `[*taps, in // groups, out]`, `y` `[n, *out, out_channels]`;
outside `x` are zeros, and the kernel is not flipped: a method knows nothing of batch axes, boundary
modes or `flip`.
"""

from jconv.methods import direct, fourier, kn2row, lanes, mixed, patches, shifts, toeplitz, winograd

METHODS = {
    "direct": direct,
    "patches": patches,
    "shifts": shifts,
    "toeplitz": toeplitz,
    "fourier": fourier,
    "lanes": lanes,
    "kn2row": kn2row,
    "winograd": winograd,
    "mixed": mixed,
}
