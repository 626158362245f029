"""What every command needs before it can work: which installation, which key, how to fail."""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from api.commands.client import Client
    from worker.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8080"

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, as the API gave it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


class Exit(IntEnum):
    """Exit statuses, the same for every command (130 is Ctrl-C)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    WAITING = 4


class CommandError(Exception):
    """Ends a command: what went wrong, what to do next, and the exit status."""

    def __init__(self, problem: str, remedy: str = "", code: Exit = Exit.FAILED) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.code = code


@dataclass
class Session:
    """Options given before the command, or by environment."""

    url: str | None
    key: str | None
    key_file: Path | None

    def settings(self) -> "Settings":
        """The installation's settings, from `GATEHOUSE_*`. Raises CommandError naming the bad one."""
        from pydantic import ValidationError

        from worker.settings import Settings

        try:
            return Settings()
        except ValidationError as error:
            first = error.errors()[0]
            name = "GATEHOUSE_" + "__".join(str(part) for part in first["loc"]).upper()
            raise CommandError(f"{name}: {first['msg']}", "correct that environment variable", Exit.USAGE) from None

    def api_url(self) -> str:
        """--url or GATEHOUSE_URL; else where the last `gatehouse up` on this data folder put the API."""
        if self.url:
            return self.url.rstrip("/")
        from api.supervisor.addresses import read

        return read(self.settings().data).get("api", DEFAULT_URL)

    def api_key(self) -> str:
        """The key to send. Raises CommandError when there is none."""
        if self.key_file:
            try:
                return self.key_file.read_text().strip()
            except OSError as error:
                raise CommandError(
                    f"--key-file: {error}", "give a readable file that holds a key", Exit.USAGE
                ) from None
        if self.key:
            return self.key.strip()
        raise CommandError(
            "no API key is given",
            "export GATEHOUSE_KEY=$(gatehouse keys create <name> --role operator), or use --key-file",
            Exit.DENIED,
        )

    def client(self) -> "Client":
        """The API, with the key."""
        from api.commands.client import Client

        return Client(self.api_url(), self.api_key())


def session(ctx: typer.Context) -> Session:
    """The session the root callback made."""
    return cast(Session, ctx.find_root().obj)
