"""What the host sees of a box while a hostile program is in it: its processes, mounts, limits, files, and itself.

A program that has done its worst stops itself (`HOLD`). The observer is told the container's name right before the
program starts; it waits for that, looks at everything through /proc and the cgroup files, and lets it go on. Needs
root on the engine's own machine.
"""

import asyncio
import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker.sandbox.engine import Engine, NotFound, SandboxUnavailable
from worker.sandbox.profile import BOX_UID, Box
from worker.sandbox.selftest import IDLE_DEVICES

HOLD: Final = "\nimport os; os.kill(os.getpid(), 19)"
_NAMESPACES: Final = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")
# Where the box's own files may be, and what of /dev a program may hold open.
_WRITABLE: Final = ("/tmp/", "/work/", "/dev/shm/", "/workspace/", "/memfd:stdin", "pipe:", "socket:", "anon_inode:")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_FOUL: Final = ("bpf", "perf_event", "io_uring", "userfaultfd", "fscontext", "kvm")
_MOUNTS: Final = (
    "/proc",
    "/dev",
    "/sys",
    "/tmp",
    "/work",
    "/workspace",
    "/run/egress",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/hosts",
)
_SWITCHES: Final = (
    "kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "kernel/domainname", "kernel/sysrq", "vm/panic_on_oom",
    "kernel/random/boot_id", "kernel/unprivileged_bpf_disabled", "kernel/kptr_restrict",
)  # fmt: skip


def available() -> bool:
    """Whether the host can be looked at from here."""
    return sys.platform == "linux" and os.geteuid() == 0


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def host_state() -> dict[str, str]:
    """What no program may change: switches of the kernel, modules, swap, keys of the box's user, queues, the clock."""
    state = {name: _read(f"/proc/sys/{name}") for name in _SWITCHES}
    state["modules"] = " ".join(sorted(line.split()[0] for line in _read("/proc/modules").splitlines()))
    state["swaps"] = _read("/proc/swaps")
    state["binfmt"] = (
        " ".join(sorted(os.listdir("/proc/sys/fs/binfmt_misc"))) if Path("/proc/sys/fs/binfmt_misc").is_dir() else ""
    )
    state["keys"] = " ".join(
        line for line in _read("/proc/key-users").splitlines() if line.split(":")[0].strip() == str(BOX_UID)
    )
    state["queues"] = " ".join(
        line for kind in ("msg", "sem", "shm") for line in _read(f"/proc/sysvipc/{kind}").splitlines()
        if str(BOX_UID) in line.split()
    )  # fmt: skip
    # The wall clock against the one nobody can set.
    state["clock"] = str(time.time() - time.monotonic())
    return state


def changes(before: dict[str, str]) -> list[str]:
    """What of the host is not as it was."""
    now = host_state()
    # A machine's own corrections of its clock are smaller.
    moved = abs(float(now.pop("clock")) - float(before["clock"])) > 5
    changed = [
        f"the host's {name}: {before[name]!r}, now {value!r}" for name, value in now.items() if value != before[name]
    ]
    return changed + (["the host's clock was set"] if moved else [])


@dataclass(frozen=True)
class Seen:
    """One look at a box whose program holds still."""

    violations: tuple[str, ...]
    files: int = 0
    """Most descriptors that one process holds."""
    processes: int = 0
    """Tasks in the box's cgroup."""
    refused_processes: int = 0
    """How often the kernel refused one more."""
    used: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Bytes and inodes in use on each scratch file system."""


@dataclass
class Observer:
    """Watches one box. `commit` is for `Sandbox.run`."""

    engine: Engine
    box: Box
    lets_go: bool = True
    """Whether a program that stands still is told to go on."""
    seen: Seen | None = None
    _watching: asyncio.Task[None] | None = None

    async def commit(self, name: str) -> None:
        """Start to watch this container."""
        inspected = await self.engine.call(lambda api: api.inspect_container(name))
        state = inspected["State"]
        assert isinstance(state, dict)
        pid = int(str(state["Pid"]))
        mounts = _read(f"/proc/{pid}/mountinfo")
        self._watching = asyncio.create_task(self._watch(pid, mounts))

    async def _watch(self, first: int, mounts: str) -> None:
        folder = _cgroup(first, "pids")
        while os.path.exists(f"/proc/{first}"):  # noqa: ASYNC240 - /proc does not block
            for pid in _tasks(folder):
                if _state(pid) == "T":
                    seen = await asyncio.to_thread(_look_at_living, self.box, first, mounts)
                    # A call whose time ran out meanwhile was seen half dead: that look tells nothing.
                    if seen is not None and _state(pid) == "T":
                        self.seen = seen
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT if self.lets_go else 0)
            await asyncio.sleep(0.02)

    async def done(self) -> Seen | None:
        """What was seen; None when the program never held still."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError, NotFound, SandboxUnavailable):
                await self._watching
        return self.seen


