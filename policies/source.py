"""YAML that people write, read strictly and with positions, so that an error can name file, line, field and remedy.

Differences from plain YAML 1.1, each a mistake seen in policy files: a key given twice is an error (the last one would
win silently); `yes`, `on` and `2024-01-01` stay text; aliases are refused (they can expand without bound).
"""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

MAX_BYTES = 8 << 20
MAX_DEPTH = 40

Loc = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one file."""

    file: str
    line: int
    """Counts from 1; 0 where no line can be named (an unreadable file)."""
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        at = f"{self.file}:{self.line}" if self.line else self.file
        return (
            f"{at}: {self.field}: {self.problem} ({self.remedy})"
            if self.field
            else f"{at}: {self.problem} ({self.remedy})"
        )


class SourceError(ValueError):
    """A file a person wrote cannot be used. `problems` holds everything found, the properties the first."""

    def __init__(self, *problems: Problem):
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = problems

    @property
    def file(self) -> str:
        """Path as it was given."""
        return self.problems[0].file

    @property
    def line(self) -> int:
        """Line of the first problem, from 1."""
        return self.problems[0].line

    @property
    def field(self) -> str:
        """Dotted path of the field, e.g. `rules.2.verdict`."""
        return self.problems[0].field

    @property
    def problem(self) -> str:
        """What is wrong."""
        return self.problems[0].problem

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return self.problems[0].remedy


class _Loader(yaml.SafeLoader):
    """SafeLoader whose plain scalars follow JSON: only true/false, null, integers and decimals are not text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (yaml's own attribute)


def _resolve(tag: str, pattern: str, first: str) -> None:
    add = cast("Callable[[str, re.Pattern[str], list[str]], None]", _Loader.add_implicit_resolver)  # pyright: ignore[reportUnknownMemberType]
    add(f"tag:yaml.org,2002:{tag}", re.compile(pattern), [*first] or [""])


_resolve("bool", r"^(?:true|false)$", "tf")
_resolve("null", r"^(?:null|~)$", "n~")
_resolve("null", r"^$", "")
_resolve("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789")
_resolve("float", r"^-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?$", "-0123456789")


class Document:
    """A parsed file: its value as JSON types, and where each field stands."""

    def __init__(self, file: str, value: JsonValue, lines: dict[Loc, int]):
        self.file = file
        self.value = value
        self._lines = lines

    def line(self, loc: Loc) -> int:
        """Line of the field, or of the nearest field around it that exists."""
        while loc and loc not in self._lines:
            loc = loc[:-1]
        return self._lines.get(loc, 1)

    def problem(self, loc: Loc, problem: str, remedy: str) -> Problem:
        """A problem at `loc`."""
        return Problem(self.file, self.line(loc), dotted(loc), problem, remedy)


def dotted(loc: Loc) -> str:
    """`("rules", 2, "verdict")` as people read it: `rules.2.verdict`."""
    return ".".join(str(part) for part in loc)


def read_document(path: Path, error: type[SourceError]) -> Document:
    """Parse one YAML file. Raises `error` for anything that is not exactly one document of plain JSON values."""
    file = str(path)
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise error(Problem(file, 0, "", f"cannot be read: {reason}", "make it a readable UTF-8 file")) from reason
    if len(raw) > MAX_BYTES:
        raise error(Problem(file, 0, "", f"larger than {MAX_BYTES} bytes", "split it into several files"))
    return parse_document(text, file, error)


def parse_document(text: str, file: str, error: type[SourceError]) -> Document:
    """As `read_document`, from text already read."""
    lines: dict[Loc, int] = {}
    try:
        node = cast("yaml.Node | None", yaml.compose(text, Loader=_Loader))  # pyright: ignore[reportUnknownMemberType]
        if node is None:
            raise error(Problem(file, 1, "", "the file is empty", "write at least one entry, or remove the file"))
        value = _plain(node, (), lines, set(), file, error)
    except yaml.MarkedYAMLError as reason:
        mark = reason.problem_mark
        line = mark.line + 1 if mark else 0
        raise error(
            Problem(
                file,
                line,
                "",
                f"not valid YAML: {reason.problem}",
                "correct this line; put text that holds `: ` or ` #` in quotes",
            )
        ) from reason
    except (yaml.YAMLError, RecursionError) as reason:
        raise error(Problem(file, 0, "", f"not valid YAML: {reason}", "correct the YAML")) from reason
    return Document(file, value, lines)


def _plain(
    node: yaml.Node, loc: Loc, lines: dict[Loc, int], seen: set[int], file: str, error: type[SourceError]
) -> JsonValue:
    line = node.start_mark.line + 1
    lines[loc] = line
    if len(loc) > MAX_DEPTH:
        raise error(Problem(file, line, dotted(loc[:4]), "nested too deeply", f"keep to {MAX_DEPTH} levels"))
    if id(node) in seen:
        raise error(Problem(file, line, dotted(loc), "uses a YAML alias", "write the value out"))
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_plain(item, (*loc, i), lines, seen, file, error) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        result: dict[str, JsonValue] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise error(Problem(file, at, dotted(loc), "a key is not text", "use a plain text key"))
            key: str = key_node.value
            if key in result:
                raise error(Problem(file, at, dotted((*loc, key)), "the key is given twice", "keep one of them"))
            result[key] = _plain(value_node, (*loc, key), lines, seen, file, error)
            lines[(*loc, key)] = at
        return result
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, loc, file, error)
    raise error(Problem(file, line, dotted(loc), f"unknown YAML tag {node.tag}", "remove the tag"))


