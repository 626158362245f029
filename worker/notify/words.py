"""Notices in words, for people: what happened, about what, until when. Names and states, never arguments."""

from urllib.parse import quote

from worker.store.outbox import Notice


def subject(notice: Notice) -> str:
    """One line."""
    body = notice.body
    match notice.type:
        case "approval.requested":
            return f"{_what(notice)} needs an answer by {body.get('approvers')}"
        case "approval.reminder":
            return f"{_what(notice)} still needs an answer by {body.get('approvers')}"
        case "approval.escalated":
            return f"{_what(notice)} was escalated to {_escalated(notice)}"
        case "approval.asked_back":
            return f"{body.get('by')} asks {body.get('to')} about {_what(notice)}"
        case "approval.replied":
            return f"{body.get('by')} replied about {_what(notice)}"
        case "approval.delegated":
            return f"{body.get('by')} handed {_what(notice)} on to {body.get('to')}"
        case "approval.closed":
            return f"{_what(notice)} is {body.get('state')}"
        case "run.closed":
            return f"run of {body.get('automation')} has {body.get('phase')}"
        case _:
            return f"switch on {_scope(notice)} is {body.get('state')}"


def lines(notice: Notice, address: str | None) -> list[str]:
    """Some lines more, with the link where there is one."""
    shown = ("automation", "requester", "tool", "effect", "rule", "reason", "deadline", "failure", "by", "set_by")
    found = [f"{name}: {notice.body[name]}" for name in shown if notice.body.get(name)]
    if notice.run_id:
        found.append(f"run: {notice.run_id}")
    if address is not None:
        found.append(address)
    return found


def link(notice: Notice, console: str | None, token: str | None = None) -> str | None:
    """Where a person looks and, after a log-in, answers. Opening it never answers anything. `token`: by way of it."""
    if console is None:
        return None
    base, approval = console.rstrip("/"), notice.body.get("approval_id")
    if isinstance(approval, str) and token is not None:
        return f"{base}/console/links/{quote(token, safe='~')}"
    if isinstance(approval, str):
        return f"{base}/console/questions/{quote(approval, safe='')}"
    if notice.run_id:
        return f"{base}/console/runs/{quote(notice.run_id, safe='')}"
    return f"{base}/console/switches"


def _escalated(notice: Notice) -> str:
    """The step taken now: the last one."""
    to = notice.body.get("escalated_to")
    return str(to[-1]) if isinstance(to, list) and to else str(notice.body.get("approvers"))


def _what(notice: Notice) -> str:
    tool = notice.body.get("tool")
    return f"{tool} of {notice.body.get('automation')}" if tool else f"{notice.body.get('automation')}"


def _scope(notice: Notice) -> str:
    target = notice.body.get("target") or notice.tenant
    return "everything" if notice.body.get("scope") == "global" else f"{notice.body.get('scope')} {target}"
