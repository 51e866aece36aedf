"""Convolution and pooling in pure functions of JAX."""

from jconv.conv import conv, conv_transpose, kernel_gradient
from jconv.padding import pad
from jconv.windows import fold, unfold

__all__ = ["conv", "conv_transpose", "fold", "kernel_gradient", "pad", "unfold"]
