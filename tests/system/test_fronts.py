"""nginx and HAProxy before the ingress and behind the connector, curl, and slowhttptest: real parsers beside ours.

A proxy marks each request that *it* read with an id of its own (`X-Front`). Two parsers that disagree on where a
request ends show themselves: a request arrives without a mark, or one mark arrives twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest

from tests.chain.corpus import FAMILIES, Case, request
from tests.chain.oracle import HOST, TOKEN, expect
from tests.chain.site import RawTarget
from tests.cloud_relay.conftest import sha256
from tests.shared.http.model import values
from tests.support.peers import Peer
from tests.support.ports import free_port
from tests.system.kit import Site
from tests.system.programs import listens, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(150)]

NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
  upstream next {{ server 127.0.0.1:{next}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://next; proxy_http_version 1.1; proxy_request_buffering off; proxy_ignore_client_abort on;
      proxy_set_header Host $http_host; proxy_set_header Connection ""; proxy_set_header X-Front $request_id;
    }}
  }}
}}
"""

HAPROXY = """
global
  maxconn 1024
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend here
  bind 127.0.0.1:{port}
  http-request set-header X-Front %[uuid]
  default_backend next
backend next
  http-reuse always
  server next 127.0.0.1:{next}
"""

SENDERS = 40
CASES = [case for family in FAMILIES.values() for case in family[::14] if len(case.data) < 4000]


async def start_proxy(site: Site, peer: Callable[[str], Peer], name: str, next_port: int) -> int:
    """The proxy as a process; where it listens."""
    port = free_port()
    program = peer(name)
    folder = site.folder / f"{name}-{port}"
    folder.mkdir()
    config = folder / "config"
    config.write_text((NGINX if name == "nginx" else HAPROXY).format(port=port, next=next_port))
    if name == "nginx":
        argv = ["-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    else:
        argv = ["-db", "-f", str(config)]
    site.run(name, program.path, *argv, variables=dict(program.environment))
    await until(lambda: listens(port), name)
    return port


@contextlib.asynccontextmanager
async def chain(site: Site) -> AsyncIterator[RawTarget]:
    """A target that reads by the model, and the corpus's host and credential in the relay's config."""
    target = RawTarget()
    await target.open()
    tenant = site.relay_config["tenants"]["acme"]
    tenant["senders"] = [{"name": "s4", "bearer": {"token_hash": sha256(TOKEN.decode())}}]
    site.route["senders"] = ["s4"]
    site.route["match"]["host"] = HOST.decode()
    try:
        yield target
    finally:
        await target.close()


def expose(site: Site, port: int) -> None:
    config = site.expose(f"http://127.0.0.1:{port}")
    config["allow"][0]["methods"] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]


async def send_all(port: int, cases: list[Case]) -> None:
    """Each case on a connection of its own; it ends when nothing more comes for a while."""
    waiting = list(cases)
    loop = asyncio.get_running_loop()

    async def sender() -> None:
        while waiting:
            case = waiting.pop()
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.closing(sock), contextlib.suppress(OSError, TimeoutError):
                await loop.sock_connect(sock, ("127.0.0.1", port))
                await loop.sock_sendall(sock, case.data)
                while await asyncio.wait_for(loop.sock_recv(sock, 65536), 0.4):
                    pass

    await asyncio.gather(*[sender() for _ in range(SENDERS)])


