"""The degrade ladder: models in their order, then the automation's rules, then a human. No rung repeats a side effect.

A model that fails hands its conversation, results of calls included, to the next. Rules and humans start from what is
recorded; their calls pass the same gate.
"""

import hashlib
import json

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from policies.terms import Terms
from tools.contract import JsonObject, Outcome, ToolResult, canonical_json
from workflows import ports
from workflows.approvals import Draft
from workflows.concurrency import together
from workflows.contracts import ApprovalAnswer, Phase, Question, RulesAnswer, RulesAsked, Rung, RunResult
from workflows.live import LiveRun
from workflows.recording import record
from workflows.schemas import problems
from workflows.tool_call import tool_call
from workflows.turns import Conversation, ModelGaveUpError, Reply, turn

MAX_POINTLESS_TURNS = 3
"""Turns in a row in which a model only asked for invalid calls or gave invalid answers."""
MAX_SANDBOX_FAULTS = 2
MAX_RULE_CALLS = 200


class RungOverError(Exception):
    """The whole rung ends: another model would not help (budget used up, no sandbox)."""


async def descend(run: LiveRun, *, sandbox_problem: str | None) -> RunResult:
    """Work down the ladder until some rung ends the run. `sandbox_problem`: why no tool can run at all, if so."""
    failure = sandbox_problem
    if failure is None:
        try:
            return run.result(Phase.SUCCEEDED, await _by_models(run))
        except RungOverError as over:
            failure = str(over)
    await run.degrade(Rung.RULES, failure)
    try:
        return run.result(Phase.SUCCEEDED, await _by_rules(run, failure))
    except RungOverError as over:
        await run.degrade(Rung.HUMAN, str(over))
    return await _by_human(run)


# ---------------------------------------------------------------- models


async def _by_models(run: LiveRun) -> JsonObject:
    """The answer of the first model that gets to one. Raises RungOverError."""
    talk = Conversation.opened(run.request)
    chain = run.definition.models
    if not chain:
        raise RungOverError("the automation names no model")
    index = run.request.carried.model_index if run.request.carried else 0
    while True:
        run.model = chain[index]
        run.publish()
        try:
            return await _converse(run, talk, index)
        except ModelGaveUpError as gave_up:
            index += 1
            if index == len(chain):
                raise RungOverError(str(gave_up)) from gave_up
            await run.degrade(Rung.FALLBACK_MODEL, str(gave_up))


async def _converse(run: LiveRun, talk: Conversation, index: int) -> JsonObject:
    """Turn by turn with one model until it gives a valid answer. Raises ModelGaveUpError, RungOverError."""
    model = run.definition.models[index]
    pointless = 0
    while True:
        await run.holds.over()
        await _continue_as_new_if_long(run, talk, index)
        if (breach := run.spent.breach(run.definition.budgets, run.worked_s())) is not None:
            raise RungOverError(breach)
        reply = await turn(run, talk, model)
        if reply.answer is not None:
            problem = problems(run.definition.output, reply.answer, "answer")
            if problem is None:
                return reply.answer
            talk.prompt = f"The final answer does not fit its schema: {problem}. Give it again, corrected."
            useful = False
        else:
            useful = await _make_calls(run, talk, reply)
        pointless = 0 if useful else pointless + 1
        if pointless == MAX_POINTLESS_TURNS:
            raise ModelGaveUpError(f"{model}: nothing valid in {pointless} turns")


async def _make_calls(run: LiveRun, talk: Conversation, reply: Reply) -> bool:
    """Make all calls of a turn side by side; whether at least one was a valid call. Raises RungOverError."""
    if (breach := run.spent.no_room_for(len(reply.calls), run.definition.budgets)) is not None:
        raise RungOverError(breach)
    run.spent.tool_calls += len(reply.calls)
    results = await together([tool_call(run, call, "model") for call in reply.calls])
    talk.results = {call.id: result for call, result in zip(reply.calls, results, strict=True)}
    if run.left_to_rules is not None:
        raise RungOverError(run.left_to_rules)
    if run.sandbox_faults >= MAX_SANDBOX_FAULTS:
        raise RungOverError(f"no sandbox for {run.sandbox_faults} calls in a row")
    return any(result.error != "invalid_arguments" for result in results)


