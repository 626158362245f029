"""A secret, a personal datum and a secret of a tool, planted in every input of a whole system, are looked for wherever
it keeps, shows or sends anything, in every spelling."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from policies.redaction.exact import forms
from tests.e2e.system import ROOT, System
from tests.fixtures.postgres import Killable, plain
from tests.fixtures.receivers import Mailbox, Receiver, mail_server, receiver
from tests.fixtures.temporal import free_port
from worker.metrics import QUEUES

MAIL = "planted.person@corp.example"
TOKEN = "ghp_" + "Pl4nt3dS3cr3tPl4nt3dS3cr3tPl4nt3dS3c"
HELD = 'wölfe & "rams"/4711+x'
"""The tool's own: no shape gives it away."""
BOTH = f"tell {MAIL} that it is {TOKEN}"
PLANTED = {form for value in (MAIL, TOKEN, HELD) for form in forms(value.encode()) if len(form) >= 12}


def found_in(data: bytes) -> list[bytes]:
    """What of the planted stands in it."""
    lowered = data.lower()
    return [form for form in PLANTED if form in data or form.lower() in lowered]


@dataclass
class Outside:
    """A system on PostgreSQL that tells a webhook and a mailbox what happens, and serves its numbers."""

    system: System
    server: Killable
    hook: Receiver
    box: Mailbox
    traces: Receiver
    """Where tracing libraries would send theirs, were any at work."""


@pytest.fixture
async def outside(on_postgres: tuple[System, Killable], tmp_path: Path) -> AsyncIterator[Outside]:
    system, server = on_postgres
    assert system.home is not None
    home, mail = tmp_path / "home", free_port()
    shutil.copytree(system.home, home)
    async with receiver() as hook, receiver() as traces:
        channels = [
            {"name": "hook", "kind": "webhook", "url": hook.url.replace("hooks.test", "127.0.0.1"), "secret": "hook",
             "events": ["*"]},
            {"name": "mail", "kind": "email", "host": "127.0.0.1", "port": mail, "tls": "none", "events": ["*"],
             "sender": "gatehouse@corp.example", "to": ["reviewers@corp.example"]},
        ]  # fmt: skip
        told = {"apiVersion": "gatehouse/v1", "networks": ["127.0.0.0/8"], "channels": channels}
        (home / "notify.yaml").write_text(json.dumps(told))
        with mail_server(mail) as box:
            for part in ("keeper", "sandbox", "models"):
                system.kill(part)
                system.start(
                    part, GATEHOUSE_HOME=str(home), GATEHOUSE_NOTIFY_SECRET_HOOK="whsec_c2VjcmV0c2VjcmV0",
                    GATEHOUSE_SECRET_PLANTED=HELD, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{traces.port}",
                    OTEL_TRACES_EXPORTER="otlp",
                )  # fmt: skip
            yield Outside(system, server, hook, box, traces)
            for part in ("keeper", "sandbox", "models"):
                system.kill(part)  # the next test's are plain ones
                system.start(part)


def tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


async def sent(system: System, person: str, method: str, path: str, status: int = 200, **more: Any) -> Any:
    """One request that is answered so, whose answer holds no secret."""
    answer = await system.request(person, method, path, **more)
    assert answer.status_code == status, (path, answer.text)
    return answer.json()


async def plant(system: System) -> str:
    """Put all into every input that is no question's; the run's id."""
    for name in (f"{MAIL}.log", f"{TOKEN}.log"):
        refused = await system.request("olga", "POST", "/files", params={"name": name}, content=b"x")
        assert refused.status_code == 422
        assert not found_in(refused.content)
    file = await system.upload("note.log", BOTH.encode())
    run_id = await system.start_run(
        "plant-by-rules", f"{MAIL}-{TOKEN}", inputs={"mail": MAIL, "credential": TOKEN}, files=[file]
    )
    for planted in (MAIL, TOKEN):
        headers = {"X-Request-Id": planted, "User-Agent": planted, "Idempotency-Key": planted}
        for method, path in (("GET", f"/runs/{planted}"), ("GET", "/approvals"), ("POST", "/runs")):
            await system.request("vera", method, path, params={"automation": planted, "q": planted}, headers=headers)
        bad = {"Authorization": f"Bearer {planted}"}
        assert (await system.request("olga", "GET", f"/runs/{planted}", headers=bad)).status_code == 401
    checked = {"automation": "plant-by-rules", "tool": "note_down", "arguments": {"value": BOTH}}
    await sent(system, "olga", "POST", "/policy/check", json=checked)
    return run_id


