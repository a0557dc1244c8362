"""Answers ``GET /metrics`` with the statistics of the loaded models' sessions, for Prometheus.

The rule that holds here: every figure is a session's own fold over its records (`Runtime.statistics`), so the log gives
the same figures; only the length of the log is its file's. A model that is loaded again counts from 0, which Prometheus
takes as a restart.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, get_args

from attrs import frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from reenact.actors.events import FinishReason
from reenact.actors.metrics import TIME_BOUNDS, Distribution, Statistics
from reenact.runtime.http.models import Models, Running

_GAUGES: Final = {
    "slots": "The most sequences that are evaluated together.",
    "active": "Sequences that have a slot.",
    "waiting": "Requests that wait for a slot.",
    "cells": "Cells of all slots.",
    "used_cells": "Cells that hold inputs, including those of sequences that have ended.",
}
_COUNTERS: Final = {
    "requests": "Requests received.",
    "refused": "Requests that were impossible.",
    "batches": "Batches decoded.",
    "rows": "Rows planned.",
    "sampled": "Tokens sampled.",
    "prompt": "Tokens of prompts that got a slot.",
    "cached": "Of these, tokens that were in cells already.",
    "truncated": "Tokens of prompts that were left out.",
    "forks": "Sequences that began with a copy of another one's cells.",
    "shifts": "Context shifts.",
    "preempted": "Slots lost.",
    "aborted": "Batches that ended early.",
    "records": "Records of the log.",
}
_TIMES: Final = {
    "queue": "Seconds from a request's arrival to its slot.",
    "first_token": "Seconds from a request's arrival to its first token.",
    "inter_token": "Seconds between two tokens of a sequence.",
}
_MODEL: Final = ("model",)


class StatisticsCollector(Collector):
    """Collects the statistics of sessions, read when it is made."""

    def __init__(self, running: Iterable[Running]) -> None:
        self._running = [(one.card.name, one.runtime.statistics(), one.runtime.n_log_bytes) for one in running]

    def collect(self) -> Iterator[Metric]:
        """Return each figure with its value for each model."""
        for name, meaning in _GAUGES.items():
            yield self._filled(GaugeMetricFamily(f"reenact_{name}", meaning, labels=_MODEL), name)
        for name, meaning in _COUNTERS.items():
            yield self._filled(CounterMetricFamily(f"reenact_{name}", meaning, labels=_MODEL), name)
        for name, meaning in _TIMES.items():
            yield self._histogram(name, meaning)
        yield from self._others()

    def _filled(
        self, family: GaugeMetricFamily | CounterMetricFamily, name: str
    ) -> GaugeMetricFamily | CounterMetricFamily:
        for model, statistics, _ in self._running:
            family.add_metric([model], _count(statistics, name))
        return family

    def _histogram(self, name: str, meaning: str) -> Metric:
        family = HistogramMetricFamily(f"reenact_{name}_time_seconds", meaning, labels=_MODEL)
        for model, statistics, _ in self._running:
            found: Distribution = getattr(statistics, f"{name}_time")
            counts = zip(map(str, TIME_BOUNDS), getattr(statistics, f"{name}_at_most"), strict=True)
            family.add_metric([model], list(chain(counts, [("+Inf", found.count)])), _total(found))
        return family

    def _others(self) -> Iterator[Metric]:
        finished = CounterMetricFamily("reenact_finished", "Requests that have ended.", labels=("model", "reason"))
        decoding = SummaryMetricFamily(
            "reenact_decode_time_seconds", "Seconds from the plan of a batch to its outcome.", labels=_MODEL
        )
        written = CounterMetricFamily("reenact_log_bytes", "Bytes of the log.", labels=_MODEL)
        for model, statistics, n_bytes in self._running:
            for reason in get_args(FinishReason):
                finished.add_metric([model, reason], statistics.ends.get(reason, 0))
            decoding.add_metric([model], statistics.decode_time.count, _total(statistics.decode_time))
            written.add_metric([model], n_bytes)
        yield from (finished, decoding, written)


def _count(statistics: Statistics, name: str) -> int:
    count: int = getattr(statistics, f"n_{name}")
    return count


def _total(of: Distribution) -> float:
    return of.mean * of.count


@frozen
class MetricsEndpoint:
    """Answers ``GET /metrics``."""

    models: Models

    async def __call__(self, _: Request) -> Response:
        """Return the current figures."""
        registry = CollectorRegistry()
        registry.register(StatisticsCollector(self.models.running()))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
