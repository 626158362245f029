"""The bytes that are hashed are canonical JSON, whichever way they were written."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tools.contract import canonical_json
from worker.store import chain

_KEYS = st.text(max_size=4)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.just("$float"), inner, max_size=4),
)  # fmt: skip


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return "$float" in value or any(map(_has_float, value.values()))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
    return any(map(_has_float, value)) if isinstance(value, list) else isinstance(value, float)  # pyright: ignore[reportUnknownArgumentType]


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
@example({"a": 2**64, "b": -(2**63) - 1, "c": "\x00\x1f\x7f\u2028\U0010ffff", "é": 1, "\U0001f6aa": 2, "\uffff": 3})
@example({"a": '\\"/\b\f\n\r\t'})
def test_a_body_is_canonical_json_and_reads_back(body: dict[str, Any]) -> None:
    stored = chain.body_bytes(body)
    assert chain.read_body(stored) == body
    if not _has_float(body):
        assert stored == canonical_json(body)
