"""Lists the scripts, a line each; with `--quick`, runs them all, each in seconds."""

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path

_SCRIPT = re.compile(r"(?P<purpose>.+) \((?P<minutes>[\d.]+) minutes?\)")


def scripts(directory: Path) -> dict[str, tuple[str, str]]:
    """Name -> (purpose, minutes) of every script, read from its docstring's first line."""
    found = {}
    for path in sorted(directory.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
        if line := _SCRIPT.match(docstring):
            found[path.stem] = line["purpose"], line["minutes"]
    return found


def main() -> None:
    """Lists or runs them."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run every script with --quick")
    quick = parser.parse_args().quick
    found = scripts(Path(__file__).parent)
    width = max(map(len, found))
    for name, (purpose, minutes) in found.items():
        print(f"python -m experiments.{name:<{width}} {minutes:>4} min  {purpose}", flush=True)
        if quick:
            subprocess.run([sys.executable, "-m", f"experiments.{name}", "--quick"], check=True)


if __name__ == "__main__":
    main()
