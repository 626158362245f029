"""500 answers race each other, deadlines and cancellations: no call runs without a yes that counted, none is decided
twice, and whoever was told that the answer counts finds it on record. Nor when the worker is killed meanwhile."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from temporalio.client import (
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from policies.decision import Principal
from policies.terms import Terms
from tests.fixtures.processes import spawn
from tests.fixtures.provider import Provider
from tests.fixtures.temporal import TemporalServer
from tests.workflows import serving
from tests.workflows.conftest import settings_for
from tests.workflows.house import House, Started, automation, one_call, opened, until, workers
from tools.contract import Outcome
from worker.sandbox.container import Sandbox
from worker.store.blobs import Blobs
from workflows.contracts import AnswerAccepted, ApprovalAnswer, ApprovalRequest, ApprovalState, Phase

RUNS, ANSWERS = 20, 25
SPREAD_S = 2.0
AT_ONCE = 5
ENDS = {"approved", "denied", "expired", "cancelled"}


async def test_answers_race_deadlines_and_cancellations(house: House) -> None:
    house.gate.terms |= {"race soon": Terms(deadline_s=1), "race two": Terms(needed=2), "race kept": Terms()}
    room = asyncio.Semaphore(AT_ONCE)
    ends = Counter(await asyncio.gather(*(_race(house, n, room) for n in range(RUNS))))
    assert ends["approved"], ends


async def _race(house: House, n: int, room: asyncio.Semaphore) -> str:
    async with room:
        return await _one_run(house, n)


async def _one_run(house: House, n: int) -> str:
    """One run, its people, its deadline and, for some, its cancellation; how its question ended."""
    chance = random.Random(n)
    text = ("race soon", "race two", "race kept", "race kept")[n % 4]
    run = await house.start(automation(rules=one_call(text)))
    question = await _asked(house, run)

    async def one(who: int) -> tuple[str, AnswerAccepted] | None:
        await asyncio.sleep(chance.uniform(0, SPREAD_S))
        by = Principal(id=f"p{who}", roles=("approver",))
        verdict = chance.choice(("approve", "approve", "approve", "deny"))
        return await _told(house, run, house.signed(question, verdict, by))

    async def cancel() -> None:
        if n % 4 == 3:
            await asyncio.sleep(chance.uniform(0, SPREAD_S))
            await run.handle.cancel()

    said, _ = await asyncio.gather(asyncio.gather(*map(one, range(ANSWERS))), cancel())
    return await _check(house, run, question, text, [a for a in said if a is not None])


async def _asked(house: House, run: Started) -> ApprovalRequest:
    """The run's question once it is listed, though its deadline may have passed by then."""
    await until(lambda: house.approvals.get(None, f"{run.id}.1"))
    row = await house.approvals.get(None, f"{run.id}.1")
    assert row is not None
    return row.request


async def _told(house: House, run: Started, answer: ApprovalAnswer) -> tuple[str, AnswerAccepted] | None:
    """Whose answer counted and what they were told; None when it did not. Says it again as long as nobody knows."""
    while True:
        try:
            return answer.principal.id, await house.send(run, answer, id=f"by {answer.principal.id}")
        except WorkflowUpdateFailedError:
            return None
        except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            # The server takes no more than ten at once of one run, and drops those that wait when a worker is lost.
            if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                return None


async def _check(
    house: House, run: Started, question: ApprovalRequest, text: str, counted: list[tuple[str, AnswerAccepted]]
) -> str:
    """The promises, for one run; how its question ended."""
    try:
        result = await run.result()
        effects = await house.effects(result)
        assert result.phase is Phase.SUCCEEDED
    except WorkflowFailureError:
        effects = None  # cancelled: what it left is gone, so its outcome must say what happened
    deciding = [a for _, a in counted if a.state is not ApprovalState.PENDING]
    [closed] = [r for r in await house.records(run) if r.event_id.endswith(f"{question.id}/closed")]
    ended = closed.type.removeprefix("approval.")
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert (row.state.value, ended in ENDS) == (ended, True)
    assert len(deciding) <= 1
    heard = [a.principal.id for a in row.progress.answers]
    assert len(set(heard)) == len(heard)
    assert {name for name, _ in counted} <= set(heard)
    if ended == "approved":
        assert sum(a.verdict == "approve" for a in row.progress.answers) == (2 if text == "race two" else 1)
    [outcome] = (await house.outcomes(run)).values()
    if outcome in (Outcome.SUCCEEDED.value, Outcome.UNKNOWN.value, Outcome.FAILED.value):
        assert ended == "approved"
    if effects is not None:
        assert effects == ([text] if ended == "approved" else [])
    return ended


