"""Records the histories that `test_replay.py` replays: `python -m tests.workflows.record_histories [name ...]`.

Run it when workflow code changes its commands on purpose, and say so in the change: runs in flight then need a patch or
a new worker version. Every history comes from a run on real parts. Those recorded before a patch stay as they are: they
are the runs for which the patch keeps the old way.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from pydantic_ai.durable_exec.temporal import PydanticAIPlugin
from temporalio.client import Client, WorkflowFailureError

from policies.decision import Principal
from policies.redaction import Redactor
from policies.switches import Hold
from policies.terms import Group, Step, Terms
from tests.fixtures.provider import Provider, Status, answer, calls
from tests.fixtures.temporal import TemporalServer
from tests.workflows.conftest import settings_for
from tests.workflows.house import OLGA, RUTH, House, Started, automation, one_call, opened, put_grant, until, workers
from worker.codec import CompressingCodec
from worker.sandbox.container import Sandbox
from worker.sandbox.engine import Engine, installation_id
from worker.sandbox.images import ImageStore
from worker.settings import Settings
from worker.store.blobs import Blobs
from worker.store.switches import Switches
from worker.temporal import data_converter
from workflows.contracts import SIGNAL_FREEZE, SIGNAL_THAW, Phase

LEA = RUTH.model_copy(update={"id": "lea", "roles": ("lead",)})
BEA = Principal(id="bea", roles=("viewer",))
EVE, IVO = (Principal(id=name, roles=("break-glass",)) for name in ("eve", "ivo"))
FOLDER = Path(__file__).parent / "histories"


async def _plain(house: House) -> Started:
    house.provider.script("plain", calls(("note", {"text": "a"}), ("grant", {"text": "b"})), answer(said="done"))
    return await house.start(automation("practice:plain"))


async def _approved(house: House) -> Started:
    house.provider.script("approved", calls(("erase", {"text": "a"}), ("note", {"text": "b"})), answer(said="done"))
    run = await house.start(automation("practice:approved"))
    await house.say(run, await run.question(), "approve")
    return run


async def _edited(house: House) -> Started:
    house.provider.script("edited", calls(("erase", {"text": "a"})), answer(said="done"))
    run = await house.start(automation("practice:edited"))
    await house.say(run, await run.question(), "approve", edited_arguments={"text": "lead: b"})
    await house.say(run, await run.question(2), "deny", LEA, reason="no")
    return run


async def _expired(house: House) -> Started:
    house.provider.script("expired", calls(("erase", {"text": "a"})), answer(said="kept"))
    return await house.start(automation("practice:expired", approvals={"deadline_s": 1}))


async def _degraded(house: House) -> Started:
    house.provider.script("degraded", calls(("note", {"text": "a"})), Status(401))
    then = {"calls": [{"id": "again", "tool": "note", "args": {"text": "r"}}], "answer": {"said": "by rule"}}
    rules = [{"id": "by-hand", "when": "true", "then": then}]
    return await house.start(automation("mistral:none", "practice:degraded", rules=rules))


async def _handed_over(house: House) -> Started:
    run = await house.start(automation())
    await house.say(run, await run.question(), "approve", output={"said": "by hand"})
    return run


async def _cancelled(house: House) -> Started:
    house.provider.script("cancelled", calls(("note", {"text": "a", "seconds": 20}), ("erase", {"text": "b"})))
    run = await house.start(automation("practice:cancelled"))
    await run.question()
    await asyncio.sleep(1.5)
    await run.handle.cancel()
    return run


async def _frozen(house: House) -> Started:
    """Held with a question open and by two switches, one of them late; let go, then approved."""
    house.provider.script("frozen", calls(("erase", {"text": "a"}), ("note", {"text": "b"})), answer(said="done"))
    run = await house.start(automation("practice:frozen"))
    await run.question()
    for signal, switch_id, revision in (
        (SIGNAL_FREEZE, "sw_a", 1), (SIGNAL_FREEZE, "sw_b", 1), (SIGNAL_THAW, "sw_a", 2), (SIGNAL_FREEZE, "sw_a", 1),
    ):  # fmt: skip
        await run.handle.signal(signal, Hold(switch_id=switch_id, revision=revision, reason="recorded"))
        await asyncio.sleep(0.5)
    await run.handle.signal(SIGNAL_THAW, Hold(switch_id="sw_b", revision=2))
    await asyncio.sleep(1)
    await house.say(run, await run.question(), "approve")
    return run


async def _stopped(house: House) -> Started:
    """Refused by a switch at the gate, held soon after, let go, and gated again."""
    house.provider.script("stopped", calls(("note", {"text": "a"})), answer(said="done"))
    switches = Switches(house.db, house.audit)
    switch = await switches.set(
        "global", tenant="*", target="", state="stop", running="pause", reason="recorded", by="adam"
    )
    run = await house.start(automation("practice:stopped"))
    await until(lambda: house.records(run, "gate.decided"))
    await run.handle.signal(SIGNAL_FREEZE, Hold(switch_id=switch.id, revision=1))
    await asyncio.sleep(1)
    await switches.advance(switch, "released", by="adam", reason="over")
    await run.handle.signal(SIGNAL_THAW, Hold(switch_id=switch.id, revision=2))
    return run


async def _asked_of_many(house: House) -> Started:
    """Two must agree: asked back, replied, handed on, escalated, one voice, held and let go, the other voice."""
    chain = (Step(after_s=1800, to=Group(name="board", people=("bea",))),)
    house.gate.terms["many"] = Terms(needed=2, deadline_s=3600, escalation=chain)
    run = await house.start(automation(rules=one_call("many")))
    question = await run.question()
    await house.act(run, question, "ask", text="why?")
    await house.act(run, question, "reply", OLGA, text="it is full")
    await house.act(run, question, "delegate", to="ivo")
    await house.act(run, question, "escalate", OLGA, text="it burns")
    await house.say(run, question, "approve")
    await run.handle.signal(SIGNAL_FREEZE, Hold(switch_id="sw_a", revision=1, reason="recorded"))
    await until(lambda: _in(house, run, Phase.FROZEN))
    await run.handle.signal(SIGNAL_THAW, Hold(switch_id="sw_a", revision=2))
    await until(lambda: _in(house, run, Phase.AWAITING_APPROVAL))
    await house.say(run, await run.question(), "approve", BEA)
    return run


async def _edited_by_one(house: House) -> Started:
    """One of two edits the call and another agrees to that; glass is broken for the second call, the third denied."""
    house.gate.terms |= {"draft": Terms(needed=2), "final": Terms(needed=2)}
    [rule] = one_call("draft")
    more = [{"id": n, "tool": "erase", "args": {"text": "more"}, "optional": True} for n in ("second", "third")]
    rule["then"]["calls"] += more
    run = await house.start(automation(rules=[rule]))
    await house.say(run, await run.question(), "approve", edited_arguments={"text": "final"})
    await house.say(run, await run.question(2), "approve", RUTH.model_copy(update={"id": "ray"}))
    urgent = await run.question(3)
    for person in (EVE, IVO):
        await house.say(run, urgent, "approve", person, break_glass=True, reason="the shop is down")
    await house.say(run, await run.question(4), "deny", reason="enough")
    return run


async def _left_to_rules(house: House) -> Started:
    """A call that a grant lets run, then one nobody answers, a reminder notwithstanding: the rules go on."""
    house.gate.terms["left"] = Terms(deadline_s=3, reminders=(0.4,), on_expiry="fallback")
    await put_grant(house)
    turns = calls(("erase", {"text": "old"})), calls(("note", {"text": "left"}))
    house.provider.script("left", *turns)
    rules = [{"id": "quiet", "when": "true", "then": {"answer": {"said": "by rule"}}}]
    return await house.start(automation("practice:left", rules=rules))


async def _withdrawn(house: House) -> Started:
    """Cancelled when the first of two has agreed."""
    house.gate.terms["half"] = Terms(needed=2)
    run = await house.start(automation(rules=one_call("half")))
    await house.say(run, await run.question(), "approve")
    await run.handle.cancel()
    return run


async def _in(house: House, run: Started, phase: Phase) -> bool:
    """Whether the run's row says so: then the run has heard of a switch, and acknowledged it."""
    row = await house.runs.get(None, run.id)
    return row is not None and row.phase is phase


