"""What the sandbox worker runs: what the gate allowed or a human approved, by the record, and nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from policies.decision import Verdict
from tests.worker.activities.payloads import asked, decided, yes
from tools.contract import Effect, JsonObject, ToolCall, ToolSpec, arguments_digest
from worker.activities.permission import Permission
from worker.store.approvals import Approvals
from worker.store.audit import AuditLog
from worker.store.database import StoreUnavailable
from worker.store.ids import new_id
from workflows.contracts import ApprovalRequest, ApprovalState, RunRef, ToolRun

Ask = Callable[..., Awaitable[ToolRun]]


def order(arguments: JsonObject | None = None, **changes: Any) -> ToolRun:
    arguments = arguments or {"path": "a"}
    spec = ToolSpec(
        name="probe", version="1", description="d", parameters={"type": "object"}, effect=Effect.WRITE,
        program_sha256="0" * 64,
    )  # fmt: skip
    run_id = new_id("run")
    made = ToolRun(
        run=RunRef(run_id=run_id, tenant="t", automation="a"), key=f"{run_id}/c1", tool=spec, rule="r",
        call=ToolCall(id="c1", tool="probe", arguments=arguments), digest=arguments_digest("probe", arguments),
    )  # fmt: skip
    return made.model_copy(update=changes)


async def problem(audit: AuditLog, run: ToolRun) -> str | None:
    """Why it may not run."""
    try:
        await Permission(audit).refuse_unpermitted(run)
    except ApplicationError as error:
        return error.message if (error.type, error.non_retryable) == ("refused", True) else repr(error)
    return None


@pytest.fixture
def ask(audit: AuditLog) -> Ask:
    """The order with the gate's ask on record, and a question about it that ended so."""
    approvals = Approvals(audit.db)

    async def made(
        run: ToolRun, state: ApprovalState | None = ApprovalState.APPROVED, *, about: ToolRun | None = None,
        verdict: Verdict = Verdict.ASK, edited: JsonObject | None = None, **changes: Any,
    ) -> ToolRun:  # fmt: skip
        await audit.append(decided(run, verdict))
        question: ApprovalRequest = asked(about or run, **changes)
        await approvals.open(question)
        if state is not None:
            await approvals.close(question.id, state, yes(question, edited))
        return run.model_copy(update={"approval_id": question.id})

    return made


async def test_what_the_gate_allowed_runs_once(audit: AuditLog) -> None:
    run = order()
    await audit.append(decided(run))
    assert await problem(audit, run) is None
    again = run.model_copy(update={"generation": 2})
    assert await problem(audit, again) == "no human approved this call", "a repeat takes a human's order"


async def test_without_a_decision_on_this_very_call_nothing_runs(audit: AuditLog) -> None:
    run, other = order(), order({"path": "b"})
    nothing, another = "the gate decided nothing about this call", "the gate decided about another call"
    assert await problem(audit, run) == nothing
    await audit.append(decided(run, digest=other.digest))
    assert await problem(audit, run) == another
    assert await problem(audit, run.model_copy(update={"gate_pass": 1})) == nothing
    run = order()
    await audit.append(decided(run, tool="other"))
    assert await problem(audit, run) == another
    run = order()
    await audit.append(decided(run))
    theirs = run.model_copy(update={"run": run.run.model_copy(update={"tenant": "other"})})
    assert await problem(audit, theirs) == nothing
    assert await problem(audit, run.model_copy(update={"digest": other.digest})) == (
        "the arguments are not the ones the gate allowed"
    )
    swapped = run.model_copy(update={"tool": run.tool.model_copy(update={"name": "other"})})
    assert await problem(audit, swapped) == "the call is for probe, the tool is other"


async def test_what_the_gate_denied_runs_by_nobodys_yes(audit: AuditLog, ask: Ask) -> None:
    run = await ask(order(), verdict=Verdict.DENY)
    assert await problem(audit, run) == "the gate denied this call: r"


async def test_where_the_gate_asks_a_human_has_to_have_approved(audit: AuditLog, ask: Ask) -> None:
    assert await problem(audit, await ask(order())) is None
    no = "no human approved this call"
    for state in (None, *(set(ApprovalState) - {ApprovalState.APPROVED, ApprovalState.PENDING, ApprovalState.FROZEN})):
        assert await problem(audit, await ask(order(), state)) == no, state
    run = await ask(order())
    assert await problem(audit, run.model_copy(update={"approval_id": None})) == no
    assert await problem(audit, run.model_copy(update={"approval_id": "absent"})) == no


async def test_a_yes_to_something_else_is_none(audit: AuditLog, ask: Ask) -> None:
    no = "no human approved this call"
    assert await problem(audit, await ask(order(), about=order())) == no, "another run's"
    assert await problem(audit, await ask(order(), call=ToolCall(id="c2", tool="probe", arguments={"path": "a"}))) == no
    assert await problem(audit, await ask(order(), call=ToolCall(id="c1", tool="probe", arguments={"path": "b"}))) == no
    assert await problem(audit, await ask(order(), call=None)) == no
    assert await problem(audit, await ask(order(), tenant="other")) == no
    assert await problem(audit, await ask(order(), edited={"path": "b"})) == no, "edited to something else"
    edited = order({"path": "b"})
    before = ToolCall(id="c1", tool="probe", arguments={"path": "a"})
    assert await problem(audit, await ask(edited, call=before, edited={"path": "b"})) is None


async def test_a_repeat_runs_by_a_humans_order(audit: AuditLog, ask: Ask) -> None:
    run = await ask(order(generation=2), verdict=Verdict.ALLOW)
    assert await problem(audit, run) is None


async def test_without_the_store_nobody_can_say(audit: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: object, **__: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(audit, "get", gone)
    with pytest.raises(StoreUnavailable):
        await Permission(audit).refuse_unpermitted(order())
