"""What people may and may not do to a run, on every route there is: nobody approves for themselves, a no is a no."""

from typing import Any

from tests.e2e import promise
from tests.e2e.system import System
from tests.e2e.test_faults import triage

Json = dict[str, Any]


async def outcome_of(system: System, run_id: str, tool: str) -> str:
    """The recorded outcome of the run's only call of a tool."""
    records = await promise.check(system, run_id)
    [outcome] = [r["body"] for r in records if r["type"] == "call.outcome" and r["body"]["tool"] == tool]
    return str(outcome["outcome"])


async def test_denied_means_it_never_ran_and_the_agent_is_told(system: System) -> None:
    run_id = await triage(system, "people-deny")
    question = await system.pending(run_id)
    assert (await system.answer(question, "deny", reason="keep them for the auditors")).status_code == 200
    run = await system.finished(run_id)
    assert run["phase"] == "succeeded", (run, system.tails())
    assert run["result"]["output"].get("deleted", []) == []
    assert await outcome_of(system, run_id, "delete_files") == "denied"


async def test_an_edit_is_what_runs(system: System) -> None:
    run_id = await triage(system, "people-edit")
    question = await system.pending(run_id)
    keep = question["call"]["arguments"]["paths"][:1]
    refused = await system.answer(question, "approve", edited_arguments={"paths": []})
    assert refused.status_code == 422, refused.text
    assert (await system.answer(question, "approve", edited_arguments={"paths": keep})).status_code == 200
    run = await system.finished(run_id)
    assert run["result"]["output"]["deleted"] == keep
    assert await outcome_of(system, run_id, "delete_files") == "succeeded"


async def test_nobody_approves_their_own_run(system: System) -> None:
    files = [
        await system.upload("app.log.1", b"ERROR x\n", "both"),
        await system.upload("app.log", b"ERROR y\n", "both"),
    ]
    run_id = await system.start_run("log-triage", "people-self", "both", files=files)
    question = await system.pending(run_id)
    own = await system.answer(question, "approve", "both")
    assert (own.status_code, own.json()["kind"]) == (403, "self_approval")
    for person in ("olga", "vera"):
        assert (await system.answer(question, "approve", person)).status_code == 403
    stale = await system.answer({**question, "digest": "0" * 64}, "approve")
    assert (stale.status_code, stale.json()["kind"]) == (409, "args_changed")
    assert (await system.answer(question, "approve")).status_code == 200
    again = await system.answer(question, "deny")
    assert again.status_code == 409, again.text
    assert (await system.finished(run_id))["phase"] == "succeeded"
    assert await outcome_of(system, run_id, "delete_files") == "succeeded"
