"""Files go in under names we chose and come out only when they are plain files; nothing is followed on the way."""

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.sandbox import leftovers
from tools.contract import Limits
from worker.sandbox import container, workspace
from worker.sandbox.container import Ending, Job, Ran, Sandbox
from worker.sandbox.files import MAX_NAME_BYTES, SKIPPED_NAME, media_type, refusal, safe_name, staged_names
from worker.sandbox.workspace import StagingRefused, WorkspaceMissing, Workspaces
from worker.store.blobs import BlobMissing, Blobs
from workflows.contracts import FileRef

RUN = "run_workspace"


@pytest.fixture
async def opened(workspaces: Workspaces, sandbox: Sandbox) -> AsyncIterator[Workspaces]:
    """A workspace without input files, removed afterwards."""
    await workspaces.open(RUN, ())
    yield workspaces
    await sandbox.close()
    await workspaces.remove(RUN)


async def upload(blobs: Blobs, name: str, content: bytes) -> FileRef:
    blob = await blobs.put(content)
    return FileRef(name=name, sha256=blob.sha256, size=blob.size)


async def call(sandbox: Sandbox, workspaces: Workspaces, source: str, *, writable: bool = True, **limits: float) -> Ran:
    mount = await workspaces.mount(RUN, writable=writable)
    job = Job(
        run_id=RUN, key="k", program=source.encode(), stdin=b"", workspace=mount, limits=Limits.model_validate(limits)
    )
    return await sandbox.run(job)


LOOK = """
import json, os
found = {}
s = os.stat("/workspace"); found["."] = [oct(s.st_mode), s.st_uid, s.st_size]
for folder, folders, names in os.walk("/workspace"):
    for name in folders + names:
        path = os.path.join(folder, name)
        s = os.lstat(path)
        found[os.path.relpath(path, "/workspace")] = [oct(s.st_mode), s.st_uid, s.st_size]
print(json.dumps(found))
"""


async def test_nasty_names_are_staged_under_plain_ones(sandbox: Sandbox, workspaces: Workspaces, blobs: Blobs) -> None:
    names = [
        "app.log", "logs/app.log", "../../etc/passwd", "/etc/shadow", "a/../../b", "new\nline", "..", "", "äöü ☃.txt",
        "x" * 300 + ".log", "logs", "C:\\temp\\x.txt", "app.log", "\u202egnp.exe", "-rf", ".hidden",
    ]  # fmt: skip
    files = [await upload(blobs, name, f"{n}:{name}".encode(errors="replace")) for n, name in enumerate(names)]
    try:
        await workspaces.open(RUN, files)
        await workspaces.open(RUN, files)  # may be repeated
        found = json.loads((await call(sandbox, workspaces, LOOK)).stdout)
    finally:
        await sandbox.close()
        await workspaces.remove(RUN)
    plain = {name for name, (mode, _, _) in found.items() if mode.startswith("0o100")}
    assert plain == {f"in/{name}" for name, _ in staged_names(files)}
    assert len(plain) == len(names)
    assert {"in/app.log", "in/logs/app.log", "in/etc/passwd", "in/äöü ☃.txt", "in/-rf"} <= plain
    assert {uid for _, uid, _ in found.values()} == {41_001}
    assert found["out"][0] == "0o40755"


async def test_input_must_be_what_was_announced(workspaces: Workspaces, blobs: Blobs) -> None:
    file = await upload(blobs, "x", b"content")
    try:
        with pytest.raises(StagingRefused):
            await workspaces.open(RUN, [file.model_copy(update={"size": 3})])
        with pytest.raises(BlobMissing):
            await workspaces.open(RUN, [file.model_copy(update={"sha256": "0" * 64})])
    finally:
        await workspaces.remove(RUN)


async def test_read_only_unless_the_tool_may_write(opened: Workspaces, sandbox: Sandbox) -> None:
    source = "open('/workspace/out/x', 'w').close()"
    assert b"Read-only file system" in (await call(sandbox, opened, source, writable=False)).stderr
    assert (await call(sandbox, opened, source)).ending is Ending.SUCCEEDED


async def test_only_plain_files_come_out(opened: Workspaces, sandbox: Sandbox, blobs: Blobs) -> None:
    source = r"""
import os, socket
os.chdir("/workspace/out")
os.makedirs("sub/deep"); os.makedirs("empty")
open("report.md", "w").write("# fine")
open("sub/deep/data.json", "w").write("{}")
os.symlink("/etc/passwd", "link"); os.symlink("/workspace/in", "folder-link"); os.symlink("report.md", "report-link")
open("first", "w").write("linked"); os.link("first", "second")
os.mkfifo("pipe")
s = socket.socket(socket.AF_UNIX); s.bind("socket")
open(b"bad-\xff\xfe", "w").close(); open("new\nline", "w").close(); open("back\\slash", "w").close()
open("\u202etxt.exe", "w").close()
with open("sparse", "wb") as f: f.truncate(1 << 20)
os.makedirs("/".join("d" * 1 for _ in range(40))); open("/".join("d" for _ in range(40)) + "/deep", "w").close()
open("gatehouse-skipped.txt", "w").write("forged")
"""
    ran = await call(sandbox, opened, source)
    assert ran.ending is Ending.SUCCEEDED, ran.stderr
    kept = await opened.collect(RUN)
    artifacts = {a.name: a for a in kept.artifacts}
    assert set(artifacts) == {"report.md", "sub/deep/data.json", "first", "sparse", SKIPPED_NAME}
    assert await blobs.read(artifacts["report.md"].sha256) == b"# fine"
    assert artifacts["report.md"].media_type == "text/markdown"
    assert artifacts["sparse"].sha256 == hashlib.sha256(bytes(1 << 20)).hexdigest()
    told = (await blobs.read(artifacts[SKIPPED_NAME].sha256)).decode()
    for name in (
        "link: symbolic link",
        "second: hard link",
        "pipe: not a regular file",
        "back\\slash: control",
        "deeper",
    ):
        assert name in told
    assert "forged" not in told
    assert "\u202e" not in told


