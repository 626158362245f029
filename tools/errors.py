"""What can be wrong with a tool as written: one error that says where, what, and what to do."""

from pathlib import Path


class ToolError(Exception):
    """A tool's manifest or program cannot be used.

    `field` is a dotted path into the manifest, empty when the file as a whole is meant.
    """

    def __init__(self, file: Path, field: str, problem: str, remedy: str) -> None:
        where = f"{file}: {field}" if field else str(file)
        super().__init__(f"{where}: {problem}. {remedy}")
        self.file = file
        self.field = field
        self.problem = problem
        self.remedy = remedy
