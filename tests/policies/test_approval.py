"""An answer counts only if it is signed, for this question, in time, on these arguments, by another approver."""

import base64
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.approval import Refusal, refusal, signing_bytes, verify_signature
from policies.decision import Principal
from tools.contract import ToolCall, arguments_digest
from workflows.contracts import AnswerRefused, ApprovalAnswer, ApprovalRequest, ApprovalState, Question

KEY = Ed25519PrivateKey.generate()
KEYS = {"k1": base64.b64encode(KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()}
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
CALL = ToolCall(id="c1", tool="delete_files", arguments={"paths": ["in/app.log.1"]})
DIGEST = arguments_digest(CALL.tool, CALL.arguments)
REQUEST = ApprovalRequest(
    id="run_1.1", run_id="run_1", question=Question.CALL, tenant="default", automation="log-triage", requester="olga",
    call=CALL, digest=DIGEST, approvers="approver", requested_at=NOW, deadline=NOW + timedelta(hours=1),
)  # fmt: skip
ANSWER = ApprovalAnswer(
    approval_id="run_1.1", run_id="run_1", verdict="approve", digest=DIGEST,
    principal=Principal(id="paul", roles=("approver",)), answered_at=NOW,
    expires_at=NOW + timedelta(minutes=5), key_id="k1",
)  # fmt: skip


def signed(**changes: object) -> ApprovalAnswer:
    answer = ANSWER.model_copy(update=changes)
    return answer.model_copy(update={"signature": base64.b64encode(KEY.sign(signing_bytes(answer))).decode()})


def who(id: str = "paul", *roles: str, tenant: str = "default") -> Principal:  # noqa: A002
    return Principal(id=id, roles=roles or ("approver",), tenant=tenant)


def test_an_honest_answer_counts() -> None:
    assert refusal(REQUEST, signed(), KEYS, NOW) is None
    assert refusal(REQUEST, signed(verdict="deny", reason="no"), KEYS, NOW) is None


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("not_found", {"approval_id": "run_1.2"}),
        ("not_found", {"run_id": "run_2"}),
        ("expired", {"expires_at": NOW}),
        ("expired", {"expires_at": NOW - timedelta(days=1)}),
        ("expired", {"expires_at": (NOW + timedelta(minutes=5)).replace(tzinfo=None)}),
        ("args_changed", {"digest": arguments_digest("delete_files", {"paths": ["in/app.log"]})}),
        ("args_changed", {"digest": ""}),
        ("self_approval", {"principal": who("olga")}),
        ("self_approval", {"principal": who("OLGA ")}),
        ("self_approval", {"principal": who("ｏlga")}),
        ("self_approval", {"principal": who("olga", "admin"), "verdict": "deny"}),
        ("not_an_approver", {"principal": who("paul", "operator")}),
        ("not_an_approver", {"principal": who("paul", "approvers")}),
        ("not_an_approver", {"principal": who(tenant="acme")}),
        ("not_an_approver", {"principal": who("olga", tenant="acme")}),
    ],
)
def test_each_refusal(why: Refusal, changes: dict[str, object]) -> None:
    assert refusal(REQUEST, signed(**changes), KEYS, NOW) == why


def test_after_the_deadline_of_the_question_nothing_counts() -> None:
    late = signed(expires_at=NOW + timedelta(hours=9), verdict="deny")
    assert refusal(REQUEST, late, KEYS, NOW + timedelta(hours=1)) == "expired"


@pytest.mark.parametrize("state", list(ApprovalState))
def test_only_a_pending_question_takes_an_answer(state: ApprovalState) -> None:
    expected = {"pending": None, "approved": "already_decided", "denied": "already_decided"}.get(
        state.value, state.value
    )
    assert refusal(REQUEST, signed(), KEYS, NOW, state.value) == expected


def test_order_of_reasons() -> None:
    wrong_in_every_way = {
        "approval_id": "x", "expires_at": NOW, "digest": "x", "principal": who("olga", "viewer"),
    }  # fmt: skip
    mended = signed(**wrong_in_every_way).model_copy(update={"signature": ""})
    assert refusal(REQUEST, mended, KEYS, NOW, "approved") == "bad_signature"
    seen = [refusal(REQUEST, signed(**wrong_in_every_way), KEYS, NOW, "approved")]
    for field in ("approval_id", "expires_at", "digest", "principal"):
        del wrong_in_every_way[field]
        seen.append(
            refusal(
                REQUEST, signed(**wrong_in_every_way), KEYS, NOW, "approved" if field == "approval_id" else "pending"
            )
        )
    assert seen == ["not_found", "already_decided", "args_changed", "self_approval", None]


def test_admin_is_an_approver_but_not_every_role() -> None:
    answer = signed(principal=who("ada", "admin"))
    assert refusal(REQUEST, answer, KEYS, NOW) is None
    finance = REQUEST.model_copy(update={"approvers": "finance-lead"})
    assert refusal(finance, answer, KEYS, NOW) == "not_an_approver"
    assert refusal(finance, signed(principal=who("finn", "finance-lead")), KEYS, NOW) is None
    nobody = REQUEST.model_copy(update={"approvers": ""})
    assert refusal(nobody, signed(principal=who("x", "", "admin")), KEYS, NOW) == "not_an_approver"


@pytest.mark.parametrize("field", [f for f in ApprovalAnswer.model_fields if f != "signature"])
def test_the_signature_covers_every_field(field: str) -> None:
    others: dict[str, object] = {
        "verdict": "deny", "edited_arguments": {"paths": 1}, "output": {"x": 1}, "principal": who("eve"),
        "key_id": "k2", "on_behalf_of": who("eve"), "break_glass": True, "succession": (),
        "answered_at": NOW + timedelta(seconds=1), "expires_at": NOW + timedelta(days=9),
    }  # fmt: skip
    other = others.get(field, "changed")
    assert not verify_signature(signed().model_copy(update={field: other}), KEYS | {"k2": KEYS["k1"]})


@pytest.mark.parametrize("signature", ["", "x", "AAAA", "é", base64.b64encode(b"0" * 64).decode(), " " * 88])
def test_no_signature_is_one(signature: str) -> None:
    assert not verify_signature(signed().model_copy(update={"signature": signature}), KEYS)


@pytest.mark.parametrize(
    "key", ["", "x", "é", base64.b64encode(b"0" * 31).decode(), base64.b64encode(b"\0" * 32).decode()]
)
def test_no_broken_key_verifies(key: str) -> None:
    assert not verify_signature(signed(), {"k1": key})
    assert not verify_signature(signed(), {})


def test_a_signature_made_for_something_else_is_none() -> None:
    bare = signing_bytes(ANSWER).split(b"\n", 1)[1]
    forged = ANSWER.model_copy(update={"signature": base64.b64encode(KEY.sign(bare)).decode()})
    assert not verify_signature(forged, KEYS)


def test_an_answer_that_cannot_be_serialised_is_not_signed() -> None:
    for arguments in ({"x": float("nan")}, {"x": "\ud800"}):
        assert not verify_signature(signed().model_copy(update={"edited_arguments": arguments}), KEYS)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(arguments=st.dictionaries(st.text(max_size=5), JSON, max_size=4), reason=st.text(max_size=50))
def test_a_signature_survives_the_wire(arguments: dict[str, object], reason: str) -> None:
    answer = signed(edited_arguments=arguments, reason=reason)
    assert verify_signature(ApprovalAnswer.model_validate_json(answer.model_dump_json()), KEYS)


def test_reasons_are_the_contracts() -> None:
    assert set(get_args(Refusal)) <= set(AnswerRefused)
