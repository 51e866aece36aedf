"""Kill a training run at random steps, resume it, set it against an unbroken one. (3 minutes)

The kill is SIGKILL, after a number of checkpoints and of milliseconds that are drawn at random: so
it falls into a step, or into the writing of a checkpoint. In the end the history and the digest of
the weights must be, bit for bit, those of the run that was left alone.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from experiments import command_line

_SAVE_EVERY = 4
_STEPS_A_LIFE = 24
_STEPS_AN_EPOCH = 22  # scikit-learn's digits, 64 at a time
_POLL_SECONDS = 0.002
_MOST_DELAY_SECONDS = 0.05


class End(NamedTuple):
    """What a run left behind."""

    history: dict[str, list[float]]
    digest: str


def epochs(kills: int) -> int:
    """So many that the run outlasts its kills."""
    return 2 + kills * _STEPS_A_LIFE // _STEPS_AN_EPOCH


def command(results: Path, kills: int, *, resume: bool) -> list[str]:
    """The run, new or resumed."""
    options = ["--quick", "--epochs", epochs(kills), "--save-every", _SAVE_EVERY]
    made = [sys.executable, "-m", "experiments.train", *options, "--results", results]
    return [*map(str, made), *(["--resume"] if resume else [])]


def saved(results: Path) -> int:
    """The last step that is saved whole, 0 for none."""
    names = (path.name for path in (results / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def killed(results: Path, kills: int, rng: random.Random) -> int | None:
    """Runs on and kills: the step that is saved then; None where the run ended before."""
    begun = saved(results)
    goal = begun + rng.randrange(1, _STEPS_A_LIFE)
    with subprocess.Popen(
        command(results, kills, resume=begun > 0), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        while saved(results) < goal and run.poll() is None:
            time.sleep(_POLL_SECONDS)
        time.sleep(rng.uniform(0, _MOST_DELAY_SECONDS))
        run.kill()
        _, errors = run.communicate()
    if run.returncode > 0:
        sys.exit(f"A run failed.\n{errors}")
    return saved(results) if run.returncode < 0 else None


def finished(results: Path, kills: int, *, resume: bool) -> End:
    """Runs to the end."""
    subprocess.run(
        command(results, kills, resume=resume), check=True, capture_output=True, text=True
    )
    record = results / "checkpoints" / str(saved(results)) / "record" / "metadata"
    digest = json.loads(record.read_text())["digest"]
    return End(json.loads((results / "train.json").read_text())["history"], digest)


def broken(results: Path, kills: int, rng: random.Random) -> End:
    """Runs to the end all the same."""
    steps = [killed(results, kills, rng) for _ in tqdm(range(kills), unit="kill")]
    print("Killed after the checkpoints of steps", *(step for step in steps if step is not None))
    if None in steps:
        sys.exit("The run ended before its last kill; take another seed.")
    return finished(results, kills, resume=kills > 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Breaks one run, leaves another alone, compares."""
    parser = command_line.parser(__file__, __doc__)
    parser.add_argument("--kills", type=int, default=20, help="how often the run is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = command_line.parse(parser, arguments, kills=2)
    place = options.results / "interrupt" / f"{time.time_ns()}"
    survivor = broken(place / "broken", options.kills, random.Random(options.seed))
    if survivor != finished(place / "whole", options.kills, resume=False):
        sys.exit(f"The runs differ: see {place}.")
    print(f"{len(survivor.history['loss'])} losses and the weights are the same, bit for bit.")


if __name__ == "__main__":
    main()
