"""A secret and a personal datum, planted in every input of a whole system, are looked for wherever it keeps or shows
anything, in every spelling."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from policies.redaction.exact import forms
from tests.e2e.system import System

MAIL = "planted.person@corp.example"
TOKEN = "ghp_" + "Pl4nt3dS3cr3tPl4nt3dS3cr3tPl4nt3dS3c"
PLANTED = {form for value in (MAIL, TOKEN) for form in forms(value.encode()) if len(form) >= 12}

# What runs has to be kept as it is somewhere, and is cleaned before it is shown. Everything else is searched.
ORIGINALS = {
    ("run", "inputs"), ("run", "result"), ("ledger", "result"), ("idempotency_key", "response"),
    ("approval", "request"), ("approval", "answer"),
}  # fmt: skip


def found_in(data: bytes) -> list[bytes]:
    """What of the planted stands in it."""
    lowered = data.lower()
    return [form for form in PLANTED if form in data or form.lower() in lowered]


def cells(database: Path) -> Iterator[tuple[tuple[str, str], bytes]]:
    """Every text and binary value of every table."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = connection.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in rows.description]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    if isinstance(value, str | bytes):
                        yield (table, column), value if isinstance(value, bytes) else value.encode()


async def plant(system: System) -> str:
    """Put both into every input; the run's id."""
    for name in (f"{MAIL}.log", f"{TOKEN}.log"):
        refused = await system.request("olga", "POST", "/files", params={"name": name}, content=b"x")
        assert refused.status_code == 422
        assert not found_in(refused.content)
    file = await system.upload("note.log", f"{MAIL} {TOKEN}".encode())
    run_id = await system.start_run(
        "spill-by-rules", f"{MAIL}-{TOKEN}", inputs={"mail": MAIL, "credential": TOKEN}, files=[file]
    )
    for planted in (MAIL, TOKEN):
        headers = {"X-Request-Id": planted, "User-Agent": planted, "Idempotency-Key": planted}
        for method, path in (("GET", f"/runs/{planted}"), ("GET", "/approvals"), ("POST", "/runs")):
            await system.request("vera", method, path, params={"automation": planted, "q": planted}, headers=headers)
        bad = {"Authorization": f"Bearer {planted}"}
        assert (await system.request("olga", "GET", f"/runs/{planted}", headers=bad)).status_code == 401
    return run_id


async def test_nothing_planted_is_kept_or_shown(system: System) -> None:
    run_id = await plant(system)
    run = await system.finished(run_id)
    assert run["phase"] == "succeeded", (run, system.tails())
    assert run["inputs"]["mail"] == MAIL, "who asked for the run sees its personal data"
    assert not found_in(json.dumps(run).replace(MAIL, "").encode()), "but no secret, not even its own"

    records = json.dumps(await system.records(run_id))
    assert not found_in(records.encode())
    assert "[redacted email]" in records
    outcomes = [
        record["body"]["outcome"] for record in await system.records(run_id) if record["type"] == "call.outcome"
    ]
    assert outcomes == ["succeeded", "succeeded", "failed"], "the true values ran"

    for path in ("/runs", f"/runs/{run_id}", f"/runs/{run_id}/artifacts", f"/runs/{run_id}/events", "/approvals"):
        shown = await system.request("vera", "GET", path)
        assert shown.status_code == 200, (path, shown.text)
        assert not found_in(shown.content), path

    for log in (system.data / "logs").glob("*.log"):
        assert not found_in(log.read_bytes()), log.name

    for history in system.data.glob("temporal.db*"):
        assert not found_in(history.read_bytes()), history.name

    seen: set[tuple[str, str]] = set()
    for place, value in cells(system.data / "gatehouse.db"):
        if found_in(value):
            seen.add(place)
    assert seen <= ORIGINALS, seen - ORIGINALS


async def test_artifacts_keep_their_content_under_a_name_that_may_be_shown(system: System) -> None:
    run_id = await system.start_run("spill-by-rules", "names", inputs={"mail": MAIL, "credential": TOKEN})
    await system.finished(run_id)
    artifacts = (await system.request("olga", "GET", f"/runs/{run_id}/artifacts")).json()["items"]
    names = sorted(artifact["name"] for artifact in artifacts)
    assert names == ["[redacted email].txt", "[redacted].txt"]
    content = await system.request("olga", "GET", f"/runs/{run_id}/artifacts/{names[0]}")
    assert content.content == MAIL.encode()