async def _continued(house: House) -> Started:
    house.provider.script("continued", *[calls(("note", {"text": str(n)})) for n in range(8)], answer(said="done"))
    return await house.start(automation("practice:continued"))


RUNS: dict[str, Callable[[House], Awaitable[Started]]] = {
    "plain": _plain,
    "approved": _approved,
    "edited": _edited,
    "expired": _expired,
    "degraded": _degraded,
    "handed-over": _handed_over,
    "cancelled": _cancelled,
    "frozen": _frozen,
    "stopped": _stopped,
    "asked-of-many": _asked_of_many,
    "edited-by-one": _edited_by_one,
    "left-to-rules": _left_to_rules,
    "withdrawn": _withdrawn,
}


async def _record(house: House, name: str, run: Started) -> None:
    try:
        await run.result()
    except WorkflowFailureError as ended:
        sys.stderr.write(f"{name}: ended {ended.cause!r}\n")
    parts = [w async for w in house.client.list_workflows(f"WorkflowId = '{run.id}'")]
    parts.sort(key=lambda part: part.start_time)
    for number, part in enumerate(parts, 1):
        handle = house.client.get_workflow_handle(part.id, run_id=part.run_id)
        suffix = f"-{number}" if len(parts) > 1 else ""
        history = json.loads((await handle.fetch_history()).to_json())
        (FOLDER / f"{name}{suffix}.json").write_text(json.dumps(_anonymous(history), indent=1) + "\n")


