"""Hostile programs, and what the host must see of each. Every one is run in a cold box and in one from the pool.

A program that `holds` keeps what it got and stands still at its end, and the host looks at it (`host.look`): processes, mounts,
limits, descriptors, files. Beside that count the ending that process 1 and the kernel report, and what a probe asks of that
look by itself (`host`). That a program prints `ESCAPED` when its trick works is only a further hint.
"""
# ruff: noqa: E501 - the programs are strings

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.worker.sandbox.abuse.host import HOLD, Seen
from worker.sandbox.container import Ending, Ran

Check = Callable[[Ran], bool]


def ends(*endings: Ending) -> Check:
    return lambda ran: ran.ending in endings


def said_nothing(ran: Ran) -> bool:
    return b"ESCAPED" not in ran.stdout


def under(megabytes: int) -> Check:
    return lambda ran: ran.peak_memory_bytes <= megabytes << 20


@dataclass(frozen=True)
class Probe:
    name: str
    source: str
    seen: Check = said_nothing
    limits: dict[str, float] = field(default_factory=dict[str, float])
    within_s: float = 40.0
    """By when the call must be over, whatever the program does."""
    holds: bool = False
    host: Callable[[Seen], bool] = lambda _: True

    @property
    def program(self) -> str:
        return self.source + HOLD if self.holds else self.source


# One helper for all: `sys_(number, ...)` is a raw system call that must fail; x86_64 numbers, with aarch64 beside them.
PRELUDE = """
import ctypes, os, platform, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == 'aarch64'
kept = []
def won(what): print('ESCAPED', what, flush=True)
def sys_(x86, arm, *arguments):
    ctypes.set_errno(0)
    number = arm if ARM else x86
    # seccomp answers EPERM (1) and must, also for root: anything else got past the filter.
    result = libc.syscall(number, *arguments)
    if result != -1 or ctypes.get_errno() not in (1, 38): won((number, result, ctypes.get_errno()))
def opens(path, mode='w'):
    try: handle = open(path, mode)
    except OSError: return
    kept.append(handle)
    won(path)
"""

