"""The keys that encrypt: made once, private, turned over without a restart, and never a bad one."""

import base64
import os
from pathlib import Path

import pytest

from worker.encryption import key_file, open_keyring
from worker.settings import Settings
from worker.store import keyring
from worker.store.keyring import DataKeyMissing, Keyring, KeyringError, new_line, open_generated, open_given, rotate


def written(path: Path, *lines: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(b"".join(lines))
    path.chmod(mode)
    return path


def sealed(keys: Keyring, purpose: str = "test") -> tuple[str, bytes]:
    key_id = keys.newest
    return key_id, keys.cipher(key_id, purpose).encrypt(bytes(12), b"words", None)


def test_an_installation_makes_its_own_key_once(tmp_path: Path) -> None:
    first, second = open_keyring(Settings(data=tmp_path)), open_keyring(Settings(data=tmp_path))
    assert first.ids == second.ids
    assert key_file(Settings(data=tmp_path)).stat().st_mode & 0o777 == 0o600


def test_a_key_added_while_running_encrypts_and_older_ones_still_decrypt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "_LOOK_S", 0.0)
    path = written(tmp_path / "keys", b"# ours\n\n", new_line())
    here, there = open_given(path), open_given(path)
    old_id, old = sealed(here)
    new_id = rotate(path)
    assert here.newest == new_id != old_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert here.cipher(old_id, "test").decrypt(bytes(12), old, None) == b"words"
    # Another process may meet the new key before it has looked at the file again.
    monkeypatch.setattr(keyring, "_LOOK_S", 1000.0)
    assert there.cipher(new_id, "test").decrypt(bytes(12), sealed(here)[1], None) == b"words"


def test_what_is_derived_differs_by_purpose_and_salt(tmp_path: Path) -> None:
    keys = open_generated(tmp_path / "keys")
    derived = {
        keys.derive(keys.newest, "payload/acme"), keys.derive(keys.newest, "payload/other"),
        keys.derive(keys.newest, "blob"), keys.derive(keys.newest, "blob", salt=b"s"),
    }  # fmt: skip
    assert len(derived) == 4
    assert all(secret not in path.read_bytes() for secret in derived for path in tmp_path.iterdir())


def test_a_key_that_was_taken_out_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "keys", new_line())
    key_id, _ = sealed(open_given(path))
    written(path, new_line())
    with pytest.raises(DataKeyMissing):
        open_given(path).cipher(key_id, "test")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no key"),
        (b"# only words\n", "no key"),
        (b"not base64!\n", ":1: not base64"),
        (new_line() + base64.b64encode(os.urandom(16)) + b"\n", ":2: 16 bytes"),
        (base64.b64encode(bytes(32)) + b"\n", "not a random key"),
        (base64.b64encode(b"changeme" * 4) + b"\n", "not a random key"),
    ],
)
def test_a_bad_file_is_refused_and_not_shown(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(KeyringError, match=problem) as refused:
        open_given(written(tmp_path / "keys", content))
    assert base64.b64encode(b"changeme" * 4).decode() not in str(refused.value)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="chmod 600"):
        open_given(written(tmp_path / "keys", new_line(), mode=0o640))


def test_production_runs_on_keys_of_its_own_or_not_at_all(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", written(tmp_path / "keys", new_line())
    data.mkdir()
    inside = written(data / "keys", new_line())

    def production(keys: Path | None) -> Settings:
        return Settings(data=data, environment="production", encryption_keys=keys)

    for keys, problem in (
        (None, "GATEHOUSE_ENCRYPTION_KEYS"),
        (tmp_path / "none", "does not exist"),
        (inside, "beside"),
    ):
        with pytest.raises(KeyringError, match=problem):
            open_keyring(production(keys))
    assert open_keyring(production(outside)).ids
    assert not (data / "keys").is_dir()
