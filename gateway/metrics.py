"""What Prometheus reads at `/metrics`."""

import os

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

requests_total = Counter("gateway_requests_total", "Requests answered.", ["method", "route", "status"])
request_seconds = Histogram("gateway_request_seconds", "Time to an answer.", ["method", "route"], buckets=_SECONDS)
rpc_seconds = Histogram(
    "gateway_rpc_seconds", "Time to a service's answer.", ["service", "method", "outcome"], buckets=_SECONDS
)
rpc_in_flight = Gauge("gateway_rpc_in_flight", "Calls waiting for a service.", ["service"], multiprocess_mode="livesum")
breaker_open = Gauge(
    "gateway_breaker_open", "1 while calls to a service are refused.", ["service"], multiprocess_mode="livemax"
)
records_waiting_bytes = Gauge(
    "gateway_records_waiting_bytes", "Records of calls that wait on disk for the bus.", multiprocess_mode="livesum"
)
records_lost_total = Counter("gateway_records_lost_total", "Records of calls that could not be written to disk.")


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format, summed over workers when there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
