"""Relay and connector on loopback: two tunnels over mTLS, lost and found again, refused and told why."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import UTC, datetime, timedelta

import pytest

from cloud_relay.tunnels import TunnelLimits
from connector_agent import dialer, relay_keeper
from connector_agent.dialer import ProxyChoice
from connector_agent.proxy import Proxy, basic_authorization
from shared import tasks
from tests.support.development import Pki
from tests.support.tunnels import KEY, World, world

pytestmark = pytest.mark.system


async def test_two_tunnels_and_a_push_over_them(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        tunnels = w.connect()
        await w.until_open(2)
        assert tunnels.open_count == 2
        assert await w.push(b"x" * 300_000) == (b"head", b"x" * 300_000)
        session = w.registry.sessions()[0]
        assert session.identity[:3] == ("acme", "walldorf", "c1")
        assert session.targets == {"frun": "http"}
        assert len({one.instance for one in w.registry.sessions()}) == 1
        assert [row["state"] for row in tunnels.describe()] == ["open", "open"]
        assert tunnels.describe()[0]["rtt_ms"] is None or tunnels.describe()[0]["rtt_ms"] >= 0
    assert w.registry.sessions() == []
    assert tasks.running() == []


async def test_the_connector_may_come_first(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        await w.close()
        tunnels = w.connect()
        await w.until(lambda: w.error_of(tunnels) == "connection-refused")
        await asyncio.sleep(0.5)
        await w.serve()
        assert await w.until_open(2) < 1.5
        assert (await w.push())[1] == b"body"


async def test_lost_tunnels_are_back_within_a_second(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        w.connect()
        await w.until_open(2)
        for _ in range(3):
            for session in w.registry.sessions():
                session.link.abort()
            await w.until(lambda: w.registry.count(KEY) == 0)
            assert await w.until_open(1) < 1.5
            assert (await w.push())[1] == b"body"
            await w.until_open(2)


async def test_a_restarted_relay_has_its_connector_back_soon(tmp_path):
    async with world(tmp_path) as w:
        listener = await w.serve()
        w.connect()
        await w.until_open(2)
        await listener.close()
        await asyncio.sleep(1.0)
        await w.serve()
        assert await w.until_open(1) < 1.7


async def test_a_drained_tunnel_is_replaced_before_it_ends(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        w.connect()
        await w.until_open(2)
        old = w.registry.sessions()
        for session in old:
            session.link.drain(5.0)
        await w.until(lambda: w.registry.count(KEY) == 2 and all(one not in w.registry.sessions() for one in old))
        assert (await w.push())[1] == b"body"


async def test_the_connectors_drain_takes_its_sessions_away(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        tunnels = w.connect()
        await w.until_open(2)
        await tunnels.drain(5.0)
        await w.until(lambda: w.registry.sessions() == [])
        assert tunnels.open_count == 0


async def test_the_relays_drain_ends_all_tunnels(tmp_path):
    async with world(tmp_path) as w:
        listener = await w.serve()
        tunnels = w.connect()
        await w.until_open(2)
        await listener.drain(2.0)
        await w.until(lambda: w.registry.sessions() == [] and tunnels.open_count == 0)
        assert "error" in tunnels.describe()[0]


async def test_targets_are_updated(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        tunnels = w.connect(targets={})
        await w.until(lambda: tunnels.open_count == 2)
        assert w.registry.choose(*KEY) is None
        called = []
        waiter = w.registry.wait(KEY, lambda: called.append(True))
        tunnels.update_targets({"frun": "http"})
        await w.until_open(2)
        await w.until(lambda: called == [True])
        waiter.cancel()
        tunnels.update_targets({"other": "tcp"})
        await w.until(lambda: w.registry.count(KEY) == 0)


async def test_a_second_instance_is_refused_while_the_first_lives(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        pair = w.pki.connector()
        w.connect(pair, count=1)
        await w.until_open(1)
        second = w.connect(pair, count=1)
        await w.until(lambda: w.error_of(second) == "duplicate-instance")
        assert w.registry.count(KEY) == 1
        assert second.keepers[0].next_try_at - w.loop.time() > 10


async def test_an_instance_that_is_gone_is_replaced_at_once(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        pair = w.pki.connector()
        first = w.connect(pair)
        await w.until_open(2)
        await first.close()
        second = w.connect(pair)
        assert await w.until(lambda: second.open_count == 2 and w.registry.count(KEY) == 2) < 1.5


async def refused(w: World, code: str, *, has_remedy: bool = True, **kwargs: object) -> None:
    tunnels = w.connect(**kwargs)  # type: ignore[arg-type]
    await w.until(lambda: w.error_of(tunnels) is not None)
    error = tunnels.keepers[0].error
    assert error is not None
    assert (error.code, error.is_refusal) == (code, True), str(error)
    assert error.remedy or not has_remedy
    assert w.registry.sessions() == []


async def test_why_a_certificate_is_refused(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        past = datetime.now(UTC) - timedelta(days=30)
        expired = w.pki.connector("old", now=past, lifetime=timedelta(days=7))
        await refused(w, "certificate-expired", pair=expired)
        await refused(w, "unknown-location", pair=w.pki.connector("away", location="elsewhere"))
        w.policy.blocked.add(("acme", "walldorf", "bad"))
        await refused(w, "connector-blocked", pair=w.pki.connector("bad"))
        await refused(w, "certificate-wrong-identity", pair=w.pki.relay(name="r2"))
        w.policy.trust_domain = "another.test"
        await refused(w, "certificate-wrong-identity", pair=w.pki.connector())


async def test_a_foreign_certificate_is_told_apart(tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    async with world(tmp_path) as w:
        await w.serve()
        await refused(w, "certificate-foreign", pair=Pki(foreign).connector())


async def test_a_middlebox_is_named_with_its_issuer(tmp_path):
    box = tmp_path / "box"
    box.mkdir()
    async with world(tmp_path) as w:
        await w.serve(certificate=Pki(box).relay())
        tunnels = w.connect()
        await w.until(lambda: w.error_of(tunnels) == "relay-untrusted")
        assert "Qanat issuing CA" in str(tunnels.keepers[0].error)
        assert "middlebox" in str(tunnels.keepers[0].error)


async def test_a_wrong_host_name_is_refused(tmp_path):
    async with world(tmp_path) as w:
        await w.serve(certificate=w.pki.relay("relay.test"))
        await refused(w, "relay-wrong-name")


async def test_a_revoked_connector_loses_its_tunnels_and_is_told(tmp_path, monkeypatch):
    async with world(tmp_path) as w:
        listener = await w.serve()
        tunnels = w.connect()
        await w.until_open(2)
        w.policy.revoked.add(w.registry.sessions()[0].identity.fingerprint)
        assert listener.recheck() == 2
        await w.until(lambda: w.error_of(tunnels) == "certificate-revoked")
        assert tunnels.keepers[0].error is not None


async def test_a_session_ends_with_its_certificate(tmp_path):
    async with world(tmp_path) as w:
        listener = await w.serve()
        w.connect(count=1)
        await w.until_open(1)
        (link,) = listener._links
        listener._links[link] = listener._links[link]._replace(since=w.loop.time() - 8 * 86400)
        assert listener.recheck() == 1
        assert listener.recheck() == 0
        await w.until(lambda: w.registry.sessions() == [])


async def test_a_crowd_takes_turns(tmp_path):
    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits(handshakes=2, handshakes_per_source=1))
        for number in range(12):
            w.connect(w.pki.connector(f"c{number}"), count=1)
        await w.until_open(12)
        assert listener.entrance.gate.in_progress == 0


async def test_no_room_is_no_refusal(tmp_path):
    async with world(tmp_path) as w:
        await w.serve(TunnelLimits(tunnels=1))
        tunnels = w.connect(count=2)
        await w.until(lambda: w.error_of(tunnels) == "overloaded")
        error = tunnels.keepers[0].error
        assert error is not None
        assert not error.is_refusal
        assert w.registry.count(KEY) == 1


def test_delays_are_what_the_design_says():
    assert relay_keeper.REFUSAL_DELAY == 15.0


@contextlib.asynccontextmanager
async def tinyproxy(folder, peer, *lines: str):
    """A tinyproxy on a free port, that connects anywhere on loopback."""
    program = peer("tinyproxy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "tinyproxy.conf"
    config.write_text("\n".join([f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "MaxClients 20", *lines, ""]))
    process = await asyncio.create_subprocess_exec(
        program.path, "-d", "-c", str(config), env=dict(program.environment), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    (await dialer.connect("127.0.0.1", port)).abort()
                    break
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def test_through_tinyproxy(tmp_path, peer):
    async with tinyproxy(tmp_path, peer, "BasicAuth connector letmein") as port, world(tmp_path) as w:
        await w.serve()
        right = Proxy("http", "127.0.0.1", port, basic_authorization(b"connector:letmein"))
        tunnels = w.connect(proxies=ProxyChoice(right, skips_loopback=False))
        await w.until_open(2)
        assert (await w.push(b"x" * 100_000))[1] == b"x" * 100_000
        await tunnels.close()
        wrong = Proxy("http", "127.0.0.1", port, basic_authorization(b"connector:wrong"))
        await w.until(lambda: w.registry.sessions() == [])
        code = "proxy-credentials-refused"
        await refused(w, code, proxies=ProxyChoice(wrong, skips_loopback=False), has_remedy=False)


async def test_a_proxy_that_forbids_the_port(tmp_path, peer):
    async with tinyproxy(tmp_path, peer, "ConnectPort 443") as port, world(tmp_path) as w:
        await w.serve()
        choice = ProxyChoice(Proxy("http", "127.0.0.1", port), skips_loopback=False)
        await refused(w, "proxy-denied", proxies=choice, has_remedy=False)


async def test_a_proxy_that_is_not_there(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        tunnels = w.connect(proxies=ProxyChoice(Proxy("http", "127.0.0.1", 1), skips_loopback=False))
        await w.until(lambda: w.error_of(tunnels) == "proxy-connection-refused")
