"""What all models of the client have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict

JsonObject = dict[str, Any]
"""JSON whose shape an automation or a tool decides, or that was written by a model."""


class Told(BaseModel):
    """What the API says. Frozen; fields and words that a newer server added do not break an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Given(BaseModel):
    """What a caller says. Frozen; a field that does not exist is an error here already."""

    model_config = ConfigDict(frozen=True, extra="forbid")
