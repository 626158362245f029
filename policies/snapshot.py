"""From the stored form of a policy to an engine, beside the one in force and without making it wait."""

import gc
from collections.abc import Generator
from contextlib import contextmanager

from policies.engine import PolicyEngine
from policies.rules import RuleSet

LARGE = 1_000
"""Rules from which on the garbage collector is kept off a policy: walking 10,000 rows stops every thread for 0.1 s."""


def load_snapshot(
    body: bytes, version: str | None = None, *, before: PolicyEngine | None = None, environment: str = "default"
) -> PolicyEngine:
    """The engine of this body. Rows that `before` has too are not read again.

    Raises ValueError when it is no policy, or does not have the digest `version`.
    """
    with _collector_off(body.count(b"\n") > LARGE):
        rules = RuleSet.from_body(body, before.rules if before else None)
        if version is not None and rules.version != version:
            raise ValueError("its body does not have its digest: somebody changed it in the store")
        return PolicyEngine(rules, environment=environment)


@contextmanager
def _collector_off(large: bool) -> Generator[None]:
    """No collection while a large policy is built, and none of it later: an engine holds no reference cycles, so it is
    freed without the collector as soon as nobody decides with it."""
    if not large or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
