"""Policy rules as typed data: what a person writes in `rules/*.yaml`, checked before anything is decided with it.

A rule says who (roles, tenant), in which automation, may make which call (tools, effects), and the verdict. All rules
of all files form one set: the strictest verdict that matches wins, whatever the order and the file. Rules only add up:
a user's file can make the built-in policy stricter and can allow what nothing forbids, but loosens no built-in ask or
deny.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, TypeAdapter, field_validator, model_validator
from pydantic_core import from_json

from policies.asking import Asking, CalendarRow, GroupRow, unknown
from policies.condition import condition
from policies.decision import NO_RULE, Verdict
from policies.expression import MAX_EXPRESSION
from policies.glob import glob
from policies.source import Document, Problem, SourceError, close_to, parse_as, read_document
from tools.contract import Effect, Strict, canonical_json

BUILT_IN = Path(__file__).parent / "rules"
"""The built-in policy; always loaded first."""

GATE_FAULT = "gate-fault"
"""Rule id of a decision the gate could not take: something broke, so deny."""
MALFORMED = "malformed-request"
"""Rule id of a request whose names or sizes no honest request has: deny."""
RESERVED = frozenset({NO_RULE, GATE_FAULT, MALFORMED, "sentinel"})

ID_PATTERN = r"^[a-z][a-z0-9-]{0,63}$"
ROLE_PATTERN = r"^[a-z][a-z0-9-]{0,47}$"
GLOB_PATTERN = r"^[a-z0-9_*?-]{1,64}$"
TENANT_PATTERN = r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,63})$"
MAX_ROLE_DEPTH = 8
"""Casbin silently stops linking roles that inherit over more than 10 steps."""


def _listed(value: object) -> object:
    """One name may be written without the brackets of a list."""
    return [value] if isinstance(value, str) else value


RoleName = Annotated[str, Field(pattern=ROLE_PATTERN)]
Subject = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
Glob = Annotated[str, Field(pattern=GLOB_PATTERN)]
Globs = Annotated[tuple[Glob, ...], Field(min_length=1), BeforeValidator(_listed)]
Word = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z_]{0,31})$")]


class RuleError(SourceError):
    """A rules file cannot be used; nothing of the policy is loaded. Names file, line, field, problem and remedy."""


class Rule(Strict):
    """One row of the policy. A glob is anchored: `*` stands for any characters, `?` for one."""

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    """Shown in every decision this rule takes; unique over all files."""
    roles: Annotated[tuple[RoleName | Literal["*"], ...], BeforeValidator(_listed)] = ()
    """Matches a requester who holds any of these, directly or by inheritance; `*` matches everybody."""
    subjects: Annotated[tuple[Subject, ...], BeforeValidator(_listed)] = ()
    """Matches the requesters with these ids, too. A rule names roles, subjects, or both."""
    tenant: Annotated[str, Field(pattern=TENANT_PATTERN)] = "*"
    automations: Globs = ("*",)
    tools: Globs = ("*",)
    effects: Annotated[tuple[Effect, ...], Field(min_length=1), BeforeValidator(_listed)] = tuple(Effect)
    """All effects unless named; a rule that allows must name them."""
    when: Annotated[str, Field(max_length=MAX_EXPRESSION)] = ""
    """Condition in restricted CEL over `policies.condition.VARIABLES`; without one the rule always holds."""
    verdict: Verdict
    approvers: RoleName = "approver"
    """Role a person needs to answer; only with `ask`."""
    approval: Asking | None = None
    """Groups, number of people, deadline, escalation; only with `ask`."""
    reason: Annotated[str, Field(max_length=500)] = ""
    """Shown to the reviewer and to the model."""

    @model_validator(mode="after")
    def _says_what_it_means(self) -> "Rule":
        if self.verdict is Verdict.ALLOW and "effects" not in self.model_fields_set:
            raise ValueError("a rule that allows must name its `effects`")
        if self.verdict is not Verdict.ASK and "approvers" in self.model_fields_set:
            raise ValueError("`approvers` has a meaning only with `verdict: ask`")
        if self.verdict is not Verdict.ASK and self.approval is not None:
            raise ValueError("`approval` has a meaning only with `verdict: ask`")
        if self.approval is not None and self.approval.groups and "approvers" in self.model_fields_set:
            raise ValueError("name a role in `approvers` or groups in `approval`, not both")
        if self.id in RESERVED:
            raise ValueError(f"the id {self.id!r} is reserved")
        if not self.roles and not self.subjects:
            raise ValueError("a rule must name its `roles` (or `subjects`)")
        return self

    @field_validator("when")
    @classmethod
    def _compiles(cls, text: str) -> str:
        if text:
            condition(text)  # raises ExpressionError, a ValueError that says what is wrong
        return text


class Right(Strict):
    """One API right: holders of `roles` may do `actions` on `resource`. Rights only allow."""

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    roles: Annotated[tuple[RoleName, ...], Field(min_length=1), BeforeValidator(_listed)]
    resource: Word
    actions: Annotated[tuple[Word, ...], Field(min_length=1), BeforeValidator(_listed)]


class RulesFile(Strict):
    """A rules file as written."""

    apiVersion: Literal["gatehouse/v1"]  # noqa: N815  (the spelling people know from other YAML)
    roles: dict[RoleName, tuple[RoleName, ...]] = Field(default_factory=dict[str, tuple[str, ...]])
    """Role -> roles it inherits. Every role named in a rule must stand here, in some file."""
    groups: dict[RoleName, GroupRow] = Field(default_factory=dict[str, GroupRow])
    """Group of approvers -> its members. No group is called like a role."""
    calendars: dict[RoleName, CalendarRow] = Field(default_factory=dict[str, CalendarRow])
    rules: tuple[Rule, ...] = ()
    rights: tuple[Right, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> "RulesFile":
        if not (self.roles or self.rules or self.rights or self.groups or self.calendars):
            raise ValueError("the file holds no `roles`, `groups`, `calendars`, `rules` or `rights`")
        return self


@dataclass(frozen=True)
class RuleSet:
    """A whole policy: everything the engine compiles. An empty one is legal and denies everything."""

    rules: tuple[Rule, ...] = ()
    rights: tuple[Right, ...] = ()
    roles: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Role and the roles it inherits, sorted."""
    groups: Mapping[str, GroupRow] = field(default_factory=dict[str, GroupRow])
    calendars: Mapping[str, CalendarRow] = field(default_factory=dict[str, CalendarRow])
    places: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)
    """Rule or right id -> `file:line` it was read from; empty for a policy that came from the store."""

    @cached_property
    def body(self) -> bytes:
        """The whole policy as lines of canonical JSON, independent of the order of rows and files: what the version
        digest is taken over, and what `RuleSet.from_body` reads."""
        roles: dict[str, JsonValue] = {name: list[JsonValue](sorted(inherited)) for name, inherited in self.roles}
        lines = [canonical_json({"roles": roles})]
        if self.groups or self.calendars:
            declared: dict[str, JsonValue] = {"groups": _rows(self.groups), "calendars": _rows(self.calendars)}
            lines.append(canonical_json({"asking": declared}))
        lines += [line for line, _ in sorted(self.lines.items(), key=lambda item: item[1].id)]
        lines += [canonical_json({"right": r.model_dump(mode="json")}) for r in sorted(self.rights, key=lambda r: r.id)]
        return b"\n".join(lines)

    @cached_property
    def version(self) -> str:
        """Hex SHA-256 of `body`: names this policy wherever it is spoken of."""
        return hashlib.sha256(self.body).hexdigest()

    @classmethod
    def from_body(cls, body: bytes, known: "RuleSet | None" = None) -> "RuleSet":
        """The policy that has this body. Raises ValueError when it is not one.

        Rows that `known` has too are taken from there. Line by line, never all at once: decisions of other threads go
        on in between.
        """
        rules: list[Rule] = []
        rights: list[Right] = []
        roles: dict[str, list[str]] = {}
        asking = _AskingLine()
        old = known.lines if known else {}
        lines: dict[bytes, Rule] = {}
        for line in body.split(b"\n"):
            rule = old.get(line)
            if rule is None:
                match from_json(line):
                    case {"rule": found}:
                        rule = Rule.model_validate(found)
                    case {"right": found}:
                        rights.append(Right.model_validate(found))
                    case {"roles": found}:
                        roles = _ROLES.validate_python(found)
                    case {"asking": found}:
                        asking = _AskingLine.model_validate(found)
                    case _:
                        raise ValueError("a line of the policy is neither roles, rule nor right")
            if rule is not None:
                rules.append(rule)
                lines[line] = rule
        ids = {row.id for row in (*rules, *rights)}
        if len(ids) != len(rules) + len(rights):
            raise ValueError("an id stands twice in the policy")
        inherits = tuple(sorted((name, tuple(inherited)) for name, inherited in roles.items()))
        found = cls(tuple(rules), tuple(rights), inherits, asking.groups, asking.calendars)
        found.__dict__.update(body=body, lines=lines)
        return found

    @cached_property
    def lines(self) -> dict[bytes, Rule]:
        """Each rule by its line of the body."""
        return {canonical_json({"rule": _as_json(rule)}): rule for rule in self.rules}


