"""What each built-in tool does, in the box it really gets."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import cast

import pytest
from jsonschema import Draft202012Validator, validate

from tools.catalog import load_tools
from tools.contract import CONTENT_LIMIT_CHARS, JsonObject, canonical_json
from worker.sandbox.container import Ending, Job, Ran, Sandbox
from worker.sandbox.workspace import Workspaces
from worker.store.blobs import Blobs
from workflows.contracts import FileRef

TOOLS = load_tools()
RUN = "run_tools"

LOG = "".join(
    f"2026-11-22T0{hour}:{minute:02}:00Z {level} request {hour}{minute} took {minute} ms\n"
    for hour in range(3)
    for minute in range(60)
    for level in (["INFO", "ERROR"] if minute % 10 == 0 else ["INFO"])
)
FILES = {
    "app.log": LOG.encode(),
    "app.log.1.gz": gzip.compress(b"Nov 21 23:59:59 host app: FATAL out of memory\nNov 21 23:59:58 host app: ok\n"),
    "binary.bin": bytes(range(256)) * 10,
    "sub/wide.txt": b"w" * 50_000 + b"\nnext\n",
}


@pytest.fixture(scope="module")
async def workspace(workspaces: Workspaces, blobs: Blobs, sandbox: Sandbox) -> AsyncIterator[Workspaces]:
    files: list[FileRef] = []
    for name, content in FILES.items():
        blob = await blobs.put(content)
        files.append(FileRef(name=name, sha256=blob.sha256, size=blob.size))
    await workspaces.open(RUN, files)
    yield workspaces
    await sandbox.close()
    await workspaces.remove(RUN)


class Tools:
    """Calls a tool as the sandbox activity does, and checks the promises every tool keeps."""

    def __init__(self, sandbox: Sandbox, workspaces: Workspaces) -> None:
        self.sandbox = sandbox
        self.workspaces = workspaces

    async def run(self, name: str, **arguments: object) -> Ran:
        tool = TOOLS[name]
        given = cast(JsonObject, arguments)
        validate(given, tool.spec.parameters, Draft202012Validator)
        mount = await self.workspaces.mount(RUN, writable=tool.spec.workspace == "write")
        stdin = canonical_json({"arguments": given, "key": "k", "call_id": "c"})
        return await self.sandbox.run(
            Job(run_id=RUN, key=name, program=tool.program, stdin=stdin, limits=tool.spec.limits, workspace=mount)
        )

    async def __call__(self, name: str, **arguments: object) -> dict[str, object]:
        ran = await self.run(name, **arguments)
        assert ran.ending is Ending.SUCCEEDED, ran.stderr.decode()
        return cast(dict[str, object], json.loads(ran.stdout))

    async def fails(self, name: str, **arguments: object) -> str:
        ran = await self.run(name, **arguments)
        assert ran.ending is Ending.EXIT_CODE, ran
        message = ran.stderr.decode()
        assert message.startswith(f"{name}: ")
        assert "Traceback" not in message or name == "run_python"
        return message


@pytest.fixture(scope="module")
def tools(sandbox: Sandbox, workspace: Workspaces) -> Tools:
    return Tools(sandbox, workspace)


async def test_list_files(tools: Tools) -> None:
    listed = await tools("list_files", path="in")
    assert [f["path"] for f in cast(list[JsonObject], listed["files"])] == [f"in/{name}" for name in sorted(FILES)]
    assert (listed["count"], listed["total_bytes"]) == (4, sum(map(len, FILES.values())))
    some = await tools("list_files", pattern="*.gz", limit=1)
    assert (some["count"], some["truncated"]) == (1, False)
    assert "no such folder" in await tools.fails("list_files", path="nowhere")


async def test_read_file(tools: Tools) -> None:
    page, end, packed, wide, binary, folder = await asyncio.gather(
        tools("read_file", path="in/app.log", offset=3, limit=2),
        tools("read_file", path="in/app.log", offset=-1),
        tools("read_file", path="in/app.log.1.gz"),
        tools("read_file", path="in/sub/wide.txt"),
        tools.fails("read_file", path="in/binary.bin"),
        tools.fails("read_file", path="in"),
    )
    assert page["text"] == "\n".join(LOG.splitlines()[2:4])
    assert (page["offset"], page["lines"], page["total_lines"], page["next_offset"]) == (3, 2, 198, 5)
    assert (end["text"], end["next_offset"]) == (LOG.splitlines()[-1], None)
    assert "FATAL" in str(packed["text"])
    assert "[... 48000 characters more]" in str(wide["text"])
    assert len(json.dumps(wide)) < CONTENT_LIMIT_CHARS
    assert "not a text file" in binary
    assert "use list_files" in folder


async def test_search_text(tools: Tools) -> None:
    found = await tools("search_text", pattern="ERROR|FATAL", samples=3)
    assert (found["matches"], found["lines"]) == (19, 202)
    assert found["by_level"] == {"ERROR": 18, "FATAL": 1}
    hours = cast(dict[str, int], found["by_hour"])
    assert hours == {"2026-11-22 00h": 6, "2026-11-22 01h": 6, "2026-11-22 02h": 6, "Nov 21 23h": 1}
    top = cast(list[JsonObject], found["top"])
    assert (top[0]["count"], top[0]["path"], top[0]["line"]) == (18, "in/app.log", 2)
    samples = cast(list[JsonObject], found["samples"])
    assert {str(s["path"]) for s in samples} == {"in/app.log", "in/app.log.1.gz"}
    assert [s["path"] for s in cast(list[JsonObject], found["skipped"])] == ["in/binary.bin"]
    assert len(json.dumps(found)) < CONTENT_LIMIT_CHARS
    quiet = await tools("search_text", pattern="fatal", path="in/app.log.1.gz", ignore_case=True)
    assert quiet["matches"] == 1
    assert "pattern:" in await tools.fails("search_text", pattern="(")


async def test_search_that_never_ends_is_ended(tools: Tools, sandbox: Sandbox) -> None:
    tool = TOOLS["search_text"]
    limits = tool.spec.limits.model_copy(update={"timeout_s": 1.0})
    mount = await tools.workspaces.mount(RUN, writable=False)
    stdin = canonical_json({"arguments": {"pattern": "(w+)+x"}, "key": "k", "call_id": "c"})
    job = Job(run_id=RUN, key="k", program=tool.program, stdin=stdin, limits=limits, workspace=mount)
    assert (await sandbox.run(job)).ending is Ending.TIMEOUT


async def test_run_python(tools: Tools) -> None:
    answer = await tools(
        "run_python", code="import glob, sys\nprint(len(glob.glob('in/app*')))\nprint('w', file=sys.stderr)"
    )
    assert answer == {"stdout": "2\n", "stderr": "w\n"}
    failed = await tools.fails("run_python", code="print('so far')\n1 / 0")
    assert "ZeroDivisionError" in failed
    assert "so far" in failed
    assert "Read-only file system" in await tools.fails("run_python", code="import os; os.unlink('in/app.log')")
    long = await tools("run_python", code="print('a' * 100_000)")
    assert len(json.dumps(long)) < CONTENT_LIMIT_CHARS


async def test_write_file(tools: Tools) -> None:
    first = await tools("write_file", path="out/deep/report.md", content="# grün\n")
    assert (first["path"], first["size"], first["replaced"]) == ("out/deep/report.md", 8, False)
    again = await tools("write_file", path="out/deep/report.md", content="# grün\n")
    assert (again["sha256"], again["replaced"]) == (first["sha256"], True)
    assert (await tools("read_file", path="out/deep/report.md"))["text"] == "# grün"
    assert "cannot be changed" in await tools.fails("write_file", path="in/app.log", content="")
    assert "cannot be changed" in await tools.fails("write_file", path="out/../in/new", content="")
    assert "is a folder" in await tools.fails("write_file", path="out", content="")


async def test_delete_files(tools: Tools) -> None:
    for name in ("a", "b"):
        await tools("write_file", path=f"out/{name}", content="xy")
    assert "nothing was deleted" in await tools.fails("delete_files", paths=["out/a", "out/nonesuch"])
    assert "not a regular file" in await tools.fails("delete_files", paths=["out/a", "out"])
    done = await tools("delete_files", paths=["out/a", "out/b"])
    assert (done["count"], done["freed_bytes"]) == (2, 4)
    assert "no such file" in await tools.fails("delete_files", paths=["out/a"])


OUTSIDE = ["../etc/passwd", "/etc/passwd", "in/../../etc/passwd", "link/passwd", "in/link-to-passwd"]


async def test_no_tool_leaves_the_workspace(tools: Tools, sandbox: Sandbox) -> None:
    mount = await tools.workspaces.mount(RUN, writable=True)
    plant = b"import os; os.symlink('/etc', 'link'); os.symlink('/etc/passwd', 'in/link-to-passwd')"
    assert (
        await sandbox.run(Job(run_id=RUN, key="k", program=plant, stdin=b"", workspace=mount))
    ).ending is Ending.SUCCEEDED
    attempts: list[tuple[str, str, dict[str, object]]] = [
        *(("outside the workspace", "read_file", {"path": path}) for path in OUTSIDE),
        ("outside the workspace", "list_files", {"path": "link"}),
        ("outside the workspace", "search_text", {"pattern": "root", "path": "link"}),
        ("outside the workspace", "write_file", {"path": "link/x", "content": ""}),
        ("symbolic link", "write_file", {"path": "link", "content": ""}),
        ("outside the workspace", "delete_files", {"paths": ["link/passwd"]}),
        ("not a regular file", "delete_files", {"paths": ["in/link-to-passwd"]}),
    ]
    said = await asyncio.gather(*(tools.fails(name, **arguments) for _, name, arguments in attempts))
    for (reason, name, arguments), message in zip(attempts, said, strict=True):
        assert reason in message, (name, arguments)
    listed = await tools("list_files")
    assert listed["symlinks_ignored"] == 2
    assert (await tools("search_text", pattern="root:"))["matches"] == 0


async def test_http_request_has_no_way_out(tools: Tools) -> None:
    """The sandbox activity refuses it before; should it ever run in a closed box, it fails."""
    assert "http_request: " in await tools.fails("http_request", url="http://192.0.2.1/")
