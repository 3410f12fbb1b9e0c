"""The end of a push, as counters and as one line of the access log.

No header value and no payload is ever in it; what came from a sender is capped and drawn from a narrow alphabet. Of
those whom no credential made known each source causes a bounded number of lines: the next one says how many were
`suppressed`, and the metrics count them all.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from cloud_relay.sources import source_key
from shared.access_log import timestamp

if TYPE_CHECKING:
    from cloud_relay.ingress.connection import SenderConnection
    from cloud_relay.ingress.context import Ingress, IngressContext
    from cloud_relay.ingress.push_end import PushEnd
    from shared.errors import Fault

MAX_PATH: Final = 256
"""Characters of a path in a line."""

_LINE: Final = (
    '{"time":"%s","request_id":"%s",%s,"status":%s,"bytes_in":%s,"bytes_out":%s,"total_ms":%.3f,"beyond_ms":%.3f,'
    '%s"connector":"%s","attempt":%s}\n'
)
"""One call makes a line of it, compiled or not; mypyc makes a call for every number of an f-string."""

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def _now() -> str:
    return timestamp(time.time())


def describe_kind(push: PushEnd, source: str) -> str:
    """The part of an access line that pushes of one kind on one connection share, as JSON without its braces."""
    route, sender, head = push.route, push.sender, push.head
    record = {
        "tenant": route.tenant if route is not None else "",
        "route": route.name if route is not None else "",
        "sender": sender.name if sender is not None else "",
        "source": source,
        "method": head.method.decode(),
        "path": _shown_path(head.path),
    }
    theirs = head.fields.get(b"x-request-id")
    if theirs is not None and _REQUEST_ID.fullmatch(theirs) is not None:
        record["sender_request_id"] = theirs.decode()
    return orjson.dumps(record)[1:-1].decode()


def log_push(push: PushEnd, context: IngressContext, connection: SenderConnection, now: float) -> None:
    """Count and log a push that is over. `now` is the loop's time. Durations in the line are milliseconds."""
    route, sender, session = push.route, push.sender, push.session
    fault, status = push.fault, push.status
    total = now - push.began
    line: bytes | None = None
    record: dict[str, Any] = {}
    is_told = True
    if route is not None and sender is not None and session is not None and push.answered_at and fault is None:
        # The target's own answer: by far the most frequent case, so it is written in one go.
        beyond = push.answered_at - push.opened_at
        at = time.time()
        waited = f'"waited_ms":{push.waited * 1e3:.3f},' if push.waited else ""
        if push.queued:
            waited = f'"queued_ms":{push.queued * 1e3:.3f},{waited}'
        text = _LINE % (
            timestamp(at), push.request_id, push.kind(), status, push.bytes_in, push.bytes_out, total * 1e3,
            beyond * 1e3, waited, session.identity.connector, push.attempt,
        )  # fmt: skip
        line = text.encode()
        of_sender = sender.metrics
        of_sender.pushes += 1
        if 200 <= status < 300:
            of_sender.delivered += 1
            of_sender.last_delivered = at
            route.metrics.delivered += 1
        elif status == 101:
            route.metrics.delivered += 1
    else:
        beyond = push.answered_at - push.opened_at if push.answered_at else -1.0
        record = _unusual_record(push, connection, total, beyond)
        if sender is not None and (route is None or route.endpoint is None):  # a token is no push
            sender.metrics.pushes += 1
        else:
            is_told = _may_tell(connection.ingress, connection.source, record)
    if route is not None:
        metrics = route.metrics
        metrics.bytes_in += push.bytes_in
        metrics.bytes_out += push.bytes_out
        metrics.dropped_headers += push.head.dropped
        if push.opened_at:
            metrics.ingress_seconds += push.opened_at - push.began
        if push.queued:
            metrics.queued.observe(push.queued)
        # A WebSocket's hours are no push's time to its answer.
        took = total if status != 101 else push.answered_at - push.began
        metrics.finished(status, fault, took, push.waited, beyond)
    else:
        connection.metrics.dropped_headers += push.head.dropped
        if fault is not None:
            connection.metrics.failed(fault)
    if line is not None:
        context.access_log.text(line)
    elif is_told:
        context.access_log.line(record)


def log_try(push: PushEnd, context: IngressContext, fault: Fault, then: str) -> None:
    """Log a try that failed and is not a push's last: `request_id` and `attempt` are its id, on the connector's side
    too. The last one's are in the push's own line."""
    route, session = push.route, push.session
    if route is None or session is None:
        return
    context.access_log.line({
        "time": _now(), "kind": "try", "request_id": push.request_id, "attempt": push.attempt, "tenant": route.tenant,
        "route": route.name, "connector": session.identity.connector, "code": fault.code,
        "origin": fault.origin.value, "then": then,
    })  # fmt: skip


def _may_tell(ingress: Ingress, source: str, record: dict[str, Any]) -> bool:
    """Whether a stranger's line is written; `record` then says how many were not."""
    held = ingress.strangers.admit(source_key(source))
    if held:
        record["suppressed"] = held
    return held is not None


def _unusual_record(push: PushEnd, connection: SenderConnection, total: float, beyond: float) -> dict[str, Any]:
    head, fault, route, sender, session = push.head, push.fault, push.route, push.sender, push.session
    record: dict[str, Any] = {"time": _now(), "request_id": push.request_id}
    if route is not None:
        record |= {"tenant": route.tenant, "route": route.name}
    if sender is not None:
        record["sender"] = sender.name
    record |= {
        "source": connection.source,
        "method": head.method.decode(),
        "path": _shown_path(head.path),
        "status": push.status,
        "bytes_in": push.bytes_in,
        "bytes_out": push.bytes_out,
        "total_ms": int(total * 1e6) / 1e3,
    }
    if beyond >= 0.0:
        record["beyond_ms"] = int(beyond * 1e6) / 1e3
    if session is not None:
        record |= {"connector": session.identity.connector, "attempt": push.attempt}
    if fault is not None:
        record |= {"code": fault.code, "origin": fault.origin.value}
    if push.queued:
        record["queued_ms"] = int(push.queued * 1e6) / 1e3
    if push.waited:
        record["waited_ms"] = int(push.waited * 1e6) / 1e3
    theirs = head.fields.get(b"x-request-id")
    if theirs is not None and _REQUEST_ID.fullmatch(theirs) is not None:
        record["sender_request_id"] = theirs.decode()
    return record


def _shown_path(path: bytes) -> str:
    return path.decode() if len(path) <= MAX_PATH else path[:MAX_PATH].decode()


def log_refused(ingress: Ingress, request_id: str, source: str, fault: Fault) -> None:
    """Log what was refused, or given up, before there was a request to speak of."""
    record = {
        "time": _now(),
        "request_id": request_id,
        "source": source,
        "status": fault.status or 0,
        "code": fault.code,
        "origin": fault.origin.value,
    }
    if _may_tell(ingress, source, record):
        ingress.context.access_log.line(record)