def _as_json(rule: Rule) -> dict[str, JsonValue]:
    """Every field, also those left out, so that what is said differently but means the same has one digest."""
    fields: dict[str, JsonValue] = rule.model_dump(mode="json")
    if rule.verdict is not Verdict.ASK or (rule.approval and rule.approval.groups):
        del fields["approvers"]
    if rule.approval is None:
        del fields["approval"]
    return fields


class _AskingLine(Strict):
    """The line of the body that declares groups and calendars."""

    groups: dict[str, GroupRow] = Field(default_factory=dict[str, GroupRow])
    calendars: dict[str, CalendarRow] = Field(default_factory=dict[str, CalendarRow])


def _rows(rows: Mapping[str, GroupRow | CalendarRow]) -> dict[str, JsonValue]:
    return {name: row.model_dump(mode="json") for name, row in rows.items()}


_ROLES = TypeAdapter(dict[str, list[str]])


def strictness(rule: Rule) -> tuple[int, int, str]:
    """Sort key, strictest first: deny, asks of named approvers or several people, other asks, allow; then by id."""
    asking = rule.approval or Asking()
    named = rule.approvers != "approver" or bool(asking.groups) or asking.needed > 1
    rank = {Verdict.DENY: 0, Verdict.ASK: 1 if named else 2, Verdict.ALLOW: 3}[rule.verdict]
    return rank, -asking.needed, rule.id


