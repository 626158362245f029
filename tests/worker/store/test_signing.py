"""One answer key for the installation, agreed on by all processes; what it signs, and only that, verifies."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policies.approval import verify_signature
from policies.decision import Principal
from tests.fixtures.processes import finished, spawn
from tests.worker.store import jobs
from worker.store.keyfiles import KeyFileUnsafe, read_or_create
from worker.store.signing import load_or_create, public_keys
from workflows.contracts import ApprovalAnswer

ANSWER = ApprovalAnswer(
    approval_id="run_1.1", run_id="run_1", verdict="approve", digest="d" * 64, principal=Principal(id="bob"),
    reason="fine", answered_at=datetime(2026, 11, 22, tzinfo=UTC), expires_at=datetime(2026, 11, 23, tzinfo=UTC),
    key_id="",
)  # fmt: skip


def test_what_is_signed_verifies_and_a_change_does_not(tmp_path: Path) -> None:
    key = load_or_create(tmp_path / "keys")
    signed = key.sign_answer(ANSWER)
    keys = public_keys(tmp_path / "keys")
    assert keys == {key.key_id: key.public_base64}
    assert verify_signature(signed, keys)
    assert not verify_signature(signed.model_copy(update={"verdict": "deny"}), keys)
    assert not verify_signature(ANSWER, keys)
    assert key.sign_answer(signed.model_copy(update={"signature": "x", "key_id": "y"})) == signed


def test_the_key_is_kept_privately(tmp_path: Path) -> None:
    first, second = (load_or_create(tmp_path / "keys") for _ in range(2))
    assert first.key_id == second.key_id
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "keys" / "answer.pem").stat().st_mode) == 0o600
    (tmp_path / "keys" / "answer.pem").chmod(0o644)
    with pytest.raises(KeyFileUnsafe, match="chmod 600"):
        load_or_create(tmp_path / "keys")


async def test_processes_starting_together_agree_on_one_key(tmp_path: Path) -> None:
    said = tmp_path / "said"
    await finished(*(spawn(jobs.load_key, str(tmp_path / "keys"), str(said)) for _ in range(6)))
    assert len(jobs.notes(said)) == 6
    assert set(jobs.notes(said)) == set(public_keys(tmp_path / "keys"))
    assert not list((tmp_path / "keys").glob(".*"))


def test_a_lost_public_file_is_made_again(tmp_path: Path) -> None:
    key = load_or_create(tmp_path / "keys")
    (tmp_path / "keys" / f"answer-{key.key_id}.pub").unlink()
    assert public_keys(tmp_path / "keys") == {}
    load_or_create(tmp_path / "keys")
    assert public_keys(tmp_path / "keys") == {key.key_id: key.public_base64}


def test_a_retired_key_stays_accepted_and_a_swapped_one_is_noticed(tmp_path: Path) -> None:
    old = load_or_create(tmp_path / "keys")
    (tmp_path / "keys" / "answer.pem").unlink()
    new = load_or_create(tmp_path / "keys")
    assert set(public_keys(tmp_path / "keys")) == {old.key_id, new.key_id}
    (tmp_path / "keys" / f"answer-{old.key_id}.pub").write_text(new.public_base64)
    with pytest.raises(ValueError, match="does not hold the key of its name"):
        public_keys(tmp_path / "keys")


def test_a_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    read_or_create(tmp_path / "keys" / "answer.pem", lambda: b"no key")
    with pytest.raises(ValueError, match=r".+"):
        load_or_create(tmp_path / "keys")


def test_no_keys_no_trust(tmp_path: Path) -> None:
    assert public_keys(tmp_path / "nowhere") == {}
