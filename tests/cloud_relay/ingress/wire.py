"""Requests and answers as bytes: making the former, and reading the latter as a strict client does."""

from __future__ import annotations

import itertools
from typing import Any

import httptools


class Answer:
    """One answer as a strict client reads it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False
        self.keep_alive = True

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.decode().lower() not in self.headers, f"twice: {name!r}"
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


def parse_answers(raw: bytes, methods: Any = ("POST",)) -> list[Answer]:
    """Read answers one after the other, each by a parser of its own, with llhttp as the judge of framing."""
    answers = []
    kinds = itertools.chain(methods, itertools.repeat("POST"))
    while raw:
        head_end = raw.index(b"\r\n\r\n") + 4
        head, rest = raw[:head_end], raw[head_end:]
        answer = Answer()
        parser = httptools.HttpResponseParser(answer)
        parser.feed_data(head)
        answer.status = parser.get_status_code()
        answers.append(answer)
        if answer.status < 200:
            raw = rest
            continue
        has_body = next(kinds) != "HEAD" and answer.status not in {204, 304}
        length = answer.headers.get("content-length")
        if not has_body:
            answer.is_complete, raw = True, rest
        elif "transfer-encoding" in answer.headers:
            assert length is None
            size = len(rest)
            end = _chunked_end(rest)
            parser.feed_data(rest[: end or size])
            raw = rest[end:] if end else b""
        elif length is not None:
            answer.body, raw = rest[: int(length)], rest[int(length) :]
            answer.is_complete = len(answer.body) == int(length)
        else:
            answer.body, raw = rest, b""
        answer.keep_alive = answer.headers.get("connection", "").lower() != "close"
    return answers


def _chunked_end(data: bytes) -> int:
    """Where a chunked body ends, 0 if it does not."""
    position = 0
    while True:
        line = data.find(b"\r\n", position)
        if line < 0:
            return 0
        size = int(data[position:line], 16)
        position = line + 2 + size + 2
        if position > len(data):
            return 0
        if not size:
            return position


def request(
    method: str = "POST",
    path: str = "/metrics",
    body: bytes | None = b"",
    *,
    version: str = "1.1",
    chunked: bool = False,
    **headers: str,
) -> bytes:
    """A request's bytes. `headers` by keyword, `_` for `-`; body None: no framing at all."""
    lines = [f"{method} {path} HTTP/{version}"]
    fields = {"host": "push.example.com"} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines += [f"{name}: {value}" for name, value in fields.items() if value != "-"]
    payload = body or b""
    if chunked:
        lines.append("transfer-encoding: chunked")
        payload = chunks(payload)
    elif body is not None and "content-length" not in fields:
        lines.append(f"content-length: {len(payload)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def post(body: bytes = b"", path: str = "/metrics", **headers: Any) -> bytes:
    return request("POST", path, body, **headers)


def get(path: str = "/metrics", **headers: Any) -> bytes:
    return request("GET", path, None, **headers)


def chunks(data: bytes, size: int = 7) -> bytes:
    """A chunked body."""
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def code_of(answer: Answer) -> str:
    return answer.headers["qanat-error"]
