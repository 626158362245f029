"""Proves in a real box that this engine enforces what it accepts. `python -m worker.sandbox.selftest --data DIR`.

Engines silently take options that they ignore (an AppArmor profile on a kernel without it, a user namespace), so the
worker asks from inside, once at its start, and runs nothing when an answer is wrong.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Final, cast

from tools.contract import JsonObject, Limits
from worker.sandbox.container import Ending, Job, Sandbox
from worker.sandbox.engine import Engine, SandboxUnavailable, installation_id
from worker.sandbox.facts import GVISOR
from worker.sandbox.profile import BOX_UID, SUPERVISOR_MB, SUPERVISOR_PIDS

_LIMITS: Final = Limits(memory_mb=96, pids=16, timeout_s=20)

# Prints what the box is like, seen from inside. Each value is compared with `_EXPECTED`.
_PROBE: Final = r"""
import ctypes, json, os, socket, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
libc = ctypes.CDLL(None, use_errno=True)

def denied(call, *arguments):
    ctypes.set_errno(0)
    return call(*arguments) == -1 and ctypes.get_errno() in (1, 13, 38)

def no_write(path):
    try:
        open(path, "w").close()
    except OSError:
        return True
    return False

def no_read(path):
    try:
        open(path, "rb").close()
    except OSError:
        return True
    return False

def family_denied(family):
    try:
        socket.socket(family, socket.SOCK_RAW if family == 17 else socket.SOCK_DGRAM).close()
    except OSError:
        return True
    return False

def number(*names):
    for name in names:
        try:
            return int(open("/sys/fs/cgroup/" + name).read().split()[0])
        except (OSError, ValueError):
            continue
    return None

def swallows(path):
    # A masked path reads as empty or is refused.
    try:
        return not (os.listdir(path) if os.path.isdir(path) else open(path).read(1))
    except OSError:
        return True

