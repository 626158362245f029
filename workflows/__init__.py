"""Deterministic orchestration: what happens in which order. Imports no I/O; effects are asked for through `ports`."""
