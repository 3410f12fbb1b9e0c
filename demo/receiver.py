"""The target: takes OTLP/HTTP metrics and Prometheus remote write, reads all of it, and says what arrived.

    python receiver.py PORT_FILE

Which push it is tells the series `qanat_demo_push`: the sender's name is its label, the push's number its value.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from demo.events import emit
from demo.measurements import PUSH_METRIC
from demo.remote_write import BadPush, decode

OTLP_PATH = "/v1/metrics"
REMOTE_WRITE_PATH = "/api/v1/write"
_MAX_BODY = 16 * 1024 * 1024

Deliver = Callable[[str, str, int], None]  # (push, kind, series)


def read_remote_write(body: bytes) -> tuple[str, int]:
    """The push's id, and how many series it holds.

    Raises:
        BadPush: not remote write, or without the series that tells its number.
    """
    series = decode(body)
    for one in series:
        if one.name == PUSH_METRIC:
            return f"{dict(one.labels)['sender']}/{int(one.value)}", len(series)
    raise BadPush(f"no series {PUSH_METRIC}")


def read_otlp(body: bytes) -> tuple[str, int]:
    """As `read_remote_write`, for an ExportMetricsServiceRequest; a data point counts as a series."""
    try:
        request = ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise BadPush(f"not an ExportMetricsServiceRequest: {error}") from error
    push, points = "", 0
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                values = metric.gauge.data_points or metric.sum.data_points
                points += len(values)
                if metric.name == PUSH_METRIC:
                    labels = {label.key: label.value.string_value for label in values[0].attributes}
                    push = f"{labels['sender']}/{values[0].as_int}"
    if not push:
        raise BadPush(f"no metric {PUSH_METRIC}")
    return push, points


def make_app(deliver: Deliver) -> web.Application:
    """The receiver's web application; `deliver` is called before a push is answered."""

    async def otlp(request: web.Request) -> web.Response:
        return _take("otlp", read_otlp, await request.read(), deliver)

    async def remote_write(request: web.Request) -> web.Response:
        return _take("remote-write", read_remote_write, await request.read(), deliver)

    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_post(OTLP_PATH, otlp)
    app.router.add_post(REMOTE_WRITE_PATH, remote_write)
    return app


def _take(kind: str, read: Callable[[bytes], tuple[str, int]], body: bytes, deliver: Deliver) -> web.Response:
    try:
        push, series = read(body)
    except BadPush as error:
        return web.Response(status=400, text=str(error))
    deliver(push, kind, series)
    if kind == "otlp":
        answer = ExportMetricsServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")
    return web.Response(status=204)


async def serve(port_file: Path) -> None:
    """Listens on a free port of the loopback, writes it to `port_file`, and serves until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    app = make_app(lambda push, kind, series: emit("delivered", id=push, kind=kind, series=series))
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    partial = port_file.with_suffix(".partial")
    partial.write_text(str(runner.addresses[0][1]))
    os.replace(partial, port_file)
    await stopped.wait()
    await runner.cleanup()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the demo's to handle
    asyncio.run(serve(Path(sys.argv[1])))
