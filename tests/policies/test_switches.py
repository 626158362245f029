"""Promises: a switch stops exactly what is in its scope, the whole run before the tool before safe mode, and reads
go on in safe mode."""

from datetime import UTC, datetime
from typing import Any

import pytest

from policies.switches import Switch, refused_call, refused_model, refused_run
from tools.contract import Effect

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def switch(scope: str, target: str = "", *, tenant: str = "*", **changes: Any) -> Switch:
    values: dict[str, Any] = {
        "id": f"sw_{scope}", "scope": scope, "tenant": tenant, "target": target, "state": "stop", "reason": "because",
        "set_by": "adam", "set_at": NOW, "revision": 1, "changed_by": "adam", "changed_at": NOW, **changes,
    }  # fmt: skip
    return Switch.model_validate(values)


CALLS: list[tuple[Switch, Effect, str | None]] = [
    (switch("global"), Effect.READ, "kill-switch"),
    (switch("tenant", tenant="acme"), Effect.READ, "kill-switch"),
    (switch("tenant", tenant="other"), Effect.READ, None),
    (switch("automation", "log-*", tenant="acme"), Effect.READ, "kill-switch"),
    (switch("automation", "log-triage", tenant="other"), Effect.READ, None),
    (switch("automation", "log"), Effect.READ, None),
    (switch("tool", "delete_files"), Effect.READ, "tool-switch"),
    (switch("tool", "delete_files", tenant="other"), Effect.READ, None),
    (switch("tool", "delete"), Effect.READ, None),
    (switch("model", "*"), Effect.READ, None),
    (switch("global", state="safe_mode"), Effect.READ, None),
    (switch("global", state="safe_mode"), Effect.WRITE, "safe-mode"),
    (switch("tenant", tenant="acme", state="safe_mode"), Effect.ACCESS, "safe-mode"),
    (switch("tenant", tenant="other", state="safe_mode"), Effect.ACCESS, None),
    (switch("automation", "log-*", state="safe_mode"), Effect.SEND, "safe-mode"),
    (switch("global", state="released"), Effect.DESTRUCTIVE, None),
]


@pytest.mark.parametrize(("by", "effect", "rule"), CALLS, ids=[f"{s.scope}-{s.state}-{e}-{r}" for s, e, r in CALLS])
def test_what_a_switch_refuses(by: Switch, effect: Effect, rule: str | None) -> None:
    found = refused_call([by], "acme", "log-triage", "delete_files", effect)
    assert (found.rule if found else None) == rule
    if found is not None:
        assert by.id in found.reason
        assert "because" in found.reason


@pytest.mark.parametrize("effect", [e for e in Effect if e is not Effect.READ])
def test_safe_mode_refuses_every_effect_but_reading(effect: Effect) -> None:
    found = refused_call([switch("global", state="safe_mode")], "acme", "a", "t", effect)
    assert found is not None
    assert found.rule == "safe-mode"


def test_the_strictest_speaks() -> None:
    all_ = [switch("global", state="safe_mode"), switch("tool", "t"), switch("tenant", tenant="acme")]
    found = refused_call(all_, "acme", "a", "t", Effect.WRITE)
    assert found is not None
    assert found.rule == "kill-switch"


def test_runs_and_models_are_stopped_by_their_own_switches_only() -> None:
    assert refused_run([switch("tool", "*"), switch("model", "*")], "acme", "a") is None
    assert refused_run([switch("global", state="safe_mode")], "acme", "a") is None
    assert refused_run([switch("automation", "a")], "acme", "a") is not None
    assert refused_model([switch("global"), switch("tool", "*")], "acme", "openai:gpt") is None
    assert refused_model([switch("model", "openai:*")], "acme", "openai:gpt") is not None
    assert refused_model([switch("model", "openai:*", tenant="other")], "acme", "openai:gpt") is None
