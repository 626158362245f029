"""What the README shows must work: its tool, rule and automation as a folder for GATEHOUSE_HOME, and its program."""

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


def client_program() -> str:
    """The program that shows the Python client."""
    (program,) = re.findall(r"^```python\n(import asyncio\n.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(program)
