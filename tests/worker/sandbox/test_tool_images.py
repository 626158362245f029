"""Images that tools bring: checked, built on the base image without a network, recorded, verified before use."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.catalog import load_tool
from tools.errors import ToolError
from worker.sandbox.container import Ending, Job, Sandbox, UnknownImage
from worker.sandbox.engine import Engine, SandboxUnavailable, connect
from worker.sandbox.images import ImageStore, recorded

ROOT = Path(__file__).resolve().parents[3]
MANIFEST = """
name: greet
version: "1"
description: Greets.
effect: read
parameters: {type: object}
"""
DOCKERFILE = "ARG BASE\nFROM ${BASE}\nCOPY greeting.txt /opt/greeting.txt\nRUN echo built >> /opt/greeting.txt\n"


def write(home: Path, *, dockerfile: str | None = DOCKERFILE, more: str = "") -> Path:
    folder = home / "tools" / "greet"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tool.yaml").write_text(MANIFEST + more)
    (folder / "run.py").write_text("print(repr(open('/opt/greeting.txt').read()).replace(\"'\", '\"'))\n")
    if dockerfile is not None:
        (folder / "image").mkdir(exist_ok=True)
        (folder / "image" / "Dockerfile").write_text(dockerfile)
        (folder / "image" / "greeting.txt").write_text("hello\n")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    api = connect()
    for image in recorded(tmp_path / "data").values():
        if image.name != "base":
            api.remove_image(image.id, force=True)


def gatehouse(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    data = home.parent / "data"
    known = {"GATEHOUSE_HOME": str(home), "GATEHOUSE_DATA": str(data), "PATH": os.environ["PATH"], "NO_COLOR": "1"}
    command = [sys.executable, "-m", "api.cli", "images", *arguments]
    return subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, check=False)


async def test_built_recorded_verified_and_used(home: Path, engine: Engine) -> None:
    folder = write(home)
    tool = load_tool(folder)
    missing = gatehouse(home, "verify", "--json")
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["images"][tool.spec.image] == "never built"

    built = gatehouse(home, "build", "--no-pull", "greet", "--json")
    assert built.returncode == 0, built.stderr
    base, own = json.loads(built.stdout)
    assert (own["name"], own["source"], own["base"]) == (tool.spec.image, "built", base["id"])
    assert own["layers"][: len(base["layers"])] == base["layers"]
    assert own["recorded_at"]
    assert any(package.startswith("python3=") for package in own["packages"])
    assert own["packages"] == base["packages"]
    again = json.loads(gatehouse(home, "build", "--no-pull", "--json").stdout)
    assert [(r["id"], r["source"]) for r in again] == [(base["id"], "present"), (own["id"], "present")]
    assert gatehouse(home, "verify").returncode == 0
    assert tool.spec.image in gatehouse(home, "list").stdout

    sandbox = Sandbox(engine, data=home.parent / "data", owner="images-test")
    job = Job("run_images", "k", tool.program, b"", image=tool.spec.image)
    ran = await sandbox.run(job)
    assert (ran.ending, ran.stdout) == (Ending.SUCCEEDED, b'"hello\\nbuilt\\n"\n')
    await sandbox.close()


async def test_a_changed_tool_has_no_image_until_it_is_built(home: Path, engine: Engine) -> None:
    write(home)
    assert gatehouse(home, "build", "--no-pull").returncode == 0
    (home / "tools" / "greet" / "image" / "greeting.txt").write_text("other\n")
    changed = load_tool(home / "tools" / "greet")
    sandbox = Sandbox(engine, data=home.parent / "data", owner="images-test")
    with pytest.raises(UnknownImage):
        await sandbox.run(Job("run_images", "k", changed.program, b"", image=changed.spec.image))


async def test_a_record_that_the_engine_does_not_hold_to_runs_nothing(
    sandbox_data: Path, tmp_path: Path, engine: Engine
) -> None:
    """As after a tag was moved, a record edited, or another engine put in its place."""
    known = json.loads((sandbox_data / "images.json").read_text())
    known["base"]["layers"] = ["sha256:" + "0" * 64]
    (tmp_path / "images.json").write_text(json.dumps(known))
    sandbox = Sandbox(engine, data=tmp_path, owner="images-test")
    with pytest.raises(SandboxUnavailable, match="as it was recorded"):
        await sandbox.run(Job("run_images", "k", b"print(1)", b""))


def test_a_build_has_no_network_and_fails_with_the_reason(home: Path) -> None:
    # The build's own view of its network, and what the supervisor of builds is told.
    write(home, dockerfile='ARG BASE\nFROM ${BASE}\nRUN test "$(ls /sys/class/net)" != lo\n')
    failed = gatehouse(home, "build", "--no-pull")
    assert failed.returncode == 1
    assert "returned a non-zero code" in failed.stderr
    assert "what to do" in failed.stderr
    assert set(recorded(home.parent / "data")) == {"base"}


@pytest.mark.parametrize(
    ("dockerfile", "field", "problem"),
    [
        ("FROM python:3.12\n", "line 1", "ARG BASE"),
        ("ARG BASE\nFROM python:3.12\n", "line 2", "FROM ${BASE}"),
        ("ARG BASE=evil\nFROM ${BASE}\n", "line 1", "ARG BASE"),
        (DOCKERFILE + "FROM other\n", "line 5", "second FROM"),
        (DOCKERFILE + "COPY --from=other /x /x\n", "line 5", "option"),
        (DOCKERFILE + "RUN \\\n --network=host true\n", "line 5", "option"),
        (DOCKERFILE + "ADD https://example.org/x /x\n", "line 5", "ADD"),
        (DOCKERFILE + "VOLUME /data\n", "line 5", "VOLUME"),
        ("# syntax=evil/frontend\n" + DOCKERFILE, "line 1", "directive"),
        ("ARG BASE\n", "", "too short"),
    ],
)
def test_dockerfiles_that_reach_elsewhere(tmp_path: Path, dockerfile: str, field: str, problem: str) -> None:
    with pytest.raises(ToolError) as caught:
        load_tool(write(tmp_path, dockerfile=dockerfile))
    assert caught.value.field == field
    assert problem in str(caught.value)


def test_packages_make_an_image_of_their_own(tmp_path: Path) -> None:
    one = load_tool(write(tmp_path, dockerfile=None, more="packages: [jq, git]\n"))
    same = load_tool(write(tmp_path, dockerfile=None, more="packages: [git, jq]\n"))
    other = load_tool(write(tmp_path, dockerfile=None, more="packages: [git]\n"))
    assert one.spec.image == same.spec.image != other.spec.image
    assert one.spec.image.startswith("greet-")
    for more in ("packages: ['a b']\n", "packages: [-o=x]\n", "packages: [git]\nimage: other\n"):
        with pytest.raises(ToolError):
            load_tool(write(tmp_path, dockerfile=None, more=more))
    with pytest.raises(ToolError, match="Use one of them"):
        load_tool(write(tmp_path, more="packages: [git]\n"))


def test_files_of_an_image_are_ordinary_ones(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "image" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ToolError, match="ordinary files"):
        load_tool(folder)


def test_the_base_record_names_its_packages(sandbox_data: Path, tmp_path: Path) -> None:
    record = ImageStore(tmp_path, lambda _: None).ensure(pull=False)
    assert any(package.startswith("libc6=") for package in record.packages)
    assert record.recorded_at is not None
