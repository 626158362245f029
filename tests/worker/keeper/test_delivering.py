"""Promises: a notice exists exactly when its fact does; it is tried until taken, given up in the open, and retried by
hand; a keeper killed outright under load loses none."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.receivers import receiver
from tests.worker.notify.test_senders import SECRET, asked
from worker.keeper.delivering import ATTEMPTS, Delivering, backoff
from worker.keeper.pruning import Pruning
from worker.notify.channels import Chosen, Secrets, load
from worker.notify.following import Following
from worker.notify.senders import Current, senders
from worker.notify.sending import NotDelivered
from worker.notify.tokens import Tokens
from worker.store.audit import AuditLog
from worker.store.database import Database
from worker.store.ids import new_id
from worker.store.leases import Lease
from worker.store.outbox import Notice, Outbox
from worker.store.spent import Spent
from worker.store.switches import Switches

ROOT = Path(__file__).resolve().parents[3]


class Scripted:
    """Fails as told, then takes everything."""

    def __init__(self, *faults: NotDelivered) -> None:
        self.faults = list(faults)
        self.got: list[str] = []

    async def send(self, notice: Notice) -> str:
        if self.faults:
            raise self.faults.pop(0)
        self.got.append(notice.id)
        return "thanks"


def duty(db: Database, sender: Scripted, **channel: Any) -> Delivering:
    chosen = Chosen(name="c", events=("*",), **channel)
    return Delivering(Outbox(db), lambda: {"c": (chosen, sender)}, pause=lambda _: timedelta())


async def put(db: Database, *notices: Notice) -> None:
    async with db.begin() as conn:
        await Outbox(db).add(conn, *notices)


async def put_and_fail(db: Database) -> None:
    async with db.begin() as conn:
        await Outbox(db).add(conn, asked())
        raise ZeroDivisionError


async def test_a_notice_stands_and_falls_with_its_fact(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        await put_and_fail(db)
    assert await Outbox(db).undirected() == []
    await put(db, asked(), asked())
    await put(db, asked())
    assert len(await Outbox(db).undirected()) == 1
    with pytest.raises(ValueError, match="unknown notice type"):
        await put(db, asked(id="y", type="approval.forgotten"))


async def test_it_is_tried_until_taken(db: Database) -> None:
    sender = Scripted(NotDelivered("busy"), NotDelivered("busy"))
    await put(db, asked())
    assert (await Outbox(db).backlog()).pending == 1
    await duty(db, sender).look()
    [found] = (await Outbox(db).page("default")).items
    assert (found.state, found.attempts, found.receipt, found.problem) == ("delivered", 3, "thanks", None)
    assert sender.got == ["run_1.1/requested"]
    backlog = await Outbox(db).backlog()
    assert (backlog.pending, backlog.dead, backlog.oldest_pending_at) == (0, 0, None)
    assert (await Outbox(db).page("other")).items == ()


async def test_what_is_given_up_is_shown_and_can_be_retried(db: Database) -> None:
    sender = Scripted(NotDelivered("gone", final=True))
    await put(db, asked())
    await duty(db, sender).look()
    [dead] = (await Outbox(db).page("default", state="dead")).items
    assert (dead.attempts, dead.problem) == (1, "gone")
    assert (await Outbox(db).backlog()).dead == 1
    assert await Outbox(db).retry("other", dead.id) is None
    again = await Outbox(db).retry("default", dead.id)
    assert again is not None
    await duty(db, sender).look()
    [found] = (await Outbox(db).page("default")).items
    assert found.state == "delivered"


async def test_attempts_end(db: Database) -> None:
    await put(db, asked())
    work = duty(db, Scripted(*[NotDelivered("busy")] * ATTEMPTS))
    await work.look()
    [found] = (await Outbox(db).page("default")).items
    assert (found.state, found.attempts) == ("dead", ATTEMPTS)
    assert backoff(1) < timedelta(seconds=3)
    assert timedelta(minutes=15) <= backoff(ATTEMPTS) <= timedelta(minutes=18)


async def test_a_channel_gets_its_own_tenant_s_notices_only(db: Database) -> None:
    sender = Scripted()
    await put(db, asked(), asked(id="other/requested", tenant="other"))
    await duty(db, sender, tenants=("other",)).look()
    assert sender.got == ["other/requested"]


async def test_a_switch_is_told(db: Database) -> None:
    sender = Scripted()
    switches = Switches(db, AuditLog(db))
    switch = await switches.set(
        "global", tenant="*", target="", state="stop", running="pause", reason="a test", by="adam"
    )  # fmt: skip
    await switches.advance(switch, "safe_mode", by="adam", reason="better")
    await duty(db, sender).look()
    assert sender.got == [f"switch/{switch.id}/1", f"switch/{switch.id}/2"]


async def test_a_lease_has_one_holder_and_ends_with_it(db: Database) -> None:
    one, two = Lease(db, "duty", "one"), Lease(db, "duty", "two")
    assert await one.take()
    assert await one.take()
    assert not await two.take()
    await one.give_back()
    assert await two.take()
    dead = Lease(db, "other", "dead", timedelta(seconds=-1))
    assert await dead.take()
    assert await Lease(db, "other", "two").take()


async def test_a_keeper_killed_under_load_loses_nothing(tmp_path: Path) -> None:
    data, home = tmp_path / "data", tmp_path / "home"
    home.mkdir()
    db = Database(f"sqlite+aiosqlite:///{data / 'gatehouse.db'}")
    await db.migrate()
    wanted = {f"run_{n}.1/requested" for n in range(120)}
    await put(db, *(asked(id=name) for name in sorted(wanted)))
    async with receiver(slow_s=0.05) as server:
        (home / "notify.yaml").write_text(
            json.dumps(
                {
                    "apiVersion": "gatehouse/v1", "networks": ["127.0.0.0/8"],
                    "channels": [
                        {"name": "hook", "kind": "webhook", "url": server.url.replace("hooks.test", "127.0.0.1"),
                         "secret": "hook"}
                    ],
                }
            )
        )  # fmt: skip
        for kill_after in (10, 40, None):
            keeper = start_keeper(data, home)
            try:
                async with asyncio.timeout(120):
                    while not await enough(db, len(server.got), kill_after):  # noqa: ASYNC110  (another process)
                        await asyncio.sleep(0.02)
            finally:
                keeper.send_signal(signal.SIGKILL if kill_after else signal.SIGTERM)
                keeper.wait(20)
    assert {g.headers["webhook-id"] for g in server.got} == wanted
    assert len(server.got) <= len(wanted) + 2 * 10, "each kill repeats at most what was on its way"
    await db.close()


async def enough(db: Database, got: int, wanted: int | None) -> bool:
    return got >= wanted if wanted is not None else not (await Outbox(db).backlog()).pending


def start_keeper(data: Path, home: Path) -> "subprocess.Popen[bytes]":
    ours = {
        "GATEHOUSE_DATA": str(data), "GATEHOUSE_HOME": str(home), "GATEHOUSE_NOTIFY_SECRET_HOOK": SECRET,
        "GATEHOUSE_TEMPORAL_ADDRESS": "127.0.0.1:1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")}
    return subprocess.Popen([sys.executable, "-m", "worker.keeper"], cwd=ROOT, env=kept | ours)


async def test_what_arrived_is_forgotten_and_what_is_dead_stays_until_dismissed(db: Database) -> None:
    sender = Scripted(NotDelivered("gone", final=True))
    await put(db, asked(id="run_1.1/requested"))
    await duty(db, sender).look()
    await put(db, asked(id="run_2.1/requested"), asked(id="run_3.1/requested", tenant="nobody-told"))
    await duty(db, sender).look()
    await put(db, asked(id="run_4.1/requested"))
    spent = Spent(db, AuditLog(db))
    assert await spent.spend("t", tenant="default", approval_id="run_2.1", by="ruth", told={"way": "mail"})
    await Pruning(Outbox(db), spent, timedelta(days=1)).look()
    assert len((await Outbox(db).page("default")).items) == 2, "what is young stays"
    assert await spent.used_by("t") == "ruth"
    later = Pruning(Outbox(db), spent, timedelta(seconds=-1))
    await later.look()
    [dead] = (await Outbox(db).page("default")).items
    assert (dead.notice_id, dead.state) == ("run_1.1/requested", "dead")
    assert [notice.id for notice in await Outbox(db).undirected()] == ["run_4.1/requested"], "what nobody got stays"
    assert await spent.used_by("t") is None
    assert await Outbox(db).dismiss("other", dead.id) is None
    gone = await Outbox(db).dismiss("default", dead.id)
    assert gone is not None
    assert gone.state == "dismissed"
    assert (await Outbox(db).backlog()).dead == 0
    await later.look()
    assert (await Outbox(db).page("default")).items == ()


async def test_a_file_that_changes_counts_and_one_with_a_mistake_does_not(db: Database, tmp_path: Path) -> None:
    """Also what is told by then goes where the new file says; with a mistake in it, where the old one said."""
    write = tmp_path.joinpath("notify.yaml").write_text
    secrets = Secrets({"GATEHOUSE_NOTIFY_SECRET_HOOK": SECRET, "GATEHOUSE_NOTIFY_SECRET_BAD": "whsec_!"})

    def file(port: int, secret: str = "hook") -> str:
        channel = {"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{port}/", "secret": secret}
        return json.dumps({"apiVersion": "gatehouse/v1", "networks": ["127.0.0.0/8"], "channels": [channel]})

    async with receiver() as one, receiver() as two:
        write(file(one.port))
        following = Following(tmp_path, lambda home: load(home, secrets), start_without=False)
        work = Delivering(Outbox(db), Current(following, lambda f: senders(f, secrets, Tokens(tmp_path))))
        for text, got in (
            (file(one.port), one), (file(two.port), two), ("channels: [", two), (file(one.port, "bad"), two),
            (file(one.port, "none"), two), (file(one.port) + "\n", one),
        ):  # fmt: skip
            write(text)
            before = len(got.got)
            await put(db, asked(id=new_id("notice")))
            await work.look()
            assert len(got.got) == before + 1, text
