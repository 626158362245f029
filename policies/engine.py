"""The gate: compiles the typed policy into Casbin and asks it. The only importer of casbin.

Runs in activities and in the API, never in workflow code. No I/O after construction, no clock, no randomness. An engine
is an immutable snapshot: another policy is another engine, swapped by reference, so `decide` needs no lock.
"""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol, cast

import casbin  # pyright: ignore[reportMissingTypeStubs]  (ships no types; wrapped by _Enforcer below)

from policies import malformed
from policies.asking import terms_of, timed
from policies.condition import Question, condition
from policies.decision import NO_RULE, Decision, GateRequest, Principal, Verdict
from policies.expression import ExpressionError
from policies.glob import any_glob
from policies.index import FIELDS, NarrowedRows, Row, RowIndex
from policies.malformed import MalformedError
from policies.rules import GATE_FAULT, MALFORMED, Rule, RuleSet, strictness
from tools.contract import Effect

log = logging.getLogger(__name__)

MODEL = Path(__file__).parent / "model.conf"
RIGHTS_MODEL = Path(__file__).parent / "rights.conf"

CANDIDATES_KEPT = 16_384
"""Kinds of call (who, where, which tool) whose candidate rows an engine remembers. Decisions are never remembered."""

PARSE_ATTEMPTS = 20

_WORD = re.compile(r"[a-z][a-z_]{0,31}")

# Casbin warns of every denial, with the request in it. Decisions are recorded by those who ask, not here.
_quiet = logging.getLogger(f"{__name__}.casbin")
_quiet.setLevel(logging.ERROR)


class _Assertion(Protocol):
    policy: list[Row]
    tokens: list[str]


class _Enforcer(Protocol):
    """The part of casbin.Enforcer used here, with the types it really has."""

    model: dict[str, dict[str, _Assertion]]
    logger: logging.Logger

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
            # An evaluator without text parses nothing; the tree is the same for every thread and only read.
            evaluator = cast("_Evaluator", super()._get_expression("", functions))  # pyright: ignore[reportUnknownMemberType]
            evaluator.ast_parsed_value = _tree(expr, self._parse)
            kept = expr, evaluator
            self._parsed.matcher = kept
        return kept[1]

    def _parse(self, expr: str) -> object:
        return cast("_Evaluator", super()._get_expression(expr, None)).ast_parsed_value  # pyright: ignore[reportUnknownMemberType]


class _Evaluator(Protocol):
    ast_parsed_value: object


_trees: dict[str, object] = {}
_parsing = threading.Lock()


def _tree(expr: str, parse: Callable[[str], object]) -> object:
    """The matcher's syntax tree, parsed once in the life of the process.

    Python 3.11's parser is not safe in several threads: now and then one of two that parse at the same time gets a
    SystemError (`AST constructor recursion depth mismatch`). So: one at a time, and again when somebody else's code was
    in the way.
    """
    with _parsing:
        for attempt in range(PARSE_ATTEMPTS):
            if expr in _trees:
                break
            try:
                _trees[expr] = parse(expr)
            except SystemError:
                if attempt == PARSE_ATTEMPTS - 1:
                    raise
        return _trees[expr]


def _any_of(held: frozenset[str], wanted: frozenset[str]) -> bool:
    return not held.isdisjoint(wanted)


