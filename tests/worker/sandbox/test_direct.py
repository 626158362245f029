"""`gatehouse sandbox run`: the box of a tool for one program, by the command line itself; only an engine is needed."""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.sandbox import nothing_left
from worker.sandbox.container import Sandbox

ROOT = Path(__file__).resolve().parents[3]


async def gatehouse(data: Path, *arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api.cli", "sandbox", "run", "--json", *arguments,
        cwd=ROOT, env={**os.environ, "GATEHOUSE_DATA": str(data), **variables}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, json.loads(out or b"{}")


def text(result: dict[str, Any]) -> str:
    return base64.b64decode(result["stdout_b64"]).decode()


async def test_files_go_in_and_come_back_and_tricks_do_not(
    sandbox: Sandbox, sandbox_data: Path, tmp_path: Path
) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    (there / "sub").mkdir(parents=True)
    (there / "sub" / "a.txt").write_text("grün")
    (there / "tool.sh").write_text("#!/bin/sh\necho ran\n")
    (there / "tool.sh").chmod(0o755)
    (there / "link").symlink_to("/etc/passwd")
    os.mkfifo(there / "pipe")
    (tmp_path / "outside").write_text("untouched")
    back.mkdir()
    # What stands in the folder already is never followed either.
    (back / "left").symlink_to(tmp_path / "outside")
    (back / "way").symlink_to(tmp_path)
    (tmp_path / "input").write_bytes(b"\x00\xff")
    script = (
        "cat; cat sub/a.txt; ./tool.sh; printenv K; ln -s /etc/shadow evil; ln sub/a.txt hard; mkfifo p; mkdir way;"
        "echo in > way/outside; echo left > left; truncate -s 60M sparse; touch \"$(printf 'b\\nd')\" 'bad\\name'"
    )
    code, result = await gatehouse(
        sandbox_data, "--workspace", str(there), "--collect", str(back), "--stdin", str(tmp_path / "input"),
        "--env", "K=V=W", "--", "sh", "-c", script,
    )  # fmt: skip
    assert (code, result["outcome"], result["exit_code"]) == (0, "ok", 0)
    assert base64.b64decode(result["stdout_b64"]) == b"\x00\xff" + "grünran\nV=W\n".encode()
    refused = {(r["way"], r["name"]): r["reason"] for r in result["refused"]}
    assert set(refused) == {
        ("in", "link"), ("in", "pipe"), ("out", "evil"), ("out", "hard"), ("out", "p"), ("out", "way/outside"),
        ("out", "b?d"), ("out", "bad\\name"),
    } or set(refused) == {
        ("in", "link"), ("in", "pipe"), ("out", "evil"), ("out", "sub/a.txt"), ("out", "p"), ("out", "way/outside"),
        ("out", "b?d"), ("out", "bad\\name"),
    }  # fmt: skip
    assert (tmp_path / "outside").read_text() == "untouched"
    assert (back / "left").read_text() == "left\n"
    assert not (back / "left").is_symlink()
    assert (back / "sparse").stat().st_size == 60 << 20
    await nothing_left(sandbox)


@pytest.mark.parametrize(
    ("options", "argv", "outcome", "exit_code"),
    [
        ([], ["sh", "-c", "exit 3"], "error", 3),
        ([], ["no-such-program"], "error", 127),
        (["--timeout", "0.5"], ["sleep", "9"], "timeout", 137),
        (["--memory", "32m"], ["python3", "-c", "b = bytearray(1 << 30)"], "oom", 137),
        ([], ["sh", "-c", "kill -9 $$"], "killed", 137),
        (["--profile", "strict"], ["sh", "-c", "yes"], "output_limit", 137),
    ],
)
async def test_outcomes(
    sandbox_data: Path, options: list[str], argv: list[str], outcome: str, exit_code: int
) -> None:  # fmt: skip
    code, result = await gatehouse(sandbox_data, *options, "--", *argv)
    assert (code, result["outcome"], result["exit_code"]) == (0, outcome, exit_code)
    assert result["truncated"] == (outcome == "output_limit")
    assert result["stdout_bytes"] >= len(base64.b64decode(result["stdout_b64"]))


async def test_what_is_not_given_is_refused_and_what_breaks_is_a_fault(sandbox_data: Path, tmp_path: Path) -> None:
    assert (await gatehouse(sandbox_data, "--image", "nonesuch", "--", "true"))[1]["outcome"] == "refused"
    code, result = await gatehouse(sandbox_data, "--profile", "strict", "--egress", "example.org", "--", "true")
    assert (code, result["outcome"]) == (3, "refused")
    code, result = await gatehouse(sandbox_data, "--", "true", GATEHOUSE_DOCKER_HOST="unix:///nonexistent.sock")
    assert (code, result["outcome"]) == (1, "fault")
    assert result["remedy"]
    for bad in (["--memory", "lots"], ["--timeout", "-1"], ["--env", "x"], ["--workspace", str(tmp_path / "none")]):
        assert (await gatehouse(sandbox_data, *bad, "--", "true"))[0] == 2


async def test_custom_names_what_it_loosens(sandbox_data: Path) -> None:
    script = "cp /bin/true /tmp/x; chmod +x /tmp/x; /tmp/x"
    assert (await gatehouse(sandbox_data, "--", "sh", "-c", script))[1]["exit_code"] == 126
    custom = ("--profile", "custom", "--loosen", "executable-scratch")
    assert (await gatehouse(sandbox_data, *custom, "--", "sh", "-c", script))[1]["exit_code"] == 0
    for bad in (["--profile", "custom"], ["--loosen", "open-files"], [*custom, "--loosen", "privileged"]):
        assert (await gatehouse(sandbox_data, *bad, "--", "true"))[0] == 2


async def test_numbers_are_true(sandbox_data: Path) -> None:
    """Also for processes that nobody waited for, and that left their session."""
    busy = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    source = (
        f"import os, signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nends, held = os.pipe()\n"
        f"if os.fork() == 0:\n  os.setsid()\n  exec({busy!r})\n  os._exit(0)\n"
        f"os.close(held); b = bytes(1) * (60 << 20); os.read(ends, 1)"
    )
    _, result = await gatehouse(sandbox_data, "--", "python3", "-c", source)
    assert result["outcome"] == "ok"
    assert 0.4 <= result["cpu_seconds"] < 5
    assert 60 << 20 < result["peak_memory_bytes"] < 120 << 20
    assert result["duration_seconds"] >= 0.4
