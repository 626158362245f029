"""`notify.yaml` in GATEHOUSE_HOME: where notices go. Read and checked as a whole; a file with a mistake is not used in
part, because a channel that is silently missing would be found out when it was needed."""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from policies.decision import Principal
from policies.glob import any_glob
from policies.source import Document, Problem, SourceError, parse_as, read_document
from tools.contract import Strict
from worker.store.outbox import NOTICE_TYPES, Notice
from worker.store.switches import INSTALLATION

FILE = "notify.yaml"
SECRET_PREFIX = "GATEHOUSE_NOTIFY_SECRET_"  # noqa: S105  (the name of a variable)
_NAME = r"^[a-z][a-z0-9_-]{0,47}$"
_HERE = ("localhost", "127.0.0.1", "::1")
_ADDRESS = re.compile(r"[^\s<>@,;:\"\\\x00-\x1f]{1,64}@[A-Za-z0-9.-]{1,190}")


class NotifyError(SourceError):
    """`notify.yaml` cannot be used. Names line, field, problem and remedy, once for each thing wrong."""


class Chosen(Strict):
    """What every channel says: its name, and what goes there."""

    name: Annotated[str, Field(pattern=_NAME)]
    events: Annotated[tuple[str, ...], Field(min_length=1)] = ("approval.*", "switch.*")
    """Patterns of notice types."""
    tenants: Annotated[tuple[str, ...], Field(min_length=1)] = ("default",)
    """Whose notices go there; `*` for all tenants'."""
    automations: tuple[str, ...] = ("*",)
    """Only notices about these, where a notice is about an automation."""
    approvers: tuple[str, ...] = ("*",)
    """Only questions that ask for these roles or groups, where a notice is about a question."""

    @field_validator("events")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not any(any_glob(name, (pattern,)) for name in NOTICE_TYPES):
                raise ValueError(f"`{pattern}` fits no notice; there are {', '.join(NOTICE_TYPES)}")
        return value

    def takes(self, notice: Notice) -> bool:
        """Whether the notice goes there."""
        automation, approvers = notice.body.get("automation"), notice.body.get("approvers")
        return (
            any_glob(notice.type, self.events)
            # What concerns all tenants (tenant `-`) is told wherever the installation's own is.
            and (any_glob(notice.tenant, self.tenants) or notice.tenant == INSTALLATION)
            and (not isinstance(automation, str) or any_glob(automation, self.automations))
            and (not isinstance(approvers, str) or any_glob(approvers, self.approvers))
        )


class WebhookChannel(Chosen):
    """A program: notices as signed JSON (Standard Webhooks)."""

    kind: Literal["webhook"]
    url: Annotated[str, Field(max_length=2000)]
    secret: Annotated[str, Field(pattern=_NAME)]
    """Name of the signing secret (`whsec_` and base64): the variable `GATEHOUSE_NOTIFY_SECRET_<NAME>`."""

    @field_validator("url")
    @classmethod
    def _sound(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.password:
            raise ValueError("give an address that begins with https://, without a user or password")
        return value


class EmailChannel(Chosen):
    """People's mailboxes. The message names the question and links to it; answering takes a log-in."""

    kind: Literal["email"]
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    """`none` only for a server on this machine."""
    user: str | None = None
    secret: Annotated[str, Field(pattern=_NAME)] | None = None
    """Name of the password's secret."""
    sender: Annotated[str, Field(max_length=255)]
    to: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]

    @field_validator("sender", "to")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for address in (value,) if isinstance(value, str) else value:
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"`{address}` is no mail address")
        return value


class SlackChannel(Chosen):
    """A Slack channel. The message names the question and links to it, never its arguments."""

    kind: Literal["slack"]
    secret: Annotated[str, Field(pattern=_NAME)]
    """Name of the secret that holds the incoming webhook's address."""
    buttons: bool = False
    """Approve and Deny in the message itself; takes `people`, and the signing secret of the Slack app at the API."""


Channel = Annotated[WebhookChannel | EmailChannel | SlackChannel, Field(discriminator="kind")]


