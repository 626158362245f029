"""A run as it is asked for, and the payloads its workflow sends to the recording ports."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from policies.decision import GateRequest, Principal
from tools.contract import Effect, JsonObject, Outcome, ToolCall, ToolResult, arguments_digest, canonical_json
from worker.store import times
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
)

ALICE = Principal(id="alice", roles=("operator",))
BOB = Principal(id="bob", roles=("approver",))
KEYS = {"k1": "cHVibGlj"}
FILES = (FileRef(name="app.log", sha256="0" * 64, size=7),)
INPUTS: JsonObject = {"pattern": "ERROR"}
DIGEST = "d" * 64


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
        asked = self.question(number)
        return ApprovalAnswer(
            approval_id=asked.id, run_id=self.id, verdict="approve", digest=asked.digest, edited_arguments=edited,
            principal=BOB, reason="fine", answered_at=times.now(), expires_at=times.now() + timedelta(minutes=5),
            key_id="k1", signature="c2ln",
        )  # fmt: skip
