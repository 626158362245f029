"""Each row of docs/promises.md names tests, and every one of them exists."""

import ast
import re

from tests.architecture.test_sizes import ROOT

PAGE = ROOT / "docs" / "promises.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_promise_names_tests_that_exist() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| (?!promise)\w", line)]
    assert len(rows) > 30
    assert [row for row in rows if not NAMED.search(row)] == [], "a promise without a test"
    named = [pair for row in rows for pair in NAMED.findall(row)]
    assert len(named) == sum(row.count("::") for row in rows), "a name that cannot be read"
    tests = {
        (path, node.name)
        for path in {path for path, _ in named}
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert sorted(set(named) - tests) == []
