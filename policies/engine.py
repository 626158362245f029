"""The gate: compiles the typed policy into Casbin and asks it. The only importer of casbin.

Runs in activities and in the API, never in workflow code. No I/O after construction, no clock, no randomness. An engine
is an immutable snapshot: another policy is another engine, swapped by reference, so `decide` needs no lock.
"""

import hashlib
import logging
import math
import re
import threading
from pathlib import Path
from typing import Protocol, cast

import casbin  # pyright: ignore[reportMissingTypeStubs]  (ships no types; wrapped by _Enforcer below)
from pydantic import JsonValue

from policies.decision import NO_RULE, Decision, GateRequest, Principal, Verdict
from policies.glob import any_glob
from policies.rules import GATE_FAULT, MALFORMED, RuleSet
from tools.contract import NAME_PATTERN, canonical_json

log = logging.getLogger(__name__)

MODEL = Path(__file__).parent / "model.conf"
RIGHTS_MODEL = Path(__file__).parent / "rights.conf"

MAX_ARGUMENTS = 512 * 1024
"""Characters and values in the arguments of one call; more is denied unread."""
MAX_DEPTH = 32
MAX_ROLES = 64

_TOOL = re.compile(NAME_PATTERN)
_AUTOMATION = re.compile(r"[a-z][a-z0-9-]{0,47}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,47}")
_WORD = re.compile(r"[a-z][a-z_]{0,31}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Cell = str | int | tuple[str, ...] | frozenset[str]
Row = list[Cell]


class _Assertion(Protocol):
    policy: list[Row]
    tokens: list[str]


class _Enforcer(Protocol):
    """The part of casbin.Enforcer used here, with the types it really has."""

    model: dict[str, dict[str, _Assertion]]

    def enforce_ex(self, *values: object) -> tuple[bool, Row]: ...
    def add_function(self, name: str, func: object) -> None: ...
    def build_role_links(self) -> None: ...
    def get_implicit_roles_for_user(self, name: str) -> list[str]: ...


class _CachedEnforcer(casbin.Enforcer):  # pyright: ignore[reportUntypedBaseClass]  (see above)
    """Casbin's enforcer, keeping the parsed matcher. Stock casbin parses the matcher's text again on every call.

    Per thread, because a parsed expression holds the values of the row it is evaluating.
    """

    def __init__(self, model: str):
        self._parsed = threading.local()
        super().__init__(model)  # pyright: ignore[reportUnknownMemberType]

    def _get_expression(self, expr: str, functions: object = None) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        kept = cast("tuple[str, object] | None", getattr(self._parsed, "matcher", None))
        if kept is None or kept[0] != expr:
            kept = expr, cast("object", super()._get_expression(expr, functions))  # pyright: ignore[reportUnknownMemberType]
            self._parsed.matcher = kept
        return kept[1]


def _any_of(held: frozenset[str], wanted: frozenset[str]) -> bool:
    return not held.isdisjoint(wanted)


SENTINEL: Row = [0, frozenset[str](), (), (), (), frozenset[str](), "deny", "deny", "sentinel"]
"""First row of every policy; matches nobody. Casbin evaluates an EMPTY policy as one row of empty strings that allows:
with this row there is no empty policy, whatever narrows the rows."""
RIGHTS_SENTINEL: Row = [frozenset[str](), "", frozenset[str](), "deny", "sentinel"]


class PolicyEngine:
    """Decides calls and API rights from one compiled policy. Safe to use from many threads."""

    def __init__(self, rules: RuleSet):
        """Compile. Raises whatever casbin raises when the model cannot be built: then there is no engine at all."""
        self._rules = {rule.id: rule for rule in rules.rules}
        self._gate = _enforcer(MODEL, [SENTINEL, *sorted(_rows(rules), key=_order)])
        self._rights = _enforcer(RIGHTS_MODEL, [RIGHTS_SENTINEL, *_right_rows(rules)])
        self._closure = _closure(self._gate, rules)
        body: dict[str, JsonValue] = {
            "policy": rules.as_json(), "model": MODEL.read_text(), "rights": RIGHTS_MODEL.read_text(),
        }  # fmt: skip
        self.version = hashlib.sha256(canonical_json(body)).hexdigest()

    def decide(self, request: GateRequest) -> Decision:
        """The strictest verdict of all rules that match; no match is deny.

        Never raises: anything that breaks while deciding is a deny by `gate-fault`, and logged.
        """
        try:
            problem = _malformed(request)
            if problem is not None:
                return self._deny(MALFORMED, problem)
            return self._ask_casbin(request)
        except Exception:  # whatever broke, the answer is deny; that is the contract of this method
            log.exception("the gate could not decide")
            return self._deny(GATE_FAULT, "The gate could not decide; the call is denied.")

    def may(self, principal: Principal, resource: str, action: str) -> bool:
        """Whether the principal may do `action` on `resource` over the API. False for anything unknown; never raises.

        Resources and actions: runs read|start|cancel, artifacts read, files read|upload, automations read, tools read,
        approvals read|answer, policy check, audit read|verify, keys read|create|revoke. The tenant is the caller's to
        compare: rights say nothing about whose runs.
        """
        try:
            if not _WORD.fullmatch(resource) or not _WORD.fullmatch(action) or _bad_principal(principal):
                return False
            allowed, _ = self._rights.enforce_ex(self.roles_of(principal), resource, action)
        except Exception:
            log.exception("the gate could not decide a right")
            return False
        return allowed is True

    def roles_of(self, principal: Principal) -> frozenset[str]:
        """Every role the principal holds, inherited ones included, and `*`. Unknown roles are left out, and never reach
        casbin, whose role manager would keep each of them for good."""
        held = {"*"}
        for role in principal.roles:
            held |= self._closure.get(role, frozenset())
        return frozenset(held)

    def _ask_casbin(self, request: GateRequest) -> Decision:
        who = request.principal
        allowed, row = self._gate.enforce_ex(
            self.roles_of(who), who.tenant, request.automation, request.tool, request.effect.value
        )
        if not row:
            return self._deny(NO_RULE, "No rule allows this call.")
        rule = self._rules[str(row[-1])]
        # Casbin's answer and the row must say the same; if they do not, somebody changed the model: KeyError and
        # disagreement both end as a fault.
        if allowed is not (rule.verdict is not Verdict.DENY) or row[-2] != rule.verdict.value:
            raise RuntimeError(f"casbin answered {allowed} with the row of rule {rule.id}")
        return Decision(
            verdict=rule.verdict,
            rule=rule.id,
            reason=rule.reason,
            approvers=rule.approvers,
            policy_version=self.version,
        )

    def _deny(self, rule: str, reason: str) -> Decision:
        return Decision(verdict=Verdict.DENY, rule=rule, reason=reason, policy_version=self.version)


def _rows(rules: RuleSet) -> list[Row]:
    return [
        [
            _priority(rule.verdict, rule.approvers), frozenset(rule.roles), (rule.tenant,), rule.automations,
            rule.tools,
            frozenset(e.value for e in rule.effects), "deny" if rule.verdict is Verdict.DENY else "allow",
            rule.verdict.value, rule.id,
        ]
        for rule in rules.rules
    ]  # fmt: skip


def _priority(verdict: Verdict, approvers: str) -> int:
    """Strictest first. An ask that names its own approvers is stricter than one any approver may answer."""
    match verdict:
        case Verdict.DENY:
            return 1
        case Verdict.ASK:
            return 3 if approvers == "approver" else 2
        case Verdict.ALLOW:
            return 4


def _order(row: Row) -> tuple[int, str]:
    """By strictness, then by id, so that neither files nor rows have an order that matters."""
    return cast("int", row[0]), cast("str", row[-1])


def _right_rows(rules: RuleSet) -> list[Row]:
    rows: list[Row] = [[frozenset(r.roles), r.resource, frozenset(r.actions), "allow", r.id] for r in rules.rights]
    return sorted(rows, key=lambda row: cast("str", row[-1]))


def _enforcer(model: Path, rows: list[Row]) -> _Enforcer:
    enforcer = cast("_Enforcer", _CachedEnforcer(str(model)))
    enforcer.add_function("glob", any_glob)
    enforcer.add_function("anyOf", _any_of)
    assertion = enforcer.model["p"]["p"]
    if any(len(row) != len(assertion.tokens) for row in rows):
        raise ValueError(f"a row does not have the {len(assertion.tokens)} fields of {model.name}")
    # Straight into the list, sorted: add_policies is quadratic in 2.8 and does not sort by priority.
    assertion.policy.extend(rows)
    return enforcer


def _closure(enforcer: _Enforcer, rules: RuleSet) -> dict[str, frozenset[str]]:
    """Role -> itself and everything it inherits, as casbin's role manager sees the g rows."""
    links: list[Row] = [[role, inherited] for role, others in rules.roles for inherited in others]
    enforcer.model["g"]["g"].policy.extend(links)
    enforcer.build_role_links()
    return {role: frozenset({role, *enforcer.get_implicit_roles_for_user(role)}) for role, _ in rules.roles}


def _malformed(request: GateRequest) -> str | None:
    """What no honest request has: names outside ASCII (look-alikes), or arguments of absurd size or depth."""
    problem = _bad_principal(request.principal)
    if problem:
        return problem
    if not _TOOL.fullmatch(request.tool):
        return "The tool's name is not a plain tool name."
    if not _AUTOMATION.fullmatch(request.automation):
        return "The automation's name is not a plain automation name."
    return _bad_arguments(request.arguments)


def _bad_principal(who: Principal) -> str | None:
    if not _TENANT.fullmatch(who.tenant) or not 1 <= len(who.id) <= 128 or _CONTROL.search(who.id):
        return "The principal's id or tenant is not a plain name."
    if len(who.roles) > MAX_ROLES or not all(_ROLE.fullmatch(role) for role in who.roles):
        return "A role of the principal is not a plain role name."
    return None


def _bad_arguments(arguments: dict[str, JsonValue]) -> str | None:
    """Walks without recursion and stops at the first limit, so that no argument can exhaust the gate."""
    size = 0
    stack: list[tuple[JsonValue, int]] = [(arguments, 1)]
    while stack:
        value, depth = stack.pop()
        size += 1
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict):
            size += sum(map(len, value))
            stack.extend((v, depth + 1) for v in value.values())
        elif isinstance(value, list):
            stack.extend((v, depth + 1) for v in value)
        elif isinstance(value, float) and not math.isfinite(value):
            return "An argument is not a finite number."
        if depth > MAX_DEPTH:
            return f"The arguments are nested deeper than {MAX_DEPTH} levels."
        if size + len(stack) > MAX_ARGUMENTS:
            return f"The arguments are larger than {MAX_ARGUMENTS} characters."
    return None
