"""Whole-system tests: every part its own process, people only through HTTP, faults by kill -9."""
