"""The box is shut: as the engine tells it, and as it looks from inside."""

import asyncio
import dataclasses
import json
import time
from pathlib import Path
from typing import Any, cast

import pytest

from tests.fixtures.sandbox import Bench
from tools.contract import JsonObject, Limits
from worker.sandbox import engine as names
from worker.sandbox import profile, seccomp
from worker.sandbox.container import Job, Sandbox
from worker.sandbox.pool import PoolSettings
from worker.sandbox.profile import Box, WorkspaceMount
from worker.sandbox.selftest import judge, look_inside, selftest


async def test_self_test_finds_nothing_wrong(sandbox: Sandbox) -> None:
    await selftest(sandbox)


async def test_self_test_would_notice(sandbox: Sandbox) -> None:
    seen = await look_inside(sandbox)
    wrong: JsonObject = {"uid": 0, "seccomp": "0", "root_read_only": False, "interfaces": None, "pids": None}
    for name, value in wrong.items():
        assert judge({**seen, name: value}), name


async def inspected(sandbox: Sandbox) -> tuple[Box, JsonObject]:
    """A standing box as the engine describes it."""
    seen: list[JsonObject] = []

    async def look(_: str) -> None:
        (found,) = await sandbox.engine.find_containers(
            {names.LABEL_OWNER: sandbox.owner, names.LABEL_RUN: "run_inspect"}
        )
        identity = str(found["Id"])
        seen.append(await sandbox.engine.call(lambda api: api.inspect_container(identity)))

    await sandbox.run(Job(run_id="run_inspect", key="k", program=b"", stdin=b""), commit=look)
    image = await sandbox.image("base")
    return Box(image.id, (await sandbox.facts()).architecture, Limits(), (), {}), seen[0]


async def test_engine_agrees_and_every_deviation_is_noticed(sandbox: Sandbox) -> None:
    box, real = await inspected(sandbox)
    assert box.mismatches(real) == []
    deviations: dict[str, JsonObject] = {
        "HostConfig": {
            "NetworkMode": "bridge", "Privileged": True, "ReadonlyRootfs": False, "CapDrop": None, "CapAdd": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"], "PidsLimit": 0, "Memory": 0, "MemorySwap": -1, "PidMode": "host",
            "IpcMode": "host", "UTSMode": "host", "Binds": ["/:/host"], "Devices": [{"PathOnHost": "/dev/kmsg"}],
            "CpuQuota": 0, "CpuPeriod": 1000, "ShmSize": 1 << 30, "OomKillDisable": True, "AutoRemove": False,
            "DeviceRequests": [{"Count": -1}], "DeviceCgroupRules": ["c *:* rwm"], "GroupAdd": ["0"],
            "VolumesFrom": ["other"], "PortBindings": {"80/tcp": []}, "PublishAllPorts": True,
            "Sysctls": {"kernel.msgmax": "1"}, "MaskedPaths": [], "ReadonlyPaths": ["/proc/sys"],
            "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 1024}], "UsernsMode": "host", "CgroupnsMode": "host",
            "Tmpfs": {"/tmp": "rw,exec"},
        },
        "Config": {"User": "0"},
    }  # fmt: skip
    for part, changes in deviations.items():
        for name, value in changes.items():
            changed: JsonObject = {**real, part: {**_object(real[part]), name: value}}
            assert len(box.mismatches(changed)) == 1, name
    assert box.mismatches({**real, "Image": "sha256:other"})
    assert box.mismatches({**real, "NetworkSettings": {"Networks": {"none": {}, "bridge": {}}}})
    for options in (["no-new-privileges:true", "seccomp=unconfined"], [*_options(real), "apparmor=unconfined"]):
        security: JsonObject = {**_object(real["HostConfig"]), "SecurityOpt": list(options)}
        assert len(box.mismatches({**real, "HostConfig": security})) == 1, options
    assert dataclasses.replace(box, runtime="runsc").mismatches(real)
    socket: JsonObject = {"Type": "bind", "Source": "/run/docker.sock", "Destination": "/s", "RW": True}
    assert box.mismatches({**real, "Mounts": [socket]})


def _object(value: object) -> JsonObject:
    assert isinstance(value, dict)
    return cast(JsonObject, value)


def _options(inspected: JsonObject) -> list[str]:
    options = _object(inspected["HostConfig"])["SecurityOpt"]
    assert isinstance(options, list)
    return [str(option) for option in options]


