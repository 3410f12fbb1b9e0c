"""A name server for the connectors: it answers, fails, is silent, or says something else from now on.

    python -m chaos.names READY_FILE CONTROL_SOCKET

Listens on 127.0.0.1:53 of its network namespace. A datagram of JSON to the control socket sets its mood and what it
knows: {"mood": "answers", "names": {"relay.test": "10.0.0.1"}}. Only the little of RFC 1035 that a stub resolver asks.
"""

from __future__ import annotations

import enum
import json
import os
import selectors
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_A, _IN = 1, 1
_ANSWER: Final = 0x8180
_FAILURE, _NO_NAME = 2, 3
_NAME_HERE: Final = 0xC00C  # a pointer to the question's name
_TTL: Final = 1


class Mood(enum.Enum):
    """How it treats questions."""

    ANSWERS = "answers"
    FAILS = "fails"
    KNOWS_NOTHING = "knows-nothing"
    IS_SILENT = "is-silent"


def answer(question: bytes, mood: Mood, names: Mapping[str, str]) -> bytes | None:
    """The answer to a question, None for silence. Questions that are none get a failure or nothing."""
    if mood is Mood.IS_SILENT or len(question) < 17:
        return None
    name, end = _read_name(question)
    kind, _ = struct.unpack_from("!HH", question, end)
    asked = question[12 : end + 4]
    address = names.get(name)
    if mood is Mood.FAILS:
        code = _FAILURE
    else:
        code = _NO_NAME if mood is Mood.KNOWS_NOTHING or address is None else 0
    records = b""
    if not code and kind == _A and address is not None:
        records = struct.pack("!HHHIH", _NAME_HERE, _A, _IN, _TTL, 4) + socket.inet_aton(address)
    head = question[:2] + struct.pack("!HHHHH", _ANSWER | code, 1, 1 if records else 0, 0, 0)
    return head + asked + records


def _read_name(question: bytes) -> tuple[str, int]:
    labels, at = [], 12
    while (length := question[at]) and length < 64:
        labels.append(question[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels).lower(), at + 1


def order_of(mood: Mood, names: Mapping[str, str]) -> bytes:
    """The datagram that sets both."""
    return json.dumps({"mood": mood.value, "names": dict(names)}).encode()


def serve(server: socket.socket, control: socket.socket) -> None:
    """Until the process is ended."""
    mood, names = Mood.ANSWERS, dict[str, str]()
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is control:
                order = json.loads(control.recv(4096))
                mood, names = Mood(order["mood"]), order["names"]
                continue
            question, sender = server.recvfrom(512)
            try:
                said = answer(question, mood, names)
            except (IndexError, struct.error):
                continue
            if said is not None:
                server.sendto(said, sender)


def main() -> None:
    ready, control_path = sys.argv[1:]
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(control_path)
    partial = Path(ready).with_suffix(".partial")
    partial.write_text("ready\n")
    os.replace(partial, ready)
    serve(server, control)


if __name__ == "__main__":
    main()
