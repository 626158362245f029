"""How a box looks: the body of the engine's create request, built from a tool's limits, and its check afterwards.

The strongest set that still runs a Python standard library and a shell. An engine accepts options that it does not
enforce, so what can be read back is compared (`mismatches`), and the rest is probed inside a box (`selftest`).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from pydantic import JsonValue

from tools.contract import JsonObject, Limits
from worker.sandbox import seccomp
from worker.sandbox.facts import GVISOR

# A uid that nothing else uses. Not 65534: that one is shared by everything unmapped, and may use ext4's reserved
# blocks. Below 65536, so that it exists inside a remapped user namespace.
BOX_UID: Final = 41_001
BOX_USER: Final = f"{BOX_UID}:{BOX_UID}"
WORKSPACE: Final = "/workspace"
# Where a call with egress finds the folder that holds its own proxy's socket.
EGRESS: Final = "/run/egress"
SCRATCH: Final = "/work"

_MB: Final = 1 << 20
# What the box itself needs beside the tool's program: the supervisor's interpreter, and its place in the pid limit.
SUPERVISOR_MB: Final = 24
SUPERVISOR_PIDS: Final = 1
# gVisor's kernel is a process of the host, whose threads and memory count as the box's.
_KERNEL_MB: Final = 64
_KERNEL_PIDS: Final = 96
_SHM_MB: Final = 16
_TMPFS_INODES: Final = 8192

# The engine's defaults, and what else tells about the host.
_MASKED: Final = tuple(
    f"/proc/{name}"
    for name in (
        "acpi", "asound", "cmdline", "config.gz", "diskstats", "interrupts", "kallsyms", "kcore", "key-users", "keys",
        "latency_stats", "modules", "partitions", "sched_debug", "schedstat", "scsi", "slabinfo", "swaps",
        "sysrq-trigger", "timer_list", "timer_stats", "vmallocinfo",
    )
) + tuple(
    f"/sys/{name}"
    for name in (
        "block", "bus", "class/net", "devices/virtual/dmi", "devices/virtual/powercap", "firmware", "fs/ext4", "kernel",
        "module",
    )
)  # fmt: skip
_READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Loosening(StrEnum):
    """What a custom profile may give up, and nothing else."""

    EXECUTABLE_SCRATCH = "executable-scratch"
    """What the program writes to /tmp and /work may be executed."""
    OPEN_FILES = "open-files"
    """1024 open files instead of 256."""


@dataclass(frozen=True)
class Profile:
    """How strict a box is. Raises ValueError for a custom one that names nothing, or another one that does."""

    name: Literal["strict", "network", "custom"] = "strict"
    """strict: no way out. network: the egress proxy's socket, still no network. custom: less strict, as named."""
    loosens: frozenset[Loosening] = frozenset()

    def __post_init__(self) -> None:
        if (self.name == "custom") != bool(self.loosens):
            known = ", ".join(Loosening)
            raise ValueError(f"the profile custom names what it loosens ({known}), the others loosen nothing")


@dataclass(frozen=True)
class WorkspaceMount:
    """The run's volume, mounted at /workspace."""

    volume: str
    writable: bool
    labels: Mapping[str, str] = field(compare=False)
    """Of the volume: should it have vanished, the engine makes an empty one, which the reaper must know."""