def rule_paths(home: Path | None) -> list[Path]:
    """Where the policy of an installation lies: the built-in folder, then `<home>/rules` when there is one."""
    own = home / "rules" if home else None
    return [BUILT_IN, own] if own and own.is_dir() else [BUILT_IN]


def load_rules(paths: Sequence[Path], known_tools: Collection[str]) -> RuleSet:
    """Read every `*.yaml`/`*.yml` under `paths` (files or folders) into one set.

    `known_tools`: names of the installed tools; a pattern that fits none of them is an error (a typing error in a deny
    rule would let calls through). Raises RuleError with everything wrong in the first bad file, or over all files;
    a policy is loaded whole or not at all.
    """
    return compile_documents([read_document(f, RuleError) for f in _files(paths)], known_tools)


def compile_documents(documents: Sequence[Document], known_tools: Collection[str]) -> RuleSet:
    """As `load_rules`, from documents already read."""
    files = [(document, parse_as(RulesFile, document, RuleError)) for document in documents]
    problems: list[Problem] = []
    roles: dict[str, tuple[str, ...]] = {}
    groups: dict[str, GroupRow] = {}
    calendars: dict[str, CalendarRow] = {}
    ids: dict[str, str] = {}
    for document, file in files:
        for name, inherited in file.roles.items():
            if name in roles:
                problems.append(document.problem(("roles", name), f"the role {name!r} is declared twice", "keep one"))
            roles[name] = inherited
        problems += _twice(document, "groups", file.groups, groups)
        problems += _twice(document, "calendars", file.calendars, calendars)
        groups.update(file.groups)
        calendars.update(file.calendars)
        for section, rows in (("rules", file.rules), ("rights", file.rights)):
            for i, row in enumerate(rows):
                at = f"{document.file}:{document.line((section, i, 'id'))}"
                if row.id in ids:
                    first = ids[row.id]
                    problems.append(
                        document.problem(
                            (section, i, "id"), f"the id {row.id!r} is taken by {first}", "choose another id"
                        )
                    )
                ids.setdefault(row.id, at)
    for document, file in files:
        problems += _unknown_names(document, file, roles, known_tools)
        problems += _cycles(document, file, roles)
        problems += _unknown_in_asking(document, file, roles, groups, calendars)
    rules = tuple(rule for _, file in files for rule in file.rules)
    if not rules and not problems:
        where = ", ".join(document.file for document in documents)
        problems.append(
            Problem(where, 0, "rules", "the policy holds no rule at all", "add a rule, or the built-in folder")
        )
    if problems:
        raise RuleError(*problems)
    return RuleSet(
        rules=rules,
        rights=tuple(right for _, file in files for right in file.rights),
        roles=tuple(sorted(roles.items())),
        groups=groups,
        calendars=calendars,
        places=ids,
    )


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix in {".yaml", ".yml"})
        else:
            found.append(path)  # a missing file is reported when it is read
    return found