print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": [g for g in os.getgroups() if g != os.getgid()],
    "no_new_privileges": status.get("NoNewPrivs", "").strip(), "seccomp": status.get("Seccomp", "").strip(),
    "capabilities": sorted({status[c].strip().strip("0") for c in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
                            if c in status}),
    "interfaces": sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line),
    "routes": len(open("/proc/net/route").readlines()) - 1,
    "root_read_only": no_write("/probe") and no_write("/usr/probe") and no_write("/etc/probe"),
    "sys_read_only": no_write("/proc/sys/kernel/domainname") and no_write("/proc/sysrq-trigger"),
    "masked": all(swallows(p) for p in ("/proc/kallsyms", "/proc/keys", "/proc/cmdline", "/sys/kernel", "/sys/module")),
    "ptrace": denied(libc.ptrace, 0, 0, 0, 0), "unshare": denied(libc.unshare, 0x10000000),
    "mount": denied(libc.mount, b"none", b"/tmp", b"tmpfs", 0, None), "keyctl": denied(libc.syscall, KEYCTL, 0, -3, 0),
    "io_uring": denied(libc.syscall, 425, 1, 0), "bpf": denied(libc.syscall, BPF, 0, 0, 0),
    "netlink": family_denied(16), "packet": family_denied(17), "alg": family_denied(38), "vsock": family_denied(40),
    "process_1_closed": not os.access("/proc/1/mem", os.R_OK) and not os.access("/proc/1/fd", os.R_OK),
    "process_1_memory_closed": no_read("/proc/1/mem") and all(denied(libc.ptrace, how, 1, 0, 0) for how in (16, 16902)),
    "kernel": os.uname().release,
    "is_process_1": os.getpid() == 1, "parent_is_supervisor": os.getppid() == 1,
    "memory": number("memory/memory.limit_in_bytes", "memory.max"), "pids": number("pids/pids.max", "pids.max"),
    "docker_socket": os.path.exists("/var/run/docker.sock") or os.path.exists("/run/docker.sock"),
    "environment": sorted(os.environ), "python": sys.version_info[:2] >= (3, 11),
}))
"""
_CALL_NUMBERS: Final = {"x86_64": ("250", "321"), "aarch64": ("219", "280")}

_EXPECTED: Final[JsonObject] = {
    "uid": BOX_UID, "gid": BOX_UID, "groups": [], "no_new_privileges": "1", "seccomp": "2", "capabilities": [""],
    "routes": 0, "root_read_only": True, "sys_read_only": True, "masked": True, "ptrace": True, "unshare": True,
    "mount": True, "keyctl": True, "io_uring": True, "bpf": True, "netlink": True, "packet": True, "alg": True,
    "vsock": True, "process_1_closed": True, "process_1_memory_closed": True, "is_process_1": False,
    "parent_is_supervisor": True,
    "memory": (_LIMITS.memory_mb + SUPERVISOR_MB) << 20, "pids": _LIMITS.pids + SUPERVISOR_PIDS,
    "docker_socket": False, "python": True,
}  # fmt: skip
# What gVisor's kernel answers by itself, and what it does not show: there the program never reaches the host's kernel
# with a call of its own. Limits are checked from outside.
_NOT_UNDER_GVISOR: Final = {
    "no_new_privileges", "seccomp", "masked", "ptrace", "unshare", "io_uring", "netlink", "packet", "process_1_closed",
    "memory", "pids",
}  # fmt: skip
# Tunnel devices that some kernels put into every network namespace, always down and without an address.
IDLE_DEVICES: Final = (
    "lo",
    "tunl0",
    "sit0",
    "ip6tnl0",
    "gre0",
    "gretap0",
    "erspan0",
    "ip_vti0",
    "ip6_vti0",
    "ip6gre0",
)
_VARIABLES: Final = {
    "PATH", "HOME", "TMPDIR", "LANG", "PYTHONDONTWRITEBYTECODE", "HOSTNAME", "LC_CTYPE",
    # Put there by the official Python image.
    "GPG_KEY", "PYTHON_VERSION", "PYTHON_SHA256", "PYTHON_PIP_VERSION", "PYTHON_SETUPTOOLS_VERSION",
    "PYTHON_GET_PIP_URL", "PYTHON_GET_PIP_SHA256",
}  # fmt: skip


async def look_inside(sandbox: Sandbox, image: str = "base") -> JsonObject:
    """What a box is like from inside. Raises SandboxUnavailable when none can be had or it tells nothing."""
    facts = await sandbox.facts()
    keyctl, bpf = _CALL_NUMBERS[facts.architecture]
    program = _PROBE.replace("KEYCTL", keyctl).replace("BPF", bpf).encode()
    ran = await sandbox.run(
        Job(run_id="selftest", key="selftest", program=program, stdin=b"", limits=_LIMITS, image=image)
    )
    if ran.ending is not Ending.SUCCEEDED:
        words = ran.stderr.decode(errors="replace")[-500:]
        raise SandboxUnavailable(f"the self-test ended with {ran.ending}: {words}", "see `gatehouse doctor`")
    return cast(JsonObject, json.loads(ran.stdout))


def judge(seen: JsonObject, runtime: str = "", kernel: str = "") -> list[str]:
    """What is not as it must be; empty when the box is shut. `kernel`: the release of the host's."""
    passed_over = _NOT_UNDER_GVISOR if runtime == GVISOR else set[str]()
    wrong = [
        f"{name}: {seen.get(name)!r} instead of {value!r}"
        for name, value in _EXPECTED.items()
        if name not in passed_over and seen.get(name) != value
    ]
    if runtime == GVISOR and seen.get("kernel") in (kernel, "", None):
        wrong.append(f"kernel: {seen.get('kernel')!r} is the host's own")
    interfaces, variables = seen.get("interfaces"), seen.get("environment")
    for known, found, what in ((IDLE_DEVICES, interfaces, "network interface"), (_VARIABLES, variables, "variable")):
        if not isinstance(found, list):
            wrong.append(f"no list of {what}s")
            continue
        wrong += [f"unexpected {what} {name}" for name in found if name not in known]
    return wrong


async def selftest(sandbox: Sandbox, image: str = "base") -> None:
    """Raises SandboxUnavailable naming everything this engine does not enforce."""
    seen, facts = await look_inside(sandbox, image), await sandbox.facts()
    if wrong := judge(seen, sandbox.runtime, facts.kernel):
        raise SandboxUnavailable(f"the engine does not keep the box shut: {'; '.join(wrong)}", "use another engine")


async def _main(data: Path, docker_host: str | None) -> int:
    async with Engine(docker_host) as engine:
        sandbox = Sandbox(engine, data=data, owner=installation_id(data))
        try:
            await selftest(sandbox)
        except SandboxUnavailable as error:
            sys.stderr.write(f"error: {error.problem}\nremedy: {error.remedy}\n")
            return 1
        facts = await sandbox.facts()
    sys.stdout.write(json.dumps({"ok": True, "engine": facts.version, "architecture": facts.architecture}) + "\n")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m worker.sandbox.selftest", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data directory of the installation")
    parser.add_argument("--docker-host", help="address of the Docker engine")
    options = parser.parse_args()
    sys.exit(asyncio.run(_main(options.data, options.docker_host)))
