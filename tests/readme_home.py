"""The tool, rule and automation the README shows, as a folder for GATEHOUSE_HOME: what it shows must work."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
_FILE = re.compile(r"^```(?:yaml|python)\n# (\S+/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_home(home: Path) -> list[str]:
    """Write every file the README shows under `home`; their names."""
    names: list[str] = []
    for name, content in _FILE.findall(README.read_text()):
        target = home / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        names.append(name)
    return names
