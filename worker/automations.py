"""The automations of an installation: reads the YAML, checks all that can be checked before a run, resolves tools.

Used by the API and the command line when they start; a run carries its automation by value and never comes back here.
`python -m worker.automations` prints the JSON Schema of an automation file, for editors.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, cast

from policies.fallback import THEN_VARIABLES, WHEN_VARIABLES, Expression, ExpressionError, Template
from policies.source import Document, Loc, Problem, SourceError, close_to, parse_as, read_document
from tools.contract import JsonObject, ToolSpec
from tools.schemas import SchemaError, compiled
from worker.store.blobs import Blobs
from workflows.spec import AutomationFile, AutomationSpec, FallbackRule, RuleCall, resolve

BUILT_IN = Path(__file__).parent.parent / "workflows" / "automations"

_MODEL_ID = re.compile(r"[a-z][a-z0-9_-]*:[A-Za-z0-9][A-Za-z0-9._:/-]*")
_RESULT = re.compile(r"\bresults\s*(?:\.\s*([a-z][a-z0-9_]*)|\[\s*[\"']([a-z][a-z0-9_]*)[\"']\s*\])")


class Installed(Protocol):
    """An installed tool (tools.catalog.LoadedTool)."""

    @property
    def spec(self) -> ToolSpec: ...  # noqa: D102
    @property
    def program(self) -> bytes: ...  # noqa: D102
    @property
    def reconcile(self) -> bytes | None: ...  # noqa: D102


class AutomationError(SourceError):
    """An automation cannot be used. Names file, line, field, problem and remedy, once for each thing wrong."""


class Catalog:
    """Every automation and tool that can be used, resolved. Immutable."""

    def __init__(self, automations: Mapping[str, AutomationSpec], tools: Mapping[str, ToolSpec]) -> None:
        self.automations = dict(sorted(automations.items()))
        self.tools = dict(sorted(tools.items()))

    @classmethod
    async def load(cls, home: Path | None, blobs: Blobs, tools: Mapping[str, Installed]) -> "Catalog":
        """Read the built-in automations and `<home>/automations`, and store the programs of every tool in `blobs`.

        Raises AutomationError with everything wrong in all files (nothing is loaded in part), StoreUnavailable when the
        blobs cannot be written.
        """
        known = {name: tool.spec for name, tool in tools.items()}
        automations = specs(home, known)
        for name, tool in tools.items():
            stored = (await blobs.put(tool.program)).sha256
            other = None if tool.reconcile is None else (await blobs.put(tool.reconcile)).sha256
            if (stored, other) != (tool.spec.program_sha256, tool.spec.reconcile_sha256):
                raise ValueError(f"tool {name}: its program does not have the digest its manifest was resolved with")
        return cls(automations, known)

    def get(self, name: str) -> AutomationSpec | None:
        """The automation of that name, or None."""
        return self.automations.get(name)


def specs(home: Path | None, tools: Mapping[str, ToolSpec]) -> dict[str, AutomationSpec]:
    """Every automation of an installation, bound to its tools. Raises AutomationError with everything wrong."""
    return {a.name: resolve(a, tuple(tools[t] for t in a.tools)) for a in read_all(automation_paths(home), tools)}


def automation_paths(home: Path | None) -> list[Path]:
    """Every automation file of an installation: built-in, then the user's, each folder sorted."""
    folders = [BUILT_IN, *([home / "automations"] if home else [])]
    return [
        p for folder in folders if folder.is_dir() for p in sorted(folder.iterdir()) if p.suffix in {".yaml", ".yml"}
    ]


def read_all(paths: Iterable[Path], tools: Mapping[str, ToolSpec]) -> list[AutomationFile]:
    """Read and check many files. Raises AutomationError with the problems of all of them."""
    found: dict[str, tuple[Path, AutomationFile]] = {}
    problems: list[Problem] = []
    for path in paths:
        try:
            automation = read_automation(path, tools)
        except AutomationError as error:
            problems += error.problems
            continue
        if automation.name in found:
            first = found[automation.name][0]
            problems.append(
                Problem(
                    str(path),
                    1,
                    "name",
                    f"{automation.name!r} is taken by {first}",
                    "choose another name and file name",
                )
            )
        found.setdefault(automation.name, (path, automation))
    if problems:
        raise AutomationError(*problems)
    return [automation for _, automation in found.values()]


def validate(path: Path, tools: Mapping[str, ToolSpec]) -> list[Problem]:
    """Everything wrong with one file; empty when it can be used."""
    try:
        read_automation(path, tools)
    except AutomationError as error:
        return list(error.problems)
    return []


def read_automation(path: Path, tools: Mapping[str, ToolSpec]) -> AutomationFile:
    """Read and check one file. Raises AutomationError with everything wrong in it."""
    document = read_document(path, AutomationError)
    automation = parse_as(AutomationFile, document, AutomationError)
    problems = list(_check(document, automation, path, tools))
    if problems:
        raise AutomationError(*sorted(problems, key=lambda p: p.line))
    return automation


