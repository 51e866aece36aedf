"""Time the backward of every kind of pooling, beside its forward and beside a copy. (2 minutes)

Pulling a cotangent back, with all that the forward keeps at hand, reads that and the cotangent, and
writes an array of the size of the input. A copy that moves as many bytes, where a write counts
twice as memory is read before it is written, bounds how fast that can be, whatever the forward
takes.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import jconv
from experiments import command_line
from experiments.speed import peers, timing
from experiments.speed.tables import Ints

_WITHIN = 2  # times the forward
_MOVED = 1.5  # times the copy

_SIZES = {1: (2, 724), 3: (2, 400), 64: (4, 64)}  # channels: images and their side
_SHAPES = {"2x2 s2": (2, 2, 0), "3x3 s2": (3, 2, 1), "3x3 s1": (3, 1, 1), "31x31 s1": (31, 1, 15)}


class Case(NamedTuple):
    """A pooling of `x`."""

    name: str
    shape: Ints
    pool: Callable[[jax.Array], jax.Array]


def cases(scale: int) -> Iterator[Case]:
    """Of images whose sides are divided by `scale`."""
    for channels, (n, side) in _SIZES.items():
        shape = n, side // scale, side // scale, channels
        for windows, (taps, stride, low) in _SHAPES.items():
            options = {"stride": stride, "padding": [(low, low)] * 2}
            for kind, pool in _kinds(taps, options).items():
                yield Case(f"{kind} {windows} c{channels}", shape, pool)
        out = 2 * shape[1] // 3
        for kind, pool in _others(out).items():
            yield Case(f"{kind} c{channels}", shape, pool)


def _kinds(taps: int, options: dict[str, Any]) -> dict[str, Callable]:
    window = taps, taps
    some = {
        "max": lambda x: jconv.max_pool(x, window, **options),
        "average": lambda x: jconv.avg_pool(x, window, **options),
        "log-sum-exp": lambda x: jconv.logsumexp_pool(x, window, **options),
    }
    if taps > 3:
        return some
    return some | {
        "product": lambda x: jconv.prod_pool(x, window, **options),
        "norm": lambda x: jconv.lp_pool(x, window, 3, **options),
    }


def _others(out: int) -> dict[str, Callable]:
    return {
        "blur 2x2 s2": lambda x: jconv.blur_pool(x, (2, 2), stride=2),
        "adaptive average": lambda x: jconv.adaptive_avg_pool(x, (out, out)),
        "adaptive max": lambda x: jconv.adaptive_max_pool(x, (out, out)),
        "fractional 2x2": lambda x: jconv.fractional_max_pool(
            jax.random.key(0), x, (2, 2), (out, out)
        ),
    }


def measured(case: Case, options: argparse.Namespace) -> tuple[float, float, float]:
    """Median seconds of the forward, of the pull, and of the copy."""
    x = jax.device_put(np.random.default_rng(0).standard_normal(case.shape, np.float32))
    y, pull = jax.jit(lambda x: jax.vjp(case.pool, x))(x)
    kept, tree = jax.tree.flatten(pull)
    moved = sum(a.nbytes for a in kept) + y.nbytes + 2 * x.nbytes
    ones = jax.device_put(np.ones(moved // (3 * x.itemsize), np.float32))
    programs = {
        "forward": _call(case.pool, x),
        "pull": _call(lambda kept, y_bar: jax.tree.unflatten(tree, kept)(y_bar), kept, y),
        "copy": _call(lambda a: a + 1, ones),
    }
    taken = timing.samples(programs, options.rounds, options.budget)
    forward, back, copy = (statistics.median(taken[name]) for name in programs)
    return forward, back, copy


def _call(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    executable, *_ = peers.compiled_ahead(jax.jit(function), *arguments)
    return lambda: executable(*arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line a case, then how many are within the bounds."""
    parser = command_line.parser(__file__, __doc__)
    parser.add_argument("--rounds", type=command_line.count, default=3, help="of each program")
    parser.add_argument(
        "--budget", type=command_line.positive, default=0.2, help="seconds of each program"
    )
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = command_line.parse(parser, arguments, results=None, rounds=1, only="3x3 s2 c1")
    print(f"{'case':<26}{'forward ms':>12}{'pull ms':>10}{'/ forward':>11}{'/ copy':>8}")
    ratios, bound = [], 0
    for case in cases(scale=8 if options.quick else 1):
        if options.only not in case.name:
            continue
        forward, back, copy = measured(case, options)
        ratios.append(back / forward)
        bound += back > _WITHIN * forward and back <= _MOVED * copy
        times = f"{forward * 1e3:>12.3f}{back * 1e3:>10.3f}"
        print(f"{case.name:<26}{times}{back / forward:>11.2f}{back / copy:>8.1f}", flush=True)
    if not ratios:
        raise SystemExit(f"no case has {options.only!r} in its name")
    within = sum(ratio <= _WITHIN for ratio in ratios)
    mean = statistics.geometric_mean(ratios)
    print(f"within {_WITHIN} forwards {within} of {len(ratios)}, geometric mean {mean:.2f}")
    print(f"of the others within {_MOVED} copies {bound}")


if __name__ == "__main__":
    main()
