"""The end of a TCP connection as one line of the access log. Nothing of what was sent is ever in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from shared.access_log import timestamp
from shared.tcp.splice import who_ended

if TYPE_CHECKING:
    from cloud_relay.tcp.context import TcpContext
    from cloud_relay.tcp.push import TcpPush
    from cloud_relay.tcp.routes import TcpRoute
    from shared.errors import Fault
    from shared.tcp.head import Ends


def log_connection(push: TcpPush, context: TcpContext, now: float) -> None:
    """Log a connection that is over. `now` is the loop's time; durations in the line are milliseconds."""
    record = _start(push.request_id, push.route, push.ends, push.server_name)
    if push.sender is not None and push.sender.name:
        record["sender"] = push.sender.name
    record |= {
        "bytes_in": push.received,
        "bytes_out": push.sent,
        "ended": who_ended(has_sender=push.has_edge_ended, has_target=push.has_stream_ended),
        "total_ms": _milliseconds(now - push.began),
    }
    if push.connected_at:
        record["connect_ms"] = _milliseconds(push.connected_at - push.began)
    if push.session is not None:
        record |= {"connector": push.session.identity.connector, "attempt": push.attempt}
    if push.waited:
        record["waited_ms"] = _milliseconds(push.waited)
    if push.fault is not None:
        record |= {"code": push.fault.code, "origin": push.fault.origin.value}
    context.ingress.context.access_log.line(record)


def log_try(push: TcpPush, context: TcpContext, fault: Fault, then: str) -> None:
    """Log a try that failed and is not a connection's last, as `cloud_relay.ingress.access.log_try` does."""
    session = push.session
    context.ingress.context.access_log.line({
        "time": timestamp(time.time()), "kind": "try", "request_id": push.request_id, "attempt": push.attempt,
        "tenant": push.route.tenant, "route": push.route.name,
        "connector": session.identity.connector if session is not None else "",
        "code": fault.code, "origin": fault.origin.value, "then": then,
    })  # fmt: skip


def log_refused_connection(
    context: TcpContext, route: TcpRoute, ends: Ends, fault: Fault, server_name: str | None
) -> None:
    """Log one that was not let in."""
    record = _start(context.ingress.new_request_id(), route, ends, server_name)
    record |= {"code": fault.code, "origin": fault.origin.value}
    context.ingress.context.access_log.line(record)


def _start(request_id: str, route: TcpRoute, ends: Ends, server_name: str | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "time": timestamp(time.time()), "request_id": request_id, "kind": "tcp", "tenant": route.tenant,
        "route": route.name, "source": ends.source,
    }  # fmt: skip
    if server_name is not None:
        record["server_name"] = server_name
    return record


def _milliseconds(seconds: float) -> float:
    return int(seconds * 1e6) / 1e3
