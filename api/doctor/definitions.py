"""Tools, rules and automations, and who is told what: do they load?"""

from dataclasses import dataclass
from pathlib import Path

from api.doctor.finding import Finding, fail, ok
from policies.rules import RuleError, load_rules, rule_paths
from tools.catalog import BUILT_IN, load_tools
from tools.errors import ToolError
from worker.automations import AutomationError, automation_paths, read_all
from worker.notify.channels import NotifyError, load
from worker.settings import Settings

REMEDY = "gatehouse automations validate lists every problem with its line"


@dataclass(frozen=True)
class Definitions:
    """What loading everything found. `problems` name file, line, field and remedy."""

    problems: list[str]
    summary: str


def check_definitions(home: Path | None) -> Definitions:
    """Load the built-in and the user's definitions the way the system does at start."""
    own = home / "tools" if home else None
    try:
        tools = load_tools([BUILT_IN, *([own] if own and own.is_dir() else [])])
    except ToolError as error:
        return Definitions([str(error)], "")
    problems: list[str] = []
    rules = automations = 0
    try:
        rules = len(load_rules(rule_paths(home), set(tools)).rules)
    except RuleError as error:
        problems += [str(p) for p in error.problems]
    try:
        automations = len(read_all(automation_paths(home), {name: tool.spec for name, tool in tools.items()}))
    except AutomationError as error:
        problems += [str(p) for p in error.problems]
    where = f"built-in and {home}" if home else "built-in"
    return Definitions(problems, f"{len(tools)} tools, {rules} rules, {automations} automations are valid ({where})")


def examine(settings: Settings) -> list[Finding]:
    """One finding over all three."""
    found = check_definitions(settings.home)
    if found.problems:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        return [fail("definitions", found.problems[0] + more, REMEDY)]
    return [ok("definitions", found.summary)]


def notify(settings: Settings) -> list[Finding]:
    """One finding over `notify.yaml`. The secrets of channels are the keeper's alone, so they are not looked for."""
    try:
        found = load(settings.home)
    except NotifyError as error:
        return [fail("notify", str(error.problems[0]), "mend notify.yaml; until then what was read before it counts")]
    if not found.channels:
        return [ok("notify", "no channels: people are told nothing, and look at the queue")]
    return [ok("notify", f"{len(found.channels)} channels, {len(found.people)} people")]
