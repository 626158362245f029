"""Promises: a held run begins nothing and loses nothing; its questions' clocks stand still and no answer counts; what
a switch kills is run again only where that is harmless; safe mode lets reads through; a stopped model is not asked."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.testing import TimeSkipper

from policies.switches import Hold, Switch
from tests.fixtures.provider import answer, calls
from tests.workflows.house import House, Started, automation, one_call, until
from worker.keeper.stopping import Stopping
from worker.sandbox.stopping import Stopper
from worker.store.ids import new_id
from worker.store.stops import Stops
from worker.store.switches import Switches
from workflows import contracts
from workflows.contracts import ApprovalState, Phase, RunState


class Board:
    """What an administrator does, and the two watchers that see to it, driven by the test."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.switches = Switches(house.db, house.audit)
        self.stops = Stops(house.db)
        self.stopper = Stopper(house.sandbox.engine, house.sandbox.owner, self.stops)

        async def client() -> object:
            return house.client

        self.keeper = Stopping(self.switches, self.stops, house.audit, client)  # pyright: ignore[reportArgumentType]

    async def stop(self, name: str, running: str = "pause", state: str = "stop") -> Switch:
        return await self.switches.set(
            "automation", tenant="default", target=name, state=state, running=running, reason="a test", by="adam"  # pyright: ignore[reportArgumentType]
        )  # fmt: skip

    async def work(self) -> None:
        while True:
            await self.stopper.look()
            await self.keeper.look()
            await asyncio.sleep(0.1)

    async def confirmed(self, switch: Switch) -> bool:
        counts = await self.stops.counts(switch.id)
        return counts.requested > 0 and counts.confirmed == counts.requested

    async def release(self, switch: Switch, to: str = "released") -> Switch:
        return await self.switches.advance(switch, to, by="adam", reason="over")  # pyright: ignore[reportArgumentType]


@pytest.fixture
async def board(house: House) -> AsyncIterator[Board]:
    board = Board(house)
    task = asyncio.create_task(board.work())
    yield board
    task.cancel()
    for switch in await board.switches.in_force():
        await board.release(switch)
    await asyncio.gather(task, return_exceptions=True)


async def phase(run: Started, wanted: Phase) -> RunState | None:
    state = await run.state()
    return state if state.phase is wanted else None


async def test_a_held_question_stands_still_and_takes_no_answer(house: House, board: Board) -> None:
    skipper = TimeSkipper(house.client)
    house.provider.script("still", calls(("erase", {"text": "old"})), answer(said="gone"))
    run = await house.start(automation("practice:still", name="still"))
    question = await run.question()
    switch = await board.stop("still")
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert row.state is ApprovalState.FROZEN, "the API refuses answers before the run has heard anything"
    await until(lambda: board.confirmed(switch))
    assert (await run.state()).phase is Phase.FROZEN
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await house.say(run, question, "approve")
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "frozen"
    await skipper.fast_forward(run.handle, timedelta(days=20))
    assert (await run.state()).phase is Phase.FROZEN
    await board.release(switch)
    await until(lambda: phase(run, Phase.AWAITING_APPROVAL))
    [later] = (await run.state()).waiting
    assert later.deadline - question.deadline >= timedelta(days=20)
    row = await house.approvals.get(None, question.id)
    assert row is not None
    assert (row.state, row.request.deadline) == (ApprovalState.PENDING, later.deadline)
    await house.say(run, later, "approve")
    assert await house.effects(await run.result()) == ["old"]
    assert [r.type for r in await house.records(run) if r.type.startswith(("run.fro", "run.tha"))] == [
        "run.frozen", "run.thawed",
    ]  # fmt: skip


async def test_what_a_switch_kills_runs_again_where_that_is_harmless(house: House, board: Board) -> None:
    house.provider.script("again", calls(("note", {"text": "x", "seconds": 8})), answer(said="done"))
    run = await house.start(automation("practice:again", name="again"))
    await until(lambda: board.stops.claimed_boxes([run.id]))
    await until(lambda: _claimed(board, run))
    switch = await board.stop("again")
    await until(lambda: board.confirmed(switch))
    assert await board.stopper.boxes(await board.stops.of(switch.id)) == {}
    await board.release(switch)
    result = await run.result()
    assert result.phase is Phase.SUCCEEDED, result
    assert await house.outcomes(run) == {"c1-1": "succeeded"}


