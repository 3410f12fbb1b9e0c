"""TCP connections through relay, tunnel and connector: the contract of half-close and reset, and what may go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from shared.exits import CommandError
from shared.protocol import Stream
from shared.tcp.edge import keep_alive
from tests.support.chain import Chain, chain, tcp_route
from tests.support.ends import CHECKS, EdgeEnd, Ends, dial, edge_server, until
from tests.support.ports import free_port


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def runs(main: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)

    return runs


class Target:
    """A listener whose connections are EdgeEnds."""

    def __init__(self) -> None:
        self.ends: list[EdgeEnd] = []
        self.server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        return int(self.server.sockets[0].getsockname()[1])

    async def connection(self, number: int = 0) -> EdgeEnd:
        await until(lambda: len(self.ends) > number and self.ends[number].edge is not None)
        return self.ends[number]


async def refused(port: int) -> None:
    """Whoever connects is reset, perhaps before connecting is done."""
    with contextlib.suppress(ConnectionResetError):
        end = await dial(port)
        await until(lambda: end.events == ["reset"])


@asynccontextmanager
async def world(
    folder: Path, *, target: dict[str, Any] | None = None, **route: Any
) -> AsyncIterator[tuple[Chain, int, Target]]:
    """A chain with one route and one target of the name `syslog`."""
    far = Target()
    far.server = await edge_server(far.ends.append)
    port = free_port()
    config = {"name": "syslog", "tcp": f"127.0.0.1:{far.port}"} | (target or {})
    async with chain(folder, [tcp_route("syslog", port, **route)], [config]) as made:
        yield made, port, far
        for end in far.ends:
            if end.events[-1:] not in (["closed"], ["reset"]) and end.edge is not None:
                end.reset()
    far.server.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(run, tmp_path, check):
    async def main() -> None:
        async with world(tmp_path) as (made, port, far):
            near = await dial(port)
            await check(Ends(near, await far.connection()))
            await until(lambda: not made.doors.tcp.connections)
            await until(lambda: not made.connector.in_flight)
            assert made.relay.limits.in_flight == 0
            assert made.relay.budget.used == made.connector.budget.used == 0
            near.reset()

    run(main())


def test_each_side_writes_one_line_with_the_same_request_id(run, tmp_path):
    async def main() -> None:
        async with world(tmp_path) as (made, port, far):
            near = await dial(port)
            near.send(b"<14>hello\n")
            near.end()
            end = await far.connection()
            await until(lambda: "eof" in end.events)
            end.end()
            await until(lambda: made.relay_lines and made.connector_lines)
            (ours,), (theirs,) = made.relay_lines, made.connector_lines
            assert ours["request_id"] == theirs["request_id"]
            assert (ours["route"], ours["source"], ours["bytes_in"], ours["connector"]) == (
                "syslog", "127.0.0.1", 10, "c1",
            )  # fmt: skip
            assert (theirs["target"], theirs["bytes_in"]) == ("syslog", 10)
            assert "code" not in ours
            assert "code" not in theirs
            assert ours["ended"] == theirs["ended"] == "both"
            metrics = made.relay.metrics.render().decode()
            assert 'qanat_relay_tcp_delivered_total{route="syslog",tenant="acme"} 1.0' in metrics
            assert (
                'qanat_connector_tcp_delivered_total{target="syslog"} 1.0' in made.connector.metrics.render().decode()
            )
            assert 'qanat_relay_tcp_connections_total{route="syslog",tenant="acme"} 1.0' in metrics
            assert 'qanat_relay_tcp_bytes_in_total{route="syslog",tenant="acme"} 10.0' in metrics
            assert (
                'qanat_connector_tcp_bytes_in_total{target="syslog"} 10.0' in made.connector.metrics.render().decode()
            )

    run(main())


def test_what_the_target_did_not_get_is_not_delivered(run, tmp_path):
    """The target says that it is done, and resets before it has read the sender's last bytes."""

    async def main() -> None:
        async with world(tmp_path) as (made, port, far):
            near = await dial(port)
            end = await far.connection()
            end.pause()
            near.send(b"x" * (8 << 20))
            near.end()
            await until(lambda: made.connector.tcp.by_name["syslog"].deliveries)
            (delivery,) = made.connector.tcp.by_name["syslog"].deliveries
            end.end()
            await until(lambda: delivery.has_edge_ended)
            with contextlib.suppress(TimeoutError):
                await until(lambda: near.events, 0.2)
            assert near.events in ([], ["eof"]), "its own direction may have ended well"
            end.reset()
            await until(lambda: near.events[-1:] == ["reset"])
            await until(lambda: made.relay_lines and made.connector_lines)
            assert made.relay_lines[0]["code"] == made.connector_lines[0]["code"] == "target-reset"
            (route,) = made.relay.metrics.tcp.routes.values()
            assert (route.delivered, route.faults, route.last_delivered) == (0, {"target-reset": 1}, 0.0)

    run(main())


