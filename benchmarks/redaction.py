"""How fast secrets and personal data are taken out, against one bare RE2 scan of the same text in the same run.

The text is log lines of several kinds: most hold nothing, one in twenty an e-mail address, one in a hundred a secret.
`bare` is one RE2 pass for a single token shape that never matches: the floor for anything that reads every byte.
Passes alternate, so that a busy machine slows both alike; trust the ratio.

    python -m benchmarks.redaction [--megabytes N] [--rounds N]
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable

from policies.redaction import Redactor
from policies.redaction.scan import compiled, encoded

LIMIT_MB_S = 30.0


def line(rng: random.Random) -> str:
    """One line of a service's log."""
    run = f"run_{rng.randrange(16**10):010x}"
    day, hour, minute = rng.randrange(1, 29), rng.randrange(24), rng.randrange(60)
    seen = f"2026-11-{day:02d}T{hour:02d}:{minute:02d}:17.{rng.randrange(10**6):06d}Z"
    kind = rng.randrange(100)
    if kind == 0:
        words = f"retrying with password={rng.randrange(16**12):012x}Q!"
    elif kind < 6:
        words = f"mail for user{rng.randrange(1000)}@example.net accepted"
    elif kind < 40:
        words = f"GET /api/v1/runs/{run}/events?limit={rng.randrange(200)} 200 {rng.randrange(9999)} bytes"
    elif kind < 70:
        words = f"max_tokens=4096 input_tokens={rng.randrange(5000)} cost_microusd={rng.randrange(10**6)}"
    else:
        words = f"wrote sha256:{rng.randrange(16**64):064x} in {rng.random():.6f} s"
    return json.dumps({"timestamp": seen, "level": "info", "logger": "worker.sandbox", "run": run, "event": words})


def speed(work: Callable[[], object], size: int) -> float:
    """MB a second of processor time: others work on the machine too."""
    began = time.process_time()
    work()
    return size / 1e6 / (time.process_time() - began)


def main() -> int:
    """Exit status 1 when it is slower than the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redaction")
    parser.add_argument("--megabytes", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rng = random.Random(7)
    lines: list[str] = []
    while sum(map(len, lines[:100])) / max(1, len(lines[:100])) * len(lines) < options.megabytes * 1e6:
        lines.append(line(rng))
    text = "\n".join(lines)
    data, floor = encoded(text), compiled(r"\bghp_[A-Za-z0-9]{36}")
    secrets, private = Redactor(["held-by-this-process"]), Redactor(["held-by-this-process"], private=True)
    passes: dict[str, Callable[[], object]] = {
        "bare": lambda: floor.search(data),
        "secrets": lambda: secrets.text(text),
        "private": lambda: private.text(text),
        "private_lines": lambda: [private.text(each) for each in lines],
    }
    rounds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(options.rounds):
        for name, work in passes.items():
            rounds[name].append(speed(work, len(data)))
    result = {f"{name}_mb_s": round(statistics.median(speeds), 1) for name, speeds in rounds.items()}
    result["ratio_to_bare"] = round(result["private_mb_s"] / result["bare_mb_s"], 3)
    for name in passes:
        print(f"{name:14} {result[f'{name}_mb_s']:8.1f} MB/s")
    print(
        json.dumps(
            {"benchmark": "redaction", "megabytes": round(len(data) / 1e6, 1), "limit_mb_s": LIMIT_MB_S, **result}
        )
    )
    return 0 if max(rounds["private"]) >= LIMIT_MB_S else 1


if __name__ == "__main__":
    sys.exit(main())