@pytest.mark.parametrize(
    "trick",
    ["os.rmdir('out'); os.symlink('/etc', 'out')", "os.rmdir('out'); open('out', 'w').close()", "os.rmdir('out')"],
)
async def test_out_itself_may_be_a_trick(opened: Workspaces, sandbox: Sandbox, trick: str) -> None:
    await call(sandbox, opened, f"import os; os.chdir('/workspace'); {trick}")
    assert [a.name for a in (await opened.collect(RUN)).artifacts if a.name != SKIPPED_NAME] == []


async def test_count_and_bytes_are_capped(
    opened: Workspaces, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
for n in range(30): open(f"/workspace/out/{n:02}", "wb").write(bytes(1000))
open("/workspace/out/large", "wb").write(bytes(5000))
open("/workspace/out/rest", "wb").write(bytes(40 << 20))
"""
    await call(sandbox, opened, source)
    monkeypatch.setattr(workspace, "MAX_ARTIFACT_BYTES", 2000)
    monkeypatch.setattr(workspace, "MAX_ARTIFACTS", 20)
    kept = await opened.collect(RUN)
    assert len(kept.artifacts) == 21
    assert {reason for _, reason in kept.skipped} == {"more than 20 files"}
    monkeypatch.setattr(workspace, "MAX_ARTIFACTS", 100)
    monkeypatch.setattr(workspace, "MAX_ARTIFACTS_BYTES", 10_000)
    kept = await opened.collect(RUN)
    assert len(kept.artifacts) == 11
    # Giving up early must not wait for the engine to send the rest.
    monkeypatch.setattr(workspace, "_MAX_ENTRIES", 3)
    started = time.monotonic()
    assert ("...", "the rest: more than 3 entries") in (await opened.collect(RUN)).skipped
    assert time.monotonic() - started < 20


async def test_filling_the_workspace_ends_the_call(
    opened: Workspaces, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "WORKSPACE_ENTRIES", 500)
    source = "import time\nfor n in range(2000): open(f'/workspace/out/{n}', 'w').close()\ntime.sleep(90)"
    ran = await call(sandbox, opened, source, timeout_s=60)
    assert ran.ending is Ending.WORKSPACE_LIMIT
    tidy_up = "import shutil, time; shutil.rmtree('/workspace/out'); time.sleep(0.5); print(1)"
    tidy = await call(sandbox, opened, tidy_up)
    assert (tidy.ending, tidy.stdout) == (Ending.SUCCEEDED, b"1\n")


async def test_a_workspace_that_is_not_there(workspaces: Workspaces) -> None:
    with pytest.raises(WorkspaceMissing):
        await workspaces.mount("run_never", writable=False)
    with pytest.raises(WorkspaceMissing):
        await workspaces.collect("run_never")
    await workspaces.remove("run_never")


async def test_runs_do_not_share(sandbox: Sandbox, workspaces: Workspaces, opened: Workspaces) -> None:
    await workspaces.open("run_other", ())
    try:
        await call(sandbox, opened, "open('/workspace/out/secret', 'w').write('x')")
        assert (await workspaces.collect("run_other")).artifacts == []
    finally:
        await workspaces.remove("run_other")
    await sandbox.close()
    assert await leftovers(sandbox, "run_other") == []


@given(st.text(max_size=300))
def test_a_safe_name_is_always_safe(name: str) -> None:
    safe = safe_name(name)
    parts = safe.split("/")
    assert safe
    assert len(safe.encode()) <= MAX_NAME_BYTES
    assert not any(part in ("", ".", "..") for part in parts)
    assert safe_name(safe) == safe
    member = tarfile.TarInfo(safe)
    assert refusal(safe, member) is None


@given(st.lists(st.text(alphabet="ab/.", max_size=6), max_size=8))
def test_staged_names_never_meet(names: list[str]) -> None:
    staged = [name for name, _ in staged_names([FileRef(name=n, sha256="0" * 64, size=0) for n in names])]
    assert len(set(staged)) == len(names)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in staged:
            tar.addfile(tarfile.TarInfo(name))
    assert not any(a != b and b.startswith(a + "/") for a in staged for b in staged)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.md", "text/markdown"), ("a.json", "application/json"), ("a.log", "text/plain"),
     ("a", "application/octet-stream"), ("a.tar.gz", "application/gzip"), ("a.html", "text/html")],
)  # fmt: skip
def test_media_type_by_name(name: str, expected: str) -> None:
    assert media_type(name) == expected
    assert os.sep == "/"
