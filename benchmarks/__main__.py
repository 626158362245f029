"""`make bench` runs every benchmark, `make bench NAME=x` one. The last line each prints is one JSON object.

Exit status 1 when one misses its limit or breaks, 2 for a name there is none of.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Every module of this folder that can be run."""
    runnable = (path for path in sorted(FOLDER.glob("*.py")) if '__name__ == "__main__"' in path.read_text())
    return [path.stem for path in runnable if not path.stem.startswith("_")]


def main(wanted: list[str]) -> int:
    """Run them one after the other, each in its own process: they must not warm each other up."""
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        print(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    failed: list[str] = []
    for name in wanted or names():
        print(f"== {name} ==", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if subprocess.run(command, cwd=FOLDER.parent, stdin=subprocess.DEVNULL, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"missed or broken: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
