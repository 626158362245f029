"""Where secrets come from and how they are found again in outputs. Vault is a server that speaks KV v2 over HTTP."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.sandbox.engine import SandboxUnavailable
from worker.sandbox.scrubbing import Scrubber, Watch
from worker.sandbox.secrets import EnvironmentSecrets, FolderSecrets, SecretRefused, Secrets, Source, VaultSecrets

TOKEN = "hvs.a-token-of-the-test"


class Vault(ThreadingHTTPServer):
    """The read side of KV v2, as Vault's API documents it."""

    entries: dict[str, dict[str, object]]
    asked: list[str]


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        vault = cast(Vault, self.server)
        vault.asked.append(self.path)
        if self.headers.get("X-Vault-Token") != TOKEN:
            self._send(403, {"errors": ["permission denied"]})
            return
        entry = vault.entries.get(self.path)
        if entry is None:
            self._send(404, {"errors": []})
        else:
            deleted = {"data": None, "metadata": {"deletion_time": "2026-01-01T00:00:00Z", "version": 2}}
            self._send(404 if entry.get("deleted") else 200, {"data": deleted if entry.get("deleted") else entry})

    def _send(self, status: int, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def vault() -> Iterator[Vault]:
    server = Vault(("127.0.0.1", 0), _Answers)
    server.entries, server.asked = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def client(vault: Vault, token: str = TOKEN) -> VaultSecrets:
    return VaultSecrets(f"http://127.0.0.1:{vault.server_port}", lambda: token, mount="kv", path="team/gatehouse")


def entry(**fields: object) -> dict[str, object]:
    return {"data": fields, "metadata": {"version": 1, "deletion_time": ""}}


async def test_vault_gives_the_current_version(vault: Vault) -> None:
    vault.entries["/v1/kv/data/team/gatehouse/mail_key"] = entry(value="first value")
    assert await client(vault).get("mail_key") == b"first value"
    vault.entries["/v1/kv/data/team/gatehouse/mail_key"] = entry(value="rotated value")
    assert await client(vault).get("mail_key") == b"rotated value"


async def test_vault_without_the_entry(vault: Vault) -> None:
    assert await client(vault).get("nothing") is None
    vault.entries["/v1/kv/data/team/gatehouse/gone"] = {"deleted": True}
    assert await client(vault).get("gone") is None


async def test_vault_entry_without_the_field(vault: Vault) -> None:
    vault.entries["/v1/kv/data/team/gatehouse/odd"] = entry(password="tell nobody this")
    with pytest.raises(SecretRefused) as caught:
        await client(vault).get("odd")
    assert "tell nobody" not in str(caught.value)


async def test_vault_that_refuses_or_is_away_is_no_answer(vault: Vault) -> None:
    with pytest.raises(SandboxUnavailable) as caught:
        await client(vault, "wrong-token-value").get("mail_key")
    assert "wrong-token-value" not in str(caught.value)
    away = VaultSecrets("http://127.0.0.1:1", lambda: TOKEN)
    with pytest.raises(SandboxUnavailable):
        await away.get("mail_key")


async def test_first_source_that_knows_counts(tmp_path: Path, vault: Vault) -> None:
    (tmp_path / "one").write_text("from the folder\n")
    (tmp_path / "two").write_text("from the folder\n")
    vault.entries["/v1/kv/data/team/gatehouse/three"] = entry(value="from the vault")
    sources: list[Source] = [
        EnvironmentSecrets({"GATEHOUSE_SECRET_ONE": "from the environment", "GATEHOUSE_HOME": "/x", "TWO": "no"}),
        FolderSecrets(tmp_path),
        client(vault),
    ]
    scrubber = Scrubber()
    assert await Secrets(sources, scrubber).resolve(["one", "two", "three", "two"]) == {
        "one": b"from the environment",
        "two": b"from the folder",
        "three": b"from the vault",
    }
    assert scrubber.text("x from the vault, from the folder y") == "x [redacted], [redacted] y"


@pytest.mark.parametrize("name", ["missing", "short", "../one", "ONE", "open", "big", ""])
async def test_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "short").write_text("1234567")
    (tmp_path / "big").write_bytes(bytes(100_000))
    (tmp_path / "open").write_text("a value anybody may change")
    (tmp_path / "open").chmod(0o666)
    (tmp_path.parent / "one").write_text("outside of the folder")
    with pytest.raises(SecretRefused) as caught:
        await Secrets([FolderSecrets(tmp_path)], Scrubber()).resolve([name])
    assert "1234567" not in str(caught.value)


# ---------------------------------------------------------------- finding them again


@given(
    secret=st.binary(min_size=8, max_size=40),
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
)
def test_base64_of_anything_around_it(secret: bytes, before: bytes, after: bytes) -> None:
    """Wherever the secret stands in what was encoded, the characters that are its alone are gone."""
    scrubber = Scrubber()
    scrubber.learn([secret])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert b"[redacted]" in scrubber.bytes(encode(before + secret + after))


@given(st.text(min_size=8, max_size=40).filter(lambda t: len(t.encode(errors="ignore")) >= 8 and t.isprintable()))
def test_every_way_text_is_written(secret: str) -> None:
    raw = secret.encode(errors="ignore")
    secret = raw.decode()
    scrubber = Scrubber()
    scrubber.learn([raw])
    once = json.dumps({"k": f"a{secret}b"})
    written = [
        secret, once, json.dumps({"k": secret}, ensure_ascii=False), json.dumps({"out": once}), quote(secret),
        quote(secret, safe=""), quote_plus(secret), raw.hex(), raw.hex().upper(), repr(secret)[1:-1],
    ]  # fmt: skip
    for text in written:
        cleaned = scrubber.text(text)
        assert "[redacted]" in cleaned
        assert secret not in cleaned.replace("[redacted]", "")


def test_json_stays_json() -> None:
    scrubber = Scrubber()
    scrubber.learn([b'quote" and \\ in it'])
    assert json.loads(scrubber.text(json.dumps({"k": 'x quote" and \\ in it y'}))) == {"k": "x [redacted] y"}


def test_the_longer_of_two_goes_first() -> None:
    scrubber = Scrubber()
    scrubber.learn([b"password"])
    scrubber.learn([b"password-and-more"])
    assert scrubber.bytes(b"<password-and-more>") == b"<[redacted]>"


@given(st.integers(1, 30), st.integers(0, 20))
def test_a_watch_passes_on_all_or_nothing(step: int, offset: int) -> None:
    secret = b"0123456789abcdef"
    for text in (b"x" * offset + secret + b"y" * 9, b"x" * offset + secret[:-1] + b"-" * 50):
        watch, passed = Watch([secret]), b""
        for start in range(0, len(text), step):
            ready = watch.passed(text[start : start + step])
            if ready is None:
                break
            passed += ready
        else:
            passed += watch.held
            assert passed == text
            assert secret not in passed
            continue
        assert secret[:1] not in passed
