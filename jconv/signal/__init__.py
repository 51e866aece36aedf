"""SciPy's convolutions of two whole arrays, `scipy.signal`, with hand-derived rules.

    full[f] = sum_t in1[f - t] in2[t]

`mode` keeps a part of each axis: `"full"` all of it, `"same"` the middle, as long as `in1`, and
`"valid"` what reads no padding. Names, order of arguments, results and the types of errors are
SciPy's; dtypes are what JAX promotes them to. Everything is `conv` of one channel, so gradients to
both arrays are its other two faces.
"""

from jconv.signal.arrays import convolve, correlate, fftconvolve, oaconvolve
from jconv.signal.matrices import convolve2d, correlate2d

__all__ = ["convolve", "convolve2d", "correlate", "correlate2d", "fftconvolve", "oaconvolve"]
