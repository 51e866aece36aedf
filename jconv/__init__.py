"""Convolution and pooling in pure functions of JAX."""

from jconv.adaptive import adaptive_avg_pool, adaptive_max_pool, fractional_max_pool
from jconv.conv import conv, conv_transpose, kernel_gradient
from jconv.padding import pad
from jconv.pool import (
    avg_pool,
    blur_pool,
    drop,
    logsumexp_pool,
    lp_pool,
    max_pool,
    min_pool,
    prod_pool,
    sum_pool,
)
from jconv.unpool import max_unpool
from jconv.windows import fold, unfold

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
    "prod_pool",
    "sum_pool",
    "unfold",
]
