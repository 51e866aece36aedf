"""Kill a training run at random steps, resume it, set it against an unbroken one. (3 minutes)

The kill is SIGKILL, after a number of checkpoints and of milliseconds that are drawn at random: so
it falls into a step, or into the writing of a checkpoint. After the last step the history and the
digest of the weights must be, bit for bit, those of the run that was left alone.
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


def saved(results: Path) -> int:
    """The last step that is saved whole, 0 for none."""
    names = (path.name for path in (results / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def live(results: Path, kills: int, goal: int, delay: float = 0) -> None:
    """Starts or resumes the run, and kills it so many seconds after step `goal` is saved."""
    options = ["--quick", "--epochs", epochs(kills), "--save-every", _SAVE_EVERY]
    options += ["--results", results, *(["--resume"] if saved(results) else [])]
    command = [sys.executable, "-m", "experiments.train", *map(str, options)]
    log = results / "log.txt"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as run:
        while saved(results) < goal and run.poll() is None:
            time.sleep(_POLL_SECONDS)
        time.sleep(delay)
        run.kill()
    if run.returncode > 0:
        sys.exit(f"A run failed.\n{log.read_text()}")


def end(results: Path, kills: int) -> End:
    """Of the run that is started or resumed here."""
    last = epochs(kills) * _STEPS_AN_EPOCH
    live(results, kills, last)
    record = results / "checkpoints" / str(last) / "record" / "metadata"
    content = json.loads(record.read_text())
    return End(content["history"], content["digest"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Breaks one run, leaves another alone, compares."""
    parser = command_line.parser(__file__, __doc__)
    parser.add_argument(
        "--kills", type=command_line.from_zero, default=20, help="how often the run is killed"
    )
    parser.add_argument("--seed", type=command_line.from_zero, default=0, help="of the moments")
    options = command_line.parse(parser, arguments, kills=1)
    kills, rng = options.kills, random.Random(options.seed)
    place = options.results / "interrupt" / f"{time.time_ns()}"
    broken, whole = place / "broken", place / "whole"
    for results in (broken, whole):
        results.mkdir(parents=True)
    for _ in tqdm(range(kills), unit="kill"):
        goal = saved(broken) + rng.randrange(1, _STEPS_A_LIFE)
        live(broken, kills, goal, delay=rng.uniform(0, _MOST_DELAY_SECONDS))
        tqdm.write(f"Killed after the checkpoint of step {saved(broken)}.")
    if saved(broken) == epochs(kills) * _STEPS_AN_EPOCH:
        sys.exit("The run ended before its last kill; take another seed.")
    if end(broken, kills) != (unbroken := end(whole, kills)):
        sys.exit(f"The runs differ: see {place}.")
    print(f"{len(unbroken.history['loss'])} losses and the weights are the same, bit for bit.")


if __name__ == "__main__":
    main()
