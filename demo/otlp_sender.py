"""Senders of OTLP/HTTP: the OpenTelemetry SDK with its own exporter, as an application would set it up.

python otlp_sender.py SETTINGS_FILE
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from demo.events import emit, emit_acknowledged
from demo.measurements import PUSH_METRIC, Measurement, measure
from demo.recording import RecordingAdapter
from demo.settings import SenderSettings, read_settings

_PATIENCE_S = 4.0  # for pushes in flight at the end


class OtlpSender:
    """One application's metrics, pushed every `interval` seconds by one thread."""

    def __init__(self, name: str, settings: SenderSettings) -> None:
        self.name = name
        self._interval = settings.interval_s
        self._adapter = RecordingAdapter()
        session = requests.Session()
        session.trust_env = False  # or a CA bundle or proxy of the environment would win over our own settings
        session.mount("https://", self._adapter)
        session.mount("http://", self._adapter)
        self._exporter = OTLPMetricExporter(
            endpoint=settings.url,
            certificate_file=settings.ca_file,
            headers={"Authorization": settings.authorization},
            session=session,
        )
        self._number = 0
        self._measured: list[Measurement] = []
        self._reader = InMemoryMetricReader()
        provider = MeterProvider([self._reader], Resource.create({"service.name": name}), shutdown_on_exit=False)
        meter = provider.get_meter("qanat.demo")
        meter.create_observable_gauge(PUSH_METRIC, [self._observe_push])
        for metric in sorted({one.name for one in measure()}):
            meter.create_observable_gauge(metric, [self._observer(metric)])

    def _observe_push(self, options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._number, {"sender": self.name})]

    def _observer(self, metric: str) -> _Observer:
        return _Observer(self, metric)

    def values_of(self, metric: str) -> list[Observation]:
        """What the last measuring said about one metric."""
        return [Observation(one.value, dict(one.labels)) for one in self._measured if one.name == metric]

    def run(self, stopping: threading.Event) -> None:
        """Pushes until `stopping` is set."""
        while not stopping.wait(self._interval):
            self._push()

    def _push(self) -> None:
        self._number += 1
        push = f"{self.name}/{self._number}"
        self._measured = measure()
        data = self._reader.get_metrics_data()
        if not isinstance(data, MetricsData):
            return
        self._adapter.begin(push)
        emit("sent", id=push)
        if self._exporter.export(data) is MetricExportResult.SUCCESS:
            emit_acknowledged(push, self._adapter.began)
        else:
            emit("refused", id=push)

    def shutdown(self) -> None:
        """Ends the exporter's own waiting between two tries."""
        self._exporter.shutdown()


class _Observer:
    """A callback for one metric, as the SDK wants it."""

    def __init__(self, sender: OtlpSender, metric: str) -> None:
        self._sender = sender
        self._metric = metric

    def __call__(self, options: CallbackOptions) -> Iterable[Observation]:
        return self._sender.values_of(self._metric)


def run(settings: SenderSettings, stopping: threading.Event) -> None:
    """All senders of this process, until `stopping`; then each settles the push that it has in flight."""
    senders = [OtlpSender(name, settings) for name in settings.names]
    threads = [threading.Thread(target=one.run, args=(stopping,), name=one.name) for one in senders]
    for thread in threads:
        thread.start()
    stopping.wait()
    for thread in threads:
        thread.join(_PATIENCE_S)
    for sender in senders:
        sender.shutdown()
    for thread in threads:
        thread.join()


def main() -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the demo's to handle
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # failed attempts are the demo's subject
    run(read_settings(Path(sys.argv[1])), stopping)


if __name__ == "__main__":
    main()
