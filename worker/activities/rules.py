"""`rules.next`: what an automation's fallback rules want next. Pure: the same question has the same answer.

An activity, not workflow code, so that the expression engine can change without breaking the replay of running runs.
"""

import logging
from collections.abc import Callable

from temporalio import activity

from policies.fallback import THEN_VARIABLES, WHEN_VARIABLES, Expression, ExpressionError, Template, expression
from tools.contract import JsonObject, Outcome, ToolCall
from workflows.contracts import RulesAnswer, RulesAsked
from workflows.spec import FallbackRule, RuleCall

log = logging.getLogger(__name__)


class RuleActivities:
    """The port `rules.next`."""

    def all(self) -> list[Callable[..., object]]:
        """Every activity, for the worker's registration."""
        return [self.next_by_rules]

    @activity.defn(name="rules.next")
    async def next_by_rules(self, asked: RulesAsked) -> RulesAnswer:
        """First matching rule; then its calls in order; then its answer. Fails closed:

        - a rule whose `when` cannot be evaluated does not apply; the next is tried. The problem is reported when
          none applies, and logged otherwise;
        - a call that did not succeed (denied, expired, failed, unknown) ends the rule with a problem, unless the call
          is `optional`; an optional call whose arguments cannot be rendered is skipped;
        - an answer that cannot be rendered is a problem.
        No call, no answer, no problem: no rule applies, or the rule chosen has no answer of its own.
        """
        return next_step(asked)


def next_step(asked: RulesAsked) -> RulesAnswer:
    """As the activity, callable without Temporal."""
    if asked.rule is not None:
        chosen = next((r for r in asked.automation.definition.rules if r.id == asked.rule), None)
        if chosen is None:
            return RulesAnswer(rule=None, problem=f"the automation has no rule {asked.rule!r}")
        return _follow(chosen, asked)
    problems: list[str] = []
    for rule in asked.automation.definition.rules:
        try:
            if not _holds(rule.when, asked, WHEN_VARIABLES):
                continue
        except ExpressionError as error:
            problems.append(f"rule {rule.id}: when: {error}")
            continue
        if problems:  # an answer with a problem would end the rung; what was skipped is the operator's to see
            log.warning("fallback rules of %s were skipped: %s", asked.automation.name, "; ".join(problems))
        return _follow(rule, asked)
    return RulesAnswer(rule=None, problem="; ".join(problems) or None)


def _follow(rule: FallbackRule, asked: RulesAsked) -> RulesAnswer:
    for call in rule.then.calls:
        result = asked.results.get(call.id)
        if result is not None:
            outcome = result.get("outcome") if isinstance(result, dict) else None
            if outcome != Outcome.SUCCEEDED.value and not call.optional:
                return RulesAnswer(rule=rule.id, problem=f"rule {rule.id}: call {call.id}: {outcome or 'no outcome'}")
            continue
        try:
            arguments = _arguments(call, asked)
        except ExpressionError as error:
            if call.optional:
                continue
            return RulesAnswer(rule=rule.id, problem=f"rule {rule.id}: call {call.id}: {error}")
        if arguments is not None:
            wanted = ToolCall(id=f"{rule.id}-{call.id}", tool=call.tool, arguments=arguments)
            return RulesAnswer(rule=rule.id, call=wanted, call_id=call.id)
    if rule.then.answer is None:
        return RulesAnswer(rule=rule.id)
    try:
        return RulesAnswer(rule=rule.id, answer=_rendered(rule.then.answer, asked))
    except ExpressionError as error:
        return RulesAnswer(rule=rule.id, problem=f"rule {rule.id}: answer: {error}")


def _arguments(call: RuleCall, asked: RulesAsked) -> JsonObject | None:
    """The call's arguments, or None when its `when` says that it is not wanted."""
    if call.when is not None and not _holds(call.when, asked, THEN_VARIABLES):
        return None
    return _rendered(call.args, asked)


def _rendered(value: JsonObject, asked: RulesAsked) -> JsonObject:
    rendered = Template(value, THEN_VARIABLES).render(_values(asked))
    if not isinstance(rendered, dict):  # a template keeps the shape of its value; this is for the type checker
        raise ExpressionError("not an object")
    return rendered


def _holds(text: str, asked: RulesAsked, variables: frozenset[str]) -> bool:
    compiled: Expression = expression(text, variables)
    return compiled.holds(_values(asked))


def _values(asked: RulesAsked) -> JsonObject:
    return {
        "inputs": asked.inputs, "files": list(asked.files), "failure": asked.failure, "results": dict(asked.results),
    }  # fmt: skip