def test_a_connection_counts_until_its_last_bytes_are_on_their_way(run, tmp_path):
    """The target is done and reads nothing; the sender has said all and closed; then the tunnel is lost."""

    async def main() -> None:
        async with world(tmp_path) as (made, port, far):
            near = await dial(port)
            end = await far.connection()
            end.pause()
            end.end()
            await until(lambda: "eof" in near.events)
            (push,) = made.doors.tcp.connections
            stream = cast(Stream, push._stream)
            while not stream.buffered:  # so long as somebody on the way takes it
                near.send(b"x" * 65536)
                await asyncio.sleep(0.005)
            near.end()
            await until(lambda: push.edge is None)
            assert near.events == ["eof", "closed"]
            (route,) = made.relay.metrics.tcp.routes.values()
            assert (len(route.live), route.delivered, made.relay_lines) == (1, 0, [])
            made.lose_tunnels()
            await until(lambda: made.relay_lines)
            assert (made.relay_lines[0]["code"], route.delivered) == ("tunnel-lost", 0)
            end.reset()
            near.reset()

    run(main())


def test_a_lost_tunnel_resets_both_sides(run, tmp_path):
    async def main() -> None:
        async with world(tmp_path) as (made, port, far):
            near = await dial(port)
            near.send(b"half a li")
            end = await far.connection()
            await until(lambda: end.data == b"half a li")
            made.lose_tunnels()
            await until(lambda: near.events[-1:] == ["reset"] and end.events[-1:] == ["reset"])
            assert "eof" not in near.events + end.events
            assert made.relay_lines[0]["code"] == "tunnel-lost"

    run(main())


def test_a_target_that_refuses(run, tmp_path):
    async def main() -> None:
        async with world(tmp_path, target={"tcp": f"127.0.0.1:{free_port()}"}) as (made, port, _):
            near = await dial(port)
            near.send(b"x")
            await until(lambda: near.events == ["reset"])
            assert made.relay_lines[0]["code"] == made.connector_lines[0]["code"] == "target-unreachable"
            assert made.connector.target_states() == {"syslog": "failing"}

    run(main())


def test_without_a_connector_it_waits_a_moment(run, tmp_path):
    async def main() -> None:
        async with world(tmp_path, hold=0.2) as (made, port, far):
            await made.connector.tunnels.close()
            await until(lambda: not made.relay.registry.sessions())
            near = await dial(port)
            await until(lambda: near.events == ["reset"])
            assert made.relay_lines[0]["code"] == "no-connector"
            assert not far.ends

    run(main())


def test_who_may_not_come_in(run, tmp_path):
    async def main() -> None:
        limits = {"connections": 2, "connections_per_source": 1}
        async with world(tmp_path, networks=["127.0.0.1/32"], limits=limits) as (made, port, far):
            first = await dial(port)
            await far.connection()
            await refused(port)
            await until(lambda: made.relay_lines)
            assert made.relay_lines[0]["code"] == "too-many-connections"
            made.relay_document["tenants"]["acme"]["tcp_routes"][0]["networks"] = ["10.0.0.0/8"]
            assert (await made.reload_relay()).is_taken
            await until(lambda: first.events == ["reset"])  # what may not be any more ends
            await refused(port)
            assert made.relay_lines[-1]["code"] == "sender-network-refused"

    run(main())