class Person(Strict):
    """Somebody by the names they have elsewhere. What they may do is what their roles may, as everywhere."""

    principal: Annotated[str, Field(min_length=1, max_length=128)]
    """Id they are known by here: the one of their API key or sign-in."""
    tenant: Annotated[str, Field(min_length=1, max_length=64)] = "default"
    roles: tuple[str, ...] = ()
    """With which they answer in Slack."""
    slack: Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{2,20}$")] | None = None
    """Slack's member id."""
    mail: Annotated[str, Field(max_length=255)] | None = None

    @field_validator("mail")
    @classmethod
    def _sound(cls, value: str | None) -> str | None:
        if value is not None and not _ADDRESS.fullmatch(value):
            raise ValueError(f"`{value}` is no mail address")
        return value

    @property
    def known_as(self) -> Principal:
        """The principal they are."""
        return Principal(id=self.principal, tenant=self.tenant, roles=self.roles)


class SlackApp(Strict):
    """Where buttons are pressed."""

    team: Annotated[str, Field(pattern=r"^[TE][A-Z0-9]{2,20}$")] | None = None
    """Id of the only workspace whose people are meant; any that has our app when unset."""
    responses: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+$")] = "https://hooks.slack.com"
    """Messages are updated there and nowhere else."""


class NotifyFile(Strict):
    """The whole file."""

    apiVersion: Literal["gatehouse/v1"]  # noqa: N815  (as in every file people write here)
    console: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")] | None = None
    """Address of this installation as people reach it; links begin with it."""
    networks: tuple[str, ...] = ()
    """Networks that are not public and may be reached all the same, such as `10.1.0.0/16`."""
    channels: tuple[Channel, ...] = ()
    people: tuple[Person, ...] = ()
    slack: SlackApp = SlackApp()

    def by_slack(self, member: str) -> Person | None:
        """Whom Slack knows by that member id."""
        return next((person for person in self.people if person.slack == member), None)

    def by_mail(self, address: str) -> Person | None:
        """Whose mailbox it is."""
        return next((p for p in self.people if p.mail is not None and p.mail.lower() == address.lower()), None)

    def by_id(self, principal: str, tenant: str) -> Person | None:
        """Somebody by the id they have here."""
        return next((p for p in self.people if (p.principal, p.tenant) == (principal, tenant)), None)

    @field_validator("networks")
    @classmethod
    def _sound(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value


def load(home: Path | None, secrets: "Secrets | None" = None) -> NotifyFile:
    """The file, or an empty one where there is none. Without `secrets`, which only the keeper holds, whether they are
    there is not looked at. Raises NotifyError."""
    if home is None or not (home / FILE).exists():
        return NotifyFile(apiVersion="gatehouse/v1")
    document = read_document(home / FILE, NotifyError)
    found = parse_as(NotifyFile, document, NotifyError)
    wrong = _mistakes(document, found, secrets)
    if wrong:
        raise NotifyError(*wrong)
    return found


def _mistakes(document: Document, found: NotifyFile, secrets: "Secrets | None") -> list[Problem]:
    wrong = _doubles(document, found)
    names: set[str] = set()
    for index, channel in enumerate(found.channels):
        at = ("channels", index)
        if channel.name in names:
            wrong.append(document.problem((*at, "name"), f"a second channel is called `{channel.name}`", "rename it"))
        names.add(channel.name)
        if secrets is not None and channel.secret is not None and secrets.get(channel.secret) is None:
            variable = SECRET_PREFIX + channel.secret.upper().replace("-", "_")
            wrong.append(document.problem((*at, "secret"), f"there is no secret `{channel.secret}`", f"set {variable}"))
        if isinstance(channel, EmailChannel) and channel.tls == "none" and channel.host not in _HERE:
            wrong.append(
                document.problem((*at, "tls"), "mail would travel in plain text", "use `starttls`, or a server here")
            )
    return wrong


def _doubles(document: Document, found: NotifyFile) -> list[Problem]:
    """Two people under one name elsewhere: then nobody could say who pressed."""
    wrong: list[Problem] = []
    seen: set[tuple[str, str]] = set()
    for index, person in enumerate(found.people):
        for field, name in (("slack", person.slack), ("mail", person.mail and person.mail.lower())):
            if name and (field, name) in seen:
                problem = f"`{name}` is somebody else already"
                wrong.append(document.problem(("people", index, field), problem, "give each their own"))
            seen.add((field, name or ""))
    return wrong


class Secrets:
    """Secrets of channels, from the keeper's environment."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    def get(self, name: str) -> SecretStr | None:
        """The secret of that name, if it is set."""
        found = self._environment.get(SECRET_PREFIX + name.upper().replace("-", "_"))
        return SecretStr(found) if found else None
