"""`call.open`: the intent of a tool call, durable before the gate is asked, and the gate's decision, recorded once.

Two commits, not one: when the process dies while deciding, the intent must be there. What was decided first stands: a
repeat of the activity gets the recorded decision, also when the policy has changed since.
"""

from collections.abc import Callable
from typing import Protocol

from temporalio import activity

from policies.decision import Decision, GateRequest, Verdict
from policies.redaction import redact_json
from policies.switches import refused_call
from tools.contract import JsonObject, arguments_digest
from worker.activities.recording import BAD_RECORD, SYSTEM_GATE, Redact, arguments_fields, recorded, refuse
from worker.store.audit import AuditEvent, AuditLog
from worker.store.events import gate_id, intent_id
from worker.store.standing import Standing
from worker.store.switches import Switches
from workflows.contracts import CallOpened

GATE_FAULT = "gate-fault"
"""Rule id of the denial recorded when the gate itself broke."""


class Gate(Protocol):
    """What decides: `policies.engine.PolicyEngine`."""

    @property
    def version(self) -> str:
        """Digest of the policy in force."""
        ...

    def decide(self, request: GateRequest) -> Decision:
        """The verdict on one call."""
        ...


class GateActivities:
    """The port `call.open`."""

    def __init__(
        self, gate: Gate, audit: AuditLog, *, redact: Redact = redact_json, standing: Standing | None = None
    ) -> None:
        """`standing`: the grants that may turn an ask into an allow; without it none does."""
        self._gate = gate
        self._standing = standing
        self._audit = audit
        self._redact = redact
        self._switches = Switches(audit.db, audit)

    def all(self) -> list[Callable[..., object]]:
        """Every activity, for the worker's registration."""
        return [self.open_call]

    @activity.defn(name="call.open")
    async def open_call(self, opened: CallOpened) -> Decision:
        """Record the intent (pass 0), ask the gate, record its decision; the recorded decision is the answer.

        Raises ApplicationError: `store_unavailable` (retried), `run_closed`, and `bad_record` when the question is not
        about the call, the call id was used for another call, or there is no intent.
        """
        _check_question(opened)
        with recorded():
            await self._intend(opened)
            decision = await self._switched(opened.request) or self._decide(opened.request)
            decision = await self._granted(opened, decision)
            [record] = await self._audit.append(self._decided(opened, decision))
            _check_same(record.body, opened)
            return Decision.model_validate(record.body["decision"])

    async def _intend(self, opened: CallOpened) -> None:
        """Make sure that the intent is on record, durably, before anything is decided."""
        run_id, call = opened.run.run_id, opened.call
        if opened.gate_pass > 0:
            if await self._audit.get(intent_id(run_id, call.id)) is None:
                refuse(BAD_RECORD, f"call {call.id} has no intent on record")
            return
        body: JsonObject = {
            **arguments_fields(self._redact, call, opened.digest),
            "effect": opened.request.effect.value,
            "automation": opened.run.automation,
            "asked_by": opened.asked_by,
        }
        [record] = await self._audit.append(
            AuditEvent(
                intent_id(run_id, call.id), "call.intent", opened.run.tenant, run_id, opened.request.principal.id, body
            )
        )
        _check_same(record.body, opened)

    async def _granted(self, opened: CallOpened, decision: Decision) -> Decision:
        """An ask that a standing grant answers is an allow. A call with a gate decision already gets that one."""
        if self._standing is None or decision.verdict is not Verdict.ASK:
            return decision
        if await self._audit.get(gate_id(opened.run.run_id, opened.call.id, opened.gate_pass)) is not None:
            return decision  # a repeat of this very pass: the recorded decision counts
        run_id, request = opened.run.run_id, opened.request
        grant = await self._standing.use(run_id, opened.call.id, opened.digest, decision, request)
        if grant is None:
            return decision
        reason = f"Asked by rule {decision.rule}; allowed by the standing grant of {grant.created_by}."
        return decision.model_copy(
            update={"verdict": Verdict.ALLOW, "reason": reason, "terms": None, "grant": grant.id}
        )

    async def _switched(self, request: GateRequest) -> Decision | None:
        """The denial of a switch in force, which no policy overrules. Read each time: a switch counts at once."""
        refusal = refused_call(
            await self._switches.in_force(), request.principal.tenant, request.automation, request.tool, request.effect
        )
        return None if refusal is None else refusal.decision(self._gate.version)

    def _decide(self, request: GateRequest) -> Decision:
        try:
            return self._gate.decide(request)
        except Exception as fault:  # noqa: BLE001  (whatever broke, the answer is no, on record)
            reason = f"the gate failed: {type(fault).__name__}"
            return Decision(verdict=Verdict.DENY, rule=GATE_FAULT, reason=reason, policy_version=self._gate.version)

    def _decided(self, opened: CallOpened, decision: Decision) -> AuditEvent:
        body: JsonObject = {
            "call_id": opened.call.id,
            "tool": opened.call.tool,
            "digest": opened.digest,
            "gate_pass": opened.gate_pass,
            "decision": decision.model_dump(mode="json"),
            "request": self._asked(opened),
        }
        event_id = gate_id(opened.run.run_id, opened.call.id, opened.gate_pass)
        return AuditEvent(event_id, "gate.decided", opened.run.tenant, opened.run.run_id, SYSTEM_GATE, body)

    def _asked(self, opened: CallOpened) -> JsonObject:
        """What the gate was asked, as far as it may be kept: enough to ask another policy the same later.

        `exact` is false when the arguments were cut or had secrets taken out: then a condition on them cannot be asked
        again.
        """
        request = opened.request
        kept = arguments_fields(self._redact, opened.call, opened.digest)
        return {
            "principal": request.principal.model_dump(mode="json"),
            "automation": request.automation,
            "effect": request.effect.value,
            "arguments": kept.get("arguments"),
            "exact": kept.get("arguments") == request.arguments,
            "facts": None if request.facts is None else request.facts.model_dump(mode="json"),
        }


def _check_question(opened: CallOpened) -> None:
    """The gate must be asked about exactly the call that is on its way; anything else would let another one through."""
    request, call = opened.request, opened.call
    same = (
        opened.digest == arguments_digest(call.tool, call.arguments)
        and (request.tool, request.arguments) == (call.tool, call.arguments)
        and (request.principal.tenant, request.automation) == (opened.run.tenant, opened.run.automation)
    )
    if not same:
        refuse(BAD_RECORD, f"the question to the gate is not about call {call.id} as it stands")


def _check_same(body: JsonObject, opened: CallOpened) -> None:
    """A record found under the id must be of this very call: a decision on other arguments decides nothing here."""
    if body.get("digest") != opened.digest:
        refuse(BAD_RECORD, f"call {opened.call.id} is on record with other arguments")
