"""The nets of `nets.py` in PyTorch, eager, with the same weights."""

import functools
from typing import Any

import jax
import numpy as np

from experiments.speed import nets, peers

Tensor = Any
Functional = Any  # torch.nn.functional, which need not be there


def program(net: nets.Net, memory_format: str) -> peers.Program:
    """One step of Adam a call, each from where the last one ended."""
    torch = peers.torch_on_cpu()
    parameter = functools.partial(_parameter, memory_format=memory_format)
    params = jax.tree.map(parameter, net.init())
    optimizer = torch.optim.Adam(jax.tree.leaves(params), nets.LEARNING_RATE)
    loss_of = functools.partial(
        _loss, torch.nn.functional, net, params, *_batch(net, memory_format)
    )

    def differentiate() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    def step() -> Tensor:
        loss = differentiate()
        optimizer.step()
        return loss

    def answer() -> peers.Answer:
        loss = differentiate().detach().numpy()
        return nets.answer(loss, jax.tree.map(_gradient, params))

    return peers.Program(step, answer)


def _parameter(array: np.ndarray, memory_format: str) -> Tensor:
    if array.ndim == 1:
        return peers.optional("torch").from_numpy(array).requires_grad_()
    return peers.kernel_to_torch(array, memory_format).requires_grad_()


def _gradient(parameter: Tensor) -> np.ndarray:
    gradient = parameter.grad
    return gradient.numpy() if gradient.ndim == 1 else peers.kernel_from_torch(gradient)


def _batch(net: nets.Net, memory_format: str) -> tuple[Tensor, Tensor]:
    x, target = net.batch()
    if net.outputs is None:
        classes = peers.optional("torch").from_numpy(target).long()
        return peers.to_torch(x, memory_format), classes
    return peers.to_torch(x, memory_format), peers.to_torch(target, memory_format)


def _loss(f: Functional, net: nets.Net, params: nets.Params, x: Tensor, target: Tensor) -> Tensor:
    criterion = f.cross_entropy if net.outputs is None else f.mse_loss
    return criterion(_NETS[net.name](f, params, x), target)


def _cnn(f: Functional, params: nets.Params, x: Tensor) -> Tensor:
    for name in ("conv1", "conv2"):
        x = f.relu(_conv(f, params[name], x))
        x = getattr(f, f"max_pool{x.ndim - 2}d")(x, 2)
    return _dense(f, params["dense"], x.movedim(1, -1).flatten(1))


def _convnext(f: Functional, params: nets.Params, x: Tensor) -> Tensor:
    for block in params:
        y = _conv(f, block["depthwise"], x, groups=x.shape[1]).movedim(1, -1)
        norm = block["norm"]
        y = f.layer_norm(y, y.shape[-1:], norm["scale"], norm["bias"], nets.NORM_EPSILON)
        y = _dense(f, block["contract"], f.gelu(_dense(f, block["expand"], y)))
        x = x + y.movedim(-1, 1)
    return x


def _resnext(f: Functional, params: nets.Params, x: Tensor) -> Tensor:
    for block in params:
        y = f.relu(_conv(f, block["reduce"], x))
        y = f.relu(_conv(f, block["grouped"], y, groups=nets.CARDINALITY))
        x = f.relu(x + _conv(f, block["expand"], y))
    return x


def _wavenet(f: Functional, params: nets.Params, x: Tensor) -> Tensor:
    x = _causal_conv(f, params["first"], x, dilation=1)
    for number, block in enumerate(params["blocks"]):
        signal, gate = _causal_conv(f, block["gated"], x, dilation=2**number).chunk(2, 1)
        x = x + _conv(f, block["mix"], signal.tanh() * gate.sigmoid())
    return _conv(f, params["last"], f.relu(x))


def _conv(f: Functional, layer: nets.Layer, x: Tensor, groups: int = 1) -> Tensor:
    kernel = layer["kernel"]
    padding = [taps // 2 for taps in kernel.shape[2:]]
    conv = getattr(f, f"conv{len(padding)}d")
    return conv(x, kernel, layer["bias"], padding=padding, groups=groups)


def _causal_conv(f: Functional, layer: nets.Layer, x: Tensor, dilation: int) -> Tensor:
    past = dilation * (layer["kernel"].shape[-1] - 1)
    return f.conv1d(f.pad(x, (past, 0)), layer["kernel"], layer["bias"], dilation=dilation)


def _dense(f: Functional, layer: nets.Layer, x: Tensor) -> Tensor:
    return f.linear(x, layer["kernel"], layer["bias"])


_NETS = {
    "mnist_cnn": _cnn,
    "convnext_stack": _convnext,
    "resnext_stack": _resnext,
    "wavenet_stack": _wavenet,
    "volume_net": _cnn,
}