def test_all_connections_of_the_process_together_are_bounded(run, tmp_path):
    """`limits.connections`: those of all routes count, whosesoever they are."""

    async def main() -> None:
        far = Target()
        far.server = await edge_server(far.ends.append)
        ports = free_port(), free_port()
        routes = [tcp_route("a", ports[0]), tcp_route("b", ports[1])]
        targets = [{"name": name, "tcp": f"127.0.0.1:{far.port}"} for name in ("a", "b")]
        async with chain(tmp_path, routes, targets, limits={"connections": 3}) as made:
            near = [await dial(ports[0]), await dial(ports[1]), await dial(ports[0])]
            await far.connection(2)
            await refused(ports[1])
            await until(lambda: made.relay_lines)
            assert (made.relay_lines[0]["code"], made.relay_lines[0]["route"]) == ("overloaded", "b")
            near[0].reset()
            await until(lambda: len(made.doors.tcp.connections) == 2)
            near.append(await dial(ports[1]))
            await far.connection(3)
            for end in near:
                end.reset()
            for end in far.ends:
                end.reset()
        far.server.close()

    run(main())


def test_idle_connections_end(run, tmp_path):
    async def main() -> None:
        async with world(tmp_path, idle=0.3) as (made, port, far):
            near = await dial(port)
            end = await far.connection()
            await until(lambda: near.events == ["reset"] and end.events == ["reset"])
            assert made.relay_lines[0]["code"] == "idle-timeout"

    run(main())


def test_routes_come_and_go_by_reload(run, tmp_path):
    async def main() -> None:
        async with world(tmp_path) as (made, port, far):
            near = await dial(port)
            end = await far.connection()
            routes = made.relay_document["tenants"]["acme"]["tcp_routes"]
            taken = await edge_server(lambda _: None)
            routes.append(tcp_route("other", taken.sockets[0].getsockname()[1]))
            outcome = await made.reload_relay()
            assert not outcome.is_taken
            assert "tenants.acme.tcp_routes[1].listen" in outcome.lines[0]
            assert "Address already in use" in outcome.lines[0]
            near.send(b"still there")
            await until(lambda: end.data == b"still there")
            taken.close()
            await taken.wait_closed()
            routes[1]["to"]["target"] = "syslog"
            assert (await made.reload_relay()).lines == ("route acme/other added",)
            other = await dial(int(routes[1]["listen"].rpartition(":")[2]))
            other.send(b"new")
            await until(lambda: any(one.data == b"new" for one in far.ends))
            del routes[0]
            assert (await made.reload_relay()).lines == ("route acme/syslog removed",)
            await until(lambda: near.events == ["reset"], 1)
            with pytest.raises(ConnectionRefusedError):
                await dial(port)
            other.send(b" and more")
            await until(lambda: any(one.data == b"new and more" for one in far.ends))

    run(main())


def test_a_removed_target_resets_its_connections(run, tmp_path):
    async def main() -> None:
        async with world(tmp_path) as (made, port, far):
            near = await dial(port)
            end = await far.connection()
            made.connector_document["targets"] = []
            assert (await made.reload_connector()).lines == ("target syslog removed",)
            await until(lambda: near.events == ["reset"] and end.events == ["reset"], 1)
            assert made.relay_lines[0]["code"] == "unknown-target"

    run(main())


def test_a_drain_waits_and_then_resets(run, tmp_path):
    async def main() -> None:
        async with world(tmp_path) as (made, port, far):
            near, other = await dial(port), await dial(port)
            end = await far.connection(1)
            near.send(b"x")
            await until(lambda: any(one.data for one in far.ends))
            async with asyncio.TaskGroup() as group:
                closing = group.create_task(made.doors.close_ingress(0.3))
                await asyncio.sleep(0.05)
                assert not closing.done()
                with pytest.raises(ConnectionRefusedError):
                    await dial(port)
            await until(lambda: near.events[-1:] == ["reset"] and other.events[-1:] == ["reset"])
            assert {line["code"] for line in made.relay_lines} == {"starting"}
            await until(lambda: end.events[-1:] == ["reset"])

    run(main())


