"""Time training steps of five nets: jconv, jax.lax and Flax with autodiff, torch. (5 minutes)

The steps of JAX share all code but the convolution and the pooling. Losses and gradients are
checked first; a program whose answer differs is reported and not timed. Then the steps, each with
Adam, take turns, so that a busy machine slows them alike. With `--scan` JAX takes so many steps a
call, in one `lax.scan`, as a program of a whole epoch does.
"""

import argparse
import functools
from collections.abc import Sequence

from experiments import command_line
from experiments.speed import nets, peers, report, side_by_side, steps, torch_nets
from experiments.speed.bench import Case

_PEERS = ("lax", "flax", "torch")
_QUICK = "mnist_cnn,wavenet_stack"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.parser(__file__, __doc__)
    parser.add_argument("--scan", type=command_line.count, default=1, help="steps a call")
    return side_by_side.parse(parser, arguments, only=_QUICK)


def _cases(options: argparse.Namespace) -> list[Case]:
    every = nets.all_nets(options.quick)
    return [_case(net, options.scan) for net in side_by_side.selected(every, options.only)]


def _case(net: nets.Net, count: int) -> Case:
    libraries = ("jconv", "lax", "flax")
    programs = {name: functools.partial(steps.program, net, name, count) for name in libraries}
    torch = peers.torch_programs(functools.partial(_torch, net, count))
    return Case(net.name, "step" if count == 1 else f"{count} steps", None, programs | torch)


def _torch(net: nets.Net, count: int, memory_format: str) -> peers.Program:
    one = torch_nets.program(net, memory_format)
    return one._replace(call=lambda: [one.call() for _ in range(count)][-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, then reports."""
    options = _options(arguments)
    with command_line.refusal():
        cases = _cases(options)
    measurements = side_by_side.run(cases, options, _PEERS)
    summaries = report.summarize("training steps", measurements, _PEERS)
    side_by_side.conclude("steps", measurements, summaries, _PEERS, options)


if __name__ == "__main__":
    main()