def _unknown_names(
    document: Document, file: RulesFile, roles: Collection[str], known_tools: Collection[str]
) -> Iterable[Problem]:
    def role(loc: tuple[int | str, ...], name: str) -> Iterable[Problem]:
        if name != "*" and name not in roles:
            yield document.problem(
                loc, f"unknown role {name!r}", f"declare it under `roles:`, or {close_to(name, roles)}"
            )

    for name, inherited in file.roles.items():
        for i, other in enumerate(inherited):
            yield from role(("roles", name, i), other)
    for i, right in enumerate(file.rights):
        for j, name in enumerate(right.roles):
            yield from role(("rights", i, "roles", j), name)
    for i, rule in enumerate(file.rules):
        for j, name in enumerate(rule.roles):
            yield from role(("rules", i, "roles", j), name)
        yield from role(("rules", i, "approvers"), rule.approvers if rule.verdict is Verdict.ASK else "*")
        for j, pattern in enumerate(rule.tools):
            if not any(glob(tool, pattern) for tool in known_tools):
                problem = f"no installed tool is called {pattern!r}"
                if re.search(r"[*?]", pattern):
                    problem = f"the pattern {pattern!r} fits no installed tool"
                yield document.problem(("rules", i, "tools", j), problem, close_to(pattern, known_tools))


def _twice(document: Document, section: str, names: Collection[str], taken: Collection[str]) -> Iterable[Problem]:
    for name in names:
        if name in taken:
            yield document.problem((section, name), f"{name!r} is declared twice under `{section}`", "keep one")


def _unknown_in_asking(
    document: Document, file: RulesFile, roles: Collection[str], groups: Collection[str], calendars: Collection[str]
) -> Iterable[Problem]:
    for name, group in file.groups.items():
        if name in roles:
            yield document.problem(("groups", name), f"{name!r} is a role, too", "choose another name")
        for i, role in enumerate(group.roles):
            if role not in roles:
                yield document.problem(("groups", name, "roles", i), f"unknown role {role!r}", close_to(role, roles))
    for i, rule in enumerate(file.rules):
        for loc, problem in unknown(rule.approval, groups, calendars) if rule.approval else ():
            section = "calendars" if loc[0] == "calendar" else "groups"
            yield document.problem(("rules", i, "approval", *loc), problem, f"declare it under `{section}:`")


def _cycles(document: Document, file: RulesFile, roles: dict[str, tuple[str, ...]]) -> Iterable[Problem]:
    for name in file.roles:
        level, depth = set(roles[name]), 1
        while level and name not in level and depth <= MAX_ROLE_DEPTH:
            level, depth = {r for held in level for r in roles.get(held, ())}, depth + 1
        if name in level:
            yield document.problem(("roles", name), f"the role {name!r} inherits itself", "break the circle")
        elif level:
            yield document.problem(
                ("roles", name), f"inherits over more than {MAX_ROLE_DEPTH} steps", "inherit the far roles directly"
            )
