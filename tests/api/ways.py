"""Which routes and commands lead to the code that answers questions: found by reading the source, so that no list has
to be remembered."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ("gatehouse_client", "policies", "tools", "worker", "workflows")
SIGNING = {"sign_answer", "sign_action"}
SENDING = {"post", "put", "patch", "request"}
ROUTE = {"get", "post", "put", "patch", "delete", "api_route", "command"}


class Defined(NamedTuple):
    """What is defined at the top of a module."""

    module: str
    name: str
    node: ast.stmt
    imported: dict[str, str]

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}"


def _defined(*packages: str, about: str = "") -> Iterator[Defined]:
    """Everything at the top of the modules whose text holds `about`."""
    for path in (p for package in packages for p in sorted((ROOT / package).rglob("*.py"))):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text()
        if about not in text:
            continue
        tree = ast.parse(text)
        imported = _imported(tree)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield Defined(module, node.name, node, imported)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        yield Defined(module, target.id, node, imported)


def _imported(tree: ast.Module) -> dict[str, str]:
    """Name -> the full name of what it stands for, also where it is imported inside a function."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
    return found


def _mentions(it: Defined) -> set[str]:
    """Full names of what it speaks of: of its own module, of another by name, or as `module.name`."""
    imported, found = it.imported, set[str]()
    for part in ast.walk(it.node):
        if isinstance(part, ast.Name):
            found.add(imported.get(part.id, f"{it.module}.{part.id}"))
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in imported:
            found.add(f"{imported[part.value.id]}.{part.attr}")
    return found


def _calls(node: ast.stmt, names: set[str]) -> list[ast.Call]:
    """Calls of methods of these names."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in names]


def _answers(it: Defined) -> bool:
    """Whether it signs itself, sends to a run, or, as a command, posts about a question to the API."""
    if _calls(it.node, SIGNING):
        return True
    if any("gateway" in ast.unparse(call.func) for call in _calls(it.node, {"answer", "act"})):
        return True
    return it.module.startswith("api.commands") and any(
        "/approvals" in ast.unparse(argument) for call in _calls(it.node, SENDING) for argument in call.args
    )


def signers() -> set[str]:
    """What signs answers and actions, in the whole product."""
    return {it.full for it in _defined("api", *OTHERS, about="sign_a") if _calls(it.node, SIGNING)}


def reached() -> set[str]:
    """Routes and commands by which one comes to it."""
    found = [(it, _mentions(it)) for it in _defined("api")]
    answering = {it.full for it, _ in found if _answers(it)}
    while more := {it.full for it, said in found if said & answering} - answering:
        answering |= more
    return {it.full for it, _ in found if it.full in answering and _is_way_in(it)}


def _is_way_in(it: Defined) -> bool:
    if not isinstance(it.node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    decorated = (d.func for d in it.node.decorator_list if isinstance(d, ast.Call))
    routed = any(isinstance(func, ast.Attribute) and func.attr in ROUTE for func in decorated)
    return routed or (it.module.startswith("api.commands") and not it.name.startswith("_"))
