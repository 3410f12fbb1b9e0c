"""Metrics that cost the hot path an integer addition: plain ints, read by a collector only when somebody scrapes.

    metrics = Metrics()
    pushes = metrics.counter("qanat_relay_pushes", "Pushes answered.", ("route", "status"))
    cell = pushes.labels("focused-run", "200")      # once, at set-up or when first seen
    cell.value += 1                                 # for each push

Everything belongs to the event loop's thread; there are no locks. The number of label sets of a family is bounded: what
comes after is counted under the label "other".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from shared.metric_cells import Counter, HistogramCell

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
MAX_SERIES: Final = 5_000
"""Label sets of one family. Labels come from the config; this bounds what a mistake can cost the monitoring system."""

OTHER: Final = "other"

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Buckets for the time of a push: from a loopback's to a sender's patience."""

BYTES: Final = tuple(float(1 << power) for power in range(8, 31, 2))
"""Buckets for sizes: 256 bytes to 1 GiB in steps of four."""

CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""Classes of status, as a label's values: without an answer, 100 to 199, …"""

Labels = tuple[str, ...]
Sample = tuple[Labels, float]
"""Label values and a value."""

GaugeSource = Callable[[], float | Mapping[Labels, float]]


AnyCell = TypeVar("AnyCell")


class _Family(Generic[AnyCell]):
    """Cells of one name by their label values."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], make: Callable[[], AnyCell]) -> None:
        self.name = name
        self.help = help_text
        self.label_names = tuple(labels)
        self._make = make
        self._cells: dict[Labels, AnyCell] = {}

    def labels(self, *values: str) -> AnyCell:
        """The cell of these label values, the same one each time. Keep it where it is used often."""
        cell = self._cells.get(values)
        if cell is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}, not {values}")
            if len(self._cells) >= MAX_SERIES and OTHER not in values:
                return self.labels(*(OTHER for _ in values))
            cell = self._cells[values] = self._make()
        return cell

    def remove(self, *values: str) -> None:
        """Forget a label set, as when its route left the config."""
        self._cells.pop(values, None)

    def items(self) -> Iterable[tuple[Labels, AnyCell]]:
        return list(self._cells.items())


class CounterVec(_Family[Counter]):
    """A family of counters; shown with the suffix `_total`."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        super().__init__(name, help_text, labels, Counter)

    def collect(self) -> Metric:
        family = CounterMetricFamily(self.name, self.help, labels=self.label_names)
        for labels, cell in self.items():
            family.add_metric(labels, cell.value)
        return family


class Histogram(_Family[HistogramCell]):
    """A family of histograms with fixed buckets, given by their upper bounds in rising order."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> None:
        bounds = tuple(buckets)
        if not bounds or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"the buckets of {name} do not rise: {bounds}")
        super().__init__(name, help_text, labels, lambda: HistogramCell(bounds))
        self._names = [*map(str, bounds), "+Inf"]

    def collect(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.help, labels=self.label_names)
        for labels, cell in self.items():
            family.add_metric(labels, list(zip(self._names, accumulate(cell.counts), strict=True)), cell.sum)
        return family


class Gauge:
    """Values that are asked for when somebody scrapes: one number, or one for each label set."""

    def __init__(self, name: str, help_text: str, source: GaugeSource, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help_text
        self.label_names = tuple(labels)
        self._source = source

    def collect(self) -> Metric:
        family = GaugeMetricFamily(self.name, self.help, labels=self.label_names)
        values = self._source()
        if isinstance(values, Mapping):
            for count, (labels, value) in enumerate(values.items()):
                if count >= MAX_SERIES:
                    break
                family.add_metric(labels, value)
        else:
            family.add_metric((), values)
        return family


class Metrics:
    """All metrics of one process; renders the Prometheus text format."""

    def __init__(self, process: bool = True) -> None:
        self._families: dict[str, CounterVec | Histogram | Gauge] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        if process:
            ProcessCollector(registry=self._registry)
            PlatformCollector(registry=self._registry)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> CounterVec:
        """A new family of counters; `name` without `_total`."""
        return self._add(CounterVec(name, help_text, labels))

    def histogram(
        self, name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """A new family of histograms; base units (seconds, bytes) in the name."""
        return self._add(Histogram(name, help_text, labels, buckets))

    def gauge(self, name: str, help_text: str, source: GaugeSource, labels: Sequence[str] = ()) -> Gauge:
        """A new gauge. `source` returns a number, or with `labels` a mapping of label values to numbers."""
        return self._add(Gauge(name, help_text, source, labels))

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        for family in self._families.values():
            yield family.collect()

    def render(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self._registry)

    def _add(self, family: AnyFamily) -> AnyFamily:
        if family.name in self._families:
            raise ValueError(f"the metric {family.name} is made twice")
        self._families[family.name] = family
        return family


AnyFamily = TypeVar("AnyFamily", CounterVec, Histogram, Gauge)


def counter_family(name: str, text: str, labels: Labels, samples: Iterable[Sample]) -> Metric:
    """A counter made at the scrape, from numbers that are kept elsewhere."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def gauge_family(name: str, text: str, labels: Labels, samples: Iterable[Sample]) -> Metric:
    """A gauge made at the scrape, from numbers that are kept elsewhere."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