def _scalar(node: yaml.ScalarNode, loc: Loc, file: str, error: type[SourceError]) -> JsonValue:
    text: str = node.value
    match node.tag:
        case "tag:yaml.org,2002:str":
            return text
        case "tag:yaml.org,2002:bool":
            return text == "true"
        case "tag:yaml.org,2002:null":
            return None
        case "tag:yaml.org,2002:int" if len(text) <= 19:
            return int(text)
        case "tag:yaml.org,2002:float" if len(text) <= 40:
            return float(text)
        case _:
            raise error(
                Problem(
                    file, node.start_mark.line + 1, dotted(loc), f"cannot read {text[:40]!r}", "write it as quoted text"
                )
            )


def parse_as(model: type[Model], document: Document, error: type[SourceError]) -> Model:
    """Validate a document against a strict model. Raises `error` with one problem for each thing wrong."""
    if not isinstance(document.value, dict):
        raise error(document.problem((), "the file is not a mapping", "start it with `key: value` lines"))
    try:
        return model.model_validate(document.value)
    except ValidationError as invalid:
        raise error(*problems_of(invalid.errors(include_url=False), document, model)) from invalid


def problems_of(errors: Iterable[ErrorDetails], document: Document, model: type[BaseModel]) -> list[Problem]:
    """Pydantic's errors as problems with a line and a remedy, in the order of the file."""
    found = [document.problem(e["loc"], _sentence(e), _remedy(e, model)) for e in errors]
    return sorted(found, key=lambda p: p.line)


def close_to(name: str, known: Iterable[str]) -> str:
    """` (did you mean x?)`-style hint, or the known names when none is close."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of: {', '.join(names)}"


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field"
    if error["type"] == "missing":
        return "this field is missing"
    value = error.get("input")
    shown = f", not {value!r}" if isinstance(value, str | int | float | bool) and len(str(value)) <= 60 else ""
    return error["msg"].removeprefix("Value error, ") + ("" if error["type"] == "value_error" else shown)


def _remedy(error: ErrorDetails, model: type[BaseModel]) -> str:
    match error["type"]:
        case "extra_forbidden":
            name = str(error["loc"][-1])
            return "remove it; " + close_to(name, _fields_at(model, error["loc"][:-1]) or model.model_fields)
        case "missing":
            return "add it"
        case "enum" | "literal_error":
            return f"use one of: {error.get('ctx', {}).get('expected', '')}"
        case "string_type":
            return "write it as text; put numbers and true/false in quotes"
        case "value_error":
            return "change the value"
        case _:
            return "change the value to what the message asks for"


def _fields_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """Field names of the model that stands at `loc`, following lists and nested models; empty when not found."""
    current: object = model
    for part in loc:
        if isinstance(part, int):
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or part not in current.model_fields:
            return []
        current = _inner_model(current.model_fields[part].annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inner_model(annotation: object) -> object:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        inner = _inner_model(argument)
        if inner is not None:
            return inner
    return None
