"""What rules say about answers: groups, numbers, business hours; and that a policy without any keeps its digest."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.asking import CalendarRow
from policies.calendar import Calendar, after
from policies.decision import Facts, GateRequest, Principal, Verdict
from policies.engine import PolicyEngine
from policies.lint import lint
from policies.rules import BUILT_IN, RuleError, RuleSet, load_rules
from policies.terms import Terms, schedule
from tools.contract import Effect

RULES = """
apiVersion: gatehouse/v1
roles: {finance-lead: []}
groups:
  finance: {roles: finance-lead, people: ann@corp.example}
  board: {people: [bea]}
calendars:
  office: {zone: Europe/Berlin, hours: "09:00-17:00", holidays: [2026-12-25]}
rules:
  - id: refunds
    roles: [operator]
    tools: [refund]
    verdict: ask
    approval:
      groups: [finance]
      needed: 2
      deadline: 8h
      calendar: office
      reminders: [0.5]
      escalate: [{after: 4h, to: board}]
      on_expiry: fallback
  - {id: one-is-enough, roles: [operator], tools: [refund], verdict: ask}
"""
FRIDAY = datetime(2026, 12, 18, 13, 0, tzinfo=UTC)  # 14:00 in Berlin, three hours before the weekend


def loaded(tmp_path: Path, text: str = RULES) -> RuleSet:
    (tmp_path / "r.yaml").write_text(text)
    return load_rules([BUILT_IN, tmp_path], {"refund", "http_request"})


def asked(now: datetime | None = FRIDAY) -> GateRequest:
    return GateRequest(
        principal=Principal(id="olga", roles=("operator",)), automation="a", tool="refund", effect=Effect.FINANCIAL,
        arguments={}, facts=Facts(now=now),
    )  # fmt: skip


def test_a_decision_carries_all_that_its_answers_need(tmp_path: Path) -> None:
    decision = PolicyEngine(loaded(tmp_path)).decide(asked())
    assert (decision.verdict, decision.rule, decision.approvers) == (Verdict.ASK, "refunds", "finance")
    terms = decision.terms
    assert terms is not None
    assert [(g.name, g.roles, g.people) for g in terms.groups] == [
        ("finance", ("finance-lead",), ("ann@corp.example",))
    ]
    assert (terms.needed, terms.services, terms.on_expiry) == (2, False, "fallback")
    # Three hours on Friday, five on Monday: 14:00 in Berlin. Half of eight hours: Monday 10:00.
    assert terms.deadline == datetime(2026, 12, 21, 13, 0, tzinfo=UTC)
    assert terms.reminders_at == (datetime(2026, 12, 21, 9, 0, tzinfo=UTC),)
    assert [step.at for step in terms.escalation] == [datetime(2026, 12, 21, 9, 0, tzinfo=UTC)]


def test_more_people_are_stricter_than_one_and_an_allow_has_no_terms(tmp_path: Path) -> None:
    engine = PolicyEngine(loaded(tmp_path))
    assert engine.decide(asked()).rule == "refunds"
    assert engine.decide(asked().model_copy(update={"effect": Effect.READ, "tool": "look"})).terms is None


def test_without_a_time_the_deadline_counts_around_the_clock(tmp_path: Path) -> None:
    terms = PolicyEngine(loaded(tmp_path)).decide(asked(now=None)).terms
    assert terms is not None
    assert terms.deadline is None
    assert schedule(terms, FRIDAY, 60).deadline == FRIDAY + timedelta(hours=8)


def test_the_digest_covers_groups_and_survives_the_store(tmp_path: Path) -> None:
    rules = loaded(tmp_path)
    again = RuleSet.from_body(rules.body)
    assert again.version == rules.version
    assert PolicyEngine(again).decide(asked()) == PolicyEngine(rules).decide(asked())
    changed = loaded(tmp_path, RULES.replace("ann@corp.example", "eve@corp.example"))
    assert changed.version != rules.version


def test_rules_that_say_nothing_of_it_are_written_as_before() -> None:
    body = load_rules([BUILT_IN], {"http_request"}).body
    assert b'"approval"' not in body
    assert b'"asking"' not in body


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (("groups: [finance]", "groups: [finanse]"), "rules.0.approval.groups.0"),
        (("to: board", "to: bored"), "rules.0.approval.escalate.0.to"),
        (("calendar: office", "calendar: shop"), "rules.0.approval.calendar"),
        (("after: 4h", "after: 9h"), "rules.0.approval"),
        (("      deadline: 8h\n", ""), "rules.0.approval"),
        (("zone: Europe/Berlin", "zone: Europe/Berlim"), "calendars.office.zone"),
        (('"09:00-17:00"', '"17:00-09:00"'), "calendars.office.hours"),
        (("needed: 2", "needed: 0"), "rules.0.approval.needed"),
        (("reminders: [0.5]", "reminders: [1.5]"), "rules.0.approval.reminders.0"),
        (("on_expiry: fallback", "on_expiry: allow"), "rules.0.approval.on_expiry"),
        (("  board: {people: [bea]}", "  operator: {people: [bea]}\n  board: {people: [bea]}"), "groups.operator"),
        (("roles: finance-lead", "roles: finance-leed"), "groups.finance.roles.0"),
        (("    verdict: ask\n    approval", "    verdict: ask\n    approvers: finance-lead\n    approval"), "rules.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, wrong: tuple[str, str], field: str) -> None:
    assert wrong[0] in RULES
    with pytest.raises(RuleError) as refused:
        loaded(tmp_path, RULES.replace(*wrong))
    assert field in [p.field for p in refused.value.problems], refused.value


def test_lint_tells_two_asks_apart_by_their_terms(tmp_path: Path) -> None:
    found = {(f.rule, f.kind) for f in lint(loaded(tmp_path), {}) if f.rule == "one-is-enough"}
    assert found == {("one-is-enough", "shadowed")}  # and not "duplicate"


# ---------------------------------------------------------------- business hours

OFFICE = CalendarRow(zone="Europe/Berlin", hours=("09:00-12:00", "13:00-17:00")).calendar()


def test_clocks_that_change_shorten_or_lengthen_the_night_not_the_work() -> None:
    night = Calendar(zone="Europe/Berlin", hours=((time(0), time(0)),), weekdays=frozenset(range(1, 8)))
    spring = datetime(2026, 3, 28, 23, 0, tzinfo=UTC)  # midnight in Berlin; the day has 23 hours
    assert after(night, spring, timedelta(hours=23)) == spring + timedelta(hours=23)
    assert after(night, spring, timedelta(hours=24)) == spring + timedelta(hours=24)


def test_holidays_and_lunch_do_not_count() -> None:
    christmas = OFFICE.model_copy(update={"holidays": frozenset({date(2026, 12, 25)})})
    thursday = datetime(2026, 12, 24, 10, 30, tzinfo=UTC)  # 11:30: half an hour before lunch
    assert after(christmas, thursday, timedelta(hours=1)) == datetime(2026, 12, 24, 12, 30, tzinfo=UTC)
    assert after(christmas, thursday, timedelta(hours=5)) == datetime(2026, 12, 28, 8, 30, tzinfo=UTC)


def test_a_calendar_in_which_nobody_ever_works_is_refused() -> None:
    never = OFFICE.model_copy(update={"weekdays": frozenset[int]()})
    with pytest.raises(ValueError, match="leaves no"):
        after(never, FRIDAY, timedelta(hours=1))


@settings(max_examples=60, deadline=None)
@given(
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    one=st.integers(1, 200_000), two=st.integers(1, 200_000),
)  # fmt: skip
def test_working_time_adds_up(start: datetime, one: int, two: int) -> None:
    first, second = timedelta(seconds=one), timedelta(seconds=two)
    assert after(OFFICE, after(OFFICE, start, first), second) == after(OFFICE, start, first + second)
    assert after(OFFICE, start, first) >= start + first


def test_what_is_due_lies_before_the_deadline_in_order() -> None:
    terms = Terms(deadline_s=100, reminders=(0.9, 0.5))
    due = schedule(terms, FRIDAY, 7).due
    assert [(m.at - FRIDAY).total_seconds() for m in due] == [50, 90]
