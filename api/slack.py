"""Buttons pressed in Slack: whether Slack says so, who pressed, what the button stands for; then an answer like any
other, through `api.answers`, and the message tells what became of it.

Nothing is believed but what Slack signed, and of that only who pressed and what was typed: which question and which
verb is what our own token says.
"""

import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

import structlog
from pydantic import BaseModel, ValidationError

from api.answers import ApproveIn, DenyIn, give_answer
from api.auth import UNKNOWN_TENANT
from api.console.refusals import said
from api.errors import Refused, store_unavailable
from api.services import Services
from policies.decision import Principal
from tools.contract import JsonObject
from worker.activities import questions
from worker.notify import tokens
from worker.notify.sending import NotDelivered
from worker.notify.slack import REASON, Buttons, blocks, plain
from worker.notify.tokens import Token
from worker.notify.webhook import post
from worker.sandbox.addresses import public_targets
from worker.store import tenants, times
from worker.store.approvals import ApprovalRow
from worker.store.audit import AuditEvent
from worker.store.database import StoreUnavailable
from worker.store.ids import new_id
from workflows.contracts import ApprovalState

WINDOW_S: Final = 300
"""A request signed longer ago, or so far ahead, does not count: Slack's own advice."""
RESPOND_S: Final = 5.0
_STAMP = re.compile(r"[0-9]{1,12}")
_CLOSED: Final = {
    ApprovalState.APPROVED: "was approved", ApprovalState.DENIED: "was denied",
    ApprovalState.EXPIRED: "got no answer in time", ApprovalState.CANCELLED: "is asked no more",
}  # fmt: skip

log = structlog.get_logger(__name__)


class Press(NamedTuple):
    """One press of a button of ours, as Slack tells it."""

    member: str
    team: str
    token: str
    reason: str
    respond_to: str
    channel: str


class Said(NamedTuple):
    """What the presser is told. `row`: the question as it stands now, which the message then shows."""

    text: str
    row: ApprovalRow | None = None


def signed_by_slack(secret: str, stamp: str | None, signature: str | None, body: bytes, now: datetime) -> bool:
    """Whether Slack signed exactly these bytes, within WINDOW_S."""
    if stamp is None or signature is None or not _STAMP.fullmatch(stamp):
        return False
    mac = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    whole = hmac.compare_digest(f"v0={mac}".encode(), signature.encode(errors="replace"))
    return whole and abs(now.timestamp() - int(stamp)) <= WINDOW_S


class _Named(BaseModel):
    id: str = ""


class _Action(BaseModel):
    value: str | None = None


class _Typed(BaseModel):
    value: str | None = None


class _State(BaseModel):
    values: dict[str, dict[str, _Typed]] = {}


class _Payload(BaseModel):
    """What Slack sends, as far as we look at it."""

    type: str
    user: _Named
    team: _Named | None = None
    channel: _Named | None = None
    actions: list[_Action] = []
    state: _State | None = None
    response_url: str = ""


def press_of(body: bytes) -> Press | None:
    """The press, or None for what is none of ours. Raises ValueError for what cannot be read."""
    found = parse_qs(body.decode(), strict_parsing=True, max_num_fields=10).get("payload", [])
    told = _Payload.model_validate_json(found[0] if len(found) == 1 else "")
    value = told.actions[0].value if told.actions else None
    if told.type != "block_actions" or not value:
        return None  # a button that is a link is told of as well, without a value
    typed = told.state.values.get(REASON, {}).get(REASON) if told.state else None
    return Press(
        told.user.id, told.team.id if told.team else "", value, (typed.value if typed else None) or "",
        told.response_url, told.channel.id if told.channel else "",
    )  # fmt: skip


async def answer_press(services: Services, press: Press) -> None:
    """Do what the button stands for and tell what became of it. Raises nothing: Slack has its answer already."""
    try:
        told = await _answer(services, press)
    except Refused as refused:
        told = _refusal(refused)
    except StoreUnavailable as error:
        told = _refusal(store_unavailable(error))
    except Exception:
        log.exception("slack.fault")
        told = Said("That did not work because of a fault of ours. Look at the question in the console.")
    try:
        await _respond(services, press, told)
    except NotDelivered as error:
        log.warning("slack.not_told", reason=error.problem)


async def _answer(services: Services, press: Press) -> Said:
    who = await _known(services, press)
    if who is None:
        return Said(
            "Gatehouse does not know you as somebody who may answer, so nothing was done. Answer in the console, or "
            "ask an administrator to add you to `people` in notify.yaml."
        )
    tenants.narrow_to(who.tenant)
    token = tokens.read(press.token)
    row = await services.approvals.get(who.tenant, token.approval_id) if token is not None else None
    if token is None or token.verb == "open" or row is None:
        return Said("This button belongs to no question of yours. Nothing was done.")
    flaw = services.tokens.flaw(token, row.request.digest, datetime.now(UTC))
    if flaw == "forged":
        log.warning("slack.forged_token", member=press.member, approval=token.approval_id)
        return Said("This button is not one of ours, or not of the question as it stands now. Nothing was done.")
    if flaw == "old":
        return Said("This button is too old to be used. Nothing was done; answer in the console.", _if_over(row))
    return await _give(services, press, who, token, row)


