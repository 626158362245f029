"""Process 1 of every box: waits for one job, runs it as its child, ends it at its limits, reports, and exits.

Its source is handed to `python3 -I -S -c` inside the container; the worker never imports it. Standard library only, and
few modules, since every call pays for their import.

Why it exists: a program that is process 1 ignores its own fatal signals; a direct child of the engine's shim can trick
it into losing a stopped (ptraced) process; and a box must end although every worker is gone. The program cannot forge
the frames: process 1 is immune to its signals, and not dumpable, so /proc/1/fd and /proc/1/mem are closed to it.

Input:  u32 length + header, u32 length + program, u32 length + its standard input. Header: strings joined by NUL:
        timeout in ms, output bytes, workspace bytes, growth bytes, workspace entries, then the command line.
        After that, end of input means that the worker is gone.
Output: frames of 1 byte kind, u32 length, content. R ready, O stdout, E stderr, X report (`name=number` by spaces).
"""

import ctypes
import os
import select
import sys
import time

PR_SET_DUMPABLE = 4
SIGKILL, SIGPIPE, SIGXFSZ = 9, 13, 25
CHUNK = 65536
TICK_S = 0.05
WORKSPACE_TICK_S = 0.25
DRAIN_S = 0.05
GROWTH_ENTRIES = 1000
COUNT_AT_MOST = 1_000_000
WAIT_FOR_JOB_S = 60
PROGRAM = "/work/run.py"
WORKSPACE = "/workspace"
# How many numbers the header starts with.
NUMBERS = 5
ENDED, TIMEOUT, OUTPUT_LIMIT, WORKSPACE_LIMIT, WORKER_GONE = range(5)


def put(kind: bytes, content: bytes = b"") -> None:
    """Write one frame."""
    frame = kind + len(content).to_bytes(4, "big") + content
    while frame:
        frame = frame[os.write(1, frame) :]


def take() -> bytes:
    """Read one length and that many bytes; leave the box if the worker goes, or says nothing, before the job came."""

    def exactly(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            if not select.select([0], [], [], WAIT_FOR_JOB_S)[0]:
                os._exit(0)
            part = os.read(0, min(1 << 20, count - len(parts)))
            if not part:
                os._exit(0)
            parts += part
        return bytes(parts)

    return exactly(int.from_bytes(exactly(4), "big"))


def usage(path: str, most: int) -> tuple[int, int]:
    """Bytes on disk and number of entries below `path`, counted until either passes `most`; follows nothing."""
    size = entries = 0
    folders = [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    entries += 1
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    if entries > most:
                        return size, entries
        except OSError:
            continue
    return size, entries


def cgroup(name: str, key: str = "") -> int:
    """A number from the box's memory controller (the v1 file, else the v2 one is read by its own name); 0 if absent."""
    for folder in ("/sys/fs/cgroup/memory/", "/sys/fs/cgroup/"):
        try:
            with open(folder + name) as file:
                for line in file:
                    words = line.split()
                    if not key:
                        return int(words[0])
                    if words[0] == key:
                        return int(words[1])
        except (OSError, ValueError, IndexError):
            continue
    return 0


def spawn(command: list[str], stdin: bytes) -> tuple[int, int, int]:
    """Start the program in a session of its own. Gives its process id and the read ends of its stdout and stderr."""
    source = os.memfd_create("stdin")
    view = memoryview(stdin)
    while view:
        view = view[os.write(source, view) :]
    os.lseek(source, 0, os.SEEK_SET)
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    pid = os.posix_spawnp(
        command[0], command, os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, source, 0),
            (os.POSIX_SPAWN_DUP2, out_write, 1),
            (os.POSIX_SPAWN_DUP2, err_write, 2),
        ],
        # An interpreter ignores these two, and children inherit that.
        setsigdef=[SIGPIPE, SIGXFSZ],
        setsid=True,
    )  # fmt: skip
    for descriptor in (source, out_write, err_write):
        os.close(descriptor)
    try:
        # When memory runs out the kernel takes the program, not the one who reports it.
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass
    return pid, out_read, err_read


