"""Every process follows the policy in force, replaces it without a restart, and keeps it when the next is broken."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from policies.decision import GateRequest
from policies.rules import RuleError, RuleSet
from tests.policies.making import request, rule, ruleset
from tools.catalog import BUILT_IN, load_tools
from worker.policy import LivePolicy
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.policies import Policies, PolicyMoved
from worker.store.tables import policy_version

TOOLS = {name: tool.spec for name, tool in load_tools([BUILT_IN]).items()}
OWN = """apiVersion: gatehouse/v1
rules:
  - {id: nobody-reads, roles: ["*"], tools: read_file, verdict: deny}
"""
READ: GateRequest = request("read_file")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home" / "rules").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def started(audit: AuditLog, home: Path) -> Callable[..., LivePolicy]:
    def make(**options: object) -> LivePolicy:
        return LivePolicy(Policies(audit.db, audit), home, TOOLS, **options)  # type: ignore[arg-type]

    return make


Make = Callable[..., LivePolicy]


async def test_the_first_process_brings_the_files_into_force_and_the_others_follow(
    started: Make, audit: AuditLog, home: Path
) -> None:
    first, second = started(), started()
    await asyncio.gather(first.start(), second.start())
    assert first.version == second.version
    assert first.change is not None
    assert first.change.seq == 1
    (home / "rules" / "own.yaml").write_text(OWN)
    await first.refresh()
    await second.refresh()
    assert first.decide(READ).rule == second.decide(READ).rule == "nobody-reads"
    records = await audit.page(tenant=None, type="policy.applied")
    assert [(r.body["seq"], r.actor) for r in records] == [(1, "system:files"), (2, "system:files")]
    found = records[1].body["diff"]
    assert isinstance(found, dict)
    assert found["added"] == ["nobody-reads"]
    assert records[1].body["before"] == records[0].body["version"]


async def test_a_broken_file_leaves_the_old_policy_in_force_and_says_so(started: Make, home: Path) -> None:
    live = started()
    await live.start()
    version, file = live.version, home / "rules" / "own.yaml"
    file.write_text(OWN.replace("deny", "dney"))
    await live.refresh()
    await live.refresh()
    assert live.version == version
    assert "own.yaml:3" in str(live.problem)
    again = started()
    await again.start()
    assert again.version == version, "a process that starts now takes what is in force"
    assert "own.yaml:3" in str(again.problem)
    file.write_text(OWN)
    await live.refresh()
    assert live.problem is None
    assert live.decide(READ).rule == "nobody-reads"


async def test_without_any_policy_there_is_no_gate(started: Make, home: Path) -> None:
    (home / "rules" / "own.yaml").write_text("nonsense")
    with pytest.raises(RuleError):
        await started().start()


async def test_a_proposal_is_applied_once_and_only_over_the_policy_it_was_made_for(started: Make) -> None:
    live = started()
    await live.start()
    store = live.policies
    after = live.compile(ruleset(rule("new", "allow", tools=["read_file"])))
    described = live.describe(after)
    offers = [
        await store.propose(after.version, after.rules.body, by=who, base_seq=1, note="", diff=described)
        for who in ("olga", "petra")
    ]
    change = await store.apply(offers[0], by="petra")
    assert (change.seq, change.origin, change.version) == (2, "proposal", after.version)
    with pytest.raises(PolicyMoved):
        await store.apply(offers[0], by="petra")
    with pytest.raises(PolicyMoved):
        await store.apply(offers[1], by="olga")
    await store.reject(offers[1], by="olga", reason="late")
    await live.refresh()
    assert live.decide(READ).rule == "new"
    states = {p.id: p.state for p in await store.proposals()}
    assert states == {offers[0].id: "applied", offers[1].id: "rejected"}
    assert [c.seq for c in await store.history()] == [2, 1]


async def test_an_applied_policy_is_not_undone_by_files(started: Make, home: Path) -> None:
    live = started()
    await live.start()
    after = live.compile(ruleset(rule("new", "allow", tools=["read_file"])))
    offer = await live.policies.propose(after.version, after.rules.body, by="olga", base_seq=1, note="", diff={})
    await live.policies.apply(offer, by="petra")
    (home / "rules" / "own.yaml").write_text(OWN)
    await live.refresh()
    restarted = started()
    await restarted.start()
    assert live.version == restarted.version == after.version


async def test_strict_means_files_only_count_once(started: Make, home: Path) -> None:
    live = started(strict=True)
    await live.start()
    version = live.version
    (home / "rules" / "own.yaml").write_text(OWN)
    await live.refresh()
    restarted = started(strict=True)
    await restarted.start()
    assert live.version == restarted.version == version


async def test_a_body_that_does_not_have_its_digest_is_not_used(started: Make, db: Database) -> None:
    live = started()
    await live.start()
    version = live.version
    after = live.compile(ruleset(rule("new", "allow", tools=["read_file"])))
    offer = await live.policies.propose(after.version, after.rules.body, by="olga", base_seq=1, note="", diff={})
    async with db.begin() as conn:
        forged = ruleset(rule("forged", "allow")).body
        await conn.execute(
            sa.update(policy_version).where(policy_version.c.version == after.version).values(body=forged)
        )
    await live.policies.apply(offer, by="petra")
    await live.refresh()
    assert live.version == version
    assert "somebody changed it" in str(live.problem)


async def test_followers_hear_of_a_change(started: Make, backend: str) -> None:
    live, other = started(), started()
    await live.start()
    await other.start()
    following = asyncio.create_task(other.follow())
    try:
        await asyncio.sleep(0.3)
        after = live.compile(ruleset(rule("new", "allow", tools=["read_file"])))
        offer = await live.policies.propose(after.version, after.rules.body, by="o", base_seq=1, note="", diff={})
        began = time.monotonic()
        await live.policies.apply(offer, by="p")
        while other.version != after.version and time.monotonic() - began < 60:  # noqa: ASYNC110  (nothing there to wait on)
            await asyncio.sleep(0.005)
        assert other.version == after.version, f"not within 10 s on {backend}"
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def test_decisions_go_on_while_a_large_policy_is_loaded(started: Make) -> None:
    rows = [rule(f"r-{n}", "deny", tools=[f"tool_{n}"]) for n in range(2_000)]
    sizes = [
        ruleset(*rows, rule("yes", "allow", tools=["read_file"])),
        ruleset(rule("yes", "ask", tools=["read_file"])),
    ]
    live = started()
    await live.start()
    expected = {live.compile(r).version: "yes" for r in sizes} | {live.version: live.decide(READ).rule}
    stop, slowest, wrong, asked = asyncio.Event(), 0.0, 0, 0

    async def ask() -> None:
        nonlocal slowest, wrong, asked
        while not stop.is_set():
            began = time.perf_counter()
            decision = live.decide(READ)
            slowest = max(slowest, time.perf_counter() - began)
            asked += 1
            wrong += expected[decision.policy_version] != decision.rule
            await asyncio.sleep(0)

    asking = asyncio.create_task(ask())
    for seq, rules in enumerate(sizes * 2, start=1):
        await _apply(live, rules, seq)
        await live.refresh()
    stop.set()
    await asking
    assert (wrong, asked > 50) == (0, True)
    assert slowest < 1.0, "no decision waits for a policy to be compiled"


async def _apply(live: LivePolicy, rules: RuleSet, base_seq: int) -> None:
    offer = await live.policies.propose(rules.version, rules.body, by="o", base_seq=base_seq, note="", diff={})
    await live.policies.apply(offer, by="p")