class _Asking:
    """The call each thread is deciding, and the matcher's last clause over it.

    Kept apart from the engine, as is `_Callers`: nothing refers back to the engine, so that it is freed the moment
    nobody holds it, without the garbage collector.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._local = threading.local()
        self._rules = rules
        self._compiled = {rule.when: condition(rule.when) for rule in rules.values() if rule.when}

    def about(self, question: Question | None) -> None:
        """The call this thread is deciding from here on; None for none."""
        self._local.question = question

    def holds(self, text: str, rule_id: str) -> bool:
        """Does the row's condition hold? One that cannot be evaluated holds where it restricts (deny, ask) and fails
        where it allows."""
        if not text:
            return True
        question = cast("Question | None", getattr(self._local, "question", None))
        if question is None:
            raise RuntimeError("no call is being decided")
        try:
            return self._compiled[text].holds_for(question)
        except ExpressionError as problem:
            question.faults.append((rule_id, str(problem)))
            return self._rules[rule_id].verdict is not Verdict.ALLOW


class _Callers:
    """Who asks, as rows name it, and which rows can match: worked out once for each kind of call."""

    def __init__(self, rules: RuleSet, closure: Mapping[str, frozenset[str]], index: RowIndex) -> None:
        self.subjects = frozenset(subject for rule in rules.rules for subject in rule.subjects)
        self._closure = closure
        self._index = index

    def held(self, roles: tuple[str, ...]) -> frozenset[str]:
        """The roles, all they inherit, and `*`; unknown ones left out."""
        held = {"*"}
        for role in roles:
            held |= self._closure.get(role, frozenset())
        return frozenset(held)

    def narrow(
        self, roles: tuple[str, ...], subject: str | None, tenant: str, automation: str, tool: str, effect: str
    ) -> tuple[frozenset[str], tuple[Row, ...]]:
        """What the requester holds, and the candidates. Raises MalformedError, which is not remembered."""
        malformed.check_names(roles, tenant, automation, tool)
        held = self.held(roles)
        if subject is not None:
            held |= {_as_holder(subject)}
        return held, self._index.candidates(held, tenant, automation, tool, effect)


SENTINEL: Row = [0, frozenset[str](), (), (), (), frozenset[str](), "", "deny", "deny", "sentinel"]
"""Last row of every policy and of every list of candidates; matches nobody. Casbin evaluates an EMPTY policy as one row
of empty strings that allows: with this row there is no empty policy, whatever narrows the rows."""
RIGHTS_SENTINEL: Row = [frozenset[str](), "", frozenset[str](), "deny", "sentinel"]


class PolicyEngine:
    """Decides calls and API rights from one compiled policy. Safe to use from many threads."""

    def __init__(self, rules: RuleSet, *, environment: str = "default"):
        """Compile. `environment` is what conditions see under that name. Raises whatever casbin raises when the model
        cannot be built: then there is no engine at all."""
        self.rules = rules
        self.environment = environment
        self._by_id = {rule.id: rule for rule in rules.rules}
        self._asking = _Asking(self._by_id)
        self._calendars = {name: row.calendar() for name, row in rules.calendars.items()}
        rows = _rows(rules)
        sentinel = [*SENTINEL]
        self._rows = NarrowedRows([*rows, sentinel])
        self._gate = _enforcer(MODEL, self._rows)
        self._gate.add_function("when", self._asking.holds)
        self._rights = _enforcer(RIGHTS_MODEL, [*_right_rows(rules), RIGHTS_SENTINEL])
        callers = _Callers(rules, _closure(self._gate, rules), RowIndex(rows, sentinel))
        self._callers = callers
        self._narrowed = lru_cache(CANDIDATES_KEPT)(callers.narrow)
        self.version = rules.version
        self._decisions: dict[str, Decision] = {}

    def decide(self, request: GateRequest) -> Decision:
        """The strictest verdict of all rules that match; no match is deny.

        Never raises: anything that breaks while deciding is a deny by `gate-fault`, and logged.
        """
        return self._decide(request, narrowed=True)

    def decide_over_all_rows(self, request: GateRequest) -> Decision:
        """As `decide`, without the index: Casbin looks at every row. The same answer, some hundred times slower."""
        return self._decide(request, narrowed=False)

    def may(self, principal: Principal, resource: str, action: str) -> bool:
        """Whether the principal may do `action` on `resource` over the API. False for anything unknown; never raises.

        Resources and actions: runs read|start|cancel, artifacts read, files read|upload, automations read, tools read,
        approvals read|answer|grant, policy check|read|propose|apply, audit read|verify, history read, keys
        read|create|revoke. The tenant is the caller's to compare: rights say nothing about whose runs.
        """
        try:
            if not _WORD.fullmatch(resource) or not _WORD.fullmatch(action):
                return False
            malformed.check_principal(principal)
            allowed, _ = self._rights.enforce_ex(self.roles_of(principal), resource, action)
        except MalformedError:
            return False
        except Exception:
            log.exception("the gate could not decide a right")
            return False
        return allowed is True

    def roles_of(self, principal: Principal) -> frozenset[str]:
        """Every role the principal holds, inherited ones included, and `*`. Unknown roles are left out, and never reach
        casbin, whose role manager would keep each of them for good."""
        return self._callers.held(principal.roles)

    def rule(self, rule_id: str) -> Rule | None:
        """The rule of that id."""
        return self._by_id.get(rule_id)

    def looks_at_arguments(self, request: GateRequest) -> bool:
        """Whether a condition of a row that could match this call reads its arguments. True for a malformed call."""
        try:
            _, rows = self._candidates(request)
        except MalformedError:
            return True
        texts = {str(row[FIELDS.index("when")]) for row in rows}
        return any("args" in condition(text).used for text in texts if text)

    def _candidates(self, request: GateRequest) -> tuple[frozenset[str], tuple[Row, ...]]:
        who = request.principal
        subject = who.id if who.id in self._callers.subjects else None
        return self._narrowed(who.roles, subject, who.tenant, request.automation, request.tool, request.effect.value)

    def _decide(self, request: GateRequest, *, narrowed: bool) -> Decision:
        try:
            malformed.check_id(request.principal.id)
            held, rows = self._candidates(request)
            question = Question(request, self.environment, malformed.measure(request.arguments))
            return self._ask_casbin(question, held, rows if narrowed else None)
        except MalformedError as problem:
            return self._deny(MALFORMED, str(problem))
        except Exception:  # whatever broke, the answer is deny; that is the contract of this method
            log.exception("the gate could not decide")
            return self._deny(GATE_FAULT, "The gate could not decide; the call is denied.")

    def _ask_casbin(self, question: Question, held: frozenset[str], rows: tuple[Row, ...] | None) -> Decision:
        request = question.request
        self._asking.about(question)
        self._rows.narrow(rows)
        try:
            allowed, row = self._gate.enforce_ex(
                held, request.principal.tenant, request.automation, request.tool, request.effect.value
            )
        finally:
            self._rows.narrow(None)
            self._asking.about(None)
        if not row:
            return self._deny(NO_RULE, "No rule allows this call." + _doubts(question))
        rule = self._by_id[str(row[-1])]
        # Casbin's answer and the row must say the same; if they do not, somebody changed the model: KeyError and
        # disagreement both end as a fault.
        if allowed is not (rule.verdict is not Verdict.DENY) or row[-2] != rule.verdict.value:
            raise RuntimeError(f"casbin answered {allowed} with the row of rule {rule.id}")
        decision = self._timed(self._decisions.get(rule.id) or self._decision(rule), rule, request)
        if question.faults:
            return decision.model_copy(update={"reason": (decision.reason + _doubts(question)).strip()})
        return decision

    def _decision(self, rule: Rule) -> Decision:
        """What the rule decides, made when it first does: all it says is the rule's own."""
        decision = self._decisions[rule.id] = Decision(
            verdict=rule.verdict, rule=rule.id, reason=rule.reason, approvers=_approvers(rule),
            policy_version=self.version,
            terms=terms_of(rule.approval, self.rules.groups) if rule.verdict is Verdict.ASK else None,
        )  # fmt: skip
        return decision

    def _timed(self, decision: Decision, rule: Rule, request: GateRequest) -> Decision:
        """With the moments that the rule's calendar counts; where the time is not known, it counts around the clock."""
        asking, now = rule.approval, request.facts.now if request.facts else None
        if decision.terms is None or asking is None or asking.calendar is None or now is None:
            return decision
        terms = timed(decision.terms, self._calendars[asking.calendar], now)
        return decision.model_copy(update={"terms": terms})

    def _deny(self, rule: str, reason: str) -> Decision:
        return Decision(verdict=Verdict.DENY, rule=rule, reason=reason, policy_version=self.version)


