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
            return f"{_what(notice)} was escalated to {body.get('approvers')}"
        case "approval.closed":
            return f"{_what(notice)} is {body.get('state')}"
        case "run.closed":
            return f"run of {body.get('automation')} has {body.get('phase')}"
        case _:
            return f"switch on {_scope(notice)} is {body.get('state')}"


def lines(notice: Notice, console: str | None) -> list[str]:
    """Some lines more, with a link where the console's address is known."""
    shown = ("automation", "requester", "tool", "effect", "rule", "reason", "deadline", "failure", "by", "set_by")
    found = [f"{name}: {notice.body[name]}" for name in shown if notice.body.get(name)]
    if notice.run_id:
        found.append(f"run: {notice.run_id}")
    if (address := link(notice, console)) is not None:
        found.append(address)
    return found


def link(notice: Notice, console: str | None) -> str | None:
    """Where a person looks and, after a log-in, answers. Opening it never answers anything."""
    if console is None:
        return None
    base, approval = console.rstrip("/"), notice.body.get("approval_id")
    if isinstance(approval, str):
        return f"{base}/console/approvals/{quote(approval, safe='')}"
    if notice.run_id:
        return f"{base}/console/runs/{quote(notice.run_id, safe='')}"
    return f"{base}/console/switches"


def _what(notice: Notice) -> str:
    tool = notice.body.get("tool")
    return f"{tool} of {notice.body.get('automation')}" if tool else f"{notice.body.get('automation')}"


def _scope(notice: Notice) -> str:
    target = notice.body.get("target") or notice.tenant
    return "everything" if notice.body.get("scope") == "global" else f"{notice.body.get('scope')} {target}"
