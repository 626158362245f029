"""What a hostile program leaves in its workspace, and what only the engine's root could: counted, never followed, never
held in memory whole."""

import asyncio
import io
import resource
import tarfile
from collections.abc import AsyncIterator

import pytest

from tests.worker.sandbox.test_workspace import RUN, call, opened
from worker.sandbox import container, workspace
from worker.sandbox import engine as names
from worker.sandbox.container import Ending, Sandbox
from worker.sandbox.files import SKIPPED_NAME
from worker.sandbox.workspace import Collected, Workspaces
from worker.store.blobs import Blobs
from workflows.contracts import ArtifactRef, FileRef

__all__ = ["opened"]

HIDING = {
    "its path is longer than the kernel takes": ("for n in range(40): os.mkdir('d' * 200); os.chdir('d' * 200)", ""),
    "it may not be read": ("os.mkdir('closed'); os.chdir('closed')", "os.chmod('.', 0o300)"),
    "it may not be entered": ("os.mkdir('closed'); os.chdir('closed')", "os.chmod('.', 0o600)"),
    "it may not be touched": ("os.mkdir('closed'); os.chdir('closed')", "os.chmod('.', 0)"),
}


@pytest.mark.parametrize("way", HIDING)
async def test_no_folder_hides_what_fills_the_workspace(
    opened: Workspaces, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(container, "WORKSPACE_BYTES", 4 << 20)
    monkeypatch.setattr(container, "WORKSPACE_GROWTH_BYTES", 4 << 20)
    hide, close = HIDING[way]
    source = f"""
import os, time
os.chdir("/workspace/out")
{hide}
grows = open("grows", "wb", 0)
{close}
for n in range(16): grows.write(bytes(1 << 20))
time.sleep(90)
"""
    ran = await call(sandbox, opened, source, timeout_s=60)
    assert (ran.ending, ran.stderr) == (Ending.WORKSPACE_LIMIT, b"")


TRICKS = r"""
import os
os.chdir("/workspace/out")
def put(name, content=b"x"):
    with open(name, "wb") as file: file.write(content)
put("n" * 255); put(".wh.report.md"); put(".wh..wh..opq"); put("-rf"); put("a b"); put("tab\there")
put("report.md"); os.chmod("report.md", 0o6777); os.utime("report.md", (-(1 << 31), -(1 << 31)))
put("future"); os.utime("future", (1 << 33, 1 << 33)); put("closed"); os.chmod("closed", 0)
os.mkdir("locked"); put("locked/inside"); os.chmod("locked", 0)
os.symlink("/proc/self/environ", "environ"); os.symlink(".", "loop"); os.symlink("../in", "up")
os.symlink("x" * 4000, "long"); os.symlink("gone", "dangling")
os.mkdir("real"); os.symlink("real", "through"); put("through/inside")
os.mkfifo("fifo"); os.mkfifo("f" * 250)
for name, mode, number in (("block", 0o60666, (8, 0)), ("character", 0o20666, (1, 5))):
    try: os.mknod(name, mode, os.makedev(*number))
    except PermissionError: put("no-" + name)
put(b"\xff\xfe\xfd"); put("\u202egpj.exe"); put("\u200bzero"); put("one\x01"); put("new\nline")
for n in range(30): os.mkdir("e" * 250); os.chdir("e" * 250)
put("deep")
"""


async def test_whatever_a_program_leaves(opened: Workspaces, sandbox: Sandbox, blobs: Blobs) -> None:
    ran = await call(sandbox, opened, TRICKS)
    assert ran.ending is Ending.SUCCEEDED, ran.stderr
    kept = await opened.collect(RUN)
    artifacts = {artifact.name: artifact for artifact in kept.artifacts}
    assert set(artifacts) == {
        ".wh.report.md", ".wh..wh..opq", "-rf", "a b", "report.md", "future", "closed", "locked/inside", "real/inside",
        "no-block", "no-character", SKIPPED_NAME,
    }  # fmt: skip
    told = (await blobs.read(artifacts[SKIPPED_NAME].sha256)).decode()
    for words in ("environ: symbolic", "loop: symbolic", "up: symbolic", "long: symbolic", "dangling: symbolic"):
        assert words in told
    assert "fifo: not a regular file" in told
    assert "n" * 180 in told
    assert not any((ord(c) < 32 and c != "\n") or c in "\u202e\u200b" for c in told)


async def plant(sandbox: Sandbox, workspaces: Workspaces, script: str, *more: str) -> None:
    """Make what no box may, as the engine's root does."""
    mount = await workspaces.mount(RUN, writable=True)
    image = await sandbox.image("base")
    command = [
        "docker", "run", "--rm", "--network", "none", "--label", f"{names.LABEL_OWNER}={sandbox.owner}", *more,
        "--volume", f"{mount.volume}:/workspace", image.id, "sh", "-ec", f"cd /workspace/out; {script}",
    ]  # fmt: skip
    done = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, complaint = await done.communicate()
    assert done.returncode == 0, complaint


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def test_a_file_of_a_terabyte_is_neither_read_nor_stored(opened: Workspaces, sandbox: Sandbox) -> None:
    await call(sandbox, opened, "open('/workspace/out/a', 'w').write('kept')")
    await plant(sandbox, opened, "truncate -s 1T sparse; mknod device b 8 0; chmod 4755 a")
    before = peak_kb()
    kept = await opened.collect(RUN)
    assert {a.name for a in kept.artifacts} == {"a", SKIPPED_NAME}
    assert ("device", "not a regular file") in kept.skipped
    assert [why for name, why in kept.skipped if name == "sparse"] == ["the rest: more than 1073741824 bytes to read"]
    assert peak_kb() - before < 64 << 10
    # It takes no room on the disk, so it is not in the way of the next call either.
    look = "import os; print(os.stat('/workspace/out/sparse').st_size); os.unlink('/workspace/out/sparse')"
    assert (await call(sandbox, opened, look)).stdout == b"1099511627776\n"


async def test_a_hundred_thousand_files(opened: Workspaces, sandbox: Sandbox) -> None:
    many = "[[os.mkdir(f'm{n}'), [os.mknod(f'm{n}/{i}') for i in range(1000)]] for n in range(100)]"
    await plant(sandbox, opened, f'python3 -c "import os; {many}"', "--user", "41001")
    before = peak_kb()
    kept = await opened.collect(RUN)
    assert len(kept.artifacts) == workspace.MAX_ARTIFACTS + 1
    assert kept.skipped[-1] == ("...", f"the rest: more than {workspace.MAX_ARTIFACTS} files")
    assert len(kept.skipped) == 1001
    assert peak_kb() - before < 64 << 10
    # Who finds it so may still tidy up, and look around.
    tidy = await call(sandbox, opened, "import shutil; shutil.rmtree('/workspace/out/m0'); print(1)")
    assert (tidy.ending, tidy.stdout) == (Ending.SUCCEEDED, b"1\n")


def test_an_archive_that_says_the_same_twice_or_leads_elsewhere() -> None:
    """No file system does; an engine that was taken over might."""
    raw = io.BytesIO()
    odd = ("out/a", "out/a", "/out/b", "out/../c", "elsewhere/d", "out//e", "out/./f", "out", "/etc/passwd")
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in odd:
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    kept = Collected()
    with tarfile.open(fileobj=io.BytesIO(raw.getvalue()), mode="r|") as tar:
        while (member := workspace.wanted(tar, kept)) is not None:
            kept.artifacts.append(ArtifactRef(name=member.name[4:], sha256="0" * 64, size=1, media_type="x/y"))
    assert [artifact.name for artifact in kept.artifacts] == ["a"]
    assert len(kept.skipped) == len(odd) - 1


async def test_large_inputs_are_not_held(workspaces: Workspaces, sandbox: Sandbox, blobs: Blobs) -> None:
    async def content() -> AsyncIterator[bytes]:
        for n in range(128):
            yield bytes([n]) * (1 << 20)

    blob = await blobs.put(content())
    before = peak_kb()
    try:
        await workspaces.open(RUN, [FileRef(name="large", sha256=blob.sha256, size=blob.size)])
        look = "import hashlib; print(hashlib.file_digest(open('/workspace/in/large', 'rb'), 'sha256').hexdigest())"
        assert (await call(sandbox, workspaces, look)).stdout.decode().strip() == blob.sha256
    finally:
        await sandbox.close()
        await workspaces.remove(RUN)
    assert peak_kb() - before < 48 << 10
