"""Benchmarks: each prints what it measured and, last, one JSON object."""
