"""The trail of a run: what the gate is told, how it is carried on, and how long it takes."""

import json
import random
import statistics
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from policies.decision import ArgumentFact, Facts, GateRequest, Origin, Principal, Verdict
from policies.engine import PolicyEngine
from policies.taint import MAX_VALUES, Carry, Trail, role_of
from tests.policies.making import built_in
from tools.contract import ArgumentRole, Effect, JsonObject, ToolCall, ToolSpec, Trust
from tools.schemas import problems

MAIL: JsonObject = {
    "type": "object",
    "properties": {
        "to": {"type": "array", "items": {"type": "string"}},
        "body": {"type": "string"},
        "kind": {"enum": ["plain", "html"]},
        "attachments": {"type": "array", "items": {"type": "object"}},
    },
}
ROLES: dict[str, ArgumentRole] = {
    "to": "target",
    "body": "content",
    "attachments": "handle",
    "attachments.note": "content",
}


def tool(
    name: str = "mail",
    effect: Effect = Effect.SEND,
    results: Trust = "ack",
    roles: dict[str, ArgumentRole] | None = None,
) -> ToolSpec:
    return ToolSpec(
        name=name, version="1", description=name, parameters=MAIL, effect=effect, workspace="none", results=results,
        roles=ROLES if roles is None else roles, program_sha256="0" * 64,
    )  # fmt: skip


def facts(trail: Trail, arguments: JsonObject, spec: ToolSpec | None = None) -> Facts:
    spec = spec or tool()
    return trail.facts(spec, ToolCall(id="c", tool=spec.name, arguments=arguments))


def test_every_value_has_its_path_role_and_origin() -> None:
    trail = Trail(["Send file 17 to ann@a.example"])
    arguments: JsonObject = {
        "to": ["ann@a.example", "eve@e.example"],
        "body": "Look at evil.example/x and report.docx",
        "kind": "html",
        "attachments": [{"file_id": "17", "note": "the file"}, {"file_id": "18", "inline": True}],
        "extra": {"cc": "bo@b.example", "a@b.example": "r"},
    }
    found = facts(trail, arguments).origins
    assert found == {
        "to[0]": "operator", "to[1]": "unknown", "body": "unknown", "body~evil.example/x": "unknown",
        "attachments[0].file_id": "operator", "attachments[0].note": "unknown", "attachments[1].file_id": "unknown",
        "extra.cc": "unknown", "extra.a@b.example": "unknown",
    }  # fmt: skip
    assert facts(trail, arguments).worst["target"] == "unknown"


@pytest.mark.parametrize(
    ("at", "role"),
    [("to", "target"), ("attachments.file_id", "handle"), ("attachments.note", "content"),
     ("attachments.a.b", "handle"), ("nobody_said", "target"), ("tot", "target")],
)  # fmt: skip
def test_a_role_is_inherited_and_target_is_the_default(at: str, role: str) -> None:
    assert role_of(ROLES, at) == role


def test_too_many_values_count_as_unknown() -> None:
    trail = Trail(["ann@a.example"])
    many: list[JsonValue] = ["ann@a.example"] * (MAX_VALUES + 1)
    found = facts(trail, {"to": many})
    assert found.arguments is None
    assert set(found.worst.values()) == {"unknown"}


def test_taint_comes_with_outside_content_and_stays() -> None:
    trail = Trail(["Do it"])
    assert not trail.tainted
    steps: list[tuple[Trust, bool]] = [
        ("own", False), ("ack", False), ("vendor", False), ("untrusted", True), ("own", True),
    ]  # fmt: skip
    for trust, expected in steps:
        trail.saw(tool(results=trust), {}, "something")
        assert trail.tainted is expected
    assert Trail(["Do it"], carry=trail.carry()).tainted


def test_results_of_a_tool_nobody_knows_taint() -> None:
    trail = Trail(["Do it"])
    trail.saw(None, {}, "something")
    assert trail.tainted


def test_counts_are_of_calls_before_this_one() -> None:
    trail = Trail(["Do it"], carry=Carry(calls={"mail": 2, "read": 3}))
    before = trail.count("mail")
    found = trail.facts(tool(), ToolCall(id="c", tool="mail", arguments={}), before=before, budget_left_usd=1.5)
    assert (found.calls_made, found.calls_of_tool, found.budget_left_usd) == (5, 2, 1.5)
    assert trail.count("mail") == (6, 3)


def test_the_carry_is_small() -> None:
    trail = Trail(["Do it"])
    for n in range(200):
        trail.count(f"tool_{n % 40}")
        trail.saw(tool(results="untrusted"), {}, "x" * 10_000)
    assert len(trail.carry().model_dump_json()) < 2000


