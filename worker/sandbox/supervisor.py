"""Process 1 of every box: waits for one job, runs it as its child, ends it at its limits, reports, and exits.

Its source is handed to `python3 -I -S -c` inside the container; the worker never imports it. Standard library only, and
few modules, since every call pays for their import.

Why it exists: a program that is process 1 ignores its own fatal signals; a direct child of the engine's shim can trick
it into losing a stopped (ptraced) process; and a box must end although every worker is gone. The program cannot forge
the frames: process 1 is immune to its signals, and not dumpable, so /proc/1/fd and /proc/1/mem are closed to it. Some
kernels close only the memory (gVisor's); there the report's token, which came with the job, tells it from a forged one.

Arguments: how many seconds it waits for a job; then "python" when an interpreter shall wait for the program too. That
one is a process of its own, started without the worker's connection; with the job it becomes the program, so what it
can reach is what a freshly started one can.
Input:  u32 length + header, u32 length + each secret, u32 length + program, u32 length + its standard input. Header:
        strings joined by NUL: timeout in ms, output bytes, workspace bytes, growth bytes, workspace entries, token,
        number of secrets, number of variables, then the secrets' names, the variables (NAME=value), the command line.
        After that, end of input means that the worker is gone.
Output: frames of 1 byte kind, u32 length, content. R ready, O stdout, E stderr, X report: the
        token, then `name=number`, by spaces.
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_DUMPABLE, SIGKILL, SIGPIPE, SIGXFSZ = 4, 9, 13, 25
TICK_S, SHORT_TICK_S, WORKSPACE_TICK_S, DRAIN_S = 0.05, 0.005, 0.25, 0.05
GROWTH_ENTRIES = 1000
NAMES_A_PIECE = 15  # as many of the longest names make a path that the kernel takes
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
CHUNK, COUNT_AT_MOST = 65536, 1_000_000
CPU_FILES = (("/sys/fs/cgroup/cpuacct/cpuacct.usage", 0, 1000), ("/sys/fs/cgroup/cpu.stat", 1, 1))
PROGRAM, SECRETS, WORKSPACE = "/work/run.py", "/work/secrets", "/workspace"
NUMBERS = 8  # as many the header starts with
PYTHON = ["python3", "-I", "-B", PROGRAM]  # the command line that an interpreter waits for
GO = 100  # where the waiting interpreter hears that its program is there
WAITING = """
import gc, json, os, pathlib, re, sys
def wait():
    import gc, os, sys
    # What is loaded by now stays to the end: the collector need not look at it when the program exits.
    gc.collect()
    gc.freeze()
    said = b""
    while part := os.read(100, 65536):
        said += part
    os.close(100)
    for pair in said.decode().split("\\0"):
        name, _, value = pair.partition("=")
        if name:
            os.environ[name] = value
    sys.argv[:] = ["/work/run.py"]
    # An uncaught error looks as if the program had been started by name.
    def show(kind, error, trace):
        sys.excepthook = sys.__excepthook__
        trace = trace.tb_next if trace else None
        sys.__excepthook__(kind, error.with_traceback(trace), trace)
    sys.excepthook = show
    with open("/work/run.py", "rb") as file:
        return file.read()