def json_schema() -> JsonObject:
    """JSON Schema (draft 2020-12) of an automation file."""
    schema = cast("JsonObject", AutomationFile.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Gatehouse automation"} | schema


def _check(
    document: Document, automation: AutomationFile, path: Path, tools: Mapping[str, ToolSpec]
) -> Iterable[Problem]:
    if automation.name != path.stem:
        yield document.problem(
            ("name",), f"is {automation.name!r} in {path.name}", f"call the file {automation.name}.yaml"
        )
    for i, name in enumerate(automation.tools):
        if name not in tools:
            yield document.problem(("tools", i), f"no installed tool is called {name!r}", close_to(name, tools))
        elif name in automation.tools[:i]:
            yield document.problem(("tools", i), f"{name!r} stands here twice", "keep one")
    for i, model in enumerate(automation.models):
        if not _MODEL_ID.fullmatch(model):
            yield document.problem(("models", i), f"{model!r} is not a model id", "write it as provider:name")
    for field, schema in (("inputs", automation.inputs), ("output", automation.output)):
        yield from _check_schema(document, field, schema)
    seen: set[str] = set()
    for i, rule in enumerate(automation.rules):
        if rule.id in seen:
            yield document.problem(("rules", i, "id"), f"the id {rule.id!r} is taken", "choose another id")
        seen.add(rule.id)
        yield from _check_rule(document, ("rules", i), rule, automation, tools)


def _check_schema(document: Document, field: str, schema: JsonObject) -> Iterable[Problem]:
    try:
        compiled(schema)
    except SchemaError as error:
        yield document.problem(
            (field, *error.path),
            f"not a JSON Schema: {error}",
            "correct it (draft 2020-12); put what it refers to under $defs",
        )
        return
    if schema.get("type") != "object":
        yield document.problem((field, "type"), "does not describe an object", "write `type: object`")


def _check_rule(
    document: Document, at: Loc, rule: FallbackRule, automation: AutomationFile, tools: Mapping[str, ToolSpec]
) -> Iterable[Problem]:
    yield from _compiles(document, (*at, "when"), rule, lambda: [Expression(rule.when, WHEN_VARIABLES)], set())
    earlier: set[str] = set()
    for i, call in enumerate(rule.then.calls):
        loc = (*at, "then", "calls", i)
        yield from _check_call(document, loc, rule, call, automation, tools, earlier)
        earlier.add(call.id)
    answer = rule.then.answer
    if answer is not None:
        loc = (*at, "then", "answer")
        yield from _compiles(document, loc, rule, lambda: Template(answer, THEN_VARIABLES).expressions, earlier)
        yield from _fits(document, loc, answer, automation.output, "the output schema")


def _check_call(
    document: Document,
    loc: Loc,
    rule: FallbackRule,
    call: RuleCall,
    automation: AutomationFile,
    tools: Mapping[str, ToolSpec],
    earlier: set[str],
) -> Iterable[Problem]:
    if call.id in earlier:
        yield document.problem((*loc, "id"), f"the call id {call.id!r} is taken", "choose another id")
    if call.tool not in automation.tools:
        hint = close_to(call.tool, automation.tools)
        yield document.problem(
            (*loc, "tool"), f"{call.tool!r} is not among the automation's tools", f"add it, or {hint}"
        )
    elif call.tool in tools:
        yield from _fits(
            document, (*loc, "args"), call.args, tools[call.tool].parameters, f"the arguments of {call.tool}"
        )
    if call.when is not None:
        when = call.when
        yield from _compiles(document, (*loc, "when"), rule, lambda: [Expression(when, THEN_VARIABLES)], earlier)
    yield from _compiles(
        document, (*loc, "args"), rule, lambda: Template(call.args, THEN_VARIABLES).expressions, earlier
    )


def _compiles(
    document: Document, loc: Loc, rule: FallbackRule, compiled: Callable[[], list[Expression]], earlier: set[str]
) -> Iterable[Problem]:
    try:
        expressions = compiled()
    except ExpressionError as error:
        yield document.problem(loc, f"rule {rule.id!r}: {error}", "correct the expression")
        return
    for expression in expressions:
        for names in _RESULT.findall(expression.text):
            name = cast("str", names[0] or names[1])
            if name not in earlier:
                problem = f"rule {rule.id!r}: `results.{name}` is not an earlier call of this rule"
                yield document.problem(loc, problem, f"known here: {', '.join(sorted(earlier)) or 'none'}")


def _fits(document: Document, loc: Loc, value: JsonObject, schema: JsonObject, what: str) -> Iterable[Problem]:
    """Field names against a schema: what can be said before the expressions have values."""
    known = schema.get("properties")
    required = schema.get("required")
    if isinstance(known, dict) and schema.get("additionalProperties") is False:
        for name in value:
            if name not in known:
                yield document.problem((*loc, name), f"{name!r} is not in {what}", close_to(name, known))
    for name in required if isinstance(required, list) else ():
        if name not in value:
            yield document.problem(loc, f"{name!r} is required by {what}", "add it")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