def _cgroup(pid: int, controller: str) -> Path:
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}")
        unified = Path(f"/sys/fs/cgroup{path}")
        if not names and (unified / "cgroup.procs").exists() and (unified / "pids.max").exists():
            return unified
    return Path("/nonexistent")


def _tasks(folder: Path) -> list[int]:
    return [int(line) for line in _read(folder / "cgroup.procs").split()]


def _number(folder: Path, *names: str) -> int:
    for name in names:
        if words := _read(folder / name).split():
            return int(words[-1]) if words[-1].isdigit() else -1
    return -1


def _state(pid: int) -> str:
    """The kernel's letter for what the process does; empty when there is none."""
    words = _read(f"/proc/{pid}/status").partition("State:\t")[2].split()
    return words[0] if words else ""


def _lives(pid: int) -> bool:
    """Whether the process has not even begun to end. The kernel takes its memory, and with it this link, before files,
    namespaces and limits, and long before its state says so: whatever was read before this is true of a living one."""
    return bool(_link(f"/proc/{pid}/exe"))


def _look_at_living(box: Box, first: int, mounts: str) -> Seen | None:
    """None when the box ended under the look."""
    try:
        seen = look(box, first, mounts)
    except OSError:
        if not _lives(first):
            return None
        raise
    return seen if _lives(first) else None


def look(box: Box, first: int, mounts: str) -> Seen:
    """Everything there is to see; blocking."""
    folder = _cgroup(first, "pids")
    found: list[str] = []
    for pid in _tasks(folder):
        problems = list(_of_process(box, pid, first))
        # Of one that ended meanwhile nothing can be said.
        found += problems if _lives(pid) else []
    found += _of_mounts(box, first, mounts)
    found += _of_limits(box, first)
    root = Path(f"/proc/{first}/root")
    found += [problem for name in ("tmp", "work", "dev/shm") for problem in _of_files(root / name)]
    if any(len(_read(f"/proc/{first}/net/{name}").splitlines()) > 1 for name in ("packet", "raw", "raw6", "route")):
        found.append("network: a packet or raw socket, or a route")
    links = {line.split(":")[0].strip() for line in _read(f"/proc/{first}/net/dev").splitlines()[2:]}
    found += [f"network: interface {name}" for name in links - set(IDLE_DEVICES)]
    used: dict[str, tuple[int, int]] = {}
    for name in ("tmp", "work", "dev/shm"):
        about = os.statvfs(root / name)
        used[name] = ((about.f_blocks - about.f_bfree) * about.f_frsize, about.f_files - about.f_ffree)
    return Seen(
        tuple(found), max((len(_descriptors(pid)) for pid in _tasks(folder)), default=0),
        _number(folder, "pids.current"), max(0, _number(folder, "pids.events")), used,
    )  # fmt: skip


def _descriptors(pid: int) -> list[tuple[str, int]]:
    """(what it leads to, its open flags) of each descriptor."""
    found: list[tuple[str, int]] = []
    names: list[str] = []
    with contextlib.suppress(OSError):  # it ended
        names = os.listdir(f"/proc/{pid}/fd")
    for name in names:
        with contextlib.suppress(OSError):
            lines = _read(f"/proc/{pid}/fdinfo/{name}").splitlines()
            about = dict(line.split(":", 1) for line in lines if ":" in line)
            found.append((os.readlink(f"/proc/{pid}/fd/{name}"), int(about.get("flags", "0").strip(), 8)))
    return found


