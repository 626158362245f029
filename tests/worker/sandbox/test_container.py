"""How a program in a box can end, and that nothing of the box survives it."""

import asyncio
import hashlib
import json
import secrets
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fixtures.sandbox import Bench, leftovers
from tools.contract import Limits
from worker.sandbox import engine as names
from worker.sandbox.container import Ending, Job, Sandbox, UnknownImage
from worker.sandbox.engine import Engine, SandboxUnavailable
from worker.sandbox.lifetime import LABEL_DEADLINE, LABEL_DEADLINE_MONOTONIC


async def test_program_gets_its_stdin_and_gives_its_stdout(bench: Bench) -> None:
    payload = json.dumps({"text": "grün\u0000" * 50_000}).encode()
    ran = await bench("import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())", stdin=payload)
    assert ran.ending is Ending.SUCCEEDED
    assert ran.stdout.decode().strip() == hashlib.sha256(payload).hexdigest()
    assert ran.cpu_ms >= 0
    assert ran.peak_memory_bytes > 0


@pytest.mark.parametrize(
    ("source", "ending", "code"),
    [
        ("import sys; sys.exit(3)", Ending.EXIT_CODE, 3),
        ("import os; os.abort()", Ending.KILLED, 134),
        ("import os; os.kill(os.getpid(), 9)", Ending.KILLED, 137),
        ("import sys; sys.stderr.write('why'); sys.exit(1)", Ending.EXIT_CODE, 1),
    ],
)
async def test_failures_are_typed(bench: Bench, source: str, ending: Ending, code: int) -> None:
    ran = await bench(source)
    assert (ran.ending, ran.exit_code) == (ending, code)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("b = bytearray(1 << 30)", id="one big allocation"),
        pytest.param("f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()", id="tmpfs counts"),
        pytest.param(
            "import os, time\nfor _ in range(8):\n  if os.fork() == 0:\n    b = bytes(1) * (40 << 20); time.sleep(90)\n"
            "b = bytes(1) * (200 << 20)",
            id="many children",
        ),
    ],
)
async def test_out_of_memory(bench: Bench, source: str) -> None:
    ran = await bench(source, memory_mb=64, tmp_mb=512, timeout_s=60)
    assert ran.ending is Ending.OOM


async def test_out_of_memory_before_anybody_could_report(bench: Bench) -> None:
    """Process 1 itself is killed, the box vanishes without a word: the engine's event log tells why."""
    ran = await bench("print(1)", stdin=bytes(120 << 20), memory_mb=32)
    assert ran.ending is Ending.OOM


async def test_surviving_a_childs_death_by_memory_is_success(bench: Bench) -> None:
    source = (
        "import subprocess, sys\n"
        "child = subprocess.run([sys.executable, '-c', 'b = bytes(1) * (400 << 20)'])\n"
        "print(child.returncode)"
    )
    ran = await bench(source, memory_mb=64)
    assert (ran.ending, ran.stdout.strip()) == (Ending.SUCCEEDED, b"-9")


IGNORE = """
import signal, time
for s in range(1, 65):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
"""


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(IGNORE + "while True: time.sleep(1)", id="ignores all signals"),
        pytest.param("while True: pass", id="busy"),
        pytest.param(
            "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
            "    while True: time.sleep(1)\n  os._exit(0)\nwhile True: time.sleep(1)",
            id="double fork",
        ),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", id="stops itself"),
    ],
)
async def test_time_limit_holds_whatever_the_program_does(bench: Bench, source: str) -> None:
    started = time.monotonic()
    ran = await bench(source, timeout_s=0.5)
    assert ran.ending is Ending.TIMEOUT
    assert time.monotonic() - started < 20  # seconds; else it waited for the program


async def test_daemon_left_behind_dies_with_the_box(bench: Bench) -> None:
    """The program ends, a descendant in its own session keeps the output open: the call ends with the program."""
    source = (
        "import os, time\nprint('done', flush=True)\nif os.fork() == 0:\n  os.setsid()\n"
        "  if os.fork() == 0:\n    while True: time.sleep(0.01)\n  os._exit(0)"
    )
    started = time.monotonic()
    ran = await bench(source, timeout_s=60)
    assert (ran.ending, ran.stdout) == (Ending.SUCCEEDED, b"done\n")
    assert time.monotonic() - started < 20  # seconds; else it waited for the program


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_output_flood_ends_fast(bench: Bench, stream: str) -> None:
    started = time.monotonic()
    ran = await bench(
        f"import sys\nwhile True: sys.{stream}.buffer.write(b'x' * 65536)", output_bytes=100_000, timeout_s=60
    )
    assert ran.ending is Ending.OUTPUT_LIMIT
    assert len(ran.stdout) + len(ran.stderr) == 100_000
    assert time.monotonic() - started < 20  # seconds; else it waited for the program


async def test_output_just_within_the_limit(bench: Bench) -> None:
    ran = await bench("import sys; sys.stdout.write('x' * 100_000)", output_bytes=100_000)
    assert (ran.ending, len(ran.stdout)) == (Ending.SUCCEEDED, 100_000)


async def test_process_bomb_is_bounded(bench: Bench) -> None:
    source = (
        "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0:\n      time.sleep(90)\n"
        "    n += 1\nexcept OSError: print(n)"
    )
    ran = await bench(source, pids=20, timeout_s=60)
    assert ran.ending is Ending.SUCCEEDED
    assert int(ran.stdout) == 19


