"""The policy in force, followed: an engine that is replaced, without a restart and without a pause, when it changes.

The store says which policy is in force (`worker.store.policies`). A process that sees its rules files change proposes
nothing: it compiles them and, where the installation is run from files, brings them into force for everybody, on
record. In strict mode files only count when there is no policy at all; everything else takes two people. A policy that
does not compile leaves the old one in force, and `problem` says so until that is mended.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
import structlog

from policies.decision import Decision, GateRequest, Principal
from policies.diff import diff
from policies.engine import PolicyEngine
from policies.rules import RuleError, RuleSet, load_rules, rule_paths
from policies.snapshot import load_snapshot
from tools.contract import JsonObject, ToolSpec
from worker.store.database import StoreUnavailable
from worker.store.policies import Policies, PolicyChange, PolicyMoved, listening

POLL_S = 1.0
"""How often the store is asked on SQLite, and the files are looked at everywhere."""
MOST_VERDICTS = 200
"""Verdict changes that a recorded diff lists."""

log = structlog.stdlib.get_logger("gatehouse.policy")


class LivePolicy:
    """Decides with the policy in force. One per process; safe for concurrent use."""

    def __init__(
        self,
        policies: Policies,
        home: Path | None,
        tools: Mapping[str, ToolSpec],
        *,
        environment: str = "default",
        strict: bool = False,
        load: Callable[[], RuleSet] | None = None,
    ) -> None:
        """`load` reads the policy of the files; by default the built-in one and that under `home`."""
        self.policies = policies
        self.tools = tools
        self.strict = strict
        self.environment = environment
        self.change: PolicyChange | None = None
        """What is in force here."""
        self._home = home
        self._load = load or (lambda: load_rules(rule_paths(home), tools))
        self._engine: PolicyEngine | None = None
        self._seen: object = None
        self._files_problem: str | None = None
        self._store_problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why a newer policy is not in force here; None when there is none, or it is."""
        return self._store_problem or self._files_problem

    @property
    def engine(self) -> PolicyEngine:
        """The snapshot in force; what it decides stays the same for as long as it is held."""
        if self._engine is None:
            raise RuntimeError("the policy was not started")
        return self._engine

    @property
    def version(self) -> str:
        """Digest of the policy in force."""
        return self.engine.version

    def decide(self, request: GateRequest) -> Decision:
        """As PolicyEngine.decide."""
        return self.engine.decide(request)

    def may(self, principal: Principal, resource: str, action: str) -> bool:
        """As PolicyEngine.may."""
        return self.engine.may(principal, resource, action)

    def roles_of(self, principal: Principal) -> frozenset[str]:
        """As PolicyEngine.roles_of."""
        return self.engine.roles_of(principal)

    async def start(self) -> None:
        """Bring the files into force where they count, and load what is in force.

        Raises RuleError, StoreUnavailable, and ValueError when there is no policy that can be used: then there must be
        no gate either.
        """
        self._seen = self._fingerprint()
        rules, fault = None, None
        try:
            rules = await asyncio.to_thread(self._load)
        except RuleError as error:
            fault = error
        change = await self.policies.current()
        if rules is not None and self._files_count(change):
            with contextlib.suppress(PolicyMoved):
                await self._adopt(rules, change)
            change = await self.policies.current()
        if change is None:
            raise fault or ValueError("there is no policy")
        if fault is not None:
            self._files_problem = f"the rules files cannot be used: {fault}"
        await self._take(change)

    async def follow(self) -> None:
        """Replace the engine whenever the policy changes. Runs until cancelled; never raises."""
        while True:
            try:
                async with listening(self.policies.db) as conn:
                    while True:
                        await self._wait(conn)
                        await self.refresh()
            except (StoreUnavailable, psycopg.Error, OSError) as fault:
                log.warning("cannot follow the policy", reason=str(fault))
            except Exception:
                log.exception("cannot follow the policy")
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Look once: at the files, then at the store. Raises StoreUnavailable."""
        if (seen := self._fingerprint()) != self._seen:
            self._seen = seen
            await self._reread()
        change = await self.policies.current()
        if change is not None and (self.change is None or change.seq != self.change.seq):
            try:
                await self._take(change)
            except ValueError as fault:
                # Not again and again: this row will not become better.
                self.change = change
                self._store_problem = f"policy {change.version[:12]} (change {change.seq}) does not compile: {fault}"
                log.error("policy kept", kept=self.version, problem=self._store_problem)  # noqa: TRY400

    def compile(self, rules: RuleSet) -> PolicyEngine:
        """An engine beside the one in force, in the same environment."""
        return PolicyEngine(rules, environment=self.environment)

    def describe(self, after: PolicyEngine) -> JsonObject:
        """What that policy would change, as it is recorded."""
        if self._engine is None:
            return {"added": [rule.id for rule in after.rules.rules]}
        found = diff(self._engine, after, self.tools)
        cut = found.model_copy(update={"verdicts": found.verdicts[:MOST_VERDICTS]})
        return cut.model_dump(mode="json")

    async def _wait(self, conn: psycopg.AsyncConnection | None) -> None:
        if conn is None:
            await asyncio.sleep(POLL_S)
            return
        async for _ in conn.notifies(timeout=POLL_S, stop_after=1):
            pass

    async def _reread(self) -> None:
        """The files changed: bring them into force if they count."""
        try:
            rules = await asyncio.to_thread(self._load)
        except RuleError as fault:
            self._files_problem = f"the rules files cannot be used: {fault}"
            log.error("policy kept", kept=self.version, problem=self._files_problem)  # noqa: TRY400
            return
        self._files_problem = None
        change = await self.policies.current()
        if self._files_count(change):
            with contextlib.suppress(PolicyMoved):  # somebody else was first: theirs is in force
                await self._adopt(rules, change)
        elif change is not None and change.version != rules.version:
            log.warning("rules files changed, without effect: the policy is applied by people", strict=self.strict)

    def _files_count(self, change: PolicyChange | None) -> bool:
        return change is None or (change.origin == "files" and not self.strict)

    async def _adopt(self, rules: RuleSet, change: PolicyChange | None) -> None:
        if change is not None and change.version == rules.version:
            return
        if change is not None and self._engine is None:
            await self._take(change)
        engine = await asyncio.to_thread(self.compile, rules)
        described = await asyncio.to_thread(self.describe, engine)
        await self.policies.adopt(rules.version, rules.body, after=change.seq if change else 0, diff=described)

    async def _take(self, change: PolicyChange) -> None:
        """Put that policy in force here. Raises ValueError when it cannot be used; then nothing has changed."""
        if self._engine is None or self._engine.version != change.version:
            body = await self.policies.body(change.version)
            if body is None:
                raise ValueError("its body is not in the store")
            self._engine = await asyncio.to_thread(
                load_snapshot, body, change.version, before=self._engine, environment=self.environment
            )
            log.info("policy in force", version=change.version, change=change.seq, by=change.changed_by)
        self.change, self._store_problem = change, None

    def _fingerprint(self) -> object:
        """What tells that a file of the rules folders was added, removed or written."""
        found: list[tuple[str, int, int]] = []
        for folder in rule_paths(self._home):
            for path in sorted(folder.glob("*.y*ml")):
                with contextlib.suppress(OSError):
                    stat = path.stat()
                    found.append((str(path), stat.st_mtime_ns, stat.st_size))
        return found
