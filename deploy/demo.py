"""The demonstration: the main job on a real file, twice, through the front door, and an account of what happened.

`python -m deploy.demo [--log FILE]`, after set-up (`make demo` does both). Run 1 works with a model: the provider whose
key is in the environment, else the practice model, which has no intelligence. Run 2 has no model and degrades to rules.
A reviewer, played by this program, answers the question each run asks. Exit status 0 only if all of it happened.
"""

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from api.commands import approvals as questions
from api.commands.account import RunAccount, account
from api.commands.client import ApiProblemError, Client, Event
from api.commands.follow import describe
from api.commands.output import say
from api.commands.session import CommandError
from api.supervisor.control import StartError
from deploy import demo_account
from deploy.demo_system import DemoSystem, SystemInUseError
from deploy.sample_log import write_sample
from worker.settings import Settings
from worker.store.audit import AuditLog
from worker.store.database import Database

Obj = dict[str, Any]
T = TypeVar("T")
RUN_S = 900
KEEP = "Keep the rotated files until the incident review."
REMOVE = "The rotated files are in the backup; remove them."


@dataclass(frozen=True)
class Told:
    """One run, over: as the API shows it, and as its records tell it."""

    run: Obj
    story: RunAccount
    report: str
    seconds: float


class DemoFailed(Exception):  # noqa: N818  (says what is the case)
    """Something the demonstration promises did not happen."""


def main() -> int:
    """Show it; 0 only if all of it happened."""
    parser = argparse.ArgumentParser(prog="make demo", description="Run the main job on a real file.")
    parser.add_argument("--log", type=Path, help="your own log file instead of the sample")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        return _show(Settings(), options.log, started)
    except (DemoFailed, StartError, SystemInUseError) as error:
        say(f"\ndemo stopped: {error}")
    except CommandError as error:
        say(f"\ndemo stopped: {error.problem}" + (f"\n  what to do: {error.remedy}" if error.remedy else ""))
    except KeyboardInterrupt:
        say("\ndemo interrupted; `make down` stops what it left running")
    return 1


def _show(settings: Settings, log: Path | None, started: float) -> int:
    files = input_files(settings, log)
    clock: dict[str, float] = {}
    system = DemoSystem(settings, say)
    say("\n== The system ==")
    found = _timed(clock, "system", system.bring_up)
    keys = _timed(clock, "keys", system.keys)
    operator, reviewer = Client(found["api"], keys.operator), Client(found["api"], keys.reviewer)
    say(f"\n== Run 1: {system.model_note} ==")
    first = _timed(clock, "run 1", lambda: perform(operator, reviewer, files, approve))
    say("\n== Run 2: no model can be had, so the run degrades to rules ==")
    found = _timed(clock, "model taken away", system.take_models_away)
    operator, reviewer = Client(found["api"], keys.operator), Client(found["api"], keys.reviewer)
    second = _timed(clock, "run 2", lambda: perform(operator, reviewer, files, deny))
    found = _timed(clock, "model given back", system.give_models_back)
    verified = _timed(clock, "audit verify", lambda: verify(settings))
    clock["whole"] = time.monotonic() - started
    return demo_account.tell(settings, found, files, (first, second), verified, clock)


def input_files(settings: Settings, log: Path | None) -> list[Path]:
    """The sample, or the user's file with two small rotated ones beside it. Raises DemoFailed for an unusable file."""
    sample = write_sample(settings.data / "demo")
    if log is None:
        return sample
    if not log.exists():
        raise DemoFailed(f"LOG={log}: no such file")
    if not log.is_file():
        raise DemoFailed(f"LOG={log}: not a file")
    if log.stat().st_size > settings.upload_bytes - (4 << 20):
        raise DemoFailed(
            f"LOG={log}: {log.stat().st_size >> 20} MB; at most {settings.upload_bytes >> 20} MB can be taken"
        )
    try:
        with log.open("rb") as source:
            source.read(1)
    except OSError as error:
        raise DemoFailed(f"LOG={log}: {error.strerror}") from None
    # Beside it two rotated files of the sample: something has to be there that only a human may let go.
    return [log, *(path for path in sample[1:] if path.name != log.name)]


def perform(operator: Client, reviewer: Client, files: list[Path], answer: Callable[[Client, Obj], None]) -> Told:
    """Upload, start, follow to the end, answering the questions on the way."""
    started = time.monotonic()
    ids = [operator.upload(path)["id"] for path in files]
    body: Obj = {"automation": "log-triage", "inputs": {"pattern": "ERROR|FATAL"}, "files": ids}
    run = operator.post("/runs", body, {"Idempotency-Key": f"demo-{secrets.token_hex(8)}"})
    say(f"demo-operator uploaded {len(ids)} files and asked for log-triage: {run['id']}")
    events: list[Event] = []
    with _patience():
        for event in operator.events(run["id"]):
            events.append(event)
            if line := describe(event):
                say(f"  {line}")
            if event.type == "approval.requested":
                answer(reviewer, _question(reviewer, event.record["body"]["approval_id"]))
    run = operator.get(f"/runs/{run['id']}")
    return Told(run, account(events), _report(operator, run), time.monotonic() - started)


@contextlib.contextmanager
def _patience() -> Generator[None]:
    """Give up on a run that does not end, instead of following it for ever."""

    def over(*_: object) -> None:
        raise DemoFailed(
            f"the run did not end in {RUN_S} s; look at it with `gatehouse runs list`, or in the Temporal UI"
        )

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(RUN_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _question(reviewer: Client, approval_id: str) -> Obj:
    say("\n  -- what demo-reviewer sees (gatehouse approvals show) --")
    found = reviewer.get(f"/approvals/{approval_id}")
    with contextlib.redirect_stdout(sys.stderr):  # here it is progress, not the result
        questions.put_question(found)
    return found


def approve(reviewer: Client, question: Obj) -> None:
    """The reviewer's yes, bound to what was shown."""
    say("  -- this demo answers as demo-reviewer: approve --\n")
    _answer(reviewer, question, "approve", REMOVE)


def deny(reviewer: Client, question: Obj) -> None:
    """The reviewer's no."""
    say(f"  -- this demo answers as demo-reviewer: deny, because: {KEEP} --\n")
    _answer(reviewer, question, "deny", KEEP)


def _answer(reviewer: Client, question: Obj, verb: str, reason: str) -> None:
    body = {"digest": question["digest"], "reason": reason}
    for attempt in range(20):
        try:
            reviewer.post(f"/approvals/{question['id']}/{verb}", body)
        except ApiProblemError as error:
            # The row is there a moment before the workflow takes answers.
            if error.kind != "not_found" or attempt == 19:
                raise
            time.sleep(0.25)
        else:
            return


def _report(client: Client, run: Obj) -> str:
    result: Obj = run.get("result") or {}
    artifacts: list[Obj] = result.get("artifacts") or []
    names = [str(a["name"]) for a in artifacts if str(a["name"]).endswith("report.md")]
    return client.text(f"/runs/{run['id']}/artifacts/{names[0]}") if names else ""


def verify(settings: Settings) -> demo_account.Verified:
    """What `gatehouse audit verify` finds."""

    async def do() -> demo_account.Verified:
        database = Database(settings.sql_url)
        try:
            found = await AuditLog(database).verify()
        finally:
            await database.close()
        return demo_account.Verified(found.ok, found.count, found.head, found.problem or "")

    return asyncio.run(do())


def _timed(clock: dict[str, float], name: str, work: Callable[[], T]) -> T:
    started = time.monotonic()
    try:
        return work()
    finally:
        clock[name] = time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