async def _give(services: Services, press: Press, who: Principal, token: Token, row: ApprovalRow) -> Said:
    """Spend the token, answer; where the answer counts for nothing, the button may be pressed again."""
    verb: Literal["approve", "deny"] = "approve" if token.verb == "approve" else "deny"
    digest, reason = row.request.digest, press.reason.strip()
    try:
        body: ApproveIn | DenyIn = (
            ApproveIn(digest=digest, reason=reason) if verb == "approve" else DenyIn(digest=digest, reason=reason)
        )
    except ValidationError:
        return Said("A denial needs a reason of at most 2000 characters: the agent reads it. Nothing was done yet.")
    if not services.engine.may(who, "approvals", "answer"):
        await _record_denied(services, who.tenant, who.id, "role", press)
        return Said(f"Your roles ({', '.join(who.roles) or 'none'}) do not let you answer. Nothing was done.")
    told: JsonObject = {"way": "slack", "verb": verb, "member": press.member, "team": press.team}
    if not await services.spent.spend(
        token.id, tenant=who.tenant, approval_id=row.request.id, by=who.id, told=told
    ):  # fmt: skip
        by = await services.spent.used_by(token.id)
        return Said(f"This button was used already{f' by {by}' if by else ''}. Nothing more was done.")
    try:
        after = await give_answer(services, who, row.request.id, verb, body)
    except Refused as refused:
        await services.spent.give_back(token.id)
        now = await services.approvals.get(who.tenant, row.request.id) or row
        return _refusal(refused, _if_over(now))
    return Said("", after)


async def _known(services: Services, press: Press) -> Principal | None:
    """Whom the Slack member is here, by configuration; an unknown one is put on record, capped."""
    found = services.notify.now
    person = found.by_slack(press.member) if found.slack.team in (None, press.team) else None
    if person is not None:
        return person.known_as
    await _record_denied(services, UNKNOWN_TENANT, "unknown", "slack_unknown", press)
    return None


async def _record_denied(services: Services, tenant: str, actor: str, reason: str, press: Press) -> None:
    suppressed = services.bad_keys.take()
    if suppressed is None:
        return
    body: JsonObject = {
        "reason": reason, "member": press.member[:50], "team": press.team[:50], "path": "/api/v1/slack/actions",
        "suppressed": suppressed,
    }  # fmt: skip
    await services.audit.append(AuditEvent(f"access/{new_id('deny')}", "access.denied", tenant, None, actor, body))


def _refusal(refused: Refused, row: ApprovalRow | None = None) -> Said:
    words = said(refused)
    return Said(f"{words.title}: {words.text}", row)


def _if_over(row: ApprovalRow) -> ApprovalRow | None:
    """A message about what is over should not go on asking."""
    return row if row.state in _CLOSED else None


async def _respond(services: Services, press: Press, told: Said) -> None:
    """Update the message and speak to whoever pressed, where the configured host of Slack takes it; nowhere else."""
    found = services.notify.now
    at = urlsplit(press.respond_to)
    if f"{at.scheme}://{at.netloc}" != found.slack.responses.rstrip("/"):
        raise NotDelivered("the address for the response is not at the configured host of Slack", final=True)
    resolve = public_targets(networks=found.networks)
    if told.row is not None:
        message = {"replace_original": True, **_message(services, told.row, press)}
        await post(press.respond_to, json.dumps(message).encode(), {}, resolve, RESPOND_S)
    if told.text:
        message = {"response_type": "ephemeral", "replace_original": False, "text": plain(told.text)}
        await post(press.respond_to, json.dumps(message).encode(), {}, resolve, RESPOND_S)


def _message(services: Services, row: ApprovalRow, press: Press) -> JsonObject:
    """The question as it stands: what became of it, or who has approved so far, with buttons for the next one."""
    notice = questions.notice(row.request, "approval.requested", services.redacts.json)
    console = services.notify.now.console
    if row.state not in _CLOSED:
        so_far = ", ".join(answer.principal.id for answer in row.progress.answers)
        note = f"approved so far: {so_far}" if so_far else ""
        fresh = notice.model_copy(update={"created_at": times.now()})
        return blocks(fresh, console, Buttons(services.tokens, press.channel, once=False), note=note)
    became = _CLOSED[row.state] + (f" by {row.answer.principal.id}" if row.answer else "")
    message = blocks(notice.model_copy(update={"type": "approval.closed"}), console, note=became)
    told = plain(f"{notice.body.get('tool') or row.request.question.value} of {row.request.automation} {became}")
    head: JsonObject = {"type": "section", "text": {"type": "mrkdwn", "text": f"*{told}*"}}
    return {"text": told, "blocks": [head, *cast("list[JsonObject]", message["blocks"])[1:]]}
