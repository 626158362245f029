"""Ports and their implementations are bound by name alone, so their signatures are compared here."""

import inspect
from collections.abc import Callable
from typing import get_type_hints

import pytest

from worker.activities.committing import CommitActivities
from worker.activities.gate import GateActivities
from worker.activities.records import RecordActivities
from worker.activities.rules import RuleActivities
from worker.activities.sandbox import SandboxActivities
from workflows import ports

NAME = "__temporal_activity_definition"


def _defined(holder: object) -> dict[str, Callable[..., object]]:
    return {getattr(f, NAME).name: f for _, f in inspect.getmembers(holder, inspect.isfunction) if hasattr(f, NAME)}


PORTS = _defined(ports)
BOUND = {
    name: function
    for group in (RecordActivities, GateActivities, RuleActivities, SandboxActivities, CommitActivities)
    for name, function in _defined(group).items()
}


def _signature(function: Callable[..., object]) -> tuple[list[object], object]:
    hints = get_type_hints(function)
    names = [p for p in inspect.signature(function).parameters if p != "self"]
    return [hints[name] for name in names], hints["return"]


def test_every_port_is_bound_and_nothing_else_is() -> None:
    assert sorted(PORTS) == sorted(BOUND)


@pytest.mark.parametrize("name", sorted(PORTS))
def test_an_implementation_takes_and_gives_what_its_port_says(name: str) -> None:
    assert _signature(BOUND[name]) == _signature(PORTS[name])


@pytest.mark.parametrize("name", sorted(PORTS))
async def test_a_port_called_directly_says_so(name: str) -> None:
    function = PORTS[name]
    with pytest.raises(ports.NotBoundError):
        await function(*[None] * len(inspect.signature(function).parameters))  # type: ignore[misc]