async def _claimed(board: Board, run: Started) -> list[str]:
    return (await board.stops.claimed_boxes([run.id]))[run.id]


async def test_what_may_not_be_repeated_is_asked_about_once_the_run_goes_on(house: House, board: Board) -> None:
    house.provider.script("asked-later", calls(("erase", {"text": "x", "seconds": 25})), answer(said="done"))
    run = await house.start(automation("practice:asked-later", name="asked-later"))
    await house.say(run, await run.question(), "approve")
    await until(lambda: _claimed(board, run))
    switch = await board.stop("asked-later")
    await until(lambda: board.confirmed(switch))
    assert (await run.state()).waiting == ()
    await board.release(switch)
    question = await run.question(2)
    assert question.question is contracts.Question.UNKNOWN_OUTCOME
    await house.say(run, question, "deny")
    await run.result()
    assert await house.outcomes(run) == {"c1-1": "unknown"}


async def test_cancelling_instead_of_pausing(house: House, board: Board) -> None:
    house.provider.script("ended", calls(("erase", {"text": "x"})), answer(said="done"))
    run = await house.start(automation("practice:ended", name="ended"))
    question = await run.question()
    switch = await board.stop("ended", running="cancel")
    await until(lambda: board.confirmed(switch))
    row = await house.runs.get(None, run.id)
    assert row is not None
    assert row.phase is Phase.CANCELLED
    closed = await house.approvals.get(None, question.id)
    assert closed is not None
    assert closed.state is ApprovalState.CANCELLED
    [asked] = await house.records(run, "run.cancel_requested")
    assert asked.body["switch_id"] == switch.id


async def test_released_to_safe_mode_a_run_goes_on_but_changes_nothing(house: House, board: Board) -> None:
    house.provider.script("safe", calls(("erase", {"text": "x"})), answer(said="told no"))
    run = await house.start(automation("practice:safe", name="safe"))
    await run.question()
    switch = await board.stop("safe")
    await until(lambda: board.confirmed(switch))
    await board.release(switch, "safe_mode")
    await until(lambda: phase(run, Phase.AWAITING_APPROVAL))
    await house.say(run, await run.question(), "approve")
    assert await house.effects(await run.result()) == []
    assert await house.outcomes(run) == {"c1-1": "denied"}
    assert "safe-mode" in house.provider.told("safe")[0]


async def test_a_call_at_the_gate_waits_for_the_hold_and_then_runs(house: House) -> None:
    """The gate knows of a switch before the run does: the call is not lost to the agent as a denial."""
    board = Board(house)  # its watchers do not run yet
    switch = await board.stop("early")
    house.provider.script("early", calls(("note", {"text": "x"})), answer(said="done"))
    run = await house.start(automation("practice:early", name="early"))
    await until(lambda: house.records(run, "gate.decided"))
    task = asyncio.create_task(board.work())
    try:
        await until(lambda: phase(run, Phase.FROZEN))
        await board.release(switch)
        result = await run.result()
    finally:
        task.cancel()
    assert await house.effects(result) == ["x"]
    rules = [r.body["decision"]["rule"] for r in await house.records(run, "gate.decided")]  # type: ignore[index]
    assert rules == ["kill-switch", "write-workspace"], "held, it does not ask again and again"


async def test_a_call_the_gate_let_through_before_the_switch_waits_for_the_hold_and_then_runs(
    house: House, board: Board
) -> None:
    """The sandbox worker knows of it before a program starts: nothing ran, so nothing is lost."""
    house.provider.script("between", calls(("note", {"text": "x"})), answer(said="done"))
    run_id = new_id("run")
    house.doors.shut(run_id, "tool.run")
    run = await house.start(automation("practice:between", name="between"), run_id=run_id)
    await until(lambda: house.doors.waiting(run_id, "tool.run"))
    switch = await board.stop("between")
    await until(lambda: phase(run, Phase.FROZEN))
    house.doors.open(run_id, "tool.run")

    async def turned_back() -> bool:
        events = (await run.handle.fetch_history()).events
        return EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED in [event.event_type for event in events]

    await until(turned_back)
    await board.release(switch)
    assert await house.effects(await run.result()) == ["x"]
    assert await house.outcomes(run) == {"c1-1": "succeeded"}
    assert len(await house.records(run, "gate.decided")) == 2, "gated again before it runs"


