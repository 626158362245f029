"""What a Docker engine says of itself, and what that means for boxes: what it enforces, offers and lacks."""

from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic import JsonValue

from tools.contract import JsonObject

GVISOR: Final = "runsc"
"""The runtime whose boxes have a kernel of their own, under the name its documentation gives it."""
Runtime = Literal["auto", "runc", "runsc"]
"""`auto`: runsc where the engine offers it and the self-test passes under it, else the engine's own. `runsc`: that or
nothing. `runc`: never gVisor."""


@dataclass(frozen=True)
class EngineFacts:
    """What the engine says of itself; `gatehouse doctor` and the start-up check read it."""

    version: str
    api_version: str
    architecture: str
    """As uname says it: x86_64, aarch64."""
    cgroup_version: str
    seccomp: bool
    userns: bool
    apparmor: bool
    runtimes: tuple[str, ...]
    default_runtime: str
    kernel: str
    """Release of the kernel that all boxes but gVisor's run on."""

    @classmethod
    def of(cls, info: JsonObject, version: JsonObject) -> Self:
        """From the engine's answers to `info` and `version`."""
        listed, runtimes = info.get("SecurityOptions"), info.get("Runtimes")
        options = [str(option) for option in listed] if isinstance(listed, list) else []

        def has(name: str) -> bool:
            return any(option == f"name={name}" or option.startswith(f"name={name},") for option in options)

        def text(value: JsonValue | None) -> str:
            return value if isinstance(value, str) else ""

        return cls(
            version=text(version.get("Version")),
            api_version=text(version.get("ApiVersion")),
            architecture=text(info.get("Architecture")),
            cgroup_version=text(info.get("CgroupVersion")),
            seccomp=has("seccomp"),
            userns=has("userns"),
            apparmor=has("apparmor"),
            runtimes=tuple(sorted(runtimes)) if isinstance(runtimes, dict) else (),
            default_runtime=text(info.get("DefaultRuntime")),
            kernel=text(info.get("KernelVersion")),
        )

    def candidates(self, wanted: Runtime) -> list[str]:
        """Runtimes to try in this order; "" is the engine's own choice. Empty when what is wanted is not offered."""
        gvisor = [GVISOR] if GVISOR in self.runtimes else []
        if wanted == GVISOR:
            return gvisor
        own = "runc" if self.default_runtime == GVISOR else ""
        return [*gvisor, own] if wanted == "auto" else [own]

    def missing(self) -> list[str]:
        """What the box cannot do without and this engine does not offer; empty when it will do."""
        problems: list[str] = []
        if not self.seccomp:
            problems.append("the kernel or engine has no seccomp filter")
        if self.architecture not in ("x86_64", "aarch64"):
            problems.append(f"no system call filter is written for {self.architecture}")
        return problems

    def enforced(self) -> list[str]:
        """What the self-test proves on this engine before anything runs."""
        return [
            "no network, no capabilities, no new privileges, read-only root, own uid, private namespaces",
            "memory, processes, processor time, open files, file size",
            *(["system call filter"] if self.seccomp else []),
            *(["user namespace"] if self.userns else []),
        ]

    def not_enforced(self) -> list[str]:
        """What would make a box stronger and this engine does not offer, each with what would change that."""
        offers = {
            "user namespace (the daemon's option userns-remap)": self.userns,
            "AppArmor (a kernel with it)": self.apparmor,
            "a kernel of its own (gVisor's runtime runsc)": GVISOR in self.runtimes,
            # The engine has a limit for it on xfs with quotas only, and says so only when asked for a container.
            "a hard limit on a workspace's disk space (process 1 counts it every 0.25 s)": False,
        }
        return [what for what, offered in offers.items() if not offered]