def judge(target: RawTarget, cases: list[Case]) -> Counter[str]:
    """Each arrival was read once by the proxy, and comes from a case; how many there were of each."""
    assert target.faults == []
    marks = Counter(values(one.headers, b"x-front")[0] for one in target.arrivals)
    assert all(len(values(one.headers, b"x-front")) == 1 for one in target.arrivals)
    assert max(marks.values()) == 1, "what the proxy took for one request came as two"
    arrived = Counter("-".join(one.case.decode().split("-")[:2]) for one in target.arrivals)
    assert arrived.keys() <= {case.name for case in cases}
    return arrived


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_a_proxy_in_front_of_the_ingress(site, peer, name):
    async with chain(site) as target:
        expose(site, target.port)
        await site.start()
        port = await start_proxy(site, peer, name, site.ports["plain"])
        await send_all(port, CASES)
        arrived = judge(target, CASES)
        assert len(arrived) > 100
        # What follows on the connections that the proxy keeps to us is whole: nothing was left in them.
        before = len(target.arrivals)
        await send_all(
            port, [Case(f"aft-{n:04}", request(line=b"GET /x HTTP/1.1")(b"aft-%04d" % n)) for n in range(40)]
        )
        assert len(target.arrivals) == before + 40


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
async def test_a_proxy_as_the_target(site, peer, name):
    async with chain(site) as target:
        expose(site, await start_proxy(site, peer, name, target.port))
        await site.start()
        await send_all(site.ports["plain"], CASES)
        arrived = judge(target, CASES)
        model = {case.name: expect(case.data, is_whole=True) for case in CASES}
        for case, count in arrived.items():
            assert count <= len(model[case].arrivals) + len(model[case].optional), case
        wanted = sum(len(one.arrivals) for one in model.values())
        assert sum(arrived.values()) > 0.9 * wanted, "the proxy refuses hardly anything that we let pass"


PATHS = {
    "/a/../b": 400, "/a/./b": 400, "/..": 400, "/%2e%2e/b": 400, "/a%2fb": 400, "//a": 400, "/a;b": 400, "/a%00": 400,
    "/a\\b": 400, "/a?x=/../y": 200, "/a/b.c": 200, "/.well-known/x": 200, "/...": 400,
}  # fmt: skip


async def test_curl_path_as_is(site, target, peer):
    site.expose(target)
    await site.start()
    curl = peer("curl")
    for path, status in PATHS.items():
        process = await asyncio.create_subprocess_exec(
            curl.path, "--path-as-is", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--globoff",
            "-H", f"Authorization: {site.bearer}", f"http://localhost:{site.ports['plain']}{path}",
            stdout=asyncio.subprocess.PIPE, env=dict(curl.environment),
        )  # fmt: skip
        out, _ = await process.communicate()
        assert int(out) == status, path
    assert {one.path for one in target.received} == {path for path, status in PATHS.items() if status == 200}


ATTACKS = {"slow headers": ["-H"], "slow bodies": ["-B", "-s", "100000"], "slow readers": ["-X", "-k", "5", "-n", "1"]}
ATTACKERS = 500


async def latencies(site: Site, seconds: float) -> list[float]:
    """Of pushes one after the other, by two senders."""
    took: list[float] = []
    end = time.monotonic() + seconds

    async def sender() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            assert (await site.push("/push", b"value 42")).status == 200
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.002)

    await asyncio.gather(sender(), sender())
    return sorted(took)


@pytest.mark.timing
@pytest.mark.parametrize("attack", ATTACKS)
async def test_slow_attackers_do_not_slow_others(site, target, peer, record_property, attack):
    site.expose(target)
    await site.start()
    await latencies(site, 0.5)
    quiet = await latencies(site, 2.5)
    slow = peer("slowhttptest")
    url = f"http://localhost:{site.ports['plain']}/push"
    argv = [*ATTACKS[attack], "-c", str(ATTACKERS), "-r", str(ATTACKERS), "-i", "1", "-l", "6", "-p", "3", "-u", url]
    program = site.run("slowhttptest", slow.path, *argv, variables=dict(slow.environment))
    await asyncio.sleep(1.5)
    status = await site.status()
    beside = await latencies(site, 2.5)
    await program.kill()
    p99 = [one[int(len(one) * 0.99)] * 1e3 for one in (quiet, beside)]
    record_property(f"p99 of pushes beside {ATTACKERS} {attack}, ms", f"{p99[1]:.1f}, without {p99[0]:.1f}")
    held = sum(one.get("connections", 0) for one in status["listeners"])
    if attack == "slow bodies":  # who has no credential is answered before the body has come, and let go
        assert status["routes"][0]["faults"]["unauthenticated"] > ATTACKERS / 2
        assert held < ATTACKERS / 2
    else:
        assert held > ATTACKERS / 2
    # The attacker's own work is done on the same two cores: 10 ms of it are no fault of the relay's.
    assert p99[1] <= 2 * p99[0] + 10.0
    assert (await site.push("/push", b"value 42")).status == 200
