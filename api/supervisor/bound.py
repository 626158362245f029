"""Runs a program that dies with its supervisor: `python bound.py <supervisor pid> <program> [arguments]`.

A supervisor that is killed outright can stop nobody, so the kernel is asked to do it (PR_SET_PDEATHSIG); then the
program takes this process over. A step of its own because a hook between fork and exec is unsafe beside threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for SIGKILL at the parent's death, then become the program."""
    supervisor, program, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:  # it died before we asked
        sys.exit(1)
    os.execvp(program, arguments)  # noqa: S606  (a list, no shell: this is the point)


if __name__ == "__main__":
    main()
