"""The locks pin every package by hash, agree with each other, and nothing committed names a registry or a download."""

import re
import subprocess
from pathlib import Path

import pytest

from api.lock import drift, locked, normal_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "deploy" / "requirements"
LOCKS = ("runtime.txt", "dev.txt")
# Written in two halves, or this file would be its own finding.
HOSTS = tuple(
    a + b
    for a, b in (
        ("pypi", ".org"), ("files.python", "hosted.org"), ("registry-1.", "docker.io"), ("deb.", "debian.org"),
        ("registry.", "npmjs.org"), ("ghcr", ".io"), ("security.", "debian.org"), ("quay", ".io"),
    )
)  # fmt: skip


@pytest.mark.parametrize("name", LOCKS)
def test_locks_name_no_address(name: str) -> None:
    text = (REQUIREMENTS / name).read_text()
    for forbidden in ("://", "--index-url", "--extra-index-url", "--find-links", "--trusted-host"):
        assert forbidden not in "\n".join(line for line in text.splitlines() if not line.startswith("#")), forbidden
    assert "://" not in text


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_by_hash(name: str) -> None:
    text = (REQUIREMENTS / name).read_text()
    blocks = re.split(
        r"\n(?=[A-Za-z0-9])", "\n" + "\n".join(x for x in text.splitlines() if not x.lstrip().startswith("#"))
    )
    blocks = [block for block in blocks if block.strip()]
    assert len(blocks) == len(locked(text)) > 50
    assert all("==" in block and re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


def test_development_holds_all_of_runtime() -> None:
    runtime, dev = (locked((REQUIREMENTS / name).read_text()) for name in LOCKS)
    assert runtime.items() <= dev.items()


def test_locks_cover_what_is_asked_for() -> None:
    for source, lock in (("runtime.in", "runtime.txt"), ("dev.in", "dev.txt")):
        asked = re.findall(r"^([A-Za-z0-9._-]+)", (REQUIREMENTS / source).read_text(), re.MULTILINE)
        have = locked((REQUIREMENTS / lock).read_text())
        assert [name for name in asked if name != "-r" and normal_name(name) not in have] == []


def test_what_is_installed_is_what_is_locked() -> None:
    assert not drift(REQUIREMENTS / "dev.txt"), "run: make setup"


def test_drift_names_what_differs(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("a-b==1.0 \\\n    --hash=sha256:00\nc[extra]==2.0\nd==3\n")
    found = drift(lock, {"a-b": "1.0", "c": "2.1"})
    assert (found.missing, found.different) == (("d",), ("c 2.1 (lock: 2.0)",))
    assert str(found) == "missing: d; other version: c 2.1 (lock: 2.0)"


def test_nothing_committed_names_a_registry_or_a_download() -> None:
    done = subprocess.run(
        ["git", "grep", "-nIF", "--untracked", *(x for host in HOSTS for x in ("-e", host))],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == ""
    assert done.returncode == 1