async def test_forged_frames_do_not_reach_the_worker(bench: Bench) -> None:
    """The program's output is data: a report written by it is not believed, and process 1 is out of its reach."""
    source = (
        "import os, sys\n"
        "sys.stdout.buffer.write(b'X' + (50).to_bytes(4, 'big') + b'why=0'.ljust(50))\nsys.stdout.flush()\n"
        "for path in ('/proc/1/fd/1', '/proc/1/mem'):\n"
        "  try: open(path, 'wb'); print('open')\n"
        "  except OSError: pass\n"
        "for s in (9, 15, 19):\n  os.kill(1, s)\n"
        "sys.exit(7)"
    )
    ran = await bench(source)
    assert (ran.ending, ran.exit_code) == (Ending.EXIT_CODE, 7)
    assert b"open" not in ran.stdout


async def test_ptrace_stop_leaves_no_orphan(bench: Bench) -> None:
    """A stopped tracee once slipped out of the engine's sight: the container was removed, its processes lived on."""
    mark = f"orphan-probe-{secrets.token_hex(8)}"
    source = (
        "import ctypes, os, time\nl = ctypes.CDLL(None)\nprint(l.ptrace(0, 0, 0, 0), flush=True)\n"
        f"if os.fork() == 0:\n  os.execvp('python3', ['python3', '-c', 'import time; time.sleep(300)  # {mark}'])\n"
        f"os.execvp('python3', ['python3', '-c', 'import time; time.sleep(300)  # {mark}'])"
    )
    ran = await bench(source, timeout_s=1)
    assert ran.ending is Ending.TIMEOUT
    assert ran.stdout.strip() == b"-1"
    async with asyncio.timeout(60):
        while _running(mark):  # noqa: ASYNC110  (the kernel may still be at it)
            await asyncio.sleep(0.05)


def _running(mark: str) -> list[str]:
    """Processes of the whole machine whose command line holds the mark."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(str(path))
    return found


async def test_nothing_is_left(bench: Bench, sandbox: Sandbox) -> None:
    await asyncio.gather(*(bench("print(1)", run_id="run_left", key=f"k{n}") for n in range(4)))
    await sandbox.close()
    assert await leftovers(sandbox, "run_left") == []


async def test_labels_name_run_call_and_deadline(sandbox: Sandbox) -> None:
    seen: list[dict[str, str]] = []

    async def look(_: str) -> None:
        for container in await sandbox.engine.find_containers(
            {names.LABEL_OWNER: sandbox.owner, names.LABEL_RUN: "run_labels"}
        ):
            labels = container["Labels"]
            assert isinstance(labels, dict)
            seen.append({name: str(value) for name, value in labels.items()})

    job = Job(run_id="run_labels", key="secret-key", program=b"", stdin=b"", attempt=3)
    await sandbox.run(job, commit=look)
    (labels,) = seen
    assert labels[names.LABEL_OWNER] == sandbox.owner
    assert labels[names.LABEL_KIND] == "call"
    assert labels[names.LABEL_ATTEMPT] == "3"
    assert time.time() < int(labels[LABEL_DEADLINE]) < time.time() + 300
    assert time.monotonic() < int(labels[LABEL_DEADLINE_MONOTONIC]) < time.monotonic() + 300
    assert "secret-key" not in str(labels)


async def test_refusal_at_the_last_moment_runs_nothing(sandbox: Sandbox) -> None:
    class RefusedError(Exception):
        pass

    async def refuse(_: str) -> None:
        raise RefusedError

    with pytest.raises(RefusedError):
        await sandbox.run(Job(run_id="run_refused", key="k", program=b"print(1)", stdin=b""), commit=refuse)
    await sandbox.close()
    assert await leftovers(sandbox, "run_refused") == []


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.15, 1.0])
async def test_cancel_kills_the_container(sandbox: Sandbox, after_s: float) -> None:
    """At any moment: while it is created, while it starts, while the program runs."""
    job = Job(run_id="run_cancel", key="k", program=b"import time; time.sleep(60)", stdin=b"")
    task = asyncio.create_task(sandbox.run(job))
    await asyncio.sleep(after_s)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await sandbox.close()
    assert await leftovers(sandbox, "run_cancel") == []
    assert time.monotonic() - started < 20  # seconds; else it waited for the program


async def test_fence_removes_an_earlier_attempt(sandbox: Sandbox) -> None:
    standing = asyncio.Event()

    async def stand(_: str) -> None:
        standing.set()

    job = Job(run_id="run_fence", key="fenced", program=b"import time; time.sleep(60)", stdin=b"")
    earlier = asyncio.create_task(sandbox.run(job, commit=stand))
    await standing.wait()
    assert await sandbox.fence("another key") == 0
    assert await sandbox.fence("fenced") == 1
    with pytest.raises(Exception, match="without a report"):
        await earlier


async def test_unknown_image(sandbox: Sandbox) -> None:
    with pytest.raises(UnknownImage):
        await sandbox.run(Job(run_id="r", key="k", program=b"", stdin=b"", image="nonesuch"))


async def test_no_engine(sandbox_data: Path) -> None:
    async with Engine("unix:///nonexistent/docker.sock") as engine:
        with pytest.raises(SandboxUnavailable, match="no Docker engine answers") as caught:
            await Sandbox(engine, data=sandbox_data, owner="o").run(Job(run_id="r", key="k", program=b"", stdin=b""))
    assert "GATEHOUSE_DOCKER_HOST" in caught.value.remedy


async def test_no_image_set_up(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match=r"worker\.sandbox\.images ensure"):
        await Sandbox(engine, data=tmp_path, owner="o").run(Job(run_id="r", key="k", program=b"", stdin=b""))


async def test_limits_reach_the_program(bench: Bench) -> None:
    source = (
        "import resource as r; print(*(r.getrlimit(x)[1] for x in (r.RLIMIT_NOFILE, r.RLIMIT_CORE, r.RLIMIT_FSIZE)))"
    )
    assert (await bench(source)).stdout.split() == [b"256", b"0", str(64 << 20).encode()]
    assert Limits().timeout_s == 30
