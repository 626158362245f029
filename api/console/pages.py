"""Drawing pages: one Jinja2 environment that escapes everything, and the words and formats the templates share."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from api.console import assets
from api.console.arguments import pairs
from api.console.session import Visitor
from tools.contract import JsonObject

THEMES = ("light", "dark")
THEME_COOKIE = "gatehouse-theme"
# Page, its address, and the right its visitors need.
NAVIGATION = (
    ("Queue", "/console/queue", ("approvals", "read")),
    ("Runs", "/console/runs", ("runs", "read")),
    ("Automations", "/console/automations", ("automations", "read")),
    ("Tools", "/console/tools", ("tools", "read")),
    ("Grants", "/console/standing", ("approvals", "read")),
    ("Policy", "/console/policy", ("policy", "read")),
    ("Audit", "/console/audit", ("audit", "read")),
    ("Switches", "/console/switches", ("switches", "read")),
    ("Deliveries", "/console/deliveries", ("deliveries", "read")),
    ("Keys", "/console/keys", ("keys", "read")),
)

_HASHES = ("digest", "sha256", "hash", "key")

_BOUNDS = {
    "enum": "one of {}", "const": "exactly {}", "pattern": "like {}", "format": "{}", "minimum": "at least {}",
    "maximum": "at most {}", "minLength": "{} characters or more", "maxLength": "{} at most",
    "minItems": "{} entries or more", "maxItems": "{} at most", "default": "{} if not given",
}  # fmt: skip

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)


def page(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """The page, with what every page shows: who is signed in, where one can go, the theme."""
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    theme = request.cookies.get(THEME_COOKIE)
    common: dict[str, Any] = {
        "visitor": visitor,
        "navigation": [
            (title, path, request.url.path.startswith(path))
            for title, path, right in NAVIGATION
            if visitor is not None and visitor.may(*right)
        ],
        "undelivered": getattr(request.state, "undelivered", 0),
        "theme": theme if theme in THEMES else None,
        "assets_missing": assets.missing(),
        "here": address(request),
        "now": datetime.now(UTC),
        "asset": assets.address,
        "oidc": getattr(request.app.state.services.oidc, "name", None),
    }
    return HTMLResponse(_environment.get_template(template).render({**common, **context}), status)


def address(request: Request) -> str:
    """Where the page can be had again: what a form was sent to cannot be asked for."""
    if request.method in ("GET", "HEAD"):
        return request.url.path + (f"?{request.url.query}" if request.url.query else "")
    parts = request.url.path.split("/")
    return "/".join(parts[: 4 if parts[2:3] == ["questions"] else 3])


def ago(moment: datetime, now: datetime) -> str:
    """`12 min ago`."""
    return f"{span((now - moment).total_seconds())} ago"


def span(seconds: float) -> str:
    """A length of time in its two largest units: `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    days, hours, minutes = left // 86400, left // 3600 % 24, left // 60 % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    return (f"{hours} h {minutes} min" if minutes else f"{hours} h") if hours else f"{minutes} min"


def size(number: int) -> str:
    """Bytes, readable."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{number} byte{'' if number == 1 else 's'}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return str(number)


def pretty(value: object) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def brief(value: object, most: int = 160) -> str:
    """JSON on one line, cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def gist(body: JsonObject, most: int = 160) -> str:
    """The first plain values of a record, by name, on one line; hashes and what is nested are left out."""
    shown = ((n, v) for n, v in body.items() if isinstance(v, str | int) and v != "" and not n.endswith(_HASHES))
    return brief(
        ", ".join(f"{n.replace('_', ' ')} {'yes' if v is True else 'no' if v is False else v}" for n, v in shown), most
    )


def bounds(schema: JsonObject) -> str:
    """What a JSON schema of one value demands, in a few words."""
    kinds = schema.get("type", "anything")
    said = [" or ".join(map(str, kinds)) if isinstance(kinds, list) else str(kinds)]
    if isinstance(inner := schema.get("items"), dict):
        said[0] = f"list of ({bounds(inner)})"
    said += [words.format(brief(schema[name])) for name, words in _BOUNDS.items() if name in schema]
    return ", ".join(said)


def money(microusd: int | None) -> str:
    """Millionths of a dollar."""
    return "unknown" if microusd is None else f"${microusd / 1e6:,.4f}" if microusd < 1e6 else f"${microusd / 1e6:,.2f}"


def stamp(moment: datetime) -> str:
    """A moment for people, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def query(**values: Any) -> str:
    """`?a=b`, without what is empty."""
    given = {k: v for k, v in values.items() if v not in (None, "", False)}
    return f"?{urlencode(given)}" if given else ""


def _path_part(text: object) -> str:
    return quote(str(text), safe="")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


# The library types these as what they hold at first.
_filters = cast("dict[str, Callable[..., object]]", _environment.filters)
_filters |= {
    "span": span, "size": size, "pretty": pretty, "brief": brief, "money": money, "stamp": stamp, "ago": ago,
    "path": _path_part, "iso": _iso, "pairs": pairs, "gist": gist, "bounds": bounds,
}  # fmt: skip
cast("dict[str, object]", _environment.globals)["query"] = query