async def plant_in_words(system: System) -> None:
    """What people write that is about no run."""
    until = tomorrow()
    grant = {"automation": "other", "tool": "note_down", "arguments": {"value": BOTH}, "uses": 1, "until": until}
    made = await sent(system, "adam", "POST", "/grants", 201, json=grant | {"reason": BOTH})
    await sent(system, "adam", "DELETE", f"/grants/{made['id']}")
    absent = {"stand_in": "adam", "until": until, "reason": BOTH}
    made = await sent(system, "ruth", "POST", "/delegations", 201, json=absent)
    await sent(system, "ruth", "DELETE", f"/delegations/{made['id']}")
    switch = {"scope": "tool", "target": "no-such-tool", "reason": BOTH}
    made = await sent(system, "adam", "POST", "/switches", 201, json=switch)
    released = {"state": "stop", "reason": BOTH}
    await sent(system, "adam", "POST", f"/switches/{made['id']}/release", json=released)
    key = {"name": MAIL, "principal": "nightly", "roles": ["viewer"]}
    await sent(system, "adam", "POST", "/keys", 201, json=key)


async def talk(system: System, run_id: str) -> None:
    """Everything that can be said to the run's question."""
    question = await system.pending(run_id, 120)
    path = f"/approvals/{question['id']}"
    said = {"digest": question["digest"], "text": BOTH}
    await sent(system, "ruth", "POST", f"{path}/ask", json=said)
    await sent(system, "olga", "POST", f"{path}/reply", json=said)
    await sent(system, "ruth", "POST", f"{path}/delegate", json=said | {"to": "adam"})
    remembered = {"uses": 1, "until": tomorrow(), "arguments": {"value": f"{MAIL}*"}}
    edited = {"value": f"{BOTH}, edited"}
    several: tuple[dict[str, Any], ...] = ({"edited_arguments": edited}, {"remember": remembered})
    for changes in several:
        answered = await system.answer(question, "approve", **changes, reason=BOTH)
        assert answered.status_code == 200, answered.text
        if (await system.run(run_id))["phase"] in ("succeeded", "failed"):
            return
        waiting = (await sent(system, "ruth", "GET", "/approvals", params={"run": run_id, "state": "pending"}))["items"]
        if not waiting:
            return
        question = waiting[0]


async def visible(system: System, run_id: str) -> AsyncIterator[tuple[str, bytes]]:
    """What a viewer is shown, by the API and in the console."""
    questions = (await sent(system, "vera", "GET", "/approvals", params={"run": run_id}))["items"]
    of_questions = [f"/approvals/{question['id']}" for question in questions]
    for path in (
        "/runs", f"/runs/{run_id}", f"/runs/{run_id}/artifacts", f"/runs/{run_id}/events", "/approvals", "/grants",
        "/delegations", "/switches", *of_questions,
    ):  # fmt: skip
        shown = await system.request("vera", "GET", path)
        assert shown.status_code == 200, (path, shown.text)
        yield path, shown.content
    base = f"http://127.0.0.1:{system.ports['api']}"
    async with httpx.AsyncClient(base_url=base, headers={"Origin": base}, timeout=60) as browser:
        entered = await browser.post("/console/sign-in", data={"key": system.keys["vera"]})
        assert entered.status_code == 303
        pages = [f"/questions/{question['id']}" for question in questions]
        for path in ("/queue", "/runs", f"/runs/{run_id}", "/switches", "/automations", *pages):
            shown = await browser.get(f"/console{path}")
            assert shown.status_code == 200, (path, shown.text)
            yield path, shown.content


def exported(system: System, kind: str) -> bytes:
    """The audit log as it is handed out."""
    command = [sys.executable, "-m", "api.cli", "audit", "export", "--format", kind]
    done = subprocess.run(command, cwd=ROOT, env=system.environment, capture_output=True, check=True, timeout=120)
    assert len(done.stdout) > 10_000
    return done.stdout


