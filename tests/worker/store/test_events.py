"""The catalogue and the code agree: what is documented is emitted, what is emitted is documented."""

import ast
from collections.abc import Iterator
from pathlib import Path

from worker.store.events import EVENT_TYPES

ROOT = Path(__file__).parents[3]
READING = {"page", "event_ids", "get"}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """The modules that make audit events."""
    for package in ("worker", "api", "policies"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name != "events.py" and "AuditEvent(" in (text := path.read_text()):
                yield path, ast.parse(text)


class Emitted(ast.NodeVisitor):
    """Every type that a module names, but not to read or compare it."""

    def __init__(self) -> None:
        self.types: set[str] = set()

    def visit_Compare(self, node: ast.Compare) -> None:
        """Compared, not emitted."""

    def visit_MatchValue(self, node: ast.MatchValue) -> None:
        """Compared, not emitted."""

    def visit_Call(self, node: ast.Call) -> None:
        if not (isinstance(node.func, ast.Attribute) and node.func.attr in READING):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if node.value in EVENT_TYPES:
            self.types.add(str(node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        first = node.values[0]
        if isinstance(first, ast.Constant) and str(first.value).endswith("."):
            self.types |= {type_ for type_ in EVENT_TYPES if type_.startswith(str(first.value))}


def test_every_documented_type_is_emitted() -> None:
    emitted = Emitted()
    for _, tree in modules():
        emitted.visit(tree)
    assert sorted(set(EVENT_TYPES) - emitted.types) == []


def test_every_emitted_type_is_documented() -> None:
    named: dict[str, Path] = {}
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "AuditEvent":
                given = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "type")]
                assert given, f"{path}: an event without a type"
                if isinstance(given[0], ast.Constant):
                    named[str(given[0].value)] = path
    assert named
    assert {type_: path for type_, path in named.items() if type_ not in EVENT_TYPES} == {}