# ---------------------------------------------------------------- kill -9

KILLED_RUNS, KILLED_ANSWERS = 6, 17
KILLS = (20, 60)
"""The worker is killed when the first question is listed, and again when so many senders know what became of theirs."""
HALF_S = 1.0
"""Answers to a question come within this time."""
TASK = timedelta(seconds=2)
RULES = """\
apiVersion: gatehouse/v1
rules:
  - {id: soon, roles: [operator], when: args.text == 'race soon', verdict: ask, approval: {deadline: 6s}}
  - {id: two, roles: [operator], when: args.text == 'race two', verdict: ask, approval: {needed: 2}}
  - {id: kept, roles: [operator], when: args.text == 'race kept', verdict: ask}
"""


@dataclass
class Killed:
    """An installation whose runs worker is a process that the test kills."""

    house: House
    worker: BaseProcess
    heard: int = 0
    """Answers whose sender knows what became of them."""

    def hear(self) -> None:
        """One more sender knows; sometimes the worker is killed right then."""
        self.heard += 1
        if self.heard in KILLS:
            self.kill()

    def kill(self) -> None:
        """kill -9, and another takes over."""
        self.end()
        self.worker = spawn(serving.runs, self.house.settings)

    def end(self) -> None:
        """kill -9."""
        self.worker.kill()
        self.worker.join()


@pytest.fixture
async def killed(provider: Provider, sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Killed]:
    (tmp_path / "home" / "rules").mkdir(parents=True)
    (tmp_path / "home" / "rules" / "race.yaml").write_text(RULES)
    server = TemporalServer()
    await server.start()
    settings = settings_for(server, provider, tmp_path).model_copy(update={"home": tmp_path / "home"})
    async with opened(provider, sandbox, Blobs(tmp_path / "blobs"), settings) as house, workers(house, runs=False):
        killed = Killed(house, spawn(serving.runs, settings))
        yield killed
        killed.end()
    server.stop()


async def test_answers_race_deadlines_and_cancellations_while_the_worker_is_killed(killed: Killed) -> None:
    house = killed.house
    texts = [("race soon", "race two", "race kept", "race kept")[n % 4] for n in range(KILLED_RUNS)]
    specs = [automation(rules=one_call(text)) for text in texts]
    runs = [await house.start(spec, task_timeout=TASK) for spec in specs]
    await until(lambda: _listed(house))
    killed.kill()
    questions = await asyncio.gather(*(_asked(house, run) for run in runs))
    counted = await asyncio.gather(*(_storm(killed, n, runs[n], questions[n]) for n in range(KILLED_RUNS)))
    ends = Counter([await _check(house, *of) for of in zip(runs, questions, texts, counted, strict=True)])
    assert ends["approved"], ends
    assert not (await house.approvals.page(None, state=ApprovalState.PENDING)).items
    assert (await house.audit.verify()).ok


async def _storm(killed: Killed, n: int, run: Started, question: ApprovalRequest) -> list[tuple[str, AnswerAccepted]]:
    """Everybody answers one question, and some run is cancelled meanwhile; whoever was told that it counts."""
    chance = random.Random(n)

    async def one(who: int) -> tuple[str, AnswerAccepted] | None:
        await asyncio.sleep(chance.uniform(0, HALF_S))
        by = Principal(id=f"p{who}", roles=("approver",))
        verdict = chance.choice(("approve", "approve", "approve", "deny"))
        told = await _told(killed.house, run, killed.house.signed(question, verdict, by))
        killed.hear()
        return told

    async def cancel() -> None:
        if n % 4 == 3:
            await asyncio.sleep(chance.uniform(0, HALF_S))
            await run.handle.cancel()

    said, _ = await asyncio.gather(asyncio.gather(*map(one, range(KILLED_ANSWERS))), cancel())
    return [a for a in said if a is not None]


async def _listed(house: House) -> bool:
    return bool((await house.approvals.page(None)).items)