def _doubts(question: Question) -> str:
    """What a decision says of conditions that could not be evaluated on the way to it."""
    return "".join(
        f" (The condition of rule {rule} could not be evaluated: {problem[:200]}.)"
        for rule, problem in question.faults[:3]
    )


def _as_holder(subject: str) -> str:
    """A principal's id among the roles it holds; the colon keeps the two apart, no role has one."""
    return f"id:{subject}"


def _rows(rules: RuleSet) -> list[Row]:
    # Rows share their sets: there are few different ones, and making each anew is half of a reload.
    @lru_cache(None)
    def people(roles: tuple[str, ...], subjects: tuple[str, ...]) -> frozenset[str]:
        return frozenset((*roles, *map(_as_holder, subjects)))

    @lru_cache(None)
    def words(effects: tuple[Effect, ...]) -> frozenset[str]:
        return frozenset(effect.value for effect in effects)

    return [
        [
            place, people(rule.roles, rule.subjects), (rule.tenant,),
            rule.automations, rule.tools, words(rule.effects), rule.when,
            "deny" if rule.verdict is Verdict.DENY else "allow", rule.verdict.value, rule.id,
        ]
        # By strictness, then by id, so that neither files nor rows have an order that matters.
        for place, rule in enumerate(sorted(rules.rules, key=strictness), 1)
    ]  # fmt: skip


def _approvers(rule: Rule) -> str:
    """Who may answer, in words: the role, or the groups."""
    return ", ".join(rule.approval.groups) if rule.approval and rule.approval.groups else rule.approvers


def _right_rows(rules: RuleSet) -> list[Row]:
    rows: list[Row] = [[frozenset(r.roles), r.resource, frozenset(r.actions), "allow", r.id] for r in rules.rights]
    return sorted(rows, key=lambda row: cast("str", row[-1]))


def _enforcer(model: Path, rows: list[Row]) -> _Enforcer:
    enforcer = cast("_Enforcer", _CachedEnforcer(str(model)))
    enforcer.logger = _quiet
    enforcer.add_function("glob", any_glob)
    enforcer.add_function("anyOf", _any_of)
    assertion = enforcer.model["p"]["p"]
    if any(len(row) != len(assertion.tokens) for row in rows):
        raise ValueError(f"a row does not have the {len(assertion.tokens)} fields of {model.name}")
    if model is MODEL and tuple(token.removeprefix("p_") for token in assertion.tokens) != FIELDS:
        raise ValueError(f"{model.name} declares other columns than the index knows")
    # The list itself, sorted: add_policies is quadratic in 2.8 and does not sort by priority.
    assertion.policy = rows
    return enforcer


def _closure(enforcer: _Enforcer, rules: RuleSet) -> dict[str, frozenset[str]]:
    """Role -> itself and everything it inherits, as casbin's role manager sees the g rows."""
    links: list[Row] = [[role, inherited] for role, others in rules.roles for inherited in others]
    enforcer.model["g"]["g"].policy.extend(links)
    enforcer.build_role_links()
    return {role: frozenset({role, *enforcer.get_implicit_roles_for_user(role)}) for role, _ in rules.roles}
