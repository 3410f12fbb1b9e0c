"""What one source can make us write is bounded, however many bad requests it sends; all of them are counted."""

from __future__ import annotations

import asyncio
import json

import pytest
import uvloop

from cloud_relay.ingress.context import STRANGERS_LINES
from tests.chain.corpus import request
from tests.chain.oracle import HOST
from tests.chain.site import Site, exchange, site

pytestmark = pytest.mark.timeout(120)

STRANGERS = {
    "no credential": request(line=b"GET /x HTTP/1.1", auth=b"")(b"flood"),
    "a wrong one": request(line=b"GET /x HTTP/1.1", auth=b"Authorization: Bearer wrong\r\n")(b"flood"),
    "no such host": request(line=b"GET /x HTTP/1.1", host=b"other.example.com")(b"flood"),
}
PIPELINED = 100
MALFORMED = b"GET /x HTTP/1.1\r\nHost: " + HOST + b"\r\nContent-Length: x\r\n\r\n"
GARBAGE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def flood(made: Site) -> None:
    """10,000 requests that no sender is known for, some of them no requests at all; and 200 that are no handshakes."""

    def is_last(raw: bytes) -> bool:
        return raw.count(b"HTTP/1.1 4") >= PIPELINED

    kinds = list(STRANGERS.values())
    for number in range(90):
        await exchange(made.port, kinds[number % len(kinds)] * PIPELINED, 0, is_last)
    for _ in range(50):
        await asyncio.gather(*[exchange(made.port, MALFORMED, 0, bool) for _ in range(20)])
    assert made.relay.doors is not None
    bound = next(door["bound"][0] for door in made.relay.doors.describe() if door["kind"] == "tunnel")
    port = int(bound.rpartition(":")[2])
    for _ in range(10):
        await asyncio.gather(*[exchange(port, GARBAGE, 0, bool) for _ in range(20)])


def test_ten_thousand_bad_requests_write_few_lines(tmp_path, capfd, quiet_logs):
    async def main() -> tuple[str, float, str]:
        async with site(tmp_path) as made:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await flood(made)
            took = loop.time() - began
            good = request(line=b"GET /good HTTP/1.1")(b"good")
            assert b"200 OK" in await exchange(made.port, good, 0, lambda raw: b"ok" in raw)
            await asyncio.sleep(1.1)  # one line a second is let pass again
            await exchange(made.port, MALFORMED, 0, bool)
            rendered = made.relay.metrics.render().decode()
        return rendered, took, made.logs.getvalue()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rendered, took, logs = runner.run(main())
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    strangers = [line for line in lines if line.get("origin") == "relay"]
    assert STRANGERS_LINES <= len(strangers) <= STRANGERS_LINES + took + 10
    assert sum(1 + line.get("suppressed", 0) for line in strangers) == 10_001, "the rest is told of"
    assert len([line for line in lines if line["status"] == 200]) == 2, "of a push that is known both sides write one"
    counted = [line for line in rendered.splitlines() if "faults_total" in line and "malformed-request" in line]
    assert counted
    assert counted[0].endswith(" 1001.0")
    assert len(logs.splitlines()) < 30
    assert '"no handshake"' in logs
