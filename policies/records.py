"""Results as records: which values a tool gave together, and under what name. Pure.

A record is a JSON object. Its boundaries are the tool's own, so text inside a field cannot forge one.
"""

import json
import re
from collections.abc import Sequence

from pydantic import JsonValue

from policies.words import plain

MAX_RECORDS = 2000

_ID_KEY = re.compile(
    r"(?:^|[_\W])(?:id|ids|uid|uuid|guid|no|nr|num|number|key|code|ref|reference|handle|slug|sku|iban|account)_?$"
)
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Where a name like `eventId` has its words apart."""

Record = list[tuple[str, JsonValue]]
"""Field name and value, every scalar of one object (lists of scalars one by one)."""


def scalar(value: JsonValue) -> str:
    """A scalar in plain form; empty for what is none."""
    if isinstance(value, str):
        return plain(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def is_id_field(key: str) -> bool:
    """Whether a field's name says that it holds an id: `id`, `file_id`, `orderNo`, `iban`."""
    return bool(_ID_KEY.search(CAMEL.sub("_", key).lower()))


def parsed(content: str) -> JsonValue:
    """The content as JSON objects or lists; None for anything else."""
    if content[:1].strip() and content.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value: JsonValue = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def top(value: JsonValue) -> Sequence[JsonValue]:
    """The records a result consists of: a list, the one list inside an object, or the object itself."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        return lists[0] if len(lists) == 1 else [value]
    return []


def records_of(value: JsonValue) -> list[Record]:
    """Every object of a JSON value; the fields of an object inside an object belong to both."""
    found: list[Record] = []
    stack: list[JsonValue] = [value]
    while stack and len(found) < MAX_RECORDS:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            found.append(_fields(item))
            stack.extend(reversed(list(item.values())))
    return found


def _fields(item: dict[str, JsonValue]) -> Record:
    fields: Record = []
    for key, inner in item.items():
        if isinstance(inner, list):
            fields += [(key, one) for one in inner if not isinstance(one, dict | list)]
        elif isinstance(inner, dict):
            fields += [(key + "." + k, v) for k, v in inner.items() if not isinstance(v, dict | list)]
        else:
            fields.append((key, inner))
    return fields
