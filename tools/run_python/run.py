"""Runs the given program in an interpreter of its own and gives what it printed; its failure is this call's failure."""

import json
import subprocess
import sys

MAX_CHARS = 14_000


def cut(raw):
    """Head and tail, so that the answer stays whole."""
    text = raw.decode("utf-8", "replace")
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def main():
    code = json.load(sys.stdin)["arguments"]["code"]
    with open("/work/program.py", "w") as file:
        file.write(code)
    command = [sys.executable, "-I", "-B", "/work/program.py"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        how = f"status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        printed = f"\nIt had printed:\n{cut(done.stdout)[-2000:]}" if done.stdout else ""
        sys.exit(f"run_python: the program ended with {how}\n{cut(done.stderr)[-4000:]}{printed}")
    answer = {"stdout": cut(done.stdout)}
    if done.stderr:
        answer["stderr"] = cut(done.stderr)[-2000:]
    print(json.dumps(answer))


main()