FORK = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
BOMBS = (
    Probe("fork bomb", FORK, ends(Ending.TIMEOUT), {"timeout_s": 1, "pids": 32}),
    Probe("fork bomb that detaches",
          "import os\nwhile True:\n  try:\n    if os.fork() == 0: os.setsid()\n  except OSError: pass",
          ends(Ending.TIMEOUT), {"timeout_s": 1, "pids": 32}),
    Probe("thread bomb", "import threading, time\ntry:\n  while True:\n    threading.Thread(target=time.sleep, "
          "args=(90,), daemon=True).start()\nexcept RuntimeError: pass",
          limits={"pids": 32}, holds=True,
          host=lambda s: s.processes <= 33 and s.refused_processes > 0),
    Probe("memory bomb", "b = []\nwhile True: b.append(bytearray(8 << 20))",
          lambda r: r.ending is Ending.OOM and under(96)(r), {"memory_mb": 64}),
    Probe("memory bomb in many children", "import os\nfor _ in range(20):\n  if os.fork() == 0: break\n"
          "b = []\nwhile True: b.append(bytearray(1 << 20))",
          lambda r: r.ending in (Ending.OOM, Ending.TIMEOUT) and under(96)(r), {"memory_mb": 64, "timeout_s": 4}),
    Probe("memfd bomb", "import os\nf = os.memfd_create('x')\nwhile True: os.write(f, bytes(1 << 20))",
          lambda r: r.ending is not Ending.SUCCEEDED and under(96)(r), {"memory_mb": 64, "timeout_s": 4}),
    Probe("shared memory bomb", "f = open('/dev/shm/x', 'wb', 0)\ntry:\n  while True: f.write(bytes(1 << 20))\n"
          "except OSError: pass", ends(Ending.SUCCEEDED), holds=True,
          host=lambda s: 15 << 20 <= s.used["dev/shm"][0] <= 16 << 20),
    Probe("disk bomb", "f = open('/tmp/x', 'wb', 0)\ntry:\n  while True: f.write(bytes(1 << 20))\nexcept OSError: pass",
          ends(Ending.SUCCEEDED), {"tmp_mb": 8}, holds=True, host=lambda s: 7 << 20 <= s.used["tmp"][0] <= 8 << 20),
    Probe("inode bomb", "n = 0\ntry:\n  while True: open(f'/tmp/{n}', 'w').close(); n += 1\nexcept OSError: pass",
          ends(Ending.SUCCEEDED), holds=True, host=lambda s: 8000 < s.used["tmp"][1] <= 8192),
    Probe("open file bomb", "b = []\ntry:\n  while len(b) < 300: b.append(open('/dev/null'))\nexcept OSError: pass",
          ends(Ending.SUCCEEDED), holds=True, host=lambda s: 250 <= s.files <= 256),
    Probe("huge file", "import os\nf = open('/dev/shm/x', 'wb')\nos.truncate('/dev/shm/x', 1 << 40)",
          lambda r: r.ending in (Ending.EXIT_CODE, Ending.KILLED)),
    Probe("output bomb", "import os\nwhile True: os.write(1, b'x' * 65536)",
          lambda r: r.ending is Ending.OUTPUT_LIMIT and len(r.stdout) == 4096, {"output_bytes": 4096}),
    Probe("output bomb in single bytes on both streams",
          "import os\nwhile True: os.write(1, b'x'); os.write(2, b'y')",
          lambda r: r.ending is Ending.OUTPUT_LIMIT and len(r.stdout) + len(r.stderr) == 4096, {"output_bytes": 4096}),
    Probe("busy for ever", "while True: pass", ends(Ending.TIMEOUT), {"timeout_s": 0.5}, 20),
    Probe("deep recursion", "def f(): f()\nimport sys\nsys.setrecursionlimit(10**9)\nf()",
          ends(Ending.KILLED, Ending.EXIT_CODE, Ending.OOM)),
    Probe("message queue and semaphore hoarding", PRELUDE + "import itertools\nfor n in range(70000):\n"
          "  if libc.msgget(0, 0o1600) < 0: break", ends(Ending.SUCCEEDED), holds=True),
)  # fmt: skip


def denied(name: str, x86: int, arm: int, *arguments: object) -> Probe:
    passed = ", ".join(map(repr, arguments)) or "0"
    return Probe(name, f"{PRELUDE}\nsys_({x86}, {arm}, {passed})", holds=True)


SYSTEM_CALLS = (
    denied("mount", 165, 40, b"none", b"/tmp", b"tmpfs", 0, 0),
    denied("umount", 166, 39, b"/proc", 2),
    denied("pivot_root", 155, 41, b"/tmp", b"/tmp"),
    denied("chroot", 161, 51, b"/tmp"),
    denied("unshare user namespace", 272, 97, 0x10000000),
    denied("setns", 308, 268, 0, 0),
    denied("clone3", 435, 435, 0, 0),
    denied("ptrace another", 101, 117, 16, 1, 0, 0),
    denied("ptrace traceme", 101, 117, 0, 0, 0, 0),
    denied("process_vm_readv of process 1", 310, 270, 1, 0, 0, 0, 0, 0),
    denied("pidfd_getfd", 438, 438, 0, 0, 0),
    denied("kcmp", 312, 272, 1, 1, 0, 0, 0),
    denied("keyctl", 250, 219, 0, -3, 0),
    denied("add_key", 248, 217, b"user", b"x", b"y", 1, -3),
    denied("bpf", 321, 280, 0, 0, 0),
    denied("perf_event_open", 298, 241, 0, 0, -1, -1, 0),
    denied("io_uring_setup", 425, 425, 1, 0),
    denied("userfaultfd", 323, 282, 0),
    denied("init_module", 175, 105, 0, 0, b""),
    denied("finit_module", 313, 273, 0, b"", 0),
    denied("kexec_load", 246, 104, 0, 0, 0, 0),
    denied("reboot", 169, 142, 0xFEE1DEAD, 672274793, 0, 0),
    denied("clock_settime", 227, 112, 0, 0),
    denied("sethostname", 170, 161, b"x", 1),
    denied("open_by_handle_at", 304, 265, -100, 0, 0),
    denied("syslog", 103, 116, 3, 0, 0),
    denied("swapon", 167, 224, b"/tmp/x", 0),
    denied("acct", 163, 89, b"/tmp/x"),
    denied("quotactl", 179, 60, 0, 0, 0, 0),
    denied("mount by the new calls", 430, 430, b"tmpfs", 0),
    denied("device node", 259, 33, -100, b"/tmp/n", 0o020666, 0x0101),
    denied("packet socket", 41, 198, 17, 3, 0),
    denied("netlink socket", 41, 198, 16, 3, 0),
    denied("kernel crypto socket", 41, 198, 38, 5, 0),
    denied("virtual machine socket", 41, 198, 40, 1, 0),
)

