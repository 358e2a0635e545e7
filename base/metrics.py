"""The metrics of the product, by the seed plan's names. Each process counts its own.

Labels have few values by design: an agent's name, a stream's name, a route, never an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Reading", "render"]

agent_tasks_total = Counter(
    "agent_tasks_total",
    "Tasks that an agent ended; status is success or failure.",
    ["agent", "status"],
)
agent_task_duration_seconds = Histogram(
    "agent_task_duration_seconds",
    "Seconds from taking a task to its end.",
    ["agent", "task_type"],
    buckets=(1, 5, 10, 30, 60, 120, 300, 600),
)
agent_active_tasks = Gauge("agent_active_tasks", "Tasks an agent works on now.", ["agent"])

api_requests_total = Counter(
    "api_requests_total",
    "HTTP requests answered; endpoint is the route's pattern.",
    ["method", "endpoint", "status_code"],
)
api_request_duration_seconds = Histogram(
    "api_request_duration_seconds",
    "Seconds from a request to the end of its answer.",
    ["method", "endpoint"],
)

llm_tokens_total = Counter(
    "llm_tokens_total",
    "Tokens of model calls; direction is input or output, cached input included.",
    ["provider", "model", "direction"],
)
llm_request_duration_seconds = Histogram(
    "llm_request_duration_seconds",
    "Seconds from asking the model to the end of its reply.",
    ["provider", "model"],
)
llm_cost_dollars_total = Counter(
    "llm_cost_dollars_total",
    "Dollars spent on model calls, by the price table.",
    ["provider", "model"],
)

redis_messages_total = Counter(
    "redis_messages_total",
    "Messages this process published; type is raw for bytes passed on unread.",
    ["channel", "message_type"],
)
portal_listeners = Gauge(
    "portal_listeners", "Pages, sockets and streams that follow the live view."
)
redis_queue_depth = Gauge(
    "redis_queue_depth",
    "Entries of a work stream not yet handled, when last asked.",
    ["queue"],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A gauge of another process, read just now: values by the labels' values, in their order."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    values: Mapping[tuple[str, ...], float]


def render(readings: Iterable[Reading] = ()) -> bytes:
    """All metrics of this process as text for Prometheus, and `readings` of others; serve it as
    `CONTENT_TYPE`.
    """
    registry = CollectorRegistry()
    registry.register(_Read(tuple(readings)))
    return generate_latest() + generate_latest(registry)


class _Read:
    """Readings as the library wants them."""

    def __init__(self, readings: tuple[Reading, ...]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        for reading in self._readings:
            family = GaugeMetricFamily(reading.name, reading.help, labels=reading.labels)
            for labels, value in sorted(reading.values.items()):
                family.add_metric(labels, value)
            yield family
