"""A run as it is asked for, and the payloads its workflow sends to the recording ports."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from policies.decision import Decision, GateRequest, Principal, Verdict
from tools.contract import (
    Effect,
    JsonObject,
    JsonValue,
    Outcome,
    ToolCall,
    ToolResult,
    arguments_digest,
    canonical_json,
)  # fmt: skip
from worker.store import times
from worker.store.audit import AuditEvent
from worker.store.events import gate_id
from worker.store.ids import new_id
from worker.store.runs import Run
from workflows.contracts import (
    ApprovalAnswer,
    ApprovalRequest,
    CallOpened,
    CallRefused,
    FileRef,
    Question,
    RunOpened,
    RunRef,
    ToolRun,
)

ALICE = Principal(id="alice", roles=("operator",))
BOB = Principal(id="bob", roles=("approver",))
KEYS = {"k1": "cHVibGlj"}
FILES = (FileRef(name="app.log", sha256="0" * 64, size=7),)
INPUTS: JsonObject = {"pattern": "ERROR"}
DIGEST = "d" * 64


def decided(order: ToolRun, verdict: Verdict = Verdict.ALLOW, **changes: JsonValue) -> AuditEvent:
    """The gate's decision on the call of the order, as `call.open` records it."""
    decision = Decision(verdict=verdict, rule=order.rule, policy_version="1").model_dump(mode="json")
    body: JsonObject = {
        "call_id": order.call.id, "tool": order.tool.name, "digest": order.digest, "gate_pass": order.gate_pass,
        "decision": decision, "request": {}, **changes,
    }  # fmt: skip
    event_id = gate_id(order.run.run_id, order.call.id, order.gate_pass)
    return AuditEvent(event_id, "gate.decided", order.run.tenant, order.run.run_id, "system:gate", body)


def asked(order: ToolRun, number: int = 1, **changes: Any) -> ApprovalRequest:
    """A question about the call of the order."""
    values: dict[str, Any] = {
        "id": f"{order.run.run_id}.{number}", "run_id": order.run.run_id, "question": Question.CALL,
        "tenant": order.run.tenant, "automation": order.run.automation, "requester": ALICE.id, "call": order.call,
        "tool_version": order.tool.version, "effect": order.tool.effect.value, "digest": order.digest,
        "rule": order.rule, "approvers": "approver", "requested_at": times.now(),
        "deadline": times.now() + timedelta(hours=1), **changes,
    }  # fmt: skip
    return ApprovalRequest(**values)


def yes(question: ApprovalRequest, edited: JsonObject | None = None) -> ApprovalAnswer:
    """Bob's answer."""
    return ApprovalAnswer(
        approval_id=question.id, run_id=question.run_id, verdict="approve", digest=question.digest, principal=BOB,
        edited_arguments=edited, reason="fine", answered_at=times.now(),
        expires_at=times.now() + timedelta(minutes=5), key_id="k1", signature="c2ln",
    )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run and what may be said of it."""

    ref: RunRef

    @classmethod
    def new(cls) -> "Job":
        return cls(RunRef(run_id=new_id("run"), tenant="default", automation="log-triage"))

    @property
    def id(self) -> str:
        return self.ref.run_id

    def asked(self) -> Run:
        now = times.now()
        return Run(
            id=self.id, tenant="default", automation="log-triage", automation_version="1", digest=DIGEST,
            requester="alice", principal=ALICE, inputs=INPUTS, files=FILES, created_at=now, updated_at=now,
        )  # fmt: skip

    def opened(self) -> RunOpened:
        inputs = hashlib.sha256(canonical_json(INPUTS)).hexdigest()
        return RunOpened(
            run=self.ref, principal=ALICE, automation_version="1", automation_digest=DIGEST, inputs_digest=inputs,
            files=FILES, answer_keys=KEYS,
        )  # fmt: skip

    def call(
        self, call_id: str = "c1", *, tool: str = "read_file", effect: Effect = Effect.READ, gate_pass: int = 0,
        arguments: JsonObject | None = None,
    ) -> CallOpened:  # fmt: skip
        arguments = {"path": "in/app.log"} if arguments is None else arguments
        request = GateRequest(
            principal=ALICE, automation="log-triage", tool=tool, effect=effect, arguments=arguments
        )  # fmt: skip
        return CallOpened(
            run=self.ref, call=ToolCall(id=call_id, tool=tool, arguments=arguments),
            digest=arguments_digest(tool, arguments), request=request, asked_by="model", gate_pass=gate_pass,
        )  # fmt: skip

    def refused(self, call_id: str = "c1", words: str = "Denied.", outcome: Outcome = Outcome.DENIED) -> CallRefused:
        result = ToolResult(outcome=outcome, content=words, error="policy")
        return CallRefused(run=self.ref, key=f"{self.id}/{call_id}", call_id=call_id, tool="read_file", result=result)

    def question(self, number: int = 1, kind: Question = Question.CALL) -> ApprovalRequest:
        opened = self.call(f"c{number}", tool="delete_files", arguments={"paths": [f"{number}.log"]})
        return ApprovalRequest(
            id=f"{self.id}.{number}", run_id=self.id, question=kind, tenant="default", automation="log-triage",
            requester="alice", call=opened.call, tool_version="1", effect="destructive", digest=opened.digest,
            rule="destructive-needs-approval", reason="It removes something.", approvers="approver",
            requested_at=times.now(), deadline=times.now() + timedelta(hours=1),
        )  # fmt: skip

    def answer(self, number: int = 1, edited: JsonObject | None = None) -> ApprovalAnswer:
        return yes(self.question(number), edited)
