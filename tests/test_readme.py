"""The README tells the truth: its commands exist, its files are there, its examples load."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.commands.session import Exit
from api.doctor.definitions import check_definitions
from tests.readme_home import README, write_home

ROOT = README.parent
TEXT = README.read_text()
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINE = re.compile(r"^(?:export \w+=\$\()?(?:GATEHOUSE_\w+=\S+ )?(gatehouse [^#\n)]*)", re.MULTILINE)


def shell_blocks(page: Path) -> str:
    return "\n".join(re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))


def gatehouse_commands() -> list[str]:
    found: set[str] = set()
    for page in PAGES:
        for line in _LINE.findall(shell_blocks(page)):
            found.update(part.strip().partition(" > ")[0] for part in line.split("&&") if "gatehouse" in part)
        for line in re.findall(r"`(gatehouse [a-z][^`<|.]*)`", page.read_text()):
            found.update(part.strip() for part in line.split("&&"))
    return sorted(command.strip() for command in found)


@pytest.mark.parametrize("command", gatehouse_commands())
def test_every_command_shown_exists_with_its_options(command: str) -> None:
    words = shlex.split(command)[1:]
    path: list[str] = []
    while words and re.fullmatch(r"[a-z-]+", words[0]) and len(path) < 2:
        done = CliRunner().invoke(app, [*path, words[0], "--help"])
        if done.exit_code != 0 or (path and "COMMAND [ARGS]" not in CliRunner().invoke(app, [*path, "--help"]).output):
            break
        path.append(words.pop(0))
    assert path, f"{command}: no such command"
    shown = CliRunner().invoke(app, [*path, "--help"]).output
    own = itertools.takewhile(lambda w: w != "--", words)  # what follows is a command line of its own
    for option in (w for w in own if w.startswith("--")):
        assert option in shown, f"{command}: {' '.join(path)} has no {option}"


def test_the_two_commands_stand_at_the_top() -> None:
    block = TEXT.partition("```sh\n")[2].partition("```")[0]
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["make demo", "make test"]
    assert len(TEXT.partition("```sh")[0].splitlines()) < 12


def test_every_make_target_shown_exists() -> None:
    shown = {t for page in PAGES for t in re.findall(r"\bmake ([a-z-]+)", shell_blocks(page) + _code(page))}
    known = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in sorted(shown) if f"make {target} " not in known] == []


def _code(page: Path) -> str:
    return "\n".join(re.findall(r"`([^`\n]+)`", page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_path_shown_exists() -> None:
    paths = {
        p
        for page in PAGES
        for p in re.findall(r"`((?:api|worker|workflows|policies|tools|deploy|tests|docs)/[\w./-]+)`", page.read_text())
    }
    assert [p for p in sorted(paths) if not (ROOT / p.rstrip("/")).exists()] == []


def test_the_examples_load(tmp_path: Path) -> None:
    names = write_home(tmp_path)
    assert sorted(names) == [
        "automations/word-count.yaml", "rules/own.yaml", "tools/count_words/run.py", "tools/count_words/tool.yaml",
    ]  # fmt: skip
    assert check_definitions(tmp_path).problems == []


def test_the_exit_statuses_are_those_of_the_code() -> None:
    meant = {
        Exit.OK: "ok",
        Exit.FAILED: "failed",
        Exit.USAGE: "usage",
        Exit.DENIED: "denied",
        Exit.WAITING: "waiting for approval",
    }
    assert ", ".join(f"{int(code)} {word}" for code, word in meant.items()) in TEXT


def test_the_quoted_demo_promises_are_the_demos() -> None:
    promises = re.findall(r"^  yes  (.+)$", TEXT, re.MULTILINE)
    account = (ROOT / "deploy" / "demo_account.py").read_text()
    assert promises
    assert [p for p in promises if p not in account] == []


def test_the_module_the_readme_names_for_settings_has_them() -> None:
    shown = {name for page in PAGES for name in re.findall(r"\bGATEHOUSE_([A-Z_]+)\b", page.read_text())}
    probe = "from worker.settings import Settings; print(*Settings.model_fields)"
    fields = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # Read by the command line alone, or of families whose members people name.
    known = set(fields.upper().split()) | {"KEY", "URL", "BACKUP_PASSPHRASE"}
    assert [name for name in shown - known if not name.startswith(("SECRET_", "NOTIFY_SECRET_"))] == []
