"""Server-sent events as bytes bring them: no I/O, so that every way of reading a stream uses the same parser."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    """One event that has an id and data."""

    id: str
    event: str
    data: str


class EventParser:
    """Fed line by line, without line ends; an empty line ends an event."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> ServerSentEvent | None:
        """The event this line completes. Comments and events without id or data (`retry`) give None."""
        if not line:
            done, self._fields = self._fields, {}
            if "data" in done and done.get("id"):
                return ServerSentEvent(done["id"], done.get("event", ""), done["data"])
            return None
        if not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            more = name == "data" and name in self._fields
            self._fields[name] = f"{self._fields[name]}\n{value}" if more else value
        return None
