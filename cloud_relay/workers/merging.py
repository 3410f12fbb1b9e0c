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
    "_seconds", "_up", "_unknown", "_passed_over", "_soon", "_info", "_ratio", "_stage", "_generation", "_connectors",
    "_unfit",
)  # fmt: skip
"""Ends of gauges' names that no sum makes sense of: times, states, and what every worker counts alike. The largest
counts."""

_LEAST: Final = ("_success", "_silence_seconds", "_probe_age_seconds")
"""Ends of those of which the smallest counts: what did not go well somewhere, and how long ago somebody was heard of
anywhere."""

_NOBODY: Final = -1

SampleKey = tuple[str, tuple[tuple[str, str], ...]]


_COUNTED: Final = frozenset({"counter", "histogram"})


class Shown:
    """What workers have shown last. What ended processes have counted stays in the sums: a sum that falls would be
    taken for a relay that has begun anew, and all of it be counted once more."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, bytes]] = {}
        self._ended = b""

    def take(self, worker: int, pid: int, text: bytes) -> None:
        """A worker's exposition. ValueError for what is none."""
        before, last = self._last.get(worker, (pid, b""))
        if before != pid:
            self._ended = _counts(self._ended, last)
        self._last[worker] = pid, text

    def merged(self) -> bytes:
        """One exposition, also of those that do not answer just now."""
        return merge({number: text for number, (_, text) in self._last.items()}, self._ended)


def merge(shown: Mapping[int, bytes], ended: bytes = b"") -> bytes:
    """The expositions (text, version 0.0.4) of workers by their number, as one; `ended` holds more of their counts.

    Counters, histograms and amounts are added up. ValueError for what is no exposition.
    """
    registry = CollectorRegistry()
    registry.register(_Merged({**shown, _NOBODY: ended}))
    return generate_latest(registry)


def _counts(*texts: bytes) -> bytes:
    """What these have counted together."""
    registry = CollectorRegistry()
    registry.register(_Merged(dict(enumerate(texts)), counts_only=True))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, shown: Mapping[int, bytes], *, counts_only: bool = False) -> None:
        self._shown = shown
        self._counts_only = counts_only

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        merged: dict[str, Metric] = {}
        values: dict[str, dict[SampleKey, float]] = {}
        for worker, text in sorted(self._shown.items()):
            for family in text_string_to_metric_families(text.decode()):
                if self._counts_only and (family.type not in _COUNTED or family.name.startswith(_OF_ONE_PROCESS)):
                    continue
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
