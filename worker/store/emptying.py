"""What is left of a record whose body was removed, and what vouches for it. Pure.

The body becomes `null`; the leaf hash stays, so that chain, checkpoints and proofs go on. What is left can no longer be
recomputed to that leaf, so a later `retention.pruned` record holds a digest of it, in a body that the checkpoint key
signed: whoever owns the database alone can neither remove a body unseen nor change what was left of one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from tools.contract import JsonObject, canonical_json
from worker.store.note import Keys, NoteError, Signer, open_note, sign

EMPTY: Final = b"null"
"""What stands in the place of a removed body. No event has it: bodies are objects."""
TYPE: Final = "retention.pruned"
_EMPTIED = re.compile(rb'\{"actor":"(?:[^"\\]|\\.)*","body":null,"event_id":')


class NotCovered(ValueError):  # noqa: N818  (says what is the case)
    """A `retention.pruned` record that vouches for nothing."""


def emptied(envelope: bytes) -> bool:
    """Whether the record has no body any more."""
    return _EMPTIED.match(envelope) is not None


def remains(envelope: bytes) -> bytes:
    """Digest of what is left of an emptied record."""
    return hashlib.sha256(b"\x02" + envelope).digest()


def covering(facts: JsonObject, held: Mapping[int, bytes], signer: Signer) -> JsonObject:
    """Body of the record that covers these: number -> digest of what is left. `facts` say why they went."""
    body: JsonObject = {**facts, "seqs": list(held), "remains": [digest.hex() for digest in held.values()]}
    return {**body, "note": sign(_statement(body), signer)}


def covered(envelope: bytes, keys: Keys) -> dict[int, bytes]:
    """What a `retention.pruned` record covers. Without keys its signature is left to those who have one.

    Raises NotCovered.
    """
    try:
        body = cast("dict[str, Any]", json.loads(envelope)["body"])
        note = body.pop("note")
        if keys and open_note(note, keys).text != _statement(body):
            raise NotCovered("what it says is not what was signed")
        pairs = zip(body["seqs"], body["remains"], strict=True)
        return {int(seq): bytes.fromhex(digest) for seq, digest in pairs}
    except NoteError as error:
        raise NotCovered(str(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotCovered(f"it cannot be read: {error}") from error


def _statement(body: JsonObject) -> str:
    return f"gatehouse/retention\n{hashlib.sha256(canonical_json(body)).hexdigest()}\n"
