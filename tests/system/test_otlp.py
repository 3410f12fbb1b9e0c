"""The OpenTelemetry SDK with its own OTLP/HTTP exporters, unmodified: what it measured and traced is at the target."""

from __future__ import annotations

import asyncio
import gzip

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
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.system.kit import Site

pytestmark = pytest.mark.system


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


async def test_metrics_and_traces_arrive(site, target, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # `requests` would take these rather than the exporter's file
        monkeypatch.delenv(name, raising=False)
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
