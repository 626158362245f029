"""Changing the policy: proposals, who applies or rejects them, and suggestions from answers. Everything is audited.

Who may propose and who may apply are rights of the policy itself. In strict mode the two are different people.
"""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from api.auth import PolicyApplier, PolicyProposer, PolicyReader
from api.errors import Refused, not_found, problems
from api.paging import Limit, PageOut
from api.policies import PolicyIn, answers, check_tenant, decisions, engine_of
from api.services import Services, ServicesDep
from policies.decision import Principal
from policies.export import as_yaml
from policies.lint import lint
from policies.rules import RuleSet
from policies.suggest import TIMES, Suggestion, suggestions
from tools.contract import Strict
from worker.store.policies import PolicyChange, PolicyMoved, Proposal

router = APIRouter(prefix="/policy", tags=["policy"])

ProposalId = Annotated[str, Path(max_length=64, description="Id of the proposal.")]


class ProposalIn(Strict):
    """Another policy, and why."""

    policy: PolicyIn
    note: Annotated[str, Field(max_length=1000)] = ""


class RejectionIn(Strict):
    """Why not."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]


class SuggestionOut(BaseModel):
    """A suggestion, and the whole policy it would make, ready to be proposed with `whole`."""

    suggestion: Suggestion
    version: str
    text: str


@router.get("/history", operation_id="list_policy_changes", summary="Policies that were in force", responses=problems())
async def list_policy_changes(
    principal: PolicyReader, services: ServicesDep, limit: Limit = 50
) -> PageOut[PolicyChange]:
    """Newest first; the first is in force."""
    check_tenant(principal, services)
    return PageOut[PolicyChange](items=await services.engine.policies.history(limit))


@router.get("/proposals", operation_id="list_policy_proposals", summary="Proposed policies", responses=problems())
async def list_policy_proposals(
    principal: PolicyReader,
    services: ServicesDep,
    state: Annotated[
        str | None, Query(pattern="^(open|applied|rejected)$", description="Only proposals in this state.")
    ] = None,
    limit: Limit = 50,
) -> PageOut[Proposal]:
    """Newest first."""
    check_tenant(principal, services)
    return PageOut[Proposal](items=await services.engine.policies.proposals(state, limit))


@router.post(
    "/proposals", operation_id="propose_policy", summary="Propose a policy", status_code=201,
    responses=problems(404, 409),
)  # fmt: skip
async def propose_policy(asked: ProposalIn, principal: PolicyProposer, services: ServicesDep) -> Proposal:
    """Kept with what it would change; in force only when somebody applies it. Lint errors are refused."""
    check_tenant(principal, services)
    await services.engine.refresh()
    after, live = await engine_of(asked.policy, services), services.engine
    if after.version == live.version:
        raise Refused(409, "policy_unchanged", "that is the policy in force", remedy="change something first")
    known = {(f.rule, f.kind) for f in await asyncio.to_thread(lint, live.engine.rules, live.tools)}
    found = await asyncio.to_thread(lint, after.rules, live.tools)
    if errors := [str(f) for f in found if f.level == "error" and (f.rule, f.kind) not in known]:
        raise Refused(422, "invalid_policy", "; ".join(errors[:5]), remedy="correct these rules, and lint again")
    described = await asyncio.to_thread(live.describe, after)
    seq = live.change.seq if live.change else 0
    return await live.policies.propose(
        after.version, after.rules.body, by=principal.id, base_seq=seq, note=asked.note, diff=described
    )


@router.post(
    "/proposals/{proposal_id}/apply", operation_id="apply_policy", summary="Bring a proposal into force",
    responses=problems(404, 409),
)  # fmt: skip
async def apply_policy(proposal_id: ProposalId, principal: PolicyApplier, services: ServicesDep) -> PolicyChange:
    """409 when another policy came into force since, when it would lock you out, or, in strict mode, when you proposed
    it yourself."""
    proposal = await _open(proposal_id, principal, services)
    live = services.engine
    if live.strict and proposal.proposed_by == principal.id:
        raise Refused(409, "second_person_needed", "you proposed it yourself", remedy="another person has to apply it")
    if live.strict and principal.kind != "person":
        raise Refused(409, "second_person_needed", "a service is no second person", remedy="a person has to apply it")
    after = await engine_of(PolicyIn(version=proposal.version), services)
    if not after.may(principal, "policy", "apply"):
        raise Refused(
            409, "policy_locks_out", "under it you could not change the policy any more",
            remedy="keep a right on `policy` with the action `apply` for your role",
        )  # fmt: skip
    try:
        change = await live.policies.apply(proposal, by=principal.id)
    except PolicyMoved as moved:
        raise Refused(409, "policy_moved", str(moved), remedy="look at the policy in force and propose again") from None
    await live.refresh()
    return change


@router.post(
    "/proposals/{proposal_id}/reject", operation_id="reject_policy", summary="Turn a proposal down",
    responses=problems(404, 409),
)  # fmt: skip
async def reject_policy(
    proposal_id: ProposalId, rejection: RejectionIn, principal: PolicyProposer, services: ServicesDep
) -> Proposal:
    """Also how one takes back one's own."""
    proposal = await _open(proposal_id, principal, services)
    try:
        await services.engine.policies.reject(proposal, by=principal.id, reason=rejection.reason)
    except PolicyMoved as moved:
        raise Refused(409, "policy_moved", str(moved), remedy="it is closed already") from None
    found = await services.engine.policies.proposal(proposal_id)
    return found or proposal


@router.get("/suggestions", operation_id="suggest_policy", summary="Rules from answers", responses=problems())
async def suggest_policy(
    principal: PolicyReader,
    services: ServicesDep,
    times: Annotated[int, Query(ge=2, le=100, description="Approvals each call must have.")] = TIMES,
) -> PageOut[SuggestionOut]:
    """Calls that people approved again and again and never denied, as the narrowest rule that would have allowed just
    those, with its simulated effect. Nothing is applied: propose the one you agree with."""
    check_tenant(principal, services)
    found = await decisions(services)
    answered = await answers(services, found)
    engine = services.engine.engine
    pairs = await asyncio.to_thread(lambda: suggestions(answered, found, engine, times=times))
    return PageOut[SuggestionOut](items=[_suggested(suggestion, rules) for suggestion, rules in pairs])


def _suggested(suggestion: Suggestion, rules: RuleSet) -> SuggestionOut:
    return SuggestionOut(suggestion=suggestion, version=rules.version, text=as_yaml(rules))


async def _open(proposal_id: str, principal: Principal, services: Services) -> Proposal:
    check_tenant(principal, services)
    proposal = await services.engine.policies.proposal(proposal_id)
    if proposal is None:
        raise not_found("policy proposal", proposal_id)
    if proposal.state != "open":
        raise Refused(409, "policy_moved", f"the proposal is {proposal.state}", remedy="propose again")
    return proposal
