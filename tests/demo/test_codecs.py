"""What senders write and the receiver reads."""

from __future__ import annotations

import json

import pytest
import snappy
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from demo.events import parse
from demo.measurements import PUSH_METRIC, measure
from demo.receiver import make_app, read_otlp, read_remote_write
from demo.recording import name_of
from demo.remote_write import HEADERS, BadPush, Series, decode, encode, labels_of
from demo.remote_write_sender import is_retryable


def series_of(push: int = 7) -> list[Series]:
    return [
        Series(labels_of(PUSH_METRIC, [("sender", "p-1")]), float(push), 1000),
        Series(labels_of("up", [("job", "x")]), 1.5, 1000),
    ]


def test_remote_write_there_and_back() -> None:
    assert decode(encode(series_of())) == series_of()


def test_remote_write_on_the_wire() -> None:
    body = snappy.decompress(encode([Series((("__name__", "up"), ("job", "x")), 1.5, 1000)]))
    label_1 = b"\x0a\x0e" + b"\x0a\x08__name__" + b"\x12\x02up"
    label_2 = b"\x0a\x08" + b"\x0a\x03job" + b"\x12\x01x"
    sample = b"\x12\x0c" + b"\x09\x00\x00\x00\x00\x00\x00\xf8\x3f" + b"\x10\xe8\x07"
    assert body == b"\x0a\x28" + label_1 + label_2 + sample


def test_labels_are_sorted_with_the_name_among_them() -> None:
    assert labels_of("up", [("job", "x"), ("A", "1")]) == (("A", "1"), ("__name__", "up"), ("job", "x"))


def test_the_receiver_finds_the_push_and_counts_its_series() -> None:
    assert read_remote_write(encode(series_of(12))) == ("p-1/12", 2)


@pytest.mark.parametrize("body", [b"", b"garbage", snappy.compress(b"\xff\xff\xff"), encode(series_of()[1:])], ids=repr)
def test_what_is_no_remote_write_is_refused(body: bytes) -> None:
    with pytest.raises(BadPush):
        read_remote_write(body)


def otlp(push: int) -> bytes:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    point = metrics.add(name=PUSH_METRIC).gauge.data_points.add(as_int=push)
    label = point.attributes.add(key="sender")
    label.value.string_value = "app-1"
    metrics.add(name="load").gauge.data_points.add(as_double=0.5)
    body: bytes = request.SerializeToString()
    return body


def test_otlp_push_and_points() -> None:
    assert read_otlp(otlp(3)) == ("app-1/3", 2)


@pytest.mark.parametrize("body", [b"\xff", b""])
def test_what_is_no_otlp_is_refused(body: bytes) -> None:
    with pytest.raises(BadPush):
        read_otlp(body)


async def test_receiver_tells_before_it_answers() -> None:
    told: list[tuple[str, str, int]] = []
    app = make_app(lambda push, kind, series: told.append((push, kind, series)))
    async with TestClient(TestServer(app)) as client:
        first = await client.post("/api/v1/write", data=encode(series_of(1)), headers=HEADERS)
        second = await client.post("/v1/metrics", data=otlp(2), headers={"Content-Type": "application/x-protobuf"})
        bad = await client.post("/api/v1/write", data=b"garbage")
        assert (first.status, second.status, bad.status) == (204, 200, 400)
    assert told == [("p-1/1", "remote-write", 2), ("app-1/2", "otlp", 2)]


def test_measurements_are_real_and_unique() -> None:
    found = measure()
    assert {"system_cpu_seconds_total", "system_load", "system_memory_bytes"} <= {one.name for one in found}
    assert len({(one.name, one.labels) for one in found}) == len(found)


@pytest.mark.parametrize(("status", "again"), [(500, True), (503, True), (429, True), (400, False), (404, False)])
def test_prometheus_tries_again(status: int, again: bool) -> None:
    assert is_retryable(status) is again


def test_failed_tries_are_named() -> None:
    assert name_of(ValueError("x (_ssl.c:1): [SSL: UNEXPECTED_EOF_WHILE_READING] y")) == (
        "ValueError UNEXPECTED_EOF_WHILE_READING"
    )
    assert name_of(ConnectionResetError("by peer")) == "ConnectionResetError"


def test_events_are_told_from_other_output() -> None:
    assert parse(json.dumps({"event": "sent", "id": "a/1"}).encode()) == {"event": "sent", "id": "a/1"}
    assert parse(b"Traceback ...") is None
    assert parse(b"[1]") is None
