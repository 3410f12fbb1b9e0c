"""Answers of our own: RFC 9457 problem details, one for every fault of the catalogue that has a status."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

import orjson

from shared.errors import Fault
from shared.http.responses import serialize_response_head

RETRY_AFTER: Final = 1
"""Seconds of Retry-After where the caller says nothing; callers that face a crowd spread it."""

_CHALLENGE: Final = (b"WWW-Authenticate", b'Basic realm="qanat", charset="UTF-8"')
_CONTENT_TYPE: Final = (b"Content-Type", b"application/problem+json")
_NO_STORE: Final = (b"Cache-Control", b"no-store")

_last_date: tuple[int, bytes] = (0, b"Thu, 01 Jan 1970 00:00:00 GMT")


def http_date(now: float) -> bytes:
    """Write a Unix time as IMF-fixdate (RFC 9110 §5.6.7); the last one is kept."""
    global _last_date  # one entry, replaced whole
    second = int(now)
    if _last_date[0] != second:
        moment = dt.datetime.fromtimestamp(second, dt.UTC)
        day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.weekday()]
        month = "JanFebMarAprMayJunJulAugSepOctNovDec"[moment.month * 3 - 3 : moment.month * 3]
        text = f"{day}, {moment.day:02} {month} {moment.year:04} {moment:%H:%M:%S} GMT"
        _last_date = (second, text.encode("ascii"))
    return _last_date[1]


def problem_response(
    fault: Fault,
    request_id: str,
    *,
    keep_alive: bool,
    head_only: bool = False,
    retry_after: int | None = None,
    extra_headers: Sequence[tuple[bytes, bytes]] = (),
    detail: str | None = None,
    now: float | None = None,
) -> bytes:
    """Make the whole answer for `fault`, which must have a status. Nothing that was sent may be in `detail`.

    `keep_alive` False, or a fault that closes, adds Connection: close. `head_only` is for HEAD. `retry_after` is in
    seconds; faults that may be tried again have one anyway. A 401 challenges for Basic unless `extra_headers` do.
    `now`, a Unix time, gives Date (RFC 9110 §6.6.1).
    """
    if fault.status is None:
        raise ValueError(f"{fault.code} is never answered")
    body = orjson.dumps(
        {
            "type": f"urn:qanat:fault:{fault.code}",
            "title": fault.title,
            "status": fault.status,
            "detail": f"{detail} {fault.remedy}" if detail else fault.remedy,
            "code": fault.code,
            "origin": fault.origin,
            "request_id": request_id,
        }
    )
    headers = [
        _CONTENT_TYPE,
        _NO_STORE,
        (b"Qanat-Error", fault.code.encode("ascii")),
        (b"Qanat-Error-Origin", fault.origin.encode("ascii")),
        *extra_headers,
    ]
    if request_id:
        headers.append((b"X-Request-Id", request_id.encode("ascii")))
    if now is not None:
        headers.append((b"Date", http_date(now)))
    if retry_after is None and fault.retry_after:
        retry_after = RETRY_AFTER
    if retry_after is not None:
        headers.append((b"Retry-After", b"%d" % retry_after))
    if fault.status == 401 and not any(name.lower() == b"www-authenticate" for name, _ in extra_headers):
        headers.append(_CHALLENGE)
    connection = None if keep_alive and not fault.closes else b"close"
    head = serialize_response_head(fault.status, headers, content_length=len(body), connection=connection)
    return head if head_only else head + body
