"""Answers ``GET /metrics`` with the statistics of the loaded models' sessions, for Prometheus.

The rule that holds here: every figure is a session's own fold over its records (`Runtime.statistics`), so the log gives
the same figures. A model that is loaded again counts from 0, which Prometheus takes as a restart.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from reenact.actors.metrics import Statistics
from reenact.runtime.http.models import Models, Running

_GAUGES: Final = {
    "slots": "The most sequences that are evaluated together.",
    "active": "Sequences that have a slot.",
    "waiting": "Requests that wait for a slot.",
}
_COUNTERS: Final = {
    "requests": "Requests received.",
    "refused": "Requests that were impossible.",
    "finished": "Requests that have ended, for any reason.",
    "batches": "Batches decoded.",
    "rows": "Rows planned.",
    "sampled": "Tokens sampled.",
    "prompt": "Tokens of prompts that got a slot.",
    "cached": "Of these, tokens that were in cells already.",
    "truncated": "Tokens of prompts that were left out.",
    "shifts": "Context shifts.",
    "preempted": "Slots lost.",
    "aborted": "Batches that ended early.",
    "records": "Records of the log.",
}
_TIMES: Final = {
    "queue_time": "Seconds from a request's arrival to its slot.",
    "first_token_time": "Seconds from a request's arrival to its first token.",
    "inter_token_time": "Seconds between two tokens of a sequence.",
}


class StatisticsCollector(Collector):
    """Collects the statistics of sessions, read when it is made."""

    def __init__(self, running: Iterable[Running]) -> None:
        self._running = [(one.card.name, one.runtime.statistics()) for one in running]

    def collect(self) -> Iterator[Metric]:
        """Return each figure with its value for each model."""
        for name, meaning in _GAUGES.items():
            yield self._filled(GaugeMetricFamily(f"reenact_{name}", meaning, labels=["model"]), name)
        for name, meaning in _COUNTERS.items():
            yield self._filled(CounterMetricFamily(f"reenact_{name}", meaning, labels=["model"]), name)
        for name, meaning in _TIMES.items():
            family = SummaryMetricFamily(f"reenact_{name}_seconds", meaning, labels=["model"])
            for model, statistics in self._running:
                found = getattr(statistics, name)
                family.add_metric([model], count_value=found.count, sum_value=found.mean * found.count)
            yield family

    def _filled(
        self, family: GaugeMetricFamily | CounterMetricFamily, name: str
    ) -> GaugeMetricFamily | CounterMetricFamily:
        for model, statistics in self._running:
            family.add_metric([model], _count(statistics, name))
        return family


def _count(statistics: Statistics, name: str) -> int:
    count: int = getattr(statistics, f"n_{name}")
    return count


@frozen
class MetricsEndpoint:
    """Answers ``GET /metrics``."""

    models: Models

    async def __call__(self, _: Request) -> Response:
        """Return the current figures."""
        registry = CollectorRegistry()
        registry.register(StatisticsCollector(self.models.running()))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
