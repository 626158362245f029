"""Checking JSON in workflow code: the same check, by the same library, as everywhere else (tools.schemas)."""

from tools.schemas import MAX_PROBLEMS, problems

__all__ = ["MAX_PROBLEMS", "problems"]