async def test_a_box_from_the_pool_is_verified_too(sandbox: Sandbox, sandbox_data: Path) -> None:
    """It is started by the same steps; were one of them left out, this box would be handed out."""
    real = await sandbox.kind(Job("run_inspect", "k", b"", b""))

    class Careless(Box):
        def body(self) -> JsonObject:
            body = super().body()
            _object(body["HostConfig"])["MaskedPaths"] = []
            return body

    fields: dict[str, Any] = {field.name: getattr(real, field.name) for field in dataclasses.fields(real)}
    pooled = Sandbox(sandbox.engine, data=sandbox_data, owner=sandbox.owner, pool=PoolSettings(size=1))
    pooled.pool.want(Careless(**fields))
    deadline = time.monotonic() + 60
    while not pooled.pool.stats.failed:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert (pooled.pool.stats.started, pooled.pool.waiting) == (0, 0)
    await pooled.close()


async def test_root_and_mounts_cannot_be_written(bench: Bench) -> None:
    source = """
import json, os
def can_write(folder):
    try:
        open(folder + "/probe", "w").close()
    except OSError:
        return False
    return True
folders = [d for d, _, _ in os.walk("/", onerror=None) if not d.startswith("/proc")]
print(json.dumps(sorted({"/" + d.split("/")[1] for d in folders if can_write(d)})))
"""
    assert json.loads((await bench(source)).stdout) == ["/dev", "/tmp", "/work"]


@pytest.mark.parametrize("path", ["/tmp/x", "/work/x"])
async def test_nothing_written_can_be_executed(bench: Bench, path: str) -> None:
    source = (
        f"import os, shutil; shutil.copy('/bin/true', {path!r}); os.chmod({path!r}, 0o755); os.execv({path!r}, ['x'])"
    )
    ran = await bench(source)
    assert b"PermissionError" in ran.stderr


async def test_scratch_space_has_an_end(bench: Bench) -> None:
    source = "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()"
    ran = await bench(source, tmp_mb=4)
    assert b"No space left" in ran.stderr
    many = "n = 0\ntry:\n  while True: open(f'/tmp/{n}', 'w').close(); n += 1\nexcept OSError: print(n)"
    assert int((await bench(many)).stdout) < 8192


@pytest.mark.parametrize(
    "address", ["('127.0.0.1', 22)", "('172.17.0.1', 22)", "('169.254.169.254', 80)", "('1.1.1.1', 53)"]
)
async def test_no_way_out(bench: Bench, address: str) -> None:
    ran = await bench(f"import socket; socket.create_connection({address}, timeout=3)")
    assert b"refused" in ran.stderr or b"unreachable" in ran.stderr


async def test_no_names_resolve(bench: Bench) -> None:
    ran = await bench("import socket; socket.getaddrinfo('example.org', 80)", timeout_s=10)
    assert b"gaierror" in ran.stderr
    resolver = await bench("print(open('/etc/resolv.conf').read())")
    assert resolver.stdout.split() == [b"nameserver", b"127.0.0.1"]


async def test_programs_with_setuid_are_none(bench: Bench, sandbox: Sandbox) -> None:
    """Of an image built here; a pulled one keeps them, inert under no-new-privileges."""
    image = await sandbox.image("base")
    facts = await sandbox.engine.call(lambda api: api.inspect_image(image.id))
    if not _object(_object(facts["Config"]).get("Labels") or {}).get("gatehouse.recipe"):
        pytest.skip("the image was pulled")
    source = """
import os
print([os.path.join(d, f) for d, _, fs in os.walk("/") if not d.startswith(("/proc", "/sys"))
       for f in fs if os.lstat(os.path.join(d, f)).st_mode & 0o6000])
"""
    assert (await bench(source)).stdout.strip() == b"[]"


def test_proxy_settings_of_the_client_stay_outside() -> None:
    box = Box("sha256:x", "x86_64", Limits(), ("true",), {}, WorkspaceMount("v", writable=False, labels={}))
    body = box.body()
    assert not [entry for entry in json.dumps(body["Env"]).lower().split(",") if "proxy" in entry]
    host = _object(body["HostConfig"])
    assert host["Mounts"] == [
        {
            "Type": "volume",
            "Source": "v",
            "Target": "/workspace",
            "ReadOnly": True,
            "VolumeOptions": {"NoCopy": True, "Labels": {}},
        }
    ]


def test_filter_lists_no_dangerous_call() -> None:
    dangerous = (
        "ptrace process_vm_readv process_vm_writev io_uring_setup io_uring_enter keyctl add_key bpf perf_event_open "
        "userfaultfd mount umount2 pivot_root unshare setns init_module finit_module kexec_load open_by_handle_at "
        "clock_settime reboot swapon socket clone clone3 mknod chroot iopl quotactl acct syslog fsopen move_mount "
        "pidfd_getfd kcmp"
    )
    assert set(dangerous.split()).isdisjoint(seccomp.ALLOWED)
    assert seccomp.profile("aarch64")["architectures"] == ["SCMP_ARCH_AARCH64"]
    assert profile.BOX_UID not in (0, 65534)
