"""The client: all operations under one name."""

import os
from types import TracebackType
from typing import Self

from gatehouse_client.approvals import ApprovalOperations
from gatehouse_client.installation import InstallationOperations
from gatehouse_client.policy import PolicyOperations
from gatehouse_client.runs import RunOperations

DEFAULT_URL = "http://127.0.0.1:8080"


class Gatehouse(RunOperations, ApprovalOperations, PolicyOperations, InstallationOperations):
    """One installation with one key. Safe for many tasks at once; close it when done, or use `async with`.

    What only reads, and `start_run`, is repeated when the connection breaks or the API says 503; everything is when it
    says 429. Nothing else is ever sent twice. Failures are `GatehouseError`s.
    """

    @classmethod
    def from_environment(cls) -> Self:
        """As `GATEHOUSE_URL` (the local one when unset) and `GATEHOUSE_KEY` say. Raises KeyError without a key."""
        return cls(os.environ.get("GATEHOUSE_URL", DEFAULT_URL), os.environ["GATEHOUSE_KEY"])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
