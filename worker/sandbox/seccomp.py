"""The box's own system call filter: an allow-list for what a Python 3.11 standard library, a shell and coreutils use.

Passed explicitly, it replaces the engine's default, so the box is the same on every engine version; older defaults
still allow io_uring, AF_ALG, AF_VSOCK and ptrace. Other interpreters (node, git, java) need a profile of their own.
"""

from typing import Final

from tools.contract import JsonObject

_FILES: Final = """
access faccessat faccessat2 open openat openat2 creat close close_range read write readv writev pread64 pwrite64
preadv pwritev preadv2 pwritev2 lseek stat fstat lstat newfstatat statx statfs fstatfs getdents getdents64 readlink
readlinkat symlink symlinkat link linkat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir chdir fchdir
getcwd chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat truncate ftruncate fallocate fsync fdatasync
sync_file_range utime utimes utimensat futimesat umask dup dup2 dup3 fcntl flock ioctl pipe pipe2 sendfile splice tee
copy_file_range fadvise64 readahead getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr fsetxattr
lsetxattr removexattr fremovexattr lremovexattr inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
memfd_create cachestat
"""
_MEMORY: Final = """
brk mmap munmap mremap mprotect madvise mincore msync mlock munlock mlock2 mlockall munlockall membarrier pkey_alloc
pkey_free pkey_mprotect map_shadow_stack get_mempolicy
"""
_PROCESSES: Final = """
execve execveat exit exit_group fork vfork wait4 waitid getpid getppid gettid getpgid getpgrp setpgid getsid setsid
kill tgkill tkill pidfd_open pidfd_send_signal set_tid_address set_robust_list get_robust_list rseq arch_prctl prctl
futex futex_waitv sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_getscheduler
sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_getattr getpriority setpriority ioprio_get
getrlimit setrlimit prlimit64 getrusage times sysinfo uname getcpu restart_syscall capget capset seccomp
landlock_create_ruleset landlock_add_rule landlock_restrict_self getuid geteuid getgid getegid getresuid getresgid
getgroups setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid
"""
_SIGNALS_AND_TIME: Final = """
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo
sigaltstack signalfd signalfd4 pause alarm clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create
timerfd_settime timerfd_gettime
"""
_WAITING_AND_SOCKETS: Final = """
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd eventfd2
bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt sendto recvfrom sendmsg
recvmsg sendmmsg recvmmsg socketpair shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv
msgctl getrandom
"""
ALLOWED: Final = tuple(sorted(f"{_FILES}{_MEMORY}{_PROCESSES}{_SIGNALS_AND_TIME}{_WAITING_AND_SOCKETS}".split()))

# CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET: no namespace of one's own.
_CLONE_NAMESPACES: Final = 0x7E020000
_ENOSYS: Final = 38
_S_IFMT: Final = 0o170000
_S_IFIFO: Final = 0o010000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
# What glibc and Python ask for: PER_LINUX, PER_LINUX32, with and without UNAME26, and "tell me".
_PERSONALITIES: Final = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)

# One architecture only. Without the 32-bit ones, int 0x80 and x32 calls are killed, and with them the ways around the
# socket rule below.
ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def _allow(call: str, index: int, value: int, operator: str = "SCMP_CMP_EQ", second: int = 0) -> JsonObject:
    return {
        "names": [call],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": index, "value": value, "valueTwo": second, "op": operator}],
    }


def profile(architecture: str) -> JsonObject:
    """The filter for an engine of this machine (`x86_64` or `aarch64`); KeyError for another."""
    masked = "SCMP_CMP_MASKED_EQ"
    return {
        # errnoRet is written out per rule where it differs: `defaultErrnoRet` is ignored by older engines.
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [ARCHITECTURES[architecture]],
        "syscalls": [
            {"names": list(ALLOWED), "action": "SCMP_ACT_ALLOW"},
            # The flag word is argument 0 on both architectures.
            _allow("clone", 0, _CLONE_NAMESPACES, masked),
            # Its flags are behind a pointer, which a filter cannot read; "not implemented" makes glibc use clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
            # Named pipes, never device nodes.
            _allow("mknod", 1, _S_IFMT, masked, _S_IFIFO),
            _allow("mknodat", 2, _S_IFMT, masked, _S_IFIFO),
            *(_allow("socket", 0, family) for family in (_AF_UNIX, _AF_INET, _AF_INET6)),
            *(_allow("personality", 0, value) for value in _PERSONALITIES),
        ],
    }
