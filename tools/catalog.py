"""Loads tools: `<folder>/<name>/tool.yaml` (the manifest, strict) and `run.py` (the program, opaque bytes).

A program is never imported or run here: it is data, named by its digest, for the sandbox.
"""

import ast
import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, cast

import yaml
from pydantic import Field, JsonValue, ValidationError

from tools.contract import (
    NAME_PATTERN,
    ArgumentRole,
    Effect,
    EgressCredential,
    EgressLimits,
    JsonObject,
    Limits,
    Repeat,
    Strict,
    ToolSpec,
    Trust,
)
from tools.egress import HOST_PATTERN, HostRule, rules
from tools.errors import ToolError
from tools.images import PACKAGE_PATTERN, ToolImage, tool_image
from tools.schemas import SchemaError, compiled

BUILT_IN: Final = Path(__file__).resolve().parent
# One line per tool that comes with the product. A folder that is not named here does not exist.
BUILT_IN_NAMES: Final = (
    "list_files",
    "read_file",
    "search_text",
    "run_python",
    "write_file",
    "delete_files",
    "http_request",
)

MAX_MANIFEST_BYTES: Final = 64 << 10
MAX_PROGRAM_BYTES: Final = 256 << 10
_PROXY_HEADERS: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})


class ToolManifest(Strict):
    """`tool.yaml` as a person writes it."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[str, Field(min_length=1, max_length=50)]
    description: Annotated[str, Field(min_length=1, max_length=2000)]
    parameters: JsonObject
    effect: Effect
    repeat: Repeat = Repeat.SAFE
    workspace: Literal["none", "read", "write"] = "read"
    egress: tuple[Annotated[str, Field(pattern=HOST_PATTERN)], ...] = ()
    egress_credentials: tuple[EgressCredential, ...] = ()
    egress_limits: EgressLimits = EgressLimits()
    secrets: tuple[Annotated[str, Field(pattern=NAME_PATTERN)], ...] = ()
    image: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")] = "base"
    packages: tuple[Annotated[str, Field(pattern=PACKAGE_PATTERN)], ...] = ()
    """Debian packages beside those of the base image; the tool then has an image of its own."""
    limits: Limits = Limits()
    results: Trust = "untrusted"
    reconcile: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}\.py$")] | None = None
    """File beside run.py: a program that finds out whether a lost call took effect, and changes nothing."""
    roles: dict[Annotated[str, Field(min_length=1, max_length=200)], ArgumentRole] = Field(default_factory=dict)


@dataclass(frozen=True)
class LoadedTool:
    """A tool with its program, which goes to the blob store under `spec.program_sha256`."""

    spec: ToolSpec
    program: bytes
    folder: Path
    image: ToolImage | None = None
    """What its own image is built from; None when it uses a common one."""
    reconcile: bytes | None = None
    """Goes to the blob store under `spec.reconcile_sha256`."""


def load_tools(folders: Sequence[Path] = (BUILT_IN,)) -> dict[str, LoadedTool]:
    """All tools of these folders by name, in the order given. Raises ToolError.

    Of BUILT_IN, exactly the tools of BUILT_IN_NAMES; of any other folder, every subfolder that holds a `tool.yaml`.
    A folder that does not exist holds no tools. No tool replaces another of the same name.
    """
    tools: dict[str, LoadedTool] = {}
    for folder in folders:
        for place in _places(folder):
            tool = load_tool(place)
            earlier = tools.get(tool.spec.name)
            if earlier is not None:
                raise ToolError(
                    place / "tool.yaml", "name", f"{tool.spec.name} exists already in {earlier.folder}", "Rename it."
                )
            tools[tool.spec.name] = tool
    return tools


def _places(folder: Path) -> list[Path]:
    if folder.resolve() == BUILT_IN:
        return [BUILT_IN / name for name in BUILT_IN_NAMES]
    return sorted(place.parent for place in folder.glob("*/tool.yaml")) if folder.is_dir() else []


def load_tool(folder: Path) -> LoadedTool:
    """The tool in this folder. Raises ToolError naming file, field and remedy."""
    file = folder / "tool.yaml"
    manifest = _manifest(file)
    if manifest.name != folder.name:
        raise ToolError(file, "name", f"{manifest.name!r} in a folder called {folder.name!r}", "Give both one name.")
    _check_parameters(file, manifest.parameters)
    _check_roles(file, manifest)
    _check_egress(file, manifest)
    program = _program(folder / "run.py")
    reconcile = _reconcile(file, manifest)
    digests = {"program_sha256": _digest(program), "reconcile_sha256": reconcile and _digest(reconcile)}
    spec = ToolSpec.model_validate({**dict(manifest), **digests})
    own = tool_image(folder, manifest.name, manifest.packages)
    if own is None:
        return LoadedTool(spec, program, folder, None, reconcile)
    if manifest.image != "base":
        raise ToolError(file, "image", "beside packages or a Dockerfile", "Leave it out: they make their own.")
    return LoadedTool(spec.model_copy(update={"image": own.name}), program, folder, own, reconcile)


def _digest(program: bytes) -> str:
    return hashlib.sha256(program).hexdigest()


def _reconcile(file: Path, manifest: ToolManifest) -> bytes | None:
    if manifest.reconcile is None:
        return None
    if manifest.repeat is not Repeat.AT_MOST_ONCE:
        raise ToolError(
            file, "reconcile", "beside `repeat: safe`", "Leave it out: what is lost is run again, nobody has to know."
        )
    if manifest.reconcile == "run.py":
        raise ToolError(file, "reconcile", "is the tool's own program", "Write another that only looks.")
    program = _program(file.with_name(manifest.reconcile))
    if not program.strip():
        raise ToolError(file, "reconcile", f"{manifest.reconcile} is empty", "Write what it looks at.")
    return program


def _manifest(file: Path) -> ToolManifest:
    raw = _read(file, MAX_MANIFEST_BYTES)
    try:
        content = cast(object, yaml.load(raw, _UniqueKeys))  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if isinstance(mark, yaml.Mark) else ""
        problem = str(getattr(error, "problem", None) or error)
        raise ToolError(file, where, f"not valid YAML: {problem}", "Correct the syntax.") from error
    if not isinstance(content, dict):
        raise ToolError(file, "", "not a mapping", "Write `name: value` lines.")
    try:
        return ToolManifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        remedies = {
            "missing": "Add it.",
            "extra_forbidden": f"Remove it; known are {', '.join(ToolManifest.model_fields)}.",
            "string_type": "Put it in quotes.",
        }
        raise ToolError(file, field, first["msg"], remedies.get(first["type"], "Correct the value.")) from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a later key silently win over an earlier one; in a manifest that hides what applies."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = cast(object, self.construct_object(key_node, deep=True))  # pyright: ignore[reportUnknownMemberType]
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _check_egress(file: Path, manifest: ToolManifest) -> None:
    if manifest.secrets and manifest.workspace == "write":
        # Outputs are scrubbed of a call's secrets; files it leaves are not looked into.
        raise ToolError(
            file, "secrets", "a tool that holds secrets may not write to the workspace",
            "Set `workspace: read` or `none`, or use `egress_credentials`.",
        )  # fmt: skip
    open_ = rules(manifest.egress)
    for number, credential in enumerate(manifest.egress_credentials):
        field = f"egress_credentials.{number}"
        where = HostRule.parse(credential.host)
        if not any(rule.allows(where.name, where.port) for rule in open_):
            raise ToolError(file, f"{field}.host", f"{credential.host} is not in egress", "Name the host there too.")
        if credential.header.lower() in _PROXY_HEADERS:
            raise ToolError(
                file, f"{field}.header", f"{credential.header} belongs to the proxy", "Choose another header."
            )


def _check_parameters(file: Path, parameters: JsonObject) -> None:
    if parameters.get("type") != "object":
        raise ToolError(file, "parameters.type", "must be object", "Arguments are one JSON object: `type: object`.")
    try:
        compiled(parameters)
    except SchemaError as error:
        field = ".".join(["parameters", *map(str, error.path)])
        remedy = "Correct it; refer only within the schema: `#/$defs/...`."
        raise ToolError(file, field, f"not a JSON Schema (draft 2020-12): {error}", remedy) from error


def _check_roles(file: Path, manifest: ToolManifest) -> None:
    """A role for an argument that does not exist would leave the real one at its default, and nobody would notice."""
    for path in manifest.roles:
        if not _exists(manifest.parameters, path.split(".")):
            known = manifest.parameters.get("properties")
            names = ", ".join(known) if isinstance(known, dict) else "none"
            raise ToolError(
                file, f"roles.{path}", "no such argument", f"Known are {names}; `a.b` is a field of a field."
            )


def _exists(schema: JsonValue, path: Sequence[str]) -> bool:
    """Whether the schema can have such a field. Where it says nothing of its fields, or refers elsewhere, it can."""
    while isinstance(schema, dict) and "items" in schema and "properties" not in schema:
        schema = schema["items"]
    if not path or not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if isinstance(properties, dict) and path[0] in properties:
        return _exists(properties[path[0]], path[1:])
    open_ended = any(word in schema for word in ("$ref", "allOf", "anyOf", "oneOf", "patternProperties"))
    return open_ended or (schema.get("additionalProperties", True) is not False and not isinstance(properties, dict))


def _program(file: Path) -> bytes:
    program = _read(file, MAX_PROGRAM_BYTES)
    try:
        ast.parse(program)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ToolError(file, f"line {line}" if line else "", f"not Python: {error}", "Correct the syntax.") from error
    return program


def _read(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        remedy = "A tool is a folder with tool.yaml and run.py."
        raise ToolError(file, "", error.strerror or "cannot be read", remedy) from error
    if len(content) > most:
        raise ToolError(file, "", f"larger than {most} bytes", "Make it smaller.")
    return content
