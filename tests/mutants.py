"""Takes guards out of the code one at a time and sees that a test notices: `make mutants`, or
`python -m tests.mutants [file] …` for some. Prints a line for each and ends with 1 when one was missed.

A guard is an `if` (made never true), an operand of `and` or `or`, a filter of a comprehension (each left out), the
condition of `a if b else c` (made constant), or the edge of a comparison (moved by one). Nothing is written: each
change is made in a fork of this process, as the module is imported there.
"""

import ast
import copy
import os
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import NamedTuple

# Loaded once, not in each fork. Nothing of ours: a fork has to import it changed.
import pytest
import temporalio.client
import temporalio.worker  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
GUARDED: dict[str, tuple[str, ...]] = {
    "policies/approval.py": ("tests/policies/test_approval.py", "tests/policies/test_voices.py"),
    "worker/activities/gate.py": ("tests/worker/activities/test_gate.py",),
}
"""File -> the tests that have to notice."""
EDGES: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.GtE: ast.Gt, ast.Gt: ast.GtE, ast.LtE: ast.Lt, ast.Lt: ast.LtE}
SAME: set[tuple[str, str]] = set()
"""File and change that change nothing anybody could notice."""


class Mutant(NamedTuple):
    """The module with one guard less."""

    line: int
    what: str
    tree: ast.Module


def mutants(tree: ast.Module) -> Iterator[Mutant]:
    """One for each guard."""
    for number, site in enumerate(ast.walk(tree)):
        for what, change in _changes(site):
            changed = copy.deepcopy(tree)
            change(next(node for n, node in enumerate(ast.walk(changed)) if n == number))
            at = site.iter if isinstance(site, ast.comprehension) else site
            yield Mutant(getattr(at, "lineno", 0), what, changed)


def _changes(site: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    if isinstance(site, ast.If | ast.IfExp):
        for value in (False,) if isinstance(site, ast.If) else (False, True):
            yield f"{ast.unparse(site.test)} -> {value}", _set("test", value)
    elif isinstance(site, ast.BoolOp):
        for i, operand in enumerate(site.values):
            yield f"without {ast.unparse(operand)}", _drop("values", i)
    elif isinstance(site, ast.comprehension):
        for i, condition in enumerate(site.ifs):
            yield f"without if {ast.unparse(condition)}", _drop("ifs", i)
    elif isinstance(site, ast.Compare) and type(site.ops[0]) in EDGES:
        yield f"{ast.unparse(site)}, its edge", _edge


def _set(field: str, value: bool) -> Callable[[ast.AST], None]:
    return lambda node: setattr(node, field, ast.Constant(value, lineno=1, col_offset=0))


def _drop(field: str, i: int) -> Callable[[ast.AST], None]:
    return lambda node: getattr(node, field).pop(i)


def _edge(node: ast.AST) -> None:
    assert isinstance(node, ast.Compare)
    node.ops[0] = EDGES[type(node.ops[0])]()


def noticed(file: str, tree: ast.Module) -> bool:
    """Whether a test fails with the module so changed."""
    if (child := os.fork()) == 0:
        os._exit(_run(file, tree))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def _run(file: str, tree: ast.Module) -> int:
    """In the fork: import the module as it is there, and run its tests in silence."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    path, code = str(ROOT / file), compile(ast.fix_missing_locations(tree), file, "exec")
    plain = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
        return code if loader.get_filename(fullname) == path else plain(loader, fullname)

    SourceFileLoader.get_code = get_code  # pyright: ignore[reportAttributeAccessIssue]
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *GUARDED[file]]))


def main(files: list[str]) -> int:
    """0: a test misses every guard."""
    missed = 0
    for file in files or GUARDED:
        tree = ast.parse((ROOT / file).read_text())
        if noticed(file, tree):
            sys.stdout.write(f"{file}: its tests fail without any change\n")
            return 1
        for mutant in mutants(tree):
            if (file, mutant.what) in SAME:
                continue
            seen = noticed(file, mutant.tree)
            missed += not seen
            said = "noticed" if seen else "MISSED "
            sys.stdout.write(f"{said}  {file}:{mutant.line}  {mutant.what}\n")
            sys.stdout.flush()
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