def _anonymous(value: Any) -> Any:
    """Without what names the machine it was recorded on; a replay reads none of it."""
    if isinstance(value, list):
        return [_anonymous(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {k: "recorder" if k == "identity" else _anonymous(v) for k, v in fields.items() if k != "stackTrace"}
    return value


@asynccontextmanager
async def plain(provider: Provider, sandbox: Sandbox, blobs: Blobs, settings: Settings) -> AsyncGenerator[House]:
    """As `opened`, and nothing is encrypted: the key would be gone tomorrow."""
    client = await Client.connect(
        settings.temporal_address,
        data_converter=data_converter(blobs, Redactor([]), CompressingCodec()),
        plugins=[PydanticAIPlugin()],
    )
    async with opened(provider, sandbox, blobs, settings, client=client) as house:
        yield house


async def main(*names: str) -> None:
    """Record all runs, or only these, on a fresh installation."""
    wanted = names or (*RUNS, "continued")
    FOLDER.mkdir(exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="gatehouse-histories-"))
    ImageStore(data, lambda _: None).ensure()
    provider, server = Provider(), TemporalServer()
    short = TemporalServer(dynamic=("limit.historyCount.suggestContinueAsNew=60",))
    await asyncio.gather(provider.start(), server.start(), short.start())
    # Payloads stay in the history: a file that needs a blob store could not be replayed anywhere else.
    blobs = Blobs(data / "blobs")
    async with Engine() as engine:
        sandbox = Sandbox(engine, data=data, owner=installation_id(data))
        async with plain(provider, sandbox, blobs, settings_for(server, provider, data)) as house, workers(house):
            for name, start in RUNS.items():
                if name in wanted:
                    await _record(house, name, await start(house))
        async with plain(provider, sandbox, blobs, settings_for(short, provider, data)) as house, workers(house):
            if "continued" in wanted:
                await _record(house, "continued", await _continued(house))
        await sandbox.close()
    server.stop()
    short.stop()
    await provider.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
    sys.stdout.flush()
    os._exit(0)  # the SDK's runtime may abort while the interpreter winds down