async def _continue_as_new_if_long(run: LiveRun, talk: Conversation, index: int) -> None:
    """Between two turns no call is running and no question is open, so little has to be carried."""
    if not workflow.info().is_continue_as_new_suggested():
        return
    await workflow.wait_condition(workflow.all_handlers_finished)
    workflow.continue_as_new(run.request.model_copy(update={"carried": talk.carried(run, index)}))


# ---------------------------------------------------------------- rules


async def _by_rules(run: LiveRun, failure: str) -> JsonObject:
    """Follow the first rule that matches until it answers. Raises RungOverError when the rules cannot."""
    results: dict[str, JsonObject] = {}
    rule: str | None = None
    for _ in range(MAX_RULE_CALLS):
        said = await _ask_rules(run, failure, rule, results)
        rule = said.rule
        if said.problem is not None:
            raise RungOverError(f"rules: {said.problem}")
        if said.call is not None and said.call_id is not None:
            run.spent.tool_calls += 1
            result = await tool_call(run, said.call, "rules")
            results[said.call_id] = _for_rules(result)
            continue
        if said.answer is None:
            raise RungOverError("rules: no rule matches" if rule is None else f"rules: {rule} gives no answer")
        if (problem := problems(run.definition.output, said.answer, "answer")) is not None:
            raise RungOverError(f"rules: {problem}")
        return said.answer
    raise RungOverError(f"rules: more than {MAX_RULE_CALLS} calls")


async def _ask_rules(run: LiveRun, failure: str, rule: str | None, results: dict[str, JsonObject]) -> RulesAnswer:
    asked = RulesAsked(
        automation=run.request.automation,
        inputs=run.request.inputs,
        files=tuple(f.name for f in run.request.files),
        failure=failure,
        rule=rule,
        results=results,
    )
    try:
        return await record(ports.next_by_rules, asked, "what do the rules say")
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        raise RungOverError("rules: they could not be evaluated") from error


def _for_rules(result: ToolResult) -> JsonObject:
    """A result as rule expressions read it; `data` is the content parsed, where it is JSON."""
    data = None
    if result.outcome is Outcome.SUCCEEDED:
        try:
            data = json.loads(result.content)
        except ValueError:
            data = None
    return {"outcome": result.outcome.value, "content": result.content, "data": data}


# ---------------------------------------------------------------- human


async def _by_human(run: LiveRun) -> RunResult:
    """Hand the job over: a person gives its result or gives it up."""
    await run.holds.over()
    defaults = run.definition.approvals
    about: JsonObject = {"question": Question.HANDOVER.value, "run": run.ref.run_id, "degraded": list(run.degraded)}
    ending = await run.desk.ask(
        Draft(
            question=Question.HANDOVER,
            digest=hashlib.sha256(canonical_json(about)).hexdigest(),
            approvers=defaults.handover_role,
            deadline_s=defaults.handover_deadline_s,
            reason="; ".join(run.degraded),
            # Runs of older releases wait without reminders to their end.
            terms=Terms() if workflow.patched("handover-terms") else None,
            problem=lambda answer: _problem_of_output(run, answer),
        )
    )
    answer = ending.answer
    if answer is None:
        return run.result(Phase.FAILED, failure="handed over to a human, and nobody answered before the deadline")
    if answer.verdict == "deny":
        reason = f": {answer.reason}" if answer.reason else ""
        return run.result(Phase.FAILED, failure=f"given up by {answer.principal.id}{reason}")
    return run.result(Phase.SUCCEEDED, answer.output)


def _problem_of_output(run: LiveRun, answer: ApprovalAnswer) -> str | None:
    if answer.output is None:
        return "output: the job's result is missing"
    return problems(run.definition.output, answer.output, "output")
