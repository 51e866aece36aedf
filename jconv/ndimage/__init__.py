"""SciPy's filters of whole arrays, `scipy.ndimage`, with hand-derived rules.

    correlate   y[i] = sum_t x[i + t - size // 2 - origin] weights[t]
    convolve    y[i] = sum_t x[i - t + size // 2 + origin] weights[t]  for odd sizes

Every axis of `x` is a spatial axis; the size is kept. Names, order of arguments, results and the
types of errors are SciPy's. These arguments are common:

* `input`: an array of numbers or bool, of any rank; differentiable by hand-derived rules.
* `output`: None for the dtype of `input`, or a dtype, complex if the result is. An array, which
  SciPy fills in place, cannot be in JAX and is a TypeError.
* `mode`: what lies outside: `"reflect"` (d c b a | a b c d | d c b a), `"mirror"`
  (d c b | a b c d | c b a), `"nearest"`, `"wrap"`, or `"constant"` with `cval`; `"grid-mirror"`,
  `"grid-wrap"` and `"grid-constant"` mean reflect, wrap and constant. Filters that go axis by axis
  take one for each axis too.
* `cval`: a number; it may be traced and is differentiable.
* `origin`: an int, or one for each axis; how far the window is moved to lower positions.
* `axes`: None for all, an int, or ints.

Sums are kept in the dtype of `input` or `output`, at least float32 and, for integers, in the
default float or int, which may wrap around (SciPy always takes float64). An integer result is cut
off toward zero, after every pass over an axis, unless only rounding keeps it from the next integer
(SciPy's is then 1 less), and wraps around; what JAX's widest integers do not hold stops at their
ends. All but `input`, `weights` and `cval` are Python values.

Errors: a RuntimeError where a mode is unknown, or lengths, ranks or sizes do not match; a
ValueError for other wrong values; a TypeError for a wrong type, or a traced value where a Python
value must be.
"""

from jconv.ndimage.correlation import convolve, convolve1d, correlate, correlate1d
from jconv.ndimage.differences import laplace, prewitt, sobel
from jconv.ndimage.extremes import maximum_filter, minimum_filter
from jconv.ndimage.gaussian import gaussian_filter, gaussian_laplace
from jconv.ndimage.uniform import uniform_filter

__all__ = [
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "gaussian_filter",
    "gaussian_laplace",
    "laplace",
    "maximum_filter",
    "minimum_filter",
    "prewitt",
    "sobel",
    "uniform_filter",
]
