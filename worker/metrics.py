"""Numbers of a worker for Prometheus, beside those that the Temporal SDK counts, on one address.

Off unless `GATEHOUSE_METRICS_ADDRESS` is set. The SDK's runtime serves them, so nothing else listens or is installed.
"""

from typing import Final, Protocol

from temporalio.common import MetricCounter, MetricGaugeFloat, MetricHistogramFloat, MetricMeter
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

QUEUES: Final = ("runs", "models", "sandbox", "keeper")
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)
TIMED: Final = {
    "gatehouse_pool_refill_seconds": "How long it took to start a box ahead.",
    "gatehouse_box_seconds": "How long a call had its box: start, program and result.",
}
COUNTED: Final = {
    "gatehouse_pool_hits": "Calls that found a box waiting.",
    "gatehouse_pool_dry": "Calls that had to start their own.",
    "gatehouse_pool_failed": "Boxes that could not be started ahead.",
    "gatehouse_pool_expired": "Boxes that went unused: too old, not wanted any more, or dead.",
    "gatehouse_box_runs": "Programs that ended, by ending, and whether their box came from the pool.",
}
LEVELS: Final = {
    "gatehouse_pool_boxes": "Boxes that wait now.",
    "gatehouse_notices_pending": "Notices that nobody has taken yet.",
    "gatehouse_notices_dead": "Deliveries that were given up.",
    "gatehouse_notices_oldest_seconds": "How long the oldest notice that nobody has taken has waited.",
    "gatehouse_stops_unconfirmed": "Runs that a switch stops and that are not confirmed to stand still.",
}


class Metrics:
    """Counts by name; a name that is not in the catalogue above is a KeyError."""

    def __init__(self, meter: MetricMeter) -> None:
        self._counters: dict[str, MetricCounter] = {n: meter.create_counter(n, text) for n, text in COUNTED.items()}
        self._levels: dict[str, MetricGaugeFloat] = {n: meter.create_gauge_float(n, text) for n, text in LEVELS.items()}
        self._timed: dict[str, MetricHistogramFloat] = {
            n: meter.create_histogram_float(n, text, "s") for n, text in TIMED.items()
        }

    def count(self, name: str, **labels: str) -> None:
        """One more."""
        self._counters[name].add(1, labels or None)

    def level(self, name: str, value: float) -> None:
        """So many now."""
        self._levels[name].set(value)

    def took(self, name: str, seconds: float) -> None:
        """One that took so long."""
        self._timed[name].record(seconds)


class _Address(Protocol):
    @property
    def metrics_address(self) -> str | None: ...


def runtime(address: str) -> Runtime:
    """A runtime that serves `http://<address>/metrics`. Raises RuntimeError, ValueError when it cannot listen there."""
    buckets = dict.fromkeys(TIMED, _SECONDS)
    return Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(address, histogram_bucket_overrides=buckets)))


def serve(settings: _Address, queue: str) -> None:
    """Serve this process's numbers, if they are asked for. Once, before the first connection to Temporal.

    The workers of one installation share their settings: runs listens on the port that is set, models on the next one,
    sandbox on the one after, the keeper on the one after that.
    """
    if settings.metrics_address is None:
        return
    host, _, port = settings.metrics_address.rpartition(":")
    Runtime.set_default(runtime(f"{host}:{int(port) + QUEUES.index(queue)}"))
