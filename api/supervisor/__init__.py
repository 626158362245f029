"""Keeps one machine's Gatehouse running: Temporal, store migration, three workers, API. Used by `gatehouse up|down`."""
