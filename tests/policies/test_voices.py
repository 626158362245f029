"""Who may say what to a question, and when enough was said: quorum, groups, stand-ins, emergencies, actions, keys."""

import base64
from datetime import timedelta
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from policies.approval import action_refusal, outcome, refusal
from policies.decision import Principal
from policies.signatures import ACTION, SUCCESSION, Succession, id_of, signing_bytes, trusted
from policies.terms import Group, Step, Terms
from tests.policies.test_approval import ANSWER, KEY, KEYS, NOW, REQUEST, signed, who
from workflows.contracts import ApprovalAction, ApprovalAnswer, ApprovalProgress, Delegated, Escalated

BOARD = Group(name="board", roles=("lead",), people=("bea",))
GROUP = REQUEST.model_copy(update={"terms": Terms(groups=(BOARD,), needed=2)})
TWO = REQUEST.model_copy(update={"terms": Terms(needed=2)})
CHAIN = REQUEST.model_copy(update={"terms": Terms(escalation=(Step(after_s=9, to=BOARD),))})
NONE = ApprovalProgress()


def said(*answers: ApprovalAnswer, **more: Any) -> ApprovalProgress:
    return ApprovalProgress(answers=answers, **more)


def emergency(**changes: Any) -> ApprovalAnswer:
    fields: dict[str, Any] = {"principal": who("eve", "break-glass"), "break_glass": True, "reason": "fire", **changes}
    return signed(**fields)


def robot(*roles: str) -> Principal:
    return Principal(id="bot", roles=roles, kind="service")


DELEGATED = said(delegated=(Delegated(by="ruth", to="bea", at=NOW),))
RAISED = said(escalated=(Escalated(to=BOARD, at=NOW),))


@pytest.mark.parametrize(
    ("why", "request_", "answer", "progress"),
    [
        (None, TWO, signed(), said(signed(principal=who("ruth")))),
        ("already_answered", TWO, signed(), said(signed())),
        ("already_answered", TWO, signed(principal=who("PAUL ")), said(signed())),
        ("already_answered", TWO, signed(), said(signed(principal=who("bea", "x"), on_behalf_of=who("paul")))),
        ("already_answered", TWO, signed(principal=who("bea", "x"), on_behalf_of=who("paul")), said(signed())),
        ("already_answered", TWO, signed(principal=who("bea", "x")), said(
            signed(principal=who("ruth")), delegated=(Delegated(by="ruth", to="bea", at=NOW),))),
        ("already_answered", TWO, signed(principal=who("bea", "x"), on_behalf_of=who("ray")), said(
            signed(principal=who("bea", "x"), on_behalf_of=who("ruth")))),
        ("not_an_approver", GROUP, signed(), NONE),
        ("not_an_approver", GROUP, signed(principal=who("ada", "admin")), NONE),
        (None, GROUP, signed(principal=who("x", "lead")), NONE),
        (None, GROUP, signed(principal=who("Bea", "viewer")), NONE),
        ("not_an_approver", GROUP, signed(principal=who("bea", "viewer", tenant="acme")), NONE),
        ("not_an_approver", REQUEST, signed(principal=robot("approver")), NONE),
        (None, REQUEST.model_copy(update={"terms": Terms(services=True)}), signed(principal=robot("approver")), NONE),
        ("not_an_approver", REQUEST, signed(principal=robot("x"), on_behalf_of=who("ruth")), NONE),
        (None, REQUEST, signed(principal=who("bea", "x"), on_behalf_of=who("ruth")), NONE),
        ("not_an_approver", REQUEST, signed(principal=who("bea", "x"), on_behalf_of=who("ruth", "x")), NONE),
        ("not_an_approver", REQUEST, signed(principal=who("bea", "x"), on_behalf_of=who("ruth", tenant="acme")), NONE),
        ("self_approval", REQUEST, signed(principal=who("bea", "x"), on_behalf_of=who("olga")), NONE),
        ("self_approval", REQUEST, signed(principal=who("olga"), on_behalf_of=who("ruth")), NONE),
        (None, REQUEST, signed(principal=who("bea", "x")), DELEGATED),
        ("not_an_approver", REQUEST, signed(principal=who("cleo", "x")), DELEGATED),
        (None, REQUEST, signed(principal=who("bea", "x")), RAISED),
        (None, REQUEST, signed(), RAISED),
        (None, GROUP, emergency(), NONE),
        ("not_an_approver", GROUP, emergency(principal=who("ada", "admin")), NONE),
        ("not_an_approver", GROUP, emergency(principal=robot("break-glass")), NONE),
        ("self_approval", GROUP, emergency(principal=who("olga", "break-glass")), NONE),
        ("invalid_arguments", GROUP, emergency(reason=" "), NONE),
        ("invalid_arguments", GROUP, emergency(verdict="deny"), NONE),
        ("already_answered", GROUP, emergency(), said(emergency())),
        ("args_changed", REQUEST.model_copy(update={"tool_version": "2"}), signed(tool_version="1"), NONE),
        ("policy_changed", REQUEST, signed(policy_version="another"), NONE),
    ],
)  # fmt: skip
def test_whose_answer_counts(
    why: str | None, request_: Any, answer: ApprovalAnswer, progress: ApprovalProgress
) -> None:
    assert refusal(request_, answer, KEYS, NOW, "pending", progress) == why