def test_a_thousand_that_never_read_hold_up_nobody(tmp_path, monkeypatch):
    """Their bytes wait with us, bounded and counted; another target's connection flows at full speed meanwhile."""
    narrow: list[bool] = []

    def prepare(sock: socket.socket | None) -> None:
        keep_alive(sock)
        if narrow and sock is not None:  # or else the kernel would hold all of it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)

    monkeypatch.setattr("shared.tcp.plain.keep_alive", prepare)

    async def main() -> None:
        stuck, far = Target(), Target()
        stuck.server, far.server = await edge_server(stuck.ends.append), await edge_server(far.ends.append)
        stuck.server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        ports = free_port(), free_port()
        limits = {"connections": 2000, "connections_per_source": 2000}
        async with chain(
            tmp_path,
            [tcp_route("stuck", ports[0], limits=limits), tcp_route("flows", ports[1])],
            [
                {"name": "stuck", "tcp": f"127.0.0.1:{stuck.port}", "limits": {"connections": 2000}},
                {"name": "flows", "tcp": f"127.0.0.1:{far.port}"},
            ],
        ) as made:
            alone = min([await flow(ports[1], far) for _ in range(4)])
            narrow.append(True)
            senders = []
            for number in range(1000):
                near = await dial(ports[0])
                senders.append(near)
                (await stuck.connection(number)).pause()
                near.send(b"x" * 150_000)
            narrow.clear()
            held = made.connector.budget
            await until(lambda: held.used > 50_000_000, 30)
            assert held.used <= held.limit
            beside = min([await flow(ports[1], far) for _ in range(4)])
            assert beside < 1.5 * alone
            assert made.relay.budget.used <= made.relay.budget.limit
            assert not any("reset" in one.events for one in senders)
            for one in senders:
                one.reset()
            await until(lambda: all(one.events[-1:] == ["reset"] for one in stuck.ends) or not _resume(stuck))
            await until(lambda: made.connector.in_flight == 0, 20)
            assert held.used == 0
        stuck.server.close()
        far.server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def flow(port: int, far: Target) -> float:
    """32 MiB through a connection of its own: the seconds of the processor that they took, however busy it is."""
    number, began, size = len(far.ends), time.process_time(), 32 << 20
    near = await dial(port)
    end = await far.connection(number)
    for _ in range(size >> 16):
        while near.is_full:
            await asyncio.sleep(0.001)
        near.send(b"y" * 65536)
    near.end()
    await until(lambda: len(end.data) == size and "eof" in end.events, 30)
    spent = time.process_time() - began
    end.end()
    await until(lambda: near.events[-1:] == ["closed"])
    return spent


def _resume(target: Target) -> bool:
    """A paused end notices a reset only when it reads."""
    for one in target.ends:
        one.resume()
    return True


def test_a_target_that_hangs(run, tmp_path):
    """Its queue of connections is full, so the kernel answers nobody."""

    async def main() -> None:
        with socket.socket() as full, contextlib.ExitStack() as fillers:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            address = full.getsockname()
            for _ in range(4):
                filler = fillers.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(address)
            target = {"tcp": f"127.0.0.1:{address[1]}", "timeouts": {"connect": 0.3}}
            async with world(tmp_path, target=target) as (made, port, _):
                near = await dial(port)
                near.send(b"x")
                await until(lambda: near.events == ["reset"])
                assert made.relay_lines[0]["code"] == made.connector_lines[0]["code"] == "target-unreachable"
                assert "no connection within 0.3 s" in made.connector_lines[0]["detail"]

    run(main())


def test_a_taken_port_is_named_at_the_start(run, tmp_path):
    async def main() -> None:
        taken = await edge_server(lambda _: None)
        port = taken.sockets[0].getsockname()[1]
        with pytest.raises(CommandError, match=r"tenants\.acme\.tcp_routes\[0\]\.listen\): Address already in use"):
            async with chain(tmp_path, [tcp_route("a", port)], []):
                pass
        taken.close()

    run(main())