_ESCAPES = (
    Probe("raw socket", PRELUDE + "try: kept.append(socket.socket(2, 3, 1)); won('raw')\nexcept OSError: pass"),
    Probe("cgroup release_agent", PRELUDE + "for d, _, fs in os.walk('/sys/fs/cgroup'):\n"
          "  for f in ('release_agent', 'notify_on_release', 'cgroup.procs', 'tasks'):\n"
          "    if f in fs: opens(f'{d}/{f}')"),
    Probe("core_pattern, sysrq and other switches", PRELUDE + "for p in ('sys/kernel/core_pattern', 'sysrq-trigger', "
          "'sys/kernel/modprobe', 'sys/vm/panic_on_oom', 'sys/kernel/hostname', 'sys/fs/binfmt_misc/register', "
          "'irq/0/smp_affinity', '1/oom_score_adj', '1/mem', '1/clear_refs'): opens('/proc/' + p)"),
    Probe("overwriting the programs of the box", PRELUDE + "for p in ('/proc/self/exe', '/proc/1/exe', '/bin/sh', "
          "'/usr/bin/python3', '/etc/passwd', '/etc/ld.so.preload', '/etc/hosts', '/etc/resolv.conf'): opens(p, 'r+b')"),
    Probe("devices of the host", PRELUDE + "for p in ('mem', 'kmem', 'port', 'kmsg', 'sda', 'vda', 'nvme0n1', 'loop0', "
          "'fuse', 'kvm', 'net/tun', 'mapper/control', 'vhost-net'): opens('/dev/' + p, 'rb')"),
    Probe("docker socket", PRELUDE + "for p in ('/var/run/docker.sock', '/run/docker.sock', "
          "'/run/containerd/containerd.sock'):\n  s = socket.socket(socket.AF_UNIX)\n  try: s.connect(p); won(p)\n"
          "  except OSError: pass"),
    Probe("masked kernel files", PRELUDE + "for p in ('kallsyms', 'kcore', 'keys', 'timer_list', 'modules', 'cmdline', "
          "'sched_debug', 'slabinfo', 'config.gz'):\n  try: x = open('/proc/' + p, 'rb').read(64)\n"
          "  except OSError: continue\n  if x.strip(b'\\0 \\n'): won((p, x))"),
    Probe("root by setuid", PRELUDE + "for call in (libc.setuid, libc.setgid):\n  if call(0) == 0: won(call)\n"
          "if os.getuid() in (0, 65534) or 0 in os.getgroups(): won(os.getgroups())\n"
          "import subprocess\nfor p in ('su', 'mount', 'passwd', 'sudo'):\n"
          "  try: r = subprocess.run([p, '-c', 'id -u'], capture_output=True, stdin=subprocess.DEVNULL, timeout=3)\n"
          "  except Exception: continue\n  if r.stdout.strip() == b'0': won(p)"),
    Probe("capabilities", PRELUDE + "s = open('/proc/self/status').read()\nfor l in s.splitlines():\n"
          "  if l.startswith('Cap') and int(l.split()[1], 16): won(l)\nif 'NoNewPrivs:\\t1' not in s: won('new privileges')"),
    Probe("raising its own limits", PRELUDE + "import resource as r\nfor k in (r.RLIMIT_NOFILE, r.RLIMIT_CORE, "
          "r.RLIMIT_FSIZE, r.RLIMIT_MEMLOCK):\n  h = r.getrlimit(k)[1]\n"
          "  try: r.setrlimit(k, (h + 1, h + 1)); won(k)\n  except (OSError, ValueError): pass"),
    Probe("running what it wrote", PRELUDE + "import shutil, subprocess\nfor d in ('/tmp', '/work', '/dev/shm'):\n"
          "  try: shutil.copy('/bin/true', d + '/x'); os.chmod(d + '/x', 0o755); subprocess.run([d + '/x']); won(d)\n"
          "  except OSError: pass"),
    Probe("32-bit system call", "import ctypes, mmap, platform, sys\nif platform.machine() != 'x86_64': sys.exit(0)\n"
          "m = mmap.mmap(-1, 4096, prot=7)\nm.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"
          "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
          "print('ESCAPED', f())", lambda r: said_nothing(r) and r.ending in (Ending.KILLED, Ending.SUCCEEDED)),
    Probe("core dump", PRELUDE + "os.chdir('/tmp'); os.abort()", ends(Ending.KILLED)),
    Probe("secrets in the environment", PRELUDE + "for n in os.environ:\n"
          "  if any(w in n.upper() for w in ('KEY', 'TOKEN', 'SECRET', 'PASS', 'GATEHOUSE', 'DOCKER', 'PROXY')) "
          "and n != 'GPG_KEY': won(n)"),
    Probe("files of the host", PRELUDE + "for l in open('/proc/self/mountinfo'):\n  p = l.split()[4]\n"
          "  if p.startswith(('/root', '/home', '/var', '/run', '/host', '/mnt')): won(p)\n"
          "if open('/etc/hostname').read().strip() != 'sandbox': won('hostname')"),
    Probe("other processes of the host", PRELUDE + "for p in os.listdir('/proc'):\n"
          "  if p.isdigit() and int(p) not in (1, os.getpid()): won(p)"),
    Probe("network devices", PRELUDE + "for l in open('/proc/net/dev').readlines()[2:]:\n  n = l.split(':')[0].strip()\n"
          "  if not n.startswith(('lo', 'tunl', 'sit', 'ip6', 'gre', 'erspan', 'ip_vti')): won(n)\n"
          "if len(open('/proc/net/route').readlines()) > 1: won('route')"),
)  # fmt: skip

