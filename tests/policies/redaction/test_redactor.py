"""Secrets of known shapes go; what looks a little like one stays."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from policies.redaction import MARK, Redactor, names_secret, redact, redact_json

# Put together at run time: no scanner should find a secret in this file.
SECRETS = {
    "aws": "AKIA" + "ABCDEFGHIJKLMNOP",
    "github": "gh" + "p_" + "a1B2" * 9,
    "github-fine": "github" + "_pat_" + "11ABCDEFG0" * 4,
    "ours": "gh_" + "k3y1d" + "_" + "Zx9" * 12,
    "openai": "sk-" + "proj-" + "Ab3" * 12,
    "anthropic": "sk-" + "ant-api03-" + "Ab3_" * 12,
    "google": "AIza" + "Sy0" * 11 + "ab",
    "slack": "xox" + "b-" + "1234567890-abcdef",
    "gitlab": "glpat" + "-" + "x1Y2" * 6,
    "stripe": "sk" + "_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "jwt": "ey" + "JhbGciOiJIUzI1NiJ9." + "ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + "c2lnbmF0dXJl",
    "npm": "npm" + "_" + "a1B2" * 9,
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("around", ["{}", "key {} end", 'x="{}"', "é {} ü", "a\n{}\nb", '{{"k": "{}"}}'])
def test_shapes(kind: str, around: str) -> None:
    text = around.format(SECRETS[kind])
    assert SECRETS[kind][8:] not in redact(text)
    assert redact(text).replace(MARK, SECRETS[kind]) == text, "nothing else is taken away"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter22 next", "password=[redacted] next"),
        ("DB_PASSWORD: hunter22", "DB_PASSWORD: [redacted]"),
        ('{"password": "two words", "a": 1}', '{"password": "[redacted]", "a": 1}'),
        (r"{\"client_secret\": \"abc def\"}", r"{\"client_secret\": \"[redacted]\"}"),
        ("api-key='x y z'", "api-key='[redacted]'"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer [redacted]"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [redacted]"),
        ("postgres://app:s3cret@db:5432/x", "postgres://app:[redacted]@db:5432/x"),
        ("mysql --password s3cret -h db", "mysql --password [redacted] -h db"),
        ("db_pass := a{b}c", "db_pass := [redacted]"),
        ("api_key: `a b`", "api_key: `[redacted]`"),
        ('if (secret == "abcd") {', 'if (secret == "[redacted]") {'),
        ("redis://:s3cret@cache", "redis://:[redacted]@cache"),
        ("?token=abcd1234&page=2", "?token=[redacted]&page=2"),
        ("[db]\npassword = aB3dE5fG7\nx = 1", "[db]\npassword = [redacted]\nx = 1"),
        ("passwd = Winter2026", "passwd = [redacted]"),
        ("mysqldump -uroot -ps3cret app", "mysqldump -uroot -p[redacted] app"),
        ("CREATE USER a IDENTIFIED BY 'abcdef'", "CREATE USER a IDENTIFIED BY '[redacted]'"),
        ("identified with sha2 as 'abcdef'", "identified with sha2 as '[redacted]'"),
        ('{"auths": {"r.example": {"auth": "dXNlcjpwYXNz"}}}', '{"auths": {"r.example": {"auth": "[redacted]"}}}'),
    ],
)
def test_what_names_a_secret_stays(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_private_keys_go_even_when_cut_off() -> None:
    begin = "-----BEGIN " + "RSA PRIVATE KEY-----"
    end = "-----END " + "RSA PRIVATE KEY-----"
    assert redact(f"a {begin}\nMIIE\nabc\n{end} b") == f"a {MARK} b"
    assert redact(f"a {begin}\nMIIE\nabc") == f"a {MARK}"
    public = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"
    assert redact(public) == public


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=4096", "tokens: 12345", '{"max_tokens": 4096, "token_count": 17}', "https://host:8080/path",
        "user@example.com", "the token expired", "an access-token expired", "pass: 12 tests",
        "password reset mail sent", "sk-1", "eyJ",
        "run_01h8xgz", "in/app.log.2.gz:17 ERROR", "a@b:c", "password = prompt2", "token = new_token(2)",
        "password = sha256", "mysql -h db -p app", '"auth": "required"', "identified by 'a' name",
        "",         "ssh://git@host/repo", "sha256:" + "ab" * 32,
    ],
)  # fmt: skip
def test_no_false_hit(text: str) -> None:
    assert redact(text) == text


def test_an_address_in_a_file_name() -> None:
    private = Redactor(private=True)
    assert private.text("out/jo.doe@corp.example.txt") == "out/[redacted email].txt"
    for text in ("icon@2x.png", "git@github.com:example/x.git", "pytest@latest", "a@b"):
        assert private.text(text) == text


def test_json_by_key_name() -> None:
    value: JsonValue = {
        "max_tokens": 5, "api_key": "x", "accessToken": 1, "token_count": 3, "API_KEY": ["a", {"b": "c"}], "key": "k",
        "nested": [{"password": None, "db-password": "x", "text": "password=abcd"}], "is_secret": True, "monkey": "m",
    }  # fmt: skip
    assert redact_json(value) == {
        "max_tokens": 5, "api_key": MARK, "accessToken": MARK, "token_count": 3, "API_KEY": MARK, "key": "k",
        "nested": [{"password": None, "db-password": MARK, "text": f"password={MARK}"}],
        "is_secret": True, "monkey": "m",
    }  # fmt: skip


@pytest.mark.parametrize(
    "key", ["max_tokens", "token_count", "tokenizer", "key", "public_key", "keys", "secretary", "", "päss"]
)
def test_harmless_names(key: str) -> None:
    assert not names_secret(key)


def test_known_secrets_go_in_every_spelling() -> None:
    secret = 'p"w/d é1'
    redactor = Redactor([secret, secret + "-longer", "short", ""])
    for text in (secret, json.dumps(secret), secret + "-longer", "x" + secret + "y", "p%22w%2Fd%20%C3%A91"):
        assert "w/d" not in redactor.text(text)
        assert "w%2F" not in redactor.text(text)
    assert redactor.text(secret + "-longer") == MARK
    assert redactor.text("a short word") == "a short word"
    assert redactor.json({"a": [secret], secret: 1}) == {"a": [MARK], MARK: 1}
    assert Redactor([]).text("nothing known") == "nothing known"


@settings(deadline=None)
@given(text=st.text(max_size=200))
def test_twice_is_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_fast_enough_and_no_text_makes_it_slow() -> None:
    line = json.dumps(
        {"ts": "2026-05-04T12:00:00Z", "level": "INFO", "msg": "request handled", "user": "a@example.com"}
    )
    for text in (
        line * 10_000,
        "password=" * 100_000,
        "eyJ" * 300_000,
        "-----BEGIN PRIVATE KEY-----" * 30_000,
        "a://b:" * 150_000,
    ):
        started = time.thread_time()
        redact(text)
        assert len(text) / (time.thread_time() - started) > 500_000, f"slower than 0.5 MB/s on {text[:20]!r}"
