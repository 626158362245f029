"""What somebody typed into a form when their session had ended: shown again after signing in, to be sent or not.

It travels in the pages alone, from the refusal by the sign-in form to the page that shows it: nothing of it is stored,
put into an address or a cookie. Other sites can send nothing of the kind (`guard`), and nothing is done before a person
who is signed in presses the button again.
"""

from fastapi import Request
from pydantic import ValidationError

from api.console.session import safe_next
from tools.contract import Wire

PATH = "/console/resume"
MOST = 2_000_000
"""Characters."""

_LABELS = {
    "reason": "Reason", "text": "What you wrote", "to": "Who", "arguments": "Arguments, as JSON",
    "output": "Result, as JSON", "like": "Arguments of like calls, as JSON", "target": "Its name",
    "principal": "Stands for", "name": "Name", "person": "Who",
}  # fmt: skip
"""What people type. The rest of a form is chosen or given, and goes along unseen."""
_ACTIONS = {
    "ask": "Ask", "reply": "Reply", "delegate": "Hand it on", "release": "Release", "explain": "Explain",
    "approve": "Approve", "deny": "Deny", "review": "Compare before approving", "back": "Go on editing",
}  # fmt: skip
_LONG = 60


class Field(Wire):
    """One input of the form."""

    name: str
    value: str

    @property
    def label(self) -> str:
        """Empty: not to be seen."""
        return _LABELS.get(self.name, "")

    @property
    def long(self) -> bool:
        """Whether it needs several lines."""
        return self.name in ("reason", "text", "arguments", "output", "like") or len(self.value) > _LONG


class Kept(Wire):
    """A form as it was sent, and where to."""

    path: str
    fields: tuple[Field, ...]

    @property
    def typed(self) -> bool:
        """Whether anybody would miss it."""
        return any(field.label and field.value.strip() for field in self.fields)

    @property
    def action(self) -> str:
        """What its button says."""
        chosen = {field.name: field.value for field in self.fields}
        said = chosen.get("step") or chosen.get("verdict") or self.path.rsplit("/", 1)[1]
        return _ACTIONS.get(said, "Send it now")


async def sent(request: Request) -> Kept | None:
    """What a request brought that nobody was signed in for; None when nobody would miss it."""
    form = await request.form()
    given = form.get("kept")
    if request.url.path == PATH:
        return read(given if isinstance(given, str) else "")
    fields = tuple(Field(name=n, value=v) for n, v in form.multi_items() if isinstance(v, str))
    kept = Kept(path=request.url.path, fields=fields)
    return kept if kept.typed else None


def read(text: str) -> Kept | None:
    """As a page brought it back. None for what leads anywhere but to a form of the console."""
    try:
        kept = Kept.model_validate_json(text)
    except ValidationError:
        return None
    ours = safe_next(kept.path) == kept.path and "?" not in kept.path and ".." not in kept.path
    return kept if ours and kept.typed and not kept.path.startswith((PATH, "/console/sign-")) else None
