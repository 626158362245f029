"""Secrets by name, resolved on the sandbox worker and nowhere else: its environment, a folder, HashiCorp Vault.

A manifest names a secret, never its value. Values are read anew for each call, so that a rotated one is in force at
once, and every value handed out is made known to the scrubber of this process.
"""

import asyncio
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, cast

import hvac
import requests.exceptions
from hvac.exceptions import InvalidPath, VaultError

from tools.contract import NAME_PATTERN
from worker.sandbox.engine import SandboxUnavailable
from worker.sandbox.scrubbing import SHORTEST, Scrubber

VARIABLE: Final = "GATEHOUSE_SECRET_"
"""Environment variable of a secret: this, and its name in upper case."""
MOST_BYTES: Final = 64 << 10
VAULT_TIMEOUT_S: Final = 5
VAULT_FIELD: Final = "value"
"""Field of the Vault entry that holds the secret."""


class SecretRefused(LookupError):  # noqa: N818
    """No source knows the secret, or what it gave cannot be used. Never contains a value."""


class Source(Protocol):
    """One place secrets come from."""

    async def get(self, name: str) -> bytes | None:
        """The value, None when it is not kept here. Raises SecretRefused, and SandboxUnavailable when asked in vain."""
        ...


class EnvironmentSecrets:
    """`GATEHOUSE_SECRET_<NAME>` of the environment that the composition root hands in."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._values = {name: value for name, value in environment.items() if name.startswith(VARIABLE)}

    async def get(self, name: str) -> bytes | None:
        """See Source."""
        value = self._values.get(VARIABLE + name.upper())
        return value.encode() if value is not None else None


class FolderSecrets:
    """One file a secret, as container platforms mount them; a final line end does not count."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, name: str) -> bytes | None:
        """See Source."""
        return await asyncio.to_thread(self._read, name)

    def _read(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                if (mode := stat.S_IMODE(path.stat().st_mode)) & stat.S_IWOTH:
                    raise SecretRefused(f"everybody may write {path} (mode {mode:o})")
                value = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SandboxUnavailable(f"secret {name}: {error}", "let the sandbox worker read it") from error
        return value.removesuffix(b"\n").removesuffix(b"\r")


class VaultSecrets:
    """HashiCorp Vault, key-value engine version 2: `<mount>/data/<path>/<name>`, field `value`.

    `token` is asked for each time, since an agent may renew it in a file.
    """

    def __init__(self, url: str, token: "Token", *, mount: str = "secret", path: str = "gatehouse") -> None:
        self._url = url
        self._token = token
        self._mount = mount
        self._path = path.strip("/")

    async def get(self, name: str) -> bytes | None:
        """See Source."""
        return await asyncio.to_thread(self._read, name)

    def _read(self, name: str) -> bytes | None:
        try:
            client = hvac.Client(url=self._url, token=self._token(), timeout=VAULT_TIMEOUT_S)
            answer = cast(
                Mapping[str, object],
                client.secrets.kv.v2.read_secret_version(  # pyright: ignore[reportUnknownMemberType]
                    f"{self._path}/{name}", mount_point=self._mount, raise_on_deleted_version=True
                ),
            )
        except InvalidPath:
            return None
        except (VaultError, requests.exceptions.RequestException, OSError) as error:
            # The message of the error may quote the request, and with it the token.
            problem = f"Vault at {self._url} does not give secret {name} ({type(error).__name__})"
            raise SandboxUnavailable(problem, "look at its address, its token and the token's policy") from None
        data = cast(Mapping[str, object], answer.get("data") or {})
        value = cast(Mapping[str, object], data.get("data") or {}).get(VAULT_FIELD)
        if not isinstance(value, str):
            raise SecretRefused(f"Vault's entry for {name} has no text in the field {VAULT_FIELD!r}")
        return value.encode()


class Token(Protocol):
    """Gives a Vault token."""

    def __call__(self) -> str:
        """The token in force now. Raises OSError."""
        ...


class Secrets:
    """All sources in order; the first that knows a name counts."""

    def __init__(
        self, sources: Sequence[Source], scrubber: Scrubber, learn: Callable[[Iterable[str]], None] | None = None
    ) -> None:
        """`learn` hears every value that is handed out too: the redactor of this process's logs and failures."""
        self._sources = sources
        self.scrubber = scrubber
        self._learn = learn

    async def resolve(self, names: Iterable[str]) -> dict[str, bytes]:
        """Values by name. Raises SecretRefused, SandboxUnavailable."""
        found = {name: await self._one(name) for name in sorted(set(names))}
        self.scrubber.learn(found.values())
        if self._learn is not None:
            self._learn([value.decode(errors="replace") for value in found.values()])
        return found

    async def _one(self, name: str) -> bytes:
        if not re.fullmatch(NAME_PATTERN, name):
            raise SecretRefused(f"{name!r} is not a name of a secret")
        for source in self._sources:
            value = await source.get(name)
            if value is None:
                continue
            if not SHORTEST <= len(value) <= MOST_BYTES:
                # What cannot be told from ordinary text cannot be scrubbed from it.
                raise SecretRefused(f"secret {name} has less than {SHORTEST} or more than {MOST_BYTES} bytes")
            return value
        raise SecretRefused(f"secret {name} is not set on the sandbox worker ({VARIABLE}{name.upper()})")
