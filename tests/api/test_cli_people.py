"""The command line where people talk to each other about a question, against real workers: asking back, replying,
handing on, many at once, emergencies, grants, stand-ins, switches, deliveries; exit statuses, and what to do next."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.api.running import Api
from tests.api.test_cli import Cli, Done
from tests.api.test_flow import asked, ended


@pytest.fixture(scope="module")
async def cli(house: Api) -> Cli:
    return Cli(house)


def refused(done: Done, code: int, *said: str) -> None:
    """It failed so, in words, told what to do, and printed no result."""
    assert done.code == code, done.err
    for part in (*said, "what to do: "):
        assert part in done.err, done.err
    assert "Traceback" not in done.err


async def test_people_talk_about_a_question(house: Api, cli: Cli) -> None:
    _, question = await asked(house)
    found = question["id"]
    said = await cli("approver", "approvals", "ask", found, "Who needs it gone?")
    assert (said.code, said.err) == (0, f"{found}: recorded\n")
    replied = await cli("operator", "approvals", "reply", found, "The\x1b[2J disk is full.", "--json")
    assert [r["kind"] for r in replied.json["conversation"]] == ["ask", "reply"]
    handed, further, stranger, nowhere = await asyncio.gather(
        cli("approver", "approvals", "delegate", found, "carla"),
        cli("approver", "approvals", "escalate", found),
        cli("viewer", "approvals", "ask", found, "?"),
        cli("approver", "approvals", "ask", "run_none.1", "?"),
    )
    assert handed.code == 0, handed.err
    refused(further, 2, "invalid_arguments", "no further group")
    refused(stranger, 3, "approver")
    refused(nowhere, 1, "not_found")
    shown = await cli("approver", "approvals", "show", found)
    assert "approver (ask): Who needs it gone?" in shown.out
    assert "operator (reply): The\\x1b[2J disk is full." in shown.out
    assert "approver lets carla answer" in shown.out
    carla = await house.client("carla", "viewer", "approver")
    assert carla is not None
    glass = await cli("approver", "approvals", "approve", found, "--break-glass", "--reason", "fire", "--yes")
    refused(glass, 3, "not_an_approver")
    answered = await cli("carla", "approvals", "approve", found, "--yes", "--reason", "fine")
    assert answered.code == 0, answered.err
    assert f"{found} is approved" in answered.err
    refused(await cli("approver", "approvals", "ask", found, "late"), 1, "already_decided")


async def test_two_people_break_the_glass(house: Api, cli: Cli) -> None:
    run_id, question = await asked(house, "tidy-two")
    for who in "ivo", "eve":
        await house.client(who, "approver", "break-glass")
    glass = ("approvals", "approve", question["id"], "--break-glass", "--yes")
    silent = await cli("eve", *glass)
    assert (silent.code, "body.reason: an emergency needs a reason" in silent.err) == (2, True), silent.err
    first = await cli("eve", *glass, "--reason", "the disk is full")
    assert f"{question['id']} is pending" in first.err, first.err
    refused(await cli("eve", *glass, "--reason", "still full"), 1, "already_answered")
    second = await cli("ivo", *glass, "--reason", "I see it, too")
    assert f"{question['id']} is approved" in second.err, second.err
    assert (await ended(house, run_id))["outcomes"] == ["succeeded"]
    loud = await house.records("approval.break_glass", run_id=run_id)
    assert [(r["actor"], r["reason"]) for r in loud] == [("eve", "the disk is full"), ("ivo", "I see it, too")]


async def test_many_are_answered_at_once_and_each_by_itself(house: Api, cli: Cli) -> None:
    (_, one), (_, two) = await asyncio.gather(asked(house), asked(house))
    first = await cli("approver", "approvals", "answer-many", "deny", one["id"], "--reason", "no", "--yes", "--json")
    assert (first.code, first.json[0]["state"]) == (0, "denied")
    both = await cli("approver", "approvals", "answer-many", "approve", one["id"], two["id"], "--yes")
    refused(both, 1, "1 of 2 answers were refused")
    assert f"{one['id']}: already_decided" in both.out
    assert f"{two['id']}: approved" in both.out
    unsure = await cli("approver", "approvals", "answer-many", "approve", two["id"])
    refused(unsure, 2, "nobody is here to confirm")


async def test_grants_and_stand_ins(house: Api, cli: Cli, tmp_path: Path) -> None:
    arguments = tmp_path / "arguments.json"
    arguments.write_text(json.dumps({"paths": "*"}))
    wanted = ["approvals", "grants", "create", "elsewhere", "delete_files", "--reason", "x"]
    wanted += ["--arguments", str(arguments)]
    made, denied, away = await asyncio.gather(
        cli("admin", *wanted, "--uses", "3", "--json"),
        cli("approver", *wanted),
        cli("approver", "approvals", "stand-ins", "create", "sam", "--days", "2", "--json"),
    )
    grant, stand_in = made.json["id"], away.json["id"]
    refused(denied, 3, "admin")
    listed, plain, ins, ins_plain = await asyncio.gather(
        cli("viewer", "approvals", "grants", "list", "--json"),
        cli("viewer", "approvals", "grants", "list"),
        cli("viewer", "approvals", "stand-ins", "list", "--json"),
        cli("viewer", "approvals", "stand-ins", "list"),
    )
    assert grant in [g["id"] for g in listed.json]
    [row] = [line for line in plain.out.splitlines() if grant in line]
    assert "in_force" in row
    assert "elsewhere: delete_files" in row
    assert "0/3" in row
    assert stand_in in [d["id"] for d in ins.json]
    assert "sam" in ins_plain.out
    ended, again = await asyncio.gather(
        cli("admin", "approvals", "grants", "revoke", grant),
        cli("approver", "approvals", "stand-ins", "revoke", stand_in),
    )
    assert (ended.code, again.code) == (0, 0), ended.err + again.err
    refused(await cli("admin", "approvals", "grants", "revoke", "grant_none"), 1, "not_found")


async def test_switches_and_deliveries(cli: Cli) -> None:
    stopped = await cli("admin", "switches", "stop", "tool", "none_such", "--reason", "a test", "--wait", "0", "--json")
    assert stopped.code == 0, stopped.err
    switch = stopped.json["id"]
    shown, listed, deliveries, backlog, wrong, denied = await asyncio.gather(
        cli("viewer", "switches", "show", switch),
        cli("viewer", "switches", "list", "--json"),
        cli("admin", "deliveries", "list", "--json"),
        cli("admin", "deliveries", "backlog"),
        cli("admin", "switches", "stop", "everything", "--reason", "x"),
        cli("viewer", "deliveries", "list"),
    )
    assert "tool none_such" in shown.out
    assert switch in [s["id"] for s in listed.json]
    assert (deliveries.json, deliveries.code) == ([], 0)
    assert "dead" in backlog.out
    refused(wrong, 2, "no such scope")
    refused(denied, 3, "admin")
    eased = await cli("admin", "switches", "release", switch, "--reason", "over", "--yes", "--json")
    assert eased.json["state"] == "released"
    refused(await cli("admin", "switches", "release", switch, "--reason", "over", "--yes"), 2, "released already")
    refused(await cli("admin", "deliveries", "retry", "none"), 1, "not_found")
