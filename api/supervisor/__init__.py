"""Keeps one machine's Gatehouse running: Temporal, migration, workers, keeper, API. Used by `gatehouse up|down`."""