@dataclass(frozen=True)
class Box:
    """Everything that decides how one container is created. Two that are equal but for their labels are of one kind:
    a box started ahead for one will do for the other."""

    image_id: str
    architecture: str
    limits: Limits
    command: tuple[str, ...] = field(repr=False)
    labels: Mapping[str, str] = field(compare=False)
    workspace: WorkspaceMount | None = None
    egress: str | None = None
    """The host's folder with this call's proxy socket, mounted read-only at EGRESS. None: no way out at all."""
    loosens: frozenset[Loosening] = frozenset()
    runtime: str = ""
    """The engine's runtime that runs it; "" is the engine's own choice."""

    def body(self) -> JsonObject:
        """The JSON body of POST /containers/create."""
        return {
            "Image": self.image_id,
            "Entrypoint": [],
            "Cmd": list(self.command),
            "User": BOX_USER,
            "WorkingDir": WORKSPACE if self.workspace else SCRATCH,
            "Hostname": "sandbox",
            # The whole environment. The low-level create call adds no proxy settings of the client.
            "Env": [
                "PATH=/usr/local/bin:/usr/bin:/bin",
                f"HOME={SCRATCH}",
                "TMPDIR=/tmp",
                "LANG=C.UTF-8",
                "PYTHONDONTWRITEBYTECODE=1",
            ],
            "Tty": False,
            "OpenStdin": True,
            # The worker's connection is the only one: when it goes, standard input ends, and the supervisor with it.
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "StopSignal": "SIGKILL",
            "StopTimeout": 0,
            "Healthcheck": {"Test": ["NONE"]},
            "Labels": dict(self.labels),
            "HostConfig": self._host_config(),
        }

    @property
    def memory_bytes(self) -> int:
        """Of the whole box; tmpfs pages are charged to it too."""
        return (self.limits.memory_mb + SUPERVISOR_MB + (_KERNEL_MB if self.runtime == GVISOR else 0)) * _MB

    @property
    def pids(self) -> int:
        """Processes and threads in the whole box."""
        return self.limits.pids + SUPERVISOR_PIDS + (_KERNEL_PIDS if self.runtime == GVISOR else 0)

    @property
    def file_bytes(self) -> int:
        """The longest file that may be written."""
        return max(64, self.limits.tmp_mb) * _MB

    def _host_config(self) -> JsonObject:
        quota, period = self._quota()
        return {
            "NetworkMode": "none",
            # Network mode none still copies the host's nameserver into resolv.conf.
            "Dns": ["127.0.0.1"],
            "ReadonlyRootfs": True,
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true", f"seccomp={self._filter()}"],
            "PidsLimit": self.pids,
            "Memory": self.memory_bytes,
            "MemorySwap": self.memory_bytes,
            "MemorySwappiness": 0,
            "OomScoreAdj": 500,
            "CpuPeriod": period,
            "CpuQuota": quota,
            "CpuShares": 256,
            "Ulimits": self._ulimits(),
            "Tmpfs": self._scratch(),
            "Mounts": [
                *([self._workspace_mount(self.workspace)] if self.workspace else []),
                *([self._egress_mount(self.egress)] if self.egress else []),
            ],
            "ShmSize": _SHM_MB * _MB,
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "MaskedPaths": list(_MASKED),
            "ReadonlyPaths": list(_READ_ONLY),
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
            # A box whose worker died ends by itself; the engine then removes it without anybody's help.
            "AutoRemove": True,
            **({"Runtime": self.runtime} if self.runtime else {}),
        }

    def _filter(self) -> str:
        return json.dumps(seccomp.profile(self.architecture), separators=(",", ":"))

    def _quota(self) -> tuple[int, int]:
        return int(self.limits.cpus * 100_000), 100_000

    def _ulimits(self) -> list[JsonValue]:
        # No nproc: it counts per uid over all boxes of the host, so one box could starve the others. PidsLimit does it.
        limits = {
            "nofile": 1024 if Loosening.OPEN_FILES in self.loosens else 256,
            "fsize": self.file_bytes, "core": 0, "memlock": 64 << 10, "msgqueue": 0,
            "sigpending": 256, "stack": 8 * _MB,
        }  # fmt: skip
        return [{"Name": name, "Soft": value, "Hard": value} for name, value in limits.items()]

    def _scratch(self) -> JsonObject:
        executable = "exec" if Loosening.EXECUTABLE_SCRATCH in self.loosens else "noexec"
        common = f"rw,{executable},nosuid,nodev,size={self.limits.tmp_mb}m,nr_inodes={_TMPFS_INODES}"
        return {
            "/tmp": f"{common},mode=1777",  # noqa: S108 - inside the box
            SCRATCH: f"{common},mode=0700,uid={BOX_UID},gid={BOX_UID}",
        }

    @staticmethod
    def _workspace_mount(mount: WorkspaceMount) -> JsonObject:
        return {
            "Type": "volume",
            "Source": mount.volume,
            "Target": WORKSPACE,
            "ReadOnly": not mount.writable,
            "VolumeOptions": {"NoCopy": True, "Labels": dict(mount.labels)},
        }

    @staticmethod
    def _egress_mount(folder: str) -> JsonObject:
        # A bind, the only one there is: it fails when the folder is missing, where a volume would be made.
        return {
            "Type": "bind",
            "Source": folder,
            "Target": EGRESS,
            "ReadOnly": True,
            "BindOptions": {"Propagation": "rprivate"},
        }

    def mismatches(self, inspected: JsonObject) -> list[str]:
        """What of the started container (its inspect answer) is not as asked; empty when all is well."""
        config, host = _object(inspected.get("Config")), _object(inspected.get("HostConfig"))
        networks = _object(_object(inspected.get("NetworkSettings")).get("Networks"))
        security = [str(option) for option in _items(host.get("SecurityOpt"))]
        # Each pair: what was asked, what the engine says.
        checks: dict[str, tuple[object, object]] = {
            "image": (self.image_id, inspected.get("Image")),
            "user": (BOX_USER, config.get("User")),
            "network mode": ("none", host.get("NetworkMode")),
            "networks": (["none"], list(networks)),
            "read-only root": (True, host.get("ReadonlyRootfs")),
            "privileged": (False, host.get("Privileged")),
            "dropped capabilities": (["ALL"], host.get("CapDrop")),
            "added capabilities": ([], _items(host.get("CapAdd"))),
            "no-new-privileges": (True, "no-new-privileges:true" in security),
            "seccomp": (True, f"seccomp={self._filter()}" in security),
            "other security options": ([], [o for o in security if not o.startswith(("no-new-privileges", "seccomp"))]),
            "pids": (self.pids, host.get("PidsLimit")),
            "memory": (self.memory_bytes, host.get("Memory")),
            "swap": (self.memory_bytes, host.get("MemorySwap")),
            "scratch": (self._scratch(), host.get("Tmpfs")),
            "processor": (self._quota(), (host.get("CpuQuota"), host.get("CpuPeriod"))),
            "shared memory": (_SHM_MB * _MB, host.get("ShmSize")),
            "out-of-memory killer": (False, bool(host.get("OomKillDisable"))),
            "removal at its end": (True, host.get("AutoRemove")),
            "devices": ([], _items(host.get("Devices")) + _items(host.get("DeviceRequests"))),
            "device rules": ([], _items(host.get("DeviceCgroupRules"))),
            "groups": ([], _items(host.get("GroupAdd"))),
            "volumes of others": ([], _items(host.get("VolumesFrom"))),
            "published ports": (False, bool(host.get("PortBindings")) or bool(host.get("PublishAllPorts"))),
            "kernel settings": (False, bool(host.get("Sysctls"))),
            # What was asked must be there; an engine may add what its own settings say, which only makes it stricter.
            "masked paths": ([], _lacking(_MASKED, host.get("MaskedPaths"))),
            "read-only paths": ([], _lacking(_READ_ONLY, host.get("ReadonlyPaths"))),
            "ulimits": ([], _lacking(self._ulimits(), host.get("Ulimits"))),
            "user namespace": ("", host.get("UsernsMode")),
            "cgroup namespace": ("private", host.get("CgroupnsMode")),
            "runtime": (self.runtime or host.get("Runtime"), host.get("Runtime")),
            "binds": ([], _items(host.get("Binds"))),
            "pid namespace": ("", host.get("PidMode")),
            "uts namespace": ("", host.get("UTSMode")),
            "ipc namespace": ("private", host.get("IpcMode")),
            "mounts": (sorted(self._expected_mounts()), sorted(_mounts(inspected))),
        }
        return [f"{name}: asked {asked!r}, is {found!r}" for name, (asked, found) in checks.items() if asked != found]

    def _expected_mounts(self) -> list[tuple[str, str, str, bool]]:
        volume = [("volume", self.workspace.volume, WORKSPACE, self.workspace.writable)] if self.workspace else []
        return volume + ([("bind", self.egress, EGRESS, False)] if self.egress else [])


def _mounts(inspected: JsonObject) -> list[tuple[str, str, str, bool]]:
    mounts = [_object(mount) for mount in _items(inspected.get("Mounts"))]
    return [
        (str(m.get("Type")), str(m.get("Name") or m.get("Source")), str(m.get("Destination")), bool(m.get("RW")))
        for m in mounts
        if m.get("Type") != "tmpfs"
    ]


def _lacking(asked: Iterable[JsonValue], found: JsonValue | None) -> list[JsonValue]:
    present = _items(found)
    return [item for item in asked if item not in present]


def _object(value: JsonValue | None) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _items(value: JsonValue | None) -> list[JsonValue]:
    return value if isinstance(value, list) else []
