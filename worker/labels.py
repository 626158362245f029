"""Names of steps, by which people find their way in the Temporal UI: the only payloads that stay readable there.

A list of shapes, made of words and ids of ours: what a run works with fits none of them, and what fits none is
encrypted. Callers' texts (inputs, arguments, reasons) never stand in a label; an id that is a mail address hides its
label.
"""

import json
import re
from typing import Final

from temporalio.api.common.v1 import Payload

MAX_BYTES: Final = 400

_RUN: Final = r"[a-z]{1,8}_[a-z0-9]{1,40}"
_QUESTION: Final = _RUN + r"\.[0-9]{1,6}"
_TOOL: Final = r"[a-z][a-z0-9_]{0,63}"
_VERSION: Final = r"[A-Za-z0-9.+-]{1,32}"
_CALL: Final = r"[A-Za-z0-9_.-]{1,96}"
"""Given by a model's provider, or `<rule>-<call>`."""
_MODEL: Final = r"[A-Za-z0-9._:/-]{1,100}"
_WORD: Final = r"[a-z_]{1,24}"
_OUTCOME: Final = "(?:succeeded|failed|denied|expired|cancelled|unknown)"
SHAPES: Final = (
    "prepare the workspace", "keep artifacts, remove the workspace", "what do the rules say",
    r"a switch refused the call: will it hold us\?", f"open {_RUN}", f"close: {_WORD}", f"ask {_QUESTION}",
    f"{_QUESTION} {_WORD}", f"degrade to {_WORD}", f"(?:frozen|thawed) by {_RUN}", f"{_CALL} {_OUTCOME}",
    f"gate {_TOOL} {_CALL}", f"{_TOOL}@{_VERSION} {_CALL}", f"model request [0-9]{{1,6}}(?: failed)?: {_MODEL}",
    f"request model: {_MODEL}", f"(?:deadline|reminder) of {_QUESTION}: {_TOOL}",
    f"[a-z0-9][a-z0-9-]{{0,63}} {_VERSION} for [A-Za-z0-9._:-]{{1,64}}",
)  # fmt: skip
_LABEL: Final = re.compile("|".join(f"(?:{shape})" for shape in SHAPES))


def is_label(payload: Payload) -> bool:
    """Whether it is the name of a step and nothing else."""
    if payload.metadata.get("encoding") != b"json/plain" or len(payload.data) > MAX_BYTES:
        return False
    try:
        text = json.loads(payload.data)
    except ValueError:
        return False
    return isinstance(text, str) and _LABEL.fullmatch(text) is not None
