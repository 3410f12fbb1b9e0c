"""The OpenTelemetry SDK with its own OTLP/HTTP exporters, unmodified: what it measured and traced is at the target."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from tests.system.kit import Site
from tests.system.programs import until
from tests.system.targets import Target
from tests.system.test_credentials import SIGNER, client_certificate, fetch_token, use_all_kinds

pytestmark = pytest.mark.system

SENDERS = {"basic": "s4", "bearer": "ibp", "oauth": "oauth", "jwt": "jwt", "certificate": "mtls"}
"""Each kind of credential, and whose it is."""


@pytest.fixture(autouse=True)
def _no_bundles_of_the_machine(monkeypatch) -> None:
    """`requests` would take these rather than the exporter's file."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def push_metrics(site: Site) -> bool:
    exporter = OTLPMetricExporter(
        endpoint=site.url("/v1/metrics"),
        certificate_file=str(site.pki / "ca.pem"),
        headers={"Authorization": site.bearer},
        compression=Compression.Gzip,
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
    counter = provider.get_meter("test").create_counter("orders")
    counter.add(40, {"country": "DE"})
    counter.add(2, {"country": "DE"})
    flushed = provider.force_flush()
    provider.shutdown()
    return flushed


def push_trace(site: Site) -> int:
    """The id of the trace that was pushed."""
    exporter = OTLPSpanExporter(
        endpoint=site.url("/v1/traces"),
        certificate_file=str(site.pki / "ca.pem"),
        headers={"Authorization": site.basic},
    )
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("checkout") as span:
        trace_id = span.get_span_context().trace_id
    provider.shutdown()
    return trace_id


async def test_metrics_and_traces_arrive(site, target):
    site.expose(target)["allow"] = [{"methods": ["POST"], "path": "/v1", "sub_paths": True}]
    await site.start()

    assert await asyncio.to_thread(push_metrics, site)
    # The reader exports once more when it shuts down.
    (push, *_) = target.received
    assert push.headers["content-encoding"] == "gzip"
    request = ExportMetricsServiceRequest.FromString(gzip.decompress(push.body))
    (metric,) = request.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.sum.data_points[0].as_int) == ("orders", 42)

    trace_id = await asyncio.to_thread(push_trace, site)
    push = target.received[-1]
    assert (push.path, push.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
    (span,) = ExportTraceServiceRequest.FromString(push.body).resource_spans[0].scope_spans[0].spans
    assert (span.name, int.from_bytes(span.trace_id, "big")) == ("checkout", trace_id)


def credential(site: Site, kind: str) -> dict[str, Any]:
    """The exporter's arguments for one kind of credential."""
    if kind == "oauth":
        return {"session": fetch_token(site)}
    if kind == "certificate":
        certificate, key = client_certificate(site)
        return {"client_certificate_file": certificate, "client_key_file": key}
    value = {"basic": site.basic, "bearer": site.bearer, "jwt": f"Bearer {SIGNER.sign(sub='jwt').decode()}"}[kind]
    return {"headers": {"Authorization": value}}


class Tracing:
    """One program that traces: a span, its export, the next span. Each is exported once; nothing is kept of it."""

    def __init__(self, site: Site, kind: str) -> None:
        self.kind = kind
        self.count = 0
        self._is_over = threading.Event()
        exporter = OTLPSpanExporter(
            endpoint=site.url("/v1/traces"), certificate_file=str(site.pki / "ca.pem"), timeout=30,
            **credential(site, kind),
        )  # fmt: skip
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter))

    def run(self) -> None:
        tracer = self._provider.get_tracer("test")
        while not self._is_over.wait(0.05):
            with tracer.start_as_current_span(f"{self.kind}-{self.count}"):
                self.count += 1
        self._provider.shutdown()

    def stop(self) -> None:
        self._is_over.set()


def spans_at(target: Target) -> list[str]:
    """The names of all spans that arrived."""
    requests = [ExportTraceServiceRequest.FromString(push.body) for push in target.received]
    return [
        span.name
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


async def test_no_span_is_lost_over_a_restart_by_any_credential(site, target):
    use_all_kinds(site)
    site.expose(target)["allow"] = [{"methods": ["POST"], "path": "/v1", "sub_paths": True}]
    await site.start()
    programs = [await asyncio.to_thread(Tracing, site, kind) for kind in SENDERS]
    async with asyncio.TaskGroup() as group:
        for program in programs:
            group.create_task(asyncio.to_thread(program.run))
        try:
            await until(lambda: min(program.count for program in programs) >= 5, "the first spans")
            await site.relay.kill()
            await asyncio.sleep(0.5)
            await site.start_relay()
            counts = {program.kind: program.count for program in programs}
            await until(lambda: all(program.count >= counts[program.kind] + 5 for program in programs), "more", 30)
        finally:
            for program in programs:
                program.stop()
    arrived = list(dict.fromkeys(spans_at(target)))  # what was under way at the kill may have come twice
    for program in programs:
        mine = [name for name in arrived if name.startswith(f"{program.kind}-")]
        assert mine == [f"{program.kind}-{number}" for number in range(program.count)]
    by_sender = {line["sender"] for line in site.relay.access_lines if line["status"] == 200}
    assert by_sender == set(SENDERS.values())
    assert not [line for line in site.relay.access_lines if line["status"] in (401, 403)]