async def test_nothing_planted_is_kept_shown_or_sent(outside: Outside) -> None:
    system = outside.system
    run_id = await plant(system)
    await plant_in_words(system)
    await talk(system, run_id)
    run = await system.finished(run_id)
    assert run["phase"] == "succeeded", (run, system.tails())
    assert run["inputs"]["mail"] == MAIL, "who asked for the run sees its personal data"
    assert not found_in(json.dumps(run).replace(MAIL, "").encode()), "but no secret, not even its own"

    records = await system.records(run_id)
    assert not found_in(json.dumps(records).encode())
    assert "[redacted email]" in json.dumps(records)
    assert "model.requested" in {record["type"] for record in records}, "a model was told all of it"
    outcomes = [record["body"]["outcome"] for record in records if record["type"] == "call.outcome"]
    assert outcomes == ["succeeded", "succeeded", "failed", "succeeded"], (records, system.tails())
    [noted] = [r["body"] for r in records if r["type"] == "call.outcome" and r["body"]["tool"] == "note_down"]
    assert "[redacted]" in noted["content_head"], "the tool had its secret, and gave it away"

    async for path, shown in visible(system, run_id):
        assert not found_in(shown), path
    for kind in ("jsonl", "ocsf"):
        assert not found_in(exported(system, kind)), kind
    async with httpx.AsyncClient() as client:
        for number, part in enumerate(QUEUES):
            assert system.metrics is not None
            counted = await client.get(f"http://127.0.0.1:{system.metrics + number}/metrics")
            assert counted.status_code == 200
            assert b"temporal_" in counted.content, part
            assert not found_in(counted.content), part

    closed = f"{run_id}/closed"
    async with asyncio.timeout(60):
        while closed not in {got.headers["webhook-id"] for got in outside.hook.got} or not outside.box.mails:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    for got in outside.hook.got:
        assert not found_in(got.line.encode() + str(got.headers).encode() + got.body), got.headers["webhook-id"]
    for letter in outside.box.mails:
        assert not found_in(letter.as_bytes())

    assert outside.traces.got == [], "nothing is traced to anywhere"
    lies_clean(system.data, "temporal.db", "audit.jsonl", *(f"{part}.log" for part in (*QUEUES, "api")))
    stands_clean(outside.server)


def lies_clean(data: Path, *names: str) -> None:
    """Nothing planted is in any file of a folder, which has files of these names, and sealed blobs."""
    kept = [path for path in data.rglob("*") if path.is_file()]
    assert set(names) <= {path.name for path in kept}
    assert any(path.suffix == ".sealed" for path in kept)
    for path in kept:
        assert not found_in(path.read_bytes()), path


def stands_clean(server: Killable) -> None:
    """Nothing planted is in any value of the database, nor in the server's files, its journal and log included."""
    with psycopg.connect(plain(server.url), autocommit=True) as conn:
        conn.execute("CHECKPOINT")
        oid = conn.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
        assert oid is not None
        tables = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        seen = 0
        for (table,) in tables:
            for row in conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))):
                seen += 1
                for value in row:
                    assert not found_in(value if isinstance(value, bytes) else str(value).encode()), (table, value)
    assert seen > 50
    for folder in (server.folder / "base" / str(oid[0]), server.folder / "pg_wal"):
        for path in filter(Path.is_file, folder.iterdir()):
            assert not found_in(path.read_bytes()), path
    assert not found_in((server.folder / "log").read_bytes())


async def test_artifacts_keep_their_content_under_a_name_that_may_be_shown(system: System) -> None:
    run_id = await system.start_run("spill-by-rules", "names", inputs={"mail": MAIL, "credential": TOKEN})
    await system.finished(run_id)
    artifacts = (await system.request("olga", "GET", f"/runs/{run_id}/artifacts")).json()["items"]
    names = sorted(artifact["name"] for artifact in artifacts)
    assert names == ["[redacted email].txt", "[redacted].txt"]
    content = await system.request("olga", "GET", f"/runs/{run_id}/artifacts/{names[0]}")
    assert content.content == MAIL.encode()
    await plant_in_words(system)
    for kind in ("jsonl", "cef"):
        assert not found_in(exported(system, kind)), kind
    lies_clean(system.data, "gatehouse.db", "gatehouse.db-wal", "temporal.db", "runs.log")
