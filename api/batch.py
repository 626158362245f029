"""One answer to many questions: each is given by itself, so one that is refused leaves the others as they are."""

import asyncio
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from api.answers import ApproveIn, DenyIn, Digest, Reason, give_answer
from api.errors import Refused
from api.services import Services
from policies.decision import Principal
from tools.contract import Strict, Wire
from workflows.contracts import ApprovalState

AT_ONCE = 8


class ItemIn(Strict):
    """One question, as it was seen."""

    id: Annotated[str, Field(min_length=1, max_length=80)]
    digest: Digest


class BatchIn(Strict):
    """The same answer to all of these."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    verdict: Literal["approve", "deny"]
    reason: Reason = ""
    """Needed to deny."""
    items: Annotated[tuple[ItemIn, ...], Field(min_length=1, max_length=200)]

    @model_validator(mode="after")
    def _makes_sense(self) -> "BatchIn":
        if self.verdict == "deny" and not self.reason:
            raise ValueError("a denial needs a `reason`")
        if len({item.id for item in self.items}) != len(self.items):
            raise ValueError("a question stands twice in `items`")
        return self


class BatchItemOut(Wire):
    """What came of the answer to one question."""

    id: str
    state: ApprovalState | None = None
    """Where the question stands now; null when the answer was refused."""
    kind: str | None = None
    """Why it was refused, as the problem's `kind`."""
    detail: str | None = None


async def answer_all(services: Services, principal: Principal, body: BatchIn) -> list[BatchItemOut]:
    """The answers, some at a time; results in the order of the items."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(item: ItemIn) -> BatchItemOut:
        said = (
            ApproveIn(digest=item.digest, reason=body.reason)
            if body.verdict == "approve"
            else DenyIn(digest=item.digest, reason=body.reason)
        )
        async with room:
            try:
                row = await give_answer(services, principal, item.id, body.verdict, said)
            except Refused as refused:
                return BatchItemOut(id=item.id, kind=refused.kind, detail=refused.detail)
        return BatchItemOut(id=item.id, state=row.state)

    return list(await asyncio.gather(*(one(item) for item in body.items)))
