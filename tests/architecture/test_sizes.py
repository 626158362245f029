"""Files stay under 400 lines and functions under 80, so that each can be read in one go; and names say something."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES, MOST_FUNCTION_LINES = 400, 80
SAY_NOTHING = re.compile(r"(Manager|Helper|Utils?|Base)$")


def committed(*patterns: str) -> list[Path]:
    """Files git knows (or would take), existing now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in sorted(set(done.stdout.splitlines())) if (ROOT / name).is_file()]


def test_files_are_short() -> None:
    long = {
        p.relative_to(ROOT): n
        for p in committed("*.py", "Makefile")
        if (n := len(p.read_text().splitlines())) > MOST_LINES
    }
    assert not long


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {name} has {lines} lines"
        for path in committed("*.py")
        for name, lines in functions(ast.parse(path.read_text()))
        if lines > MOST_FUNCTION_LINES
    ]
    assert not long


def test_names_say_something() -> None:
    empty = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in committed("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and SAY_NOTHING.search(node.name) and "migrations" not in path.parts
    ]
    empty += [str(p) for p in committed("*.py") if p.stem in {"utils", "helpers", "common", "shared", "misc"}]
    assert not empty


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in committed("*.py")
        if path.read_text().strip()
        and not ast.get_docstring(ast.parse(path.read_text()))
        and path.name != "__init__.py"
    ]
    assert not silent