# Two of them die by a signal; the others stand still.
_DIE = ("32-bit system call", "core dump")
ESCAPES = tuple(probe if probe.name in _DIE else replace(probe, holds=True) for probe in _ESCAPES)

# The program against process 1 and what it says to the worker.
INIT = (
    Probe("frames written to its own output", "import os\nos.write(1, b'X' + (3).to_bytes(4, 'big') + b'why')\n"
          "os.write(1, b'X' + (31).to_bytes(4, 'big') + b'why=0 code=0 oom=0 ms=0 cpu_us=0')\nos._exit(7)",
          lambda r: (r.ending, r.exit_code) == (Ending.EXIT_CODE, 7) and r.stdout.startswith(b"X\0\0\0\3why")),
    Probe("a gigantic frame", "import os\nos.write(1, b'O\\xff\\xff\\xff\\xff'); os.write(1, b'\\1\\0\\0\\0\\xff\\xff\\xff\\xff')"
          "\nos._exit(7)", lambda r: (r.exit_code, len(r.stdout)) == (7, 13)),
    Probe("the connection of process 1", PRELUDE + "for p in ('/proc/1/fd/0', '/proc/1/fd/1', '/proc/1/mem', '/proc/1/maps', "
          "'/proc/1/environ', '/proc/1/root', '/proc/1/cwd/x', '/proc/1/task/1/mem'): opens(p, 'rb'); opens(p, 'r+b')\n"
          "for d in ('/proc/1/fd', '/proc/1/map_files'):\n  try: won(os.listdir(d))\n  except OSError: pass"
          + HOLD + "\nos._exit(7)", lambda r: said_nothing(r) and r.exit_code == 7),
    Probe("killing process 1", "import os, signal, time\nfor n in range(1, 65):\n  try: os.kill(1, n)\n"
          "  except OSError: pass\ntime.sleep(0.2)\nos._exit(7)",
          lambda r: r.exit_code == 7),
    Probe("stopping and killing everything", "import os, signal\nos.fork()\nos.kill(-1, signal.SIGSTOP)\n"
          "os.kill(-1, signal.SIGKILL)\nos._exit(7)", lambda r: r.ending in (Ending.EXIT_CODE, Ending.KILLED)),
    Probe("closing its outputs early", "import os, time\nos.close(1); os.close(2); time.sleep(0.3); os._exit(7)",
          lambda r: r.exit_code == 7 and r.duration_ms >= 250),
    Probe("keeping the outputs open", "import os, time\nif os.fork() == 0:\n  os.setsid()\n"
          "  while True: time.sleep(9)\nos._exit(7)", lambda r: r.exit_code == 7, {"timeout_s": 60}),
    Probe("ignoring every signal", "import signal, time\nfor s in range(1, 65):\n"
          "  try: signal.signal(s, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile True: time.sleep(1)",
          ends(Ending.TIMEOUT), {"timeout_s": 0.5}, 20),
    Probe("double fork out of its session", "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
          "    while True: pass\n  os._exit(0)\nwhile True: time.sleep(1)",
          ends(Ending.TIMEOUT), {"timeout_s": 0.5}, 20),
    Probe("stopping itself", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", ends(Ending.TIMEOUT),
          {"timeout_s": 0.5}, 20),
    Probe("pushing the out-of-memory killer elsewhere",
        "import os\nfor v in (b'-1000', b'-500', b'0', b'499'):\n  try: f = os.open('/proc/self/oom_score_adj', os.O_WRONLY); "
        "os.write(f, v); break\n  except OSError: pass\nb = []\nwhile True: b.append(bytearray(1 << 20))",
        ends(Ending.OOM),
        {"memory_mb": 48},
    ),
    Probe("making process 1 the victim", "import os\ntry: open('/proc/1/oom_score_adj', 'w').write('1000')\n"
          "except OSError: pass\nb = []\nwhile True: b.append(bytearray(1 << 20))",
          lambda r: (r.ending, r.exit_code) == (Ending.OOM, 137), {"memory_mb": 48}),
    Probe("a report in the place where the program lies", PRELUDE + "for p in ('/work/run.py', '/work/result', '/tmp/X'):\n"
          "  open(p, 'w').write('why=0 code=0')\nos._exit(7)", lambda r: r.exit_code == 7),
    Probe("descriptors that were left to it", PRELUDE + "import stat\nfor n in range(3, 256):\n  try: m = os.fstat(n).st_mode\n"
          "  except OSError: continue\n  won((n, oct(m)))", holds=True),
)  # fmt: skip

ALL = (*BOMBS, *SYSTEM_CALLS, *ESCAPES, *INIT)
# As they are run: refused system calls do not disturb each other, so they share a box.
TOGETHER = Probe(
    "refused system calls", PRELUDE + "".join(p.source.removeprefix(PRELUDE) for p in SYSTEM_CALLS), holds=True
)
BOXES = (*BOMBS, TOGETHER, *ESCAPES, *INIT)