@pytest.mark.parametrize(
    ("target", "pattern", "listed"),
    [
        ("ann@corp.example", "*@corp.example", True),
        ("ANN@Corp.example", "*@corp.example", True),
        ("ann@corp.example.evil.example", "*@corp.example", False),
        ("ann@evil.example/@corp.example", "*@corp.example", False),
        ("ann@evil.example@corp.example", "*@corp.example", False),
        ("аnn@corp.example", "ann@corp.example", False),
        ("https://corp.example/a", "https://corp.example/*", True),
        ("https://corp.example/a/../b", "https://corp.example/*", False),
        ("ann@corp.example", "ann@corp.exampl?", False),
    ],
)
def test_an_automations_list_of_targets(target: str, pattern: str, listed: bool) -> None:
    trail = Trail(["Write to jim@jim.example"], [pattern])
    found = facts(trail, {"to": [target]})
    assert found.unlisted_target is not listed
    assert found.worst["target"] == ("operator" if listed else "unknown")
    assert facts(trail, {"to": ["jim@jim.example"]}).unlisted_target


def test_only_a_write_to_the_workspace_passes_away() -> None:
    trail = Trail(["Do it"])
    kept = tool(effect=Effect.WRITE)
    passing = kept.model_copy(update={"workspace": "write"})
    assert facts(trail, {}, kept).lasting
    assert not facts(trail, {}, passing).lasting
    assert facts(trail, {}, passing.model_copy(update={"egress": ("a.example",)})).lasting
    assert facts(trail, {}, passing.model_copy(update={"effect": Effect.SEND})).lasting


ORIGIN = st.sampled_from(["operator", "own_named", "own", "named", "vendor", "untrusted", "unknown"])
FACT = st.builds(
    ArgumentFact, path=st.just("a"), role=st.sampled_from(["target", "handle", "quantity", "content"]), origin=ORIGIN
)
STRICTNESS = {Verdict.ALLOW: 0, Verdict.ASK: 1, Verdict.DENY: 2}
ENGINE = PolicyEngine(built_in())


def verdict(effect: Effect, found: Facts | None) -> int:
    asked = GateRequest(
        principal=Principal(id="olga", roles=("operator",)), automation="some-job", tool="some_tool", effect=effect,
        arguments={}, facts=found,
    )  # fmt: skip
    return STRICTNESS[ENGINE.decide(asked).verdict]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(Effect)), st.lists(FACT, max_size=3), FACT, st.booleans(), st.booleans())
def test_knowing_worse_never_allows_more(
    effect: Effect, known: list[ArgumentFact], more: ArgumentFact, tainted: bool, lasting: bool
) -> None:
    found = Facts(tainted=tainted, lasting=lasting, arguments=tuple(known))
    now = verdict(effect, found)
    assert verdict(effect, found.model_copy(update={"arguments": (*known, more)})) >= now
    assert verdict(effect, found.model_copy(update={"tainted": True})) >= now
    assert verdict(effect, found.model_copy(update={"lasting": True})) >= now
    assert verdict(effect, None) >= now
    worst: Origin = "unknown"
    assert verdict(effect, Facts(arguments=(more.model_copy(update={"origin": worst}),))) >= verdict(
        effect, Facts(arguments=(more,))
    )


def _mails(words: list[str], count: int, chance: random.Random) -> JsonValue:
    return [
        {"id": str(n), "sender": f"u{n}@corp{n % 7}.example", "amount": n * 1.5, "date": f"2024-05-{n % 28 + 1:02d}",
         "subject": " ".join(chance.choices(words, k=4)), "body": " ".join(chance.choices(words, k=120))}
        for n in range(count)
    ]  # fmt: skip


def test_the_whole_gate_is_quick_over_a_long_history() -> None:
    """Validate, origins over 100 kB of history, decide. The bound is loose for a busy machine; see the report of the
    benchmark for what it takes alone."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(3, 9))) for _ in range(8000)]
    trail = Trail(["Send the summary of 'Quarterly report' to bob@corp.example, with file 17"])
    size = 0
    while size < 100_000:
        content = json.dumps(_mails(words, 15, chance))
        size += len(content)
        trail.saw(tool(results="untrusted"), {"query": "report"}, content)
    arguments: JsonObject = {
        "to": ["bob@corp.example", "u17@corp3.example", "eve@evil.example"],
        "body": " ".join(chance.choices(words, k=300)) + " see https://corp.example/x",
        "attachments": [{"file_id": "17"}, {"file_id": "u9999"}],
    }
    who = Principal(id="olga", roles=("operator",))
    times: list[float] = []
    for _ in range(60):
        start = time.thread_time()
        assert problems(MAIL, arguments, "arguments") is None
        asked = GateRequest(
            principal=who, automation="some-job", tool="mail", effect=Effect.SEND, arguments=arguments,
            facts=facts(trail, arguments),
        )  # fmt: skip
        assert ENGINE.decide(asked).verdict is Verdict.ASK
        times.append(time.thread_time() - start)
    assert statistics.quantiles(times, n=4)[0] < 0.004


def test_a_word_for_the_kind_of_thing_is_no_id() -> None:
    found = facts(Trail(["Send file 17"]), {"attachments": [{"type": "event", "id": "17"}, {"type": "17a"}]})
    roles = {fact.path: fact.role for fact in found.arguments or ()}
    assert roles == {"attachments[0].type": "content", "attachments[0].id": "handle", "attachments[1].type": "handle"}