def _of_process(box: Box, pid: int, first: int) -> Iterator[str]:
    about = dict(line.split(":\t", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    if not about:
        return
    who = about["Name"]
    if {*about["Uid"].split(), *about["Gid"].split()} != {str(BOX_UID)}:
        yield f"user: {who} is {about['Uid']}"
    if set(about.get("Groups", "").split()) - {str(BOX_UID)}:
        yield f"groups: {who} has {about['Groups']}"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(about[name], 16):
            yield f"capabilities: {who} has {name} {about[name]}"
    for name, value in (("NoNewPrivs", "1"), ("Seccomp", "2"), ("TracerPid", "0")):
        if about[name] != value:
            yield f"{name}: {who} has {about[name]}"
    yield from _of_namespaces(who, pid, first)
    if _read(f"/proc/{pid}/cgroup") != _read(f"/proc/{first}/cgroup"):
        yield f"cgroup: {who} left its own"
    if not _link(f"/proc/{pid}/exe").startswith(("/usr/", "/bin/")):
        yield f"executable: {who} runs {_link(f'/proc/{pid}/exe')}"
    if pid != first:
        yield from _of_descriptors(who, pid)
    yield from _of_ulimits(box, who, pid)


def _of_namespaces(who: str, pid: int, first: int) -> Iterator[str]:
    for name in _NAMESPACES:
        here, own, hosts = (_link(f"/proc/{of}/ns/{name}") for of in (pid, first, "self"))
        if here != own:
            yield f"namespace: {who} is in another {name} than process 1"
        if here == hosts and name not in ("user", "time"):
            yield f"namespace: {who} is in the host's {name}"


def _of_ulimits(box: Box, who: str, pid: int) -> Iterator[str]:
    allowed = {
        "Max open files": 256, "Max core file size": 0, "Max locked memory": 64 << 10, "Max file size": box.file_bytes,
    }  # fmt: skip
    for line in _read(f"/proc/{pid}/limits").splitlines():
        for name, value in allowed.items():
            if line.startswith(name) and line[len(name) :].split()[1] != str(value):
                yield f"ulimit: {who} has {line}"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _of_descriptors(who: str, pid: int) -> Iterator[str]:
    for target, flags in _descriptors(pid):
        if (
            any(word in target for word in _FOUL)
            or "/proc/1/" in target
            or (target.startswith("/dev/") and not target.startswith(("/dev/shm/", *_DEVICES)))
        ):
            yield f"descriptor: {who} holds {target}"
        elif flags & os.O_ACCMODE and not target.startswith((*_WRITABLE, *_DEVICES)):
            yield f"descriptor: {who} may write {target}"


def _of_mounts(box: Box, first: int, before: str) -> Iterator[str]:
    now = _read(f"/proc/{first}/mountinfo")
    if now != before:
        yield "mounts: changed while the program ran"
    masked: set[str] = set()
    for line in now.splitlines():
        words = line.split()
        point, options = words[4], set(words[5].split(","))
        masked.add(point)
        if point == "/":
            if "ro" not in options:
                yield "mounts: the root can be written"
        elif not point.startswith(_MOUNTS):
            yield f"mounts: {point}"
        elif point in ("/tmp", "/work", "/dev/shm") and not {"noexec", "nosuid", "nodev"} <= options:
            yield f"mounts: {point} is {words[5]}"
        elif point in ("/proc/sys", "/sys") and "ro" not in options:
            yield f"mounts: {point} can be written"
    for point in ("/proc/sys", "/proc/kcore", "/proc/timer_list", "/sys/firmware"):
        if Path(f"/proc/{first}/root{point}").exists() and point not in masked:
            yield f"mounts: {point} is not covered"


def _of_limits(box: Box, first: int) -> Iterator[str]:
    quota = int(box.limits.cpus * 100_000)
    asked = (
        ("pids", ("pids.max",), box.pids),
        ("memory", ("memory.limit_in_bytes", "memory.max"), box.memory_bytes),
        ("cpu", ("cpu.cfs_quota_us",), quota),
    )
    for controller, names, value in asked:
        folder = _cgroup(first, controller)
        if controller == "cpu" and (folder / "cpu.max").exists():
            now = int((_read(folder / "cpu.max").split() or ["-1"])[0].replace("max", "-1"))
        else:
            now = _number(folder, *names)
        if now != value:
            yield f"limit: {controller} is {now}, not {value}"
    wanted = {"tmp": box.limits.tmp_mb << 20, "work": box.limits.tmp_mb << 20, "dev/shm": 16 << 20}
    for name, value in wanted.items():
        about = os.statvfs(f"/proc/{first}/root/{name}")
        if about.f_blocks * about.f_frsize > value:
            yield f"limit: /{name} holds {about.f_blocks * about.f_frsize} bytes"


def _of_files(folder: Path) -> Iterator[str]:
    for at, _, names in os.walk(folder):
        for name in names[:100]:
            with contextlib.suppress(OSError):
                mode = os.lstat(Path(at) / name).st_mode
                if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or mode & 0o6000:
                    yield f"files: {name} is {stat.filemode(mode)}"