@pytest.mark.parametrize("void", ["args_changed", "policy_changed"])
def test_a_question_put_anew_says_why(void: Literal["args_changed", "policy_changed"]) -> None:
    assert refusal(REQUEST, signed(), KEYS, NOW, "cancelled", said(void=void)) == void


def test_when_enough_was_said() -> None:
    yes, other = signed(), signed(principal=who("ruth"))
    assert outcome(REQUEST, [yes]) == "approved"
    assert outcome(TWO, [yes]) is None
    assert outcome(TWO, [yes, other]) == "approved"
    assert outcome(TWO, [yes, signed(verdict="deny")]) == "denied"
    assert outcome(GROUP, [emergency()]) is None
    assert outcome(REQUEST, [emergency()]) is None  # one emergency is not one ordinary yes
    assert outcome(TWO, [yes, emergency()]) is None
    assert outcome(GROUP, [emergency(), emergency(principal=who("ivo", "break-glass"))]) == "approved"


def act(kind: str, **changes: Any) -> ApprovalAction:
    action = ApprovalAction.model_validate(
        {
            "approval_id": "run_1.1", "run_id": "run_1", "kind": kind, "digest": ANSWER.digest, "principal": who(),
            "acted_at": NOW, "expires_at": NOW + timedelta(minutes=5), "key_id": "k1", **changes,
        }
    )  # fmt: skip
    signature = base64.b64encode(KEY.sign(signing_bytes(action, ACTION))).decode()
    return action.model_copy(update={"signature": signature})


@pytest.mark.parametrize(
    ("why", "request_", "action", "progress"),
    [
        (None, REQUEST, act("ask"), NONE),
        ("not_an_approver", REQUEST, act("ask", principal=who("v", "viewer")), NONE),
        ("self_approval", REQUEST, act("ask", principal=who("olga")), NONE),
        (None, TWO, act("ask"), said(signed())),
        (None, REQUEST, act("reply", principal=who("olga", "operator")), NONE),
        ("not_an_approver", REQUEST, act("reply"), NONE),
        ("not_an_approver", REQUEST, act("reply", principal=who("olga", tenant="acme")), NONE),
        (None, REQUEST, act("delegate", to="bea"), NONE),
        ("invalid_arguments", REQUEST, act("delegate"), NONE),
        ("invalid_arguments", REQUEST, act("delegate", to="Paul"), NONE),
        ("self_approval", REQUEST, act("delegate", to="OLGA"), NONE),
        ("self_approval", REQUEST, act("delegate", to="bea", principal=who("olga")), NONE),
        ("not_an_approver", REQUEST, act("delegate", to="cleo", principal=who("bea", "x")), DELEGATED),
        (None, CHAIN, act("escalate"), NONE),
        (None, CHAIN, act("escalate", principal=who("olga", "operator")), NONE),
        ("not_an_approver", CHAIN, act("escalate", principal=who("v", "viewer")), NONE),
        ("invalid_arguments", CHAIN, act("escalate"), RAISED),
        ("invalid_arguments", REQUEST, act("escalate"), NONE),
        ("not_found", REQUEST, act("ask", approval_id="run_1.2"), NONE),
        ("expired", REQUEST, act("ask", expires_at=NOW), NONE),
        ("args_changed", REQUEST, act("ask", digest="0" * 64), NONE),
        ("bad_signature", REQUEST, act("ask").model_copy(update={"text": "added"}), NONE),
        ("bad_signature", REQUEST, act("ask", key_id="k9"), NONE),
    ],
)
def test_whose_action_counts(
    why: str | None, request_: Any, action: ApprovalAction, progress: ApprovalProgress
) -> None:
    assert action_refusal(request_, action, KEYS, NOW, "pending", progress) == why


def test_a_frozen_or_closed_question_takes_no_action() -> None:
    for state, why in (("frozen", "frozen"), ("approved", "already_decided"), ("expired", "expired")):
        assert action_refusal(REQUEST, act("ask"), KEYS, NOW, state, NONE) == why


def test_an_answer_is_no_action_and_the_other_way_round() -> None:
    bytes_of_an_answer = signing_bytes(act("ask"), b"gatehouse/approval-answer/v1\n")
    forged = act("ask").model_copy(update={"signature": base64.b64encode(KEY.sign(bytes_of_an_answer)).decode()})
    assert action_refusal(REQUEST, forged, KEYS, NOW, "pending", NONE) == "bad_signature"


# ---------------------------------------------------------------- keys


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def link(by: Ed25519PrivateKey, key_id: str, to: Ed25519PrivateKey) -> Succession:
    unsigned = Succession(public_key=public(to), key_id=key_id)
    signature = base64.b64encode(by.sign(signing_bytes(unsigned, SUCCESSION))).decode()
    return unsigned.model_copy(update={"signature": signature})


def test_trust_follows_a_chain_and_only_that() -> None:
    one, two, stranger = (Ed25519PrivateKey.generate() for _ in range(3))
    first, second = link(KEY, "k1", one), link(one, id_of(public(one)), two)
    assert set(trusted(KEYS, (second, first))) == {"k1", id_of(public(one)), id_of(public(two))}
    assert set(trusted(KEYS, (second,))) == {"k1"}
    assert set(trusted(KEYS, (link(stranger, "k1", stranger),))) == {"k1"}
    assert set(trusted(KEYS, (first.model_copy(update={"public_key": public(stranger)}),))) == {"k1"}
    answer_as_link = first.model_copy(update={"signature": signed().signature})
    assert set(trusted(KEYS, (answer_as_link,))) == {"k1"}
