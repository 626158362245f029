"""Addresses handed to clients."""

from urllib.parse import quote

from worker.settings import Settings

API = "/api/v1"


def temporal_link(settings: Settings, run_id: str) -> str:
    """The run's page in the Temporal UI."""
    namespace = quote(settings.temporal_namespace, safe="")
    return f"{settings.temporal_ui.rstrip('/')}/namespaces/{namespace}/workflows/{quote(run_id, safe='')}"


def run_link(run_id: str, *parts: str) -> str:
    """Path of a run, or of something below it."""
    return "/".join([f"{API}/runs/{quote(run_id, safe='')}", *(quote(p) for p in parts)])
