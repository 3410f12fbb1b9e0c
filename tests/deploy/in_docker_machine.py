"""What runs on the machine with the engine, by its Python: a sender by HTTPS. Samples go to VictoriaMetrics' import.

python3 in_docker_machine.py push URL CA TOKEN NAME SECONDS    one push, whose body takes so long; prints the status
python3 in_docker_machine.py sender URL CA TOKEN NAME FILE     pushes numbers until SIGTERM; writes what became of them
"""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit


def push(url: str, ca: str, token: str, text: str, seconds: float = 0.0) -> int:
    """The status of one push, 0 if there was no answer."""
    place = urlsplit(url)
    body = f"{text}\n".encode()

    def slowly() -> Iterator[bytes]:
        yield body[:1]
        time.sleep(seconds)
        yield body[1:]

    context = ssl.create_default_context(cafile=ca)
    connection = http.client.HTTPSConnection(place.hostname or "", place.port, timeout=20, context=context)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Length": str(len(body))}
        connection.request("POST", place.path, slowly(), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def send(url: str, ca: str, token: str, name: str, result: Path) -> None:
    """As senders do: what is not acknowledged is pushed again. The longest time without an acknowledgement counts."""
    wants_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: wants_to_end.append(1))
    statuses: dict[str, int] = {}
    number, last, longest = 0, time.monotonic(), 0.0
    while not wants_to_end:
        status = push(url, ca, token, f'{name}{{n="{number}"}} 1')
        statuses[str(status)] = statuses.get(str(status), 0) + 1
        now = time.monotonic()
        if status == 204:
            longest, last = max(longest, now - last), now
            number += 1
        time.sleep(0.05)
    result.write_text(json.dumps({"acknowledged": number, "statuses": statuses, "longest_gap": round(longest, 2)}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["push", url, ca, token, name, seconds]:
            sys.stdout.write(f"{push(url, ca, token, f'{name} 1', float(seconds))}\n")
        case ["sender", url, ca, token, name, file]:
            send(url, ca, token, name, Path(file))