__file__, wait = "/work/run.py", wait()
del gc, json, os, pathlib, re, sys
exec(compile(globals().pop("wait"), __file__, "exec", dont_inherit=True), globals())
"""
ENDED, TIMEOUT, OUTPUT_LIMIT, WORKSPACE_LIMIT, WORKER_GONE = range(5)


def put(kind: bytes, content: bytes = b"") -> None:
    """Write one frame."""
    frame = kind + len(content).to_bytes(4, "big") + content
    while frame:
        frame = frame[os.write(1, frame) :]


def take(wait_s: float) -> bytes:
    """Read one length and that many bytes; leave the box if the worker goes, or says nothing, before the job came."""

    def exactly(count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            if not select.select([0], [], [], wait_s)[0]:
                os._exit(0)
            part = os.read(0, min(1 << 20, count - len(parts)))
            if not part:
                os._exit(0)
            parts += part
        return bytes(parts)

    return exactly(int.from_bytes(exactly(4), "big"))


Folder = tuple["Folder | None", str]  # its parent and its name


def opened(folder: "Folder | None") -> int:
    """Open it from the top down in pieces, as its whole path may be too long; one closed to its owner is made open."""
    names: list[str] = []
    while folder:
        names.append(folder[1])
        folder = folder[0]
    here = os.open(names.pop(), FOLDER)
    while names:
        piece = "/".join(names[: -NAMES_A_PIECE - 1 : -1])
        del names[-NAMES_A_PIECE:]
        above = here
        try:
            here = os.open(piece, FOLDER, dir_fd=above)
        except PermissionError:
            os.chmod(piece, 0o700, dir_fd=above)
            here = os.open(piece, FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return here


def usage(path: str, most: int) -> tuple[int, int]:
    """Bytes on disk and number of entries below `path`, counted until either passes `most`; follows nothing.

    What cannot be looked into counts as too much: it would be the place to hide in.
    """
    size = entries = 0
    folders: list[Folder] = [(None, path)]
    while folders:
        here = folders.pop()
        try:
            descriptor = opened(here)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return size, most + 1
        try:
            with os.scandir(descriptor) as found:
                for entry in found:
                    entries += 1
                    if entries > most:
                        return size, entries
                    try:
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                    except FileNotFoundError:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((here, entry.name))
        except OSError:
            return size, most + 1
        finally:
            os.close(descriptor)
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


def cpu_us() -> int:
    """Processor time of everything that ever ran in the box, waited for or not, in microseconds; 0 if unknown."""
    for path, word, unit in CPU_FILES:
        try:
            with open(path) as file:
                return int(file.readline().split()[word]) // unit
        except (OSError, ValueError, IndexError):
            continue
    return 0


class Child:
    """A program in a session of its own, or the interpreter that waits to become it."""

    def __init__(self, command: list[str], variables: dict[str, str], stdin: bytes | None) -> None:
        """Start it; without `stdin` it waits, and gets that and its variables later."""
        waits = stdin is None
        self.stdin = os.memfd_create("stdin")
        if stdin is not None:
            self.fill(stdin)
        self.out, out_write = os.pipe()
        self.err, err_write = os.pipe()
        go_read, self.go = os.pipe() if waits else (-1, -1)
        actions = [
            (os.POSIX_SPAWN_DUP2, self.stdin, 0),
            (os.POSIX_SPAWN_DUP2, out_write, 1),
            (os.POSIX_SPAWN_DUP2, err_write, 2),
        ]
        if waits:
            actions.append((os.POSIX_SPAWN_DUP2, go_read, GO))
        self.pid = os.posix_spawnp(
            command[0], command, {**os.environ, **variables}, file_actions=actions,
            # An interpreter ignores these two, and children inherit that.
            setsigdef=[SIGPIPE, SIGXFSZ],
            setsid=True,
        )  # fmt: skip
        for descriptor in (out_write, err_write, go_read if waits else self.stdin):
            os.close(descriptor)
        try:
            # When memory runs out the kernel takes the program, not the one who reports it.
            with open(f"/proc/{self.pid}/oom_score_adj", "w") as file:
                file.write("1000")
        except OSError:
            pass

    def fill(self, stdin: bytes) -> None:
        """Put its standard input there: a file, so that it need not be read to be written."""
        view = memoryview(stdin)
        while view:
            view = view[os.write(self.stdin, view) :]
        os.lseek(self.stdin, 0, os.SEEK_SET)

    def begin(self, stdin: bytes, variables: dict[str, str]) -> None:
        """Let the waiting interpreter go on: its program lies there."""
        self.fill(stdin)
        os.close(self.stdin)
        said = "\0".join(f"{name}={value}" for name, value in variables.items()).encode()
        while said:
            said = said[os.write(self.go, said) :]
        os.close(self.go)

    def drop(self) -> None:
        """End the waiting interpreter: another program was asked for."""
        os.kill(self.pid, SIGKILL)
        os.waitpid(self.pid, 0)
        for descriptor in (self.stdin, self.out, self.err, self.go):
            os.close(descriptor)


def start(header: list[str], stdin: bytes, waiting: "Child | None") -> Child:
    """The program of the job, running: the interpreter that waited when it is the one that is asked for."""
    first = NUMBERS + int(header[NUMBERS - 2])
    behind = first + int(header[NUMBERS - 1])
    variables = dict(pair.split("=", 1) for pair in header[first:behind])
    command = header[behind:]
    if waiting is not None and command == PYTHON:
        waiting.begin(stdin, variables)
        return waiting
    if waiting is not None:
        waiting.drop()
    return Child(command, variables, stdin)


class Run:
    """One program under its limits."""

    def __init__(self, header: list[str], stdin: bytes, waiting: Child | None) -> None:
        timeout_ms, self.output_left, self.workspace_bytes, growth, self.workspace_entries = map(int, header[:5])
        self.deadline = time.monotonic() + timeout_ms / 1000
        self.watched = self.workspace_bytes > 0 and os.access(WORKSPACE, os.W_OK)
        if self.watched:
            # What earlier calls left must not keep this one from tidying up: what is there may grow a little.
            size, entries = usage(WORKSPACE, COUNT_AT_MOST)
            self.workspace_bytes = max(size + growth, self.workspace_bytes)
            self.workspace_entries = max(entries + GROWTH_ENTRIES, self.workspace_entries)
        self.status: int | None = None
        child = start(header, stdin, waiting)
        self.pid = child.pid
        try:
            # Readable when the program ends, so that its end need not wait for the next look.
            self.ended, self.tick_s = os.pidfd_open(child.pid), TICK_S
        except OSError:
            # gVisor's kernel, for one, lacks it: a descriptor that is never readable, and more looks.
            self.ended, self.tick_s = os.pipe()[0], SHORT_TICK_S
        self.pipes = {child.out: b"O", child.err: b"E"}
        # All that the program wrote as far as it was read, also what was over its limit.
        self.wrote = {b"O": 0, b"E": 0}

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
        self.wrote[self.pipes[descriptor]] += len(data)
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
            watched = [0, *self.pipes] if self.status is not None else [0, self.ended, *self.pipes]
            ready = select.select(watched, [], [], min(self.tick_s, self.deadline - now))[0]
            for descriptor in ready:
                if descriptor == self.ended:
                    continue
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
    # The interpreter would turn it into an exception; the kernel keeps it from a process 1 that does not ask for it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    wait_s = float(sys.argv[1])
    waiting = Child([*PYTHON[:-1], "-c", WAITING], {}, None) if sys.argv[2:] == ["python"] else None
    put(b"R")
    header = take(wait_s).decode().split("\0")
    secrets = [take(wait_s) for _ in range(int(header[NUMBERS - 2]))]
    program, stdin = take(wait_s), take(wait_s)
    with open(PROGRAM, "wb") as file:
        file.write(program)
    if secrets:
        os.mkdir(SECRETS, 0o700)
        for name, content in zip(header[NUMBERS:], secrets, strict=False):
            with open(f"{SECRETS}/{name}", "wb") as file:
                file.write(content)
    started, cpu = time.monotonic(), cpu_us()
    try:
        run = Run(header, stdin, waiting)
    except OSError as error:
        put(b"E", f"cannot start {header[NUMBERS + sum(map(int, header[6:NUMBERS]))]}: {error}\n".encode())
        put(b"X", f"{header[5]} why=0 code=127 oom=0 ms=0 cpu_us=0 peak=0".encode())
        return
    why = run.watch()
    run.end()
    report = {
        "why": why,
        "code": 137 if run.status is None else os.waitstatus_to_exitcode(run.status),
        "oom": cgroup("memory.oom_control", "oom_kill") or cgroup("memory.events", "oom_kill"),
        "ms": int((time.monotonic() - started) * 1000),
        "cpu_us": cpu_us() - cpu,
        "peak": cgroup("memory.max_usage_in_bytes") or cgroup("memory.peak"),
        "out": run.wrote[b"O"],
        "err": run.wrote[b"E"],
    }
    if why != WORKER_GONE:
        put(b"X", " ".join([header[5], *(f"{name}={value}" for name, value in report.items())]).encode())


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
