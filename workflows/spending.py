"""What a run has used so far, measured against its budgets. Pure."""

from dataclasses import dataclass

from pydantic_ai.messages import ModelResponse

from workflows.contracts import Carried
from workflows.spec import Budgets

COST_KEY = "gatehouse_cost_microusd"
"""Key of a response's metadata under which the models worker leaves the price (None: not known)."""


@dataclass
class Spent:
    """Running totals of one run, over all its continued parts. Waiting for humans is not work."""

    steps: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int = 0
    unpriced: bool = False

    @classmethod
    def carried(cls, carried: Carried | None) -> "Spent":
        """The totals a former part handed over."""
        if carried is None:
            return cls()
        return cls(
            steps=carried.steps,
            tool_calls=carried.tool_calls,
            input_tokens=carried.input_tokens,
            output_tokens=carried.output_tokens,
            cost_microusd=carried.cost_microusd,
            unpriced=carried.unpriced,
        )

    @property
    def known_cost_microusd(self) -> int | None:
        """The cost, or None when a model of unknown price was used."""
        return None if self.unpriced else self.cost_microusd

    def add(self, response: ModelResponse) -> int | None:
        """Count one answered model request and return its price in millionths of a dollar, None when not known."""
        self.steps += 1
        self.input_tokens += response.usage.input_tokens
        self.output_tokens += response.usage.output_tokens
        cost = (response.metadata or {}).get(COST_KEY)
        if not isinstance(cost, int):
            self.unpriced = True
            return None
        self.cost_microusd += cost
        return cost

    def left_usd(self, budgets: Budgets) -> float | None:
        """What is left of the money, never below zero; None when the cost is not known."""
        if self.unpriced:
            return None
        return max(0.0, budgets.money_usd - self.cost_microusd / 1_000_000)

    def breach(self, budgets: Budgets, worked_s: float) -> str | None:
        """Which budget leaves no room for another model request, for people; None when there is room."""
        tokens = self.input_tokens + self.output_tokens
        if self.steps >= budgets.steps:
            return f"budget of {budgets.steps} model requests used up"
        if tokens >= budgets.tokens:
            return f"budget of {budgets.tokens} tokens used up ({tokens})"
        if self.cost_microusd >= budgets.money_usd * 1_000_000 and self.cost_microusd > 0:
            return f"budget of ${budgets.money_usd:g} used up (${self.cost_microusd / 1e6:.4f})"
        if worked_s >= budgets.wall_time_s:
            return f"budget of {budgets.wall_time_s} s working time used up ({worked_s:.0f} s)"
        return None

    def no_room_for(self, calls: int, budgets: Budgets) -> str | None:
        """Why `calls` more tool calls may not be made, for people; None when they may."""
        if self.tool_calls + calls > budgets.tool_calls:
            return f"budget of {budgets.tool_calls} tool calls does not cover {calls} more ({self.tool_calls} made)"
        return None
