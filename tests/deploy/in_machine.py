"""What runs inside the machine, by its own Python: a target, a sender, and a way to trouble an event loop.

python3 in_machine.py target                     a target on port 8428, which notes what it got
python3 in_machine.py sender TOKEN FILE          pushes numbers until SIGTERM, then writes what became of them
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

NOTED = Path("/run/target.got")

SITECUSTOMIZE = '''
import asyncio, signal, time

def block(*_):
    """As a bug would that never comes back to the event loop."""
    time.sleep(3600)

def crowd(*_):
    """As a load would that makes every turn of the loop half a second long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + 15
    def burn():
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass
        if loop.time() < end:
            loop.call_soon(burn)
    loop.call_soon(burn)

signal.signal(signal.SIGUSR1, block)
signal.signal(signal.SIGUSR2, crowd)
'''
"""On PYTHONPATH it lets signals do to a program what nobody wants to build into it."""


class Target(BaseHTTPRequestHandler):
    """Takes what has the credential; a push to /slow takes four seconds."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/slow"):
            time.sleep(4)
        status = 204 if self.headers.get("Authorization") == "Bearer of-the-target" else 401
        with NOTED.open("a") as noted:
            noted.write(f"{status} {body.decode()}\n")
        self.send_response(status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the name of the base class
        """Nothing."""


def push(token: str, body: str, path: str = "/push", timeout: float = 20.0) -> int:
    """The status of one push; 0 if there was no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", 9443, timeout=timeout)
    try:
        connection.request("POST", path, body, {"Authorization": f"Bearer {token}", "Host": "localhost"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def send(token: str, result: Path) -> None:
    """As senders do: what is not acknowledged is pushed again. The longest time without an acknowledgement counts."""
    wants_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: wants_to_end.append(1))
    statuses: dict[str, int] = {}
    number, last, longest = 0, time.monotonic(), 0.0
    while not wants_to_end:
        status = push(token, f"n{number}")
        statuses[str(status)] = statuses.get(str(status), 0) + 1
        now = time.monotonic()
        if status == 204:
            longest, last = max(longest, now - last), now
            number += 1
        time.sleep(0.02)
    result.write_text(json.dumps({"acknowledged": number, "statuses": statuses, "longest_gap": round(longest, 2)}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["target"]:
            ThreadingHTTPServer(("127.0.0.1", 8428), Target).serve_forever()
        case ["sender", token, file]:
            send(token, Path(file))
        case ["push", token, body, path]:
            sys.stdout.write(f"{push(token, body, path)}\n")