class Run:
    """One program under its limits."""

    def __init__(self, header: list[str], stdin: bytes) -> None:
        timeout_ms, self.output_left, self.workspace_bytes, growth, self.workspace_entries = map(int, header[:NUMBERS])
        self.deadline = time.monotonic() + timeout_ms / 1000
        self.watched = self.workspace_bytes > 0 and os.access(WORKSPACE, os.W_OK)
        if self.watched:
            # What earlier calls left must not keep this one from tidying up: what is there may grow a little.
            size, entries = usage(WORKSPACE, COUNT_AT_MOST)
            self.workspace_bytes = max(size + growth, self.workspace_bytes)
            self.workspace_entries = max(entries + GROWTH_ENTRIES, self.workspace_entries)
        self.status: int | None = None
        self.pid, out, err = spawn(header[NUMBERS:], stdin)
        self.pipes = {out: b"O", err: b"E"}

    def reap(self) -> None:
        """Collect every child that ended, ours and adopted ones."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.pid:
                    self.status = status
        except ChildProcessError:
            return

    def forward(self, descriptor: int) -> bool:
        """Pass on what the program wrote; False when that exceeds its output limit."""
        data = os.read(descriptor, CHUNK)
        if not data:
            del self.pipes[descriptor]
            os.close(descriptor)
            return True
        kept = data[: self.output_left]
        if kept:
            put(self.pipes[descriptor], kept)
        self.output_left -= len(kept)
        return len(kept) == len(data)

    def watch(self) -> int:
        """Serve the program until it ends or reaches a limit; says which."""
        drain_until: float | None = None
        look_at_workspace = 0.0
        while True:
            now = time.monotonic()
            if now >= self.deadline:
                return TIMEOUT if self.status is None else ENDED
            if self.status is not None and (not self.pipes or (drain_until is not None and now >= drain_until)):
                return ENDED
            ready = select.select([0, *self.pipes], [], [], min(TICK_S, self.deadline - now))[0]
            for descriptor in ready:
                if descriptor == 0:
                    if not os.read(0, CHUNK):
                        return WORKER_GONE
                elif not self.forward(descriptor):
                    return OUTPUT_LIMIT
            self.reap()
            if self.status is not None and drain_until is None:
                # A process that outlives the program may keep its pipes open for ever.
                drain_until = time.monotonic() + DRAIN_S
            if self.watched and now >= look_at_workspace:
                look_at_workspace = now + WORKSPACE_TICK_S
                size, entries = usage(WORKSPACE, self.workspace_entries)
                if size > self.workspace_bytes or entries > self.workspace_entries:
                    return WORKSPACE_LIMIT

    def end(self) -> None:
        """Kill whatever else lives in the box, then pass on what is left in the pipes."""
        for _ in range(400):
            try:
                os.kill(-1, SIGKILL)
            except ProcessLookupError:
                pass
            self.reap()
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            time.sleep(0.005)
        for descriptor in list(self.pipes):
            os.set_blocking(descriptor, False)
            try:
                while descriptor in self.pipes and self.output_left > 0:
                    self.forward(descriptor)
            except OSError:
                continue


def main() -> None:
    """Serve one job."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    put(b"R")
    header, program, stdin = take().decode().split("\0"), take(), take()
    with open(PROGRAM, "wb") as file:
        file.write(program)
    started = time.monotonic()
    try:
        run = Run(header, stdin)
    except OSError as error:
        put(b"E", f"cannot start {header[NUMBERS]}: {error}\n".encode())
        put(b"X", b"why=0 code=127 oom=0 ms=0 cpu_ms=0 peak=0")
        return
    why = run.watch()
    run.end()
    used = os.times()
    report = {
        "why": why,
        "code": 137 if run.status is None else os.waitstatus_to_exitcode(run.status),
        "oom": cgroup("memory.oom_control", "oom_kill") or cgroup("memory.events", "oom_kill"),
        "ms": int((time.monotonic() - started) * 1000),
        "cpu_ms": int((used.children_user + used.children_system) * 1000),
        "peak": cgroup("memory.max_usage_in_bytes") or cgroup("memory.peak"),
    }
    if why != WORKER_GONE:
        put(b"X", " ".join(f"{name}={value}" for name, value in report.items()).encode())


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
