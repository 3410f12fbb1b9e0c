"""What the trial's cluster has beside Qanat, by Python alone: a target in a pod, senders in the world around.

python in_cluster.py target                            a target on port 8428, which prints what it got
python in_cluster.py push PLACE BODY                   the status of one push; PLACE is a file with where and by whom
python in_cluster.py send PLACE STOP RESULT            pushes numbers until STOP is there, then tells what came of it
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Target(BaseHTTPRequestHandler):
    """Takes whatever is pushed; one whose body begins with `slow` after four seconds."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if body.startswith("slow"):
            time.sleep(4)
        line = f"got {body} from {self.headers.get('X-Forwarded-For')}\n"
        os.write(1, line.encode())  # at once: there is a thread for each connection
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the name of the base class
        """Nothing."""


class Sender:
    """Pushes by HTTPS, over one connection that is kept, or over one of its own."""

    def __init__(self, place: Path) -> None:
        self.place: dict[str, str] = json.loads(place.read_text())
        self.kept: http.client.HTTPSConnection | None = None

    def connect(self) -> http.client.HTTPSConnection:
        """DNS tells the world nothing: the name is checked, the address is given."""
        context = ssl.create_default_context(cafile=self.place["ca"])
        connection = http.client.HTTPSConnection(self.place["host"], timeout=20, context=context)
        raw = socket.create_connection((self.place["address"], 443), 1, (self.place["own_address"], 0))
        raw.settimeout(20)
        connection.sock = context.wrap_socket(raw, server_hostname=self.place["host"])
        return connection

    def push(self, body: str, *, keep: bool = False) -> int:
        """The status, or 0 if there was no answer."""
        connection = self.kept if keep else None
        self.kept = None if keep else self.kept
        headers = {"Authorization": f"Bearer {self.place['token']}", "Content-Type": "application/x-protobuf"}
        try:
            if connection is None or connection.sock is None:
                connection = self.connect()
            connection.request("POST", "/api/v1/write", body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            sys.stderr.write(f"{time.strftime('%T')} {body}: {error!r}\n")
            if connection is not None:
                connection.close()
            return 0
        if answer.status != 204:
            sys.stderr.write(f"{time.strftime('%T')} {body}: {answer.status}\n")
        if keep and connection.sock is not None:
            self.kept = connection
        else:
            connection.close()
        return answer.status


def send(place: Path, stop: Path, result: Path) -> None:
    """As senders do: what is not acknowledged is pushed again. The longest time without an acknowledgement counts."""
    sender = Sender(place)
    statuses: dict[str, int] = {}
    number, tries, last, longest = 0, 0, time.monotonic(), 0.0
    while not stop.exists():
        status = sender.push(f"n{number}.", keep=tries % 2 == 0)
        tries += 1
        statuses[str(status)] = statuses.get(str(status), 0) + 1
        now = time.monotonic()
        if status == 204:
            longest, last = max(longest, now - last), now
            number += 1
        time.sleep(0.02)
    longest = max(longest, time.monotonic() - last)
    result.write_text(json.dumps({"acknowledged": number, "statuses": statuses, "longest_gap": round(longest, 2)}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["target"]:
            ThreadingHTTPServer(("", 8428), Target).serve_forever()
        case ["push", place, body]:
            sys.stdout.write(f"{Sender(Path(place)).push(body)}\n")
        case ["send", place, stop, result]:
            send(Path(place), Path(stop), Path(result))
        case _:
            sys.exit(__doc__)
