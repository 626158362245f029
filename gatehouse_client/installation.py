"""Operations on the installation: what it offers, who may use it, how to stop it, and how it is."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from gatehouse_client.models.catalog import Automation, Tool
from gatehouse_client.models.installation import (
    ApiKey,
    Backlog,
    Delivery,
    Health,
    Hold,
    NewApiKey,
    Principal,
    Readiness,
    Retention,
    Switch,
)
from gatehouse_client.models.wire import JsonObject
from gatehouse_client.transport import Transport, segment

UNREADY = frozenset({503})


class InstallationOperations(Transport):
    """Automations, tools, switches, retention, deliveries, keys, probes."""

    def list_automations(self, *, limit: int | None = None) -> AsyncIterator[Automation]:
        """What can be asked for."""
        return self._items(Automation, "/automations", limit)

    async def get_automation(self, name: str) -> Automation:
        """One of them, with the schema of its inputs."""
        return await self._call(Automation, "GET", f"/automations/{segment(name)}")

    def list_tools(self, *, limit: int | None = None) -> AsyncIterator[Tool]:
        """What automations may use."""
        return self._items(Tool, "/tools", limit)

    async def get_tool(self, name: str) -> Tool:
        """One of them, with the schema of its arguments."""
        return await self._call(Tool, "GET", f"/tools/{segment(name)}")

    def list_switches(self, *, active: bool = False, limit: int | None = None) -> AsyncIterator[Switch]:
        """Kill switches, the newest first; `active`: only those in force."""
        return self._items(Switch, "/switches", limit, {"active": active})

    async def set_switch(
        self, scope: Literal["global", "tenant", "automation", "tool", "model"], reason: str, *, target: str = "",
        kind: Literal["stop", "safe_mode"] = "stop", running: Literal["pause", "cancel"] = "pause",
        everywhere: bool = False,
    ) -> Switch:  # fmt: skip
        """Stop everything or a part of it now; `get_switch` says what is confirmed to stand still."""
        body = {
            "scope": scope, "target": target, "kind": kind, "running": running, "everywhere": everywhere,
            "reason": reason,
        }  # fmt: skip
        return await self._call(Switch, "POST", "/switches", body=body)

    async def get_switch(self, switch_id: str) -> Switch:
        """Stops asked for and confirmed, run by run."""
        return await self._call(Switch, "GET", f"/switches/{segment(switch_id)}")

    async def release_switch(self, switch_id: str, state: Literal["stop", "safe_mode"], reason: str) -> Switch:
        """Release it by one step; `state` is the one you saw."""
        body = {"state": state, "reason": reason}
        return await self._call(Switch, "POST", f"/switches/{segment(switch_id)}/release", body=body)

    async def get_retention(self) -> Retention:
        """How long contents are kept, and what is due to go."""
        return await self._call(Retention, "GET", "/retention")

    def list_holds(self, *, active: bool = False, limit: int | None = None) -> AsyncIterator[Hold]:
        """Legal holds, the newest first; `active`: only those in force."""
        return self._items(Hold, "/retention/holds", limit, {"active": active})

    async def place_hold(
        self, reason: str, *, run_id: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Hold:
        """Keep what it names from being removed: of a run, of a time, or everything of the tenant."""
        times = {name: at.isoformat() for name, at in (("since", since), ("until", until)) if at is not None}
        body = {"reason": reason, "run_id": run_id, **times}
        return await self._call(Hold, "POST", "/retention/holds", body=body)

    async def release_hold(self, hold_id: str, reason: str) -> Hold:
        """What it kept goes with the next pass, when it is old enough."""
        return await self._call(Hold, "POST", f"/retention/holds/{segment(hold_id)}/release", body={"reason": reason})

    def list_deliveries(
        self, *, state: Literal["pending", "delivered", "dead", "dismissed"] | None = None, channel: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Delivery]:  # fmt: skip
        """Who was told what, the newest first."""
        return self._items(Delivery, "/deliveries", limit, {"state": state, "channel": channel})

    async def get_backlog(self) -> Backlog:
        """What nobody has been told yet."""
        return await self._call(Backlog, "GET", "/deliveries/backlog")

    async def retry_delivery(self, delivery_id: str) -> Delivery:
        """Try a dead one again."""
        return await self._call(Delivery, "POST", f"/deliveries/{segment(delivery_id)}/retry")

    async def dismiss_delivery(self, delivery_id: str) -> Delivery:
        """Give a dead one up for good."""
        return await self._call(Delivery, "POST", f"/deliveries/{segment(delivery_id)}/dismiss")

    def list_keys(self, *, limit: int | None = None) -> AsyncIterator[ApiKey]:
        """API keys of your tenant, without their secrets."""
        return self._items(ApiKey, "/keys", limit)

    async def create_key(
        self, name: str, principal: str, roles: Sequence[str], *, kind: Literal["person", "service"] = "person",
        expires_in_days: int | None = None, scopes: Sequence[str] = (),
    ) -> NewApiKey:  # fmt: skip
        """Make a key; its secret is in this answer and nowhere else."""
        body = {
            "name": name, "principal": principal, "roles": roles, "kind": kind, "expires_in_days": expires_in_days,
            "scopes": scopes,
        }  # fmt: skip
        return await self._call(NewApiKey, "POST", "/keys", body=body)

    async def rotate_key(self, key_id: str, *, grace_hours: int = 24) -> NewApiKey:
        """Make its successor; the old one goes on for `grace_hours`."""
        body = {"grace_hours": grace_hours}
        return await self._call(NewApiKey, "POST", f"/keys/{segment(key_id)}/rotate", body=body)

    async def revoke_key(self, key_id: str) -> None:
        """Let it count no more."""
        await self._call(type(None), "DELETE", f"/keys/{segment(key_id)}")

    async def get_me(self) -> Principal:
        """Who your key says you are."""
        return await self._call(Principal, "GET", "/me")

    async def decode_payloads(
        self, payloads: Sequence[Mapping[str, Any]], *, x_namespace: str | None = None
    ) -> JsonObject:
        """Payloads of Temporal's history, decrypted and redacted, as its codec protocol has them."""
        headers = {"X-Namespace": x_namespace} if x_namespace else None
        return await self._call(JsonObject, "POST", "/codec/decode", body={"payloads": list(payloads)}, headers=headers)

    async def get_health(self) -> Health:
        """Answers as long as the process serves. Needs no key."""
        return await self._call(Health, "GET", "/health")

    async def get_ready(self) -> Readiness:
        """How each part is, ready or not. Needs no key."""
        return await self._call(Readiness, "GET", "/ready", also=UNREADY)
