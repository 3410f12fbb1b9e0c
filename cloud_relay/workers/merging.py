"""One relay's metrics out of its workers': what each of them shows, put together by the kind of figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_OF_ONE_PROCESS: Final = ("process_", "python_")
"""Families that say something of a process: kept apart by a label `worker`."""

_NOT_ADDED: Final = (
    "_seconds", "_up", "_unknown", "_passed_over", "_info", "_ratio", "_stage", "_generation", "_connectors",
)  # fmt: skip
"""Ends of gauges' names that no sum makes sense of: times, states, and what every worker counts alike. The largest
counts."""

_LEAST: Final = ("_success", "_silence_seconds")
"""Ends of those of which the smallest counts: what did not go well somewhere, and how long ago somebody was heard of
anywhere."""

SampleKey = tuple[str, tuple[tuple[str, str], ...]]


def merge(shown: Mapping[int, bytes]) -> bytes:
    """The expositions (text, version 0.0.4) of workers by their number, as one.

    Counters, histograms and amounts are added up. ValueError for what is no exposition.
    """
    registry = CollectorRegistry()
    registry.register(_Merged(shown))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, shown: Mapping[int, bytes]) -> None:
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        merged: dict[str, Metric] = {}
        values: dict[str, dict[SampleKey, float]] = {}
        for worker, text in sorted(self._shown.items()):
            for family in text_string_to_metric_families(text.decode()):
                known = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                _add(known, values.setdefault(family.name, {}), family, worker)
        for name, family in merged.items():
            for (sample, labels), value in values[name].items():
                family.add_sample(sample, dict(labels), value)
            yield family


def _add(known: Metric, values: dict[SampleKey, float], family: Metric, worker: int) -> None:
    choose = min if family.name.endswith(_LEAST) else max
    is_added = known.type != "gauge" or not family.name.endswith(_NOT_ADDED + _LEAST)
    own = {"worker": str(worker)} if family.name.startswith(_OF_ONE_PROCESS) else {}
    for sample in family.samples:
        key = (sample.name, tuple((sample.labels | own).items()))
        before = values.get(key)
        if before is None:
            values[key] = sample.value
        else:
            values[key] = before + sample.value if is_added else choose(before, sample.value)
