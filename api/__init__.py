"""The ways in: HTTP API, CLI. Reads the store, talks to Temporal, never runs a tool."""