async def test_a_late_freeze_does_not_hold_a_run_that_was_let_go(house: House) -> None:
    house.provider.script("late-freeze", calls(("erase", {"text": "x"})), answer(said="done"))
    run = await house.start(automation("practice:late-freeze", name="late-freeze"))
    question = await run.question()
    await run.handle.signal(contracts.SIGNAL_THAW, Hold(switch_id="sw_1", revision=2))
    await run.handle.signal(contracts.SIGNAL_FREEZE, Hold(switch_id="sw_1", revision=1))
    assert (await run.state()).phase is Phase.AWAITING_APPROVAL
    await house.say(run, question, "deny")
    await run.result()


async def test_two_switches_hold_until_both_are_gone(house: House) -> None:
    house.provider.script("two", calls(("erase", {"text": "x"})), answer(said="done"))
    run = await house.start(automation("practice:two", name="two"))
    await run.question()
    for switch_id in ("sw_1", "sw_2"):
        await run.handle.signal(contracts.SIGNAL_FREEZE, Hold(switch_id=switch_id, revision=1))
    await run.handle.signal(contracts.SIGNAL_THAW, Hold(switch_id="sw_1", revision=2))
    assert (await run.state()).phase is Phase.FROZEN
    await run.handle.signal(contracts.SIGNAL_THAW, Hold(switch_id="sw_2", revision=2))
    await until(lambda: phase(run, Phase.AWAITING_APPROVAL))
    [later] = (await run.state()).waiting
    await house.say(run, later, "deny")
    await run.result()


async def test_a_held_run_can_be_cancelled(house: House) -> None:
    house.provider.script("held-cancel", calls(("erase", {"text": "x"})), answer(said="done"))
    run = await house.start(automation("practice:held-cancel", name="held-cancel"))
    await run.question()
    await run.handle.signal(contracts.SIGNAL_FREEZE, Hold(switch_id="sw_1", revision=1))
    await until(lambda: phase(run, Phase.FROZEN))
    await run.handle.cancel()

    async def ended() -> bool:
        row = await house.runs.get(None, run.id)
        return row is not None and row.phase is Phase.CANCELLED

    await until(ended)


async def test_a_stopped_tool_is_denied_and_the_run_goes_on(house: House) -> None:
    switches = Switches(house.db, house.audit)
    house.provider.script("no-tool", calls(("note", {"text": "x"})), answer(said="done"))
    switch = await switches.set(
        "tool", tenant="default", target="note", state="stop", running="pause", reason="broken", by="adam"
    )
    try:
        run = await house.start(automation("practice:no-tool", name="no-tool"))
        result = await run.result()
    finally:
        await switches.advance(switch, "released", by="adam", reason="over")
    assert result.phase is Phase.SUCCEEDED
    assert await house.outcomes(run) == {"c1-1": "denied"}
    assert "tool-switch" in house.provider.told("no-tool")[0]


async def test_without_anybody_who_holds_the_run_a_call_that_a_switch_refuses_is_told_so(house: House) -> None:
    """The gate reads switches itself: it refuses though the keeper is gone, and nothing waits for it for ever."""
    switches = Switches(house.db, house.audit)
    switch = await switches.set(
        "automation", tenant="default", target="unheld", state="stop", running="pause", reason="a test", by="adam"
    )
    try:
        run = await house.start(automation(name="unheld", rules=one_call("not held")))

        async def gated() -> bool:
            return bool(await house.records(run, "gate.decided"))

        await until(gated)
        await TimeSkipper(house.client).fast_forward(run.handle, timedelta(seconds=61))
        result = await run.result()
    finally:
        await switches.advance(switch, "released", by="adam", reason="over")
    assert result.output == {"said": "done"}
    assert list((await house.outcomes(run)).values()) == ["denied"]
    assert await house.effects(result) == []


async def test_a_stopped_model_is_not_asked_and_the_ladder_goes_on(house: House) -> None:
    switches = Switches(house.db, house.audit)
    house.provider.script("banned", answer(said="never"))
    house.provider.script("next", answer(said="by the next"))
    switch = await switches.set(
        "model", tenant="default", target="practice:banned", state="stop", running="pause", reason="it lies", by="adam"
    )
    try:
        run = await house.start(automation("practice:banned", "practice:next"))
        result = await run.result()
    finally:
        await switches.advance(switch, "released", by="adam", reason="over")
    assert result.output == {"said": "by the next"}
    assert switch.id in result.degraded[0]
    assert [r.body["model"] for r in await house.records(run, "model.requested")] == ["practice:next"]
