"""What the policy routes share: policies that come in a request, and the decisions and answers that are on record."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import Field, ValidationError

from api.errors import FieldProblem, Refused, invalid_fields, not_found
from api.services import Services
from policies.decision import Principal, Verdict
from policies.engine import PolicyEngine
from policies.rules import BUILT_IN, RuleError, RuleSet, compile_documents
from policies.simulate import Recorded, recorded
from policies.source import Problem, SourceError, parse_document, read_document
from policies.suggest import Answered
from tools.contract import Strict
from worker.store.audit import AuditRecord

MAX_DECISIONS = 100_000
"""Decisions that one simulation looks at."""
_PAGE = 1000


class DocumentIn(Strict):
    """A file, by what it says."""

    name: Annotated[str, Field(min_length=1, max_length=200, examples=["rules/own.yaml"])]
    """For messages only."""
    text: Annotated[str, Field(max_length=4 << 20)]


class PolicyIn(Strict):
    """A policy: rules files added to the built-in one, or a version the store knows. Empty: the one in force."""

    documents: Annotated[tuple[DocumentIn, ...], Field(max_length=100)] = ()
    whole: bool = False
    """The documents are all of it: leave the built-in rules out."""
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


def check_tenant(principal: Principal, services: Services) -> None:
    """The policy is one for all tenants; Refused 403 for a principal of another than the one it belongs to."""
    if principal.tenant != services.settings.policy_tenant:
        raise Refused(
            403, "forbidden", "the policy of the installation is not your tenant's to see or change",
            remedy=f"use a key of the tenant {services.settings.policy_tenant}",
        )  # fmt: skip


async def engine_of(policy: PolicyIn, services: Services) -> PolicyEngine:
    """Compile it. Raises Refused: 422 naming file and line of everything wrong, 404 for an unknown version."""
    if not policy.documents and policy.version is None:
        return services.engine.engine
    try:
        return await asyncio.to_thread(services.engine.compile, await rules_of(policy, services))
    except SourceError as error:
        raise refused(error.problems) from None


async def rules_of(policy: PolicyIn, services: Services) -> RuleSet:
    """As `engine_of`, not compiled. Raises RuleError besides."""
    if policy.version is not None:
        body = await services.engine.policies.body(policy.version)
        if body is None:
            raise not_found("policy version", policy.version)
        return await asyncio.to_thread(RuleSet.from_body, body)
    if not policy.documents:
        return services.engine.engine.rules
    return await asyncio.to_thread(_read, policy, services)


def refused(problems: tuple[Problem, ...]) -> Refused:
    """Problems of files as problems of the request's fields."""
    found = [
        FieldProblem(field=f"{p.file}:{p.line} {p.field}".rstrip(), problem=p.problem, remedy=p.remedy)
        for p in problems
    ]
    return invalid_fields(found[:50], kind="invalid_policy")


async def decisions(services: Services) -> list[Recorded]:
    """The decisions on record, oldest first, of all tenants."""
    found: list[Recorded] = []
    async for record in _records(services, "gate.decided"):
        try:
            found.append(recorded(record.tenant, record.run_id or "", record.body))
        except ValidationError:
            continue  # of a version that recorded other things; it cannot be asked again
    return found


async def answers(services: Services, found: list[Recorded]) -> list[Answered]:
    """What people said to the calls that the gate asked about."""
    asked = {(r.run_id, r.digest): r for r in found if r.decision.verdict is Verdict.ASK}
    answered: list[Answered] = []
    for type_ in ("approval.approved", "approval.denied"):
        async for record in _records(services, type_):
            call = asked.get((record.run_id or "", str(record.body.get("digest"))))
            answer = record.body.get("answer")
            if call is None or not isinstance(answer, dict) or record.body.get("question") != "call":
                continue
            approved = type_ == "approval.approved" and "edited" not in answer
            answered.append(Answered(record=call, approved=approved, by=record.actor))
    return answered


async def _records(services: Services, type_: str) -> AsyncIterator[AuditRecord]:
    after, seen = 0, 0
    while seen < MAX_DECISIONS:
        page: list[AuditRecord] = await services.audit.page(tenant=None, type=type_, after=after, limit=_PAGE)
        for record in page:
            yield record
        if len(page) < _PAGE:
            return
        after, seen = page[-1].seq, seen + len(page)


def _read(policy: PolicyIn, services: Services) -> RuleSet:
    own = [parse_document(d.text, d.name, RuleError) for d in policy.documents]
    built_in = [] if policy.whole else [read_document(p, RuleError) for p in sorted(BUILT_IN.glob("*.y*ml"))]
    return compile_documents([*built_in, *own], services.catalog.tools)
