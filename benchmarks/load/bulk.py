"""One large body, sent as fast as it is taken.

python -m benchmarks.load.bulk < spec.json > load.json
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass, field

from benchmarks.load.figures import Load

_PIECE = b"q" * (256 * 1024)


@dataclass(frozen=True, slots=True)
class Bulk:
    """A body of `size` bytes, again and again on one connection until `seconds` have passed; at least once."""

    host: str
    port: int
    is_tls: bool
    path: str
    size: int
    seconds: float = 0.0
    timeout: float = 300.0
    headers: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def send(spec: Bulk) -> Load:
    """Sends them; the latency of each is from its first byte to the whole answer."""
    connection: socket.socket = socket.create_connection((spec.host, spec.port), spec.timeout)
    if spec.is_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = context.wrap_socket(connection, server_hostname="localhost")
    headers = "".join(f"{name}: {value}\r\n" for name, value in spec.headers.items())
    head = f"POST {spec.path} HTTP/1.1\r\n{headers}Content-Length: {spec.size}\r\n\r\n".encode()
    latencies: list[float] = []
    failures: dict[str, int] = {}
    start = time.monotonic()
    with connection:
        while True:
            began = time.monotonic()
            status = _push(connection, head, spec.size)
            if status.startswith("2"):
                latencies.append(time.monotonic() - began)
            else:
                failures[status] = 1
                break
            if time.monotonic() - start >= spec.seconds:
                break
    return Load.from_latencies(latencies, time.monotonic() - start, failures)


def _push(connection: socket.socket, head: bytes, size: int) -> str:
    """Returns the status, or `connection-lost`."""
    try:
        connection.sendall(head)
        while size:
            piece = _PIECE if size >= len(_PIECE) else _PIECE[:size]
            connection.sendall(piece)
            size -= len(piece)
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = connection.recv(65536)
            if not data:
                return "connection-lost"
            answer += data
    except OSError:
        return "connection-lost"
    return answer[9:12].decode("latin-1")


def main() -> None:
    json.dump(send(Bulk(**json.load(sys.stdin))).as_json(), sys.stdout)


if __name__ == "__main__":
    main()
