"""The laws that a hand-derived rule obeys, as assertions, for users' own rules too.

    assert_adjoint    <f(x), y> == <x, f_adjoint(y)>
    assert_rule       vjp(f_custom) == vjp(f_plain), to any order, and the custom rule really ran
    assert_agree      f(*args) == g(*args)

Two numbers agree when they differ by at most `rtol` times the largest entry of their array, plus
`atol`. By default, with `eps` the spacing of the coarser of the two dtypes,

    rtol = min(8 * eps * sqrt(terms), 0.004)                  float32, float64, complex
    rtol = 4 * eps + 8 * eps(float32) * sqrt(terms)           bfloat16, float16 (sums in float32)

where `terms` bounds how many products are summed into one entry: by default the size of the
largest array in sight. Rounding hides a factor of 1.01 from any one bfloat16 entry, but not from
all of them: the least-squares factor between two arrays must be 1 to within 0.004 as well, plus
what rounding does to an average of so few entries.
An explicit `rtol` replaces both limits.

Random data are dense and normal; `key` is an integer seed or a JAX key. Functions run under
`jax.default_matmul_precision("highest")`, so that no accelerator rounds their float32 products.
"""

from jconv.testing.adjoint import assert_adjoint
from jconv.testing.agree import assert_agree
from jconv.testing.rule import assert_rule

__all__ = ["assert_adjoint", "assert_agree", "assert_rule"]
