"""Why an answer had no effect, as one says it to a colleague: what happened, and what to do now."""

from api.errors import Refused
from tools.contract import Wire


class Said(Wire):
    """A refusal in plain words."""

    kind: str
    title: str
    text: str
    tone: str = "warn"


_WORDS: dict[str, tuple[str, str]] = {
    "already_decided": (
        "Somebody was quicker",
        "This question has been answered; the first answer stands. Yours was not used.",
    ),
    "expired": (
        "Too late",
        "The deadline has passed, which counts as a denial. Nothing ran. Start the run again if it is still needed.",
    ),
    "cancelled": ("No longer asked", "The run was cancelled or has ended, so there is nothing left to answer."),
    "args_changed": (
        "The call has changed",
        "What would run now is not what you saw. Your answer was not used: read the new arguments below first.",
    ),
    "policy_changed": (
        "The policy has changed",
        "Another policy is in force since this was asked, so it is asked anew. Your answer was not used.",
    ),
    "frozen": (
        "Frozen",
        "A switch has stopped work, and with it the clock of this question. It can be answered once that is released.",
    ),
    "self_approval": ("Not your own", "You asked for this run, so somebody else has to answer."),
    "already_answered": (
        "You have answered already",
        "You, or the person you stand in for. Somebody else has to give the next answer.",
    ),
    "not_an_approver": ("Not yours to answer", "This question asks for a role you do not have."),
    "not_found": ("Not there", "The run does not know this question."),
    "bad_signature": (
        "The run does not know our key",
        "It was started with other answer keys. An operator has to restore them.",
    ),
    "invalid_arguments": ("The edit does not fit", "Correct what is named below. Nothing was answered yet."),
    "no_worker": (
        "Nobody took the answer",
        "No worker took it in time. If one comes back within minutes it may still count: look before you answer again.",
    ),
    "temporal_unreachable": (
        "The run cannot be reached",
        "Temporal does not answer. Nothing was answered; try again in a moment.",
    ),
    "store_unavailable": ("The database does not answer", "Try again in a moment."),
}


_OF_ACTIONS: dict[tuple[str, str], tuple[str, str]] = {
    ("delegate", "self_approval"): ("Not to the requester", "Whoever asked for the run never answers. Name another."),
    ("delegate", "invalid_arguments"): (
        "Name another",
        "You can answer yourself already; hand it on to somebody else.",
    ),
    ("escalate", "invalid_arguments"): ("As far as it goes", "The rule names no further group that could be asked."),
}
"""Where a refusal means something else than it does for an answer."""


def said(refused: Refused, action: str = "") -> Said:
    """The refusal in words for people; the API's own words where there are none of ours. `action`: what was tried,
    when it was no answer."""
    words = _WORDS.get(refused.kind, ("That did not work", refused.detail))
    title, text = _OF_ACTIONS.get((action, refused.kind), words)
    if refused.kind == "not_an_approver":
        text = f"{text} {refused.detail[:1].upper()}{refused.detail[1:]}."
    return Said(kind=refused.kind, title=title, text=text)
