"""A keeper's tunnels to a relay that fails, drains and advises as it likes: in virtual time, over memory."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest

from connector_agent.dialer import Dialer
from connector_agent.handshake import DialError
from connector_agent.relay_keeper import DIAL, RelayKeeper
from connector_agent.tunnel import Tunnel
from shared.protocol import Hello, Role, Stream
from shared.tasks import cancel, spawn
from shared.tunnel.link import Link
from shared.tunnel.memory import MemoryTransport
from tests.connector_agent.kit import run, wait
from tests.connector_agent.relay_kit import Relay, RelayEnd


class Kept(Relay):
    """A relay, and a keeper of tunnels to it."""

    def __init__(self, count: int, spread: float = 1.0) -> None:
        super().__init__(spread)
        self.keeper = RelayKeeper(
            "relay.test", 443, count, cast(Dialer, self), self._tunnel, self._own_link, jitter=lambda: 0.9,
            version=lambda: self.version, renew=self._renew,
        )  # fmt: skip
        self.version = 0
        self.renewed = 0
        self.task = spawn(self.keeper.run(), "keeper")

    def _tunnel(self, on_change: Any) -> Tunnel:
        return Tunnel(self.loop, self._on_stream, on_change, self.version)

    async def _renew(self, tunnel: Tunnel) -> None:
        self.renewed += 1

    def _own_link(self, tunnel: Tunnel) -> Link:
        return self.link(Role.CONNECTOR, tunnel, Hello(instance="i", targets={"t": "http"}))

    def _on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """A push that never ends."""

    async def close(self) -> None:
        self.keeper.stop_dialling()
        await cancel(self.task)
        for tunnel in self.keeper.all_tunnels():
            if tunnel.link is not None:
                tunnel.link.abort()
        await wait(0.01)


def test_a_tunnel_that_we_failed_is_no_refusal_of_the_relays() -> None:
    async def tell() -> None:
        relay = Kept(count=1)
        await wait(1.0)
        relay.ends[0].transport.send(b"\0")  # half a header
        await wait(0.001)
        error = relay.keeper.error
        assert error is not None
        assert (error.code, error.is_refusal) == ("protocol-error", False)
        await wait(1.0)
        assert relay.keeper.tunnels
        relay.ends[1].link.close("duplicate-instance")
        await wait(1.0)
        assert not relay.keeper.tunnels
        assert relay.keeper.error is not None
        assert relay.keeper.error.is_refusal
        assert relay.keeper.next_try_at > relay.loop.time() + 10
        await relay.close()

    run(tell)


def drain_with_a_push(end: RelayEnd) -> None:
    """Drain, and never let the last push end."""
    if end.link.can_open:
        end.link.open_stream(cast(Any, end), b"head", b"x")
        end.link.drain(3600.0)


def test_a_relay_that_drains_every_tunnel_gets_few_of_them_and_slowly() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        relay.at_once = lambda end: relay.loop.call_later(0.05, drain_with_a_push, end)
        await wait(5.0)
        for _ in range(50):
            await wait(0.1)
            assert len(relay.keeper.retiring) <= 2
            assert len(relay.open) <= 2 + 2
        assert 10 <= len(relay.dialled_at) <= 30
        await relay.close()

    run(tell)


def test_a_drained_tunnel_ends_after_a_minute_whatever_the_relay_says() -> None:
    async def tell() -> None:
        relay = Kept(count=1)
        await wait(10.0)
        drain_with_a_push(relay.ends[0])
        await wait(1.0)
        assert len(relay.keeper.tunnels) == len(relay.keeper.retiring) == 1
        await wait(57.0)
        assert not relay.ends[0].is_closed
        await wait(3.0)
        assert relay.ends[0].is_closed
        assert relay.open == relay.ends[1:]
        assert not relay.keeper.retiring
        await relay.close()

    run(tell)


def test_a_tunnel_that_served_for_a_while_is_replaced_at_once() -> None:
    async def tell() -> None:
        relay = Kept(count=1)
        for number in range(1, 6):
            await wait(10.0)
            began = relay.loop.time()
            relay.ends[-1].link.drain(5.0)
            await wait(1.0)
            assert relay.dialled_at[number] - began < 0.25
        await relay.close()

    run(tell)


def test_a_relay_that_hands_over_keeps_its_tunnels_until_it_drains_them() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        await wait(10.0)
        old = list(relay.ends)
        for end in old:
            end.link.ask_replacement(3600.0)
        await wait(1.0)
        assert len(relay.open) == 4
        assert all(end.link.can_open for end in relay.ends), "pushes come by the old ones, too"
        assert len(relay.keeper.tunnels) == len(relay.keeper.retiring) == 2
        await wait(600.0)
        drain_with_a_push(old[0])
        old[1].link.drain(2.0)
        await wait(1.0)
        assert [end.is_closed for end in old] == [False, True]
        await wait(60.0)
        assert old[0].is_closed, "a drain is bounded, as ever"
        assert relay.open == relay.ends[2:]
        assert len(relay.dialled_at) == 4
        await relay.close()

    run(tell)


def test_a_tunnel_that_was_to_be_replaced_ends_when_the_relay_said_it_would() -> None:
    async def tell() -> None:
        relay = Kept(count=1)
        await wait(10.0)
        relay.ends[0].link.ask_replacement(100.0)
        await wait(99.0)
        relay.ends[0].link.ask_replacement(100.0)  # asking again moves nothing
        assert not relay.ends[0].is_closed
        await wait(2.0)
        assert relay.ends[0].is_closed
        assert relay.open == relay.ends[1:]
        await relay.close()

    run(tell)


def test_a_relay_that_hands_over_and_over_gets_few_tunnels() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        relay.at_once = lambda end: relay.loop.call_later(0.05, end.link.ask_replacement, 7200.0)
        for _ in range(100):
            await wait(0.1)
            assert len(relay.open) <= 2 + 4 * 2 + 1
        assert len(relay.dialled_at) <= 40, "at the backoff's pace"
        await relay.close()

    run(tell)


class Away(Kept):
    """A relay that is away; `jitter` draws the longest waits there can be."""

    def __init__(self, spread: float) -> None:
        super().__init__(count=1, spread=spread)
        self.keeper._backoff._random = lambda: 0.9999
        self.is_away = False

    async def dial(self, host: str, port: int, open_receiver: Any, worker: int | None = None) -> MemoryTransport:
        if self.is_away:
            self.dialled_at.append(self.loop.time())
            raise DialError("relay-unreachable", "away", "")
        return await super().dial(host, port, open_receiver)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_who_waits_longest_is_back_within_the_spread_after_a_dial(spread: float) -> None:
    async def tell() -> None:
        relay = Away(spread)
        await wait(10.0)
        relay.is_away = True
        relay.ends[0].link.abort()
        await wait(60.0)
        pauses = [after - before for before, after in itertools.pairwise(relay.dialled_at[1:])]
        assert 0.7 * spread < max(pauses) <= spread - DIAL
        await relay.close()

    run(tell)


def test_no_relay_can_send_a_connector_away_for_an_hour() -> None:
    async def tell() -> None:
        relay = Kept(count=1, spread=3600.0)
        relay.at_once = lambda end: end.link.abort()
        await wait(3600.0)
        pauses = [after - before for before, after in itertools.pairwise(relay.dialled_at)]
        assert 100.0 < max(pauses) <= 120.0
        await relay.close()

    run(tell)


def test_another_identity_replaces_tunnels_new_before_old_and_loses_no_push() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        await wait(1.0)
        old = list(relay.ends)
        assert len(old) == 2
        old[0].link.open_stream(cast(Any, old[0]), b"head", b"x")
        relay.version = 1
        relay.keeper.refresh()
        fewest = 2
        for _ in range(100):
            await wait(0.01)
            fewest = min(fewest, sum(end.link.can_open for end in relay.ends))
        assert fewest == 2, "there were always two that take pushes"
        assert len(relay.ends) == 4
        assert [end.is_closed for end in relay.ends] == [False, True, False, False], "the push in flight goes on"
        assert len(relay.keeper.tunnels) == 2
        assert {tunnel.version for tunnel in relay.keeper.tunnels} == {1}
        await wait(65.0)
        assert old[0].is_closed, "not for ever"
        await relay.close()

    run(tell)


def test_the_old_tunnels_stay_while_no_new_one_can_be_opened() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        await wait(1.0)
        relay.at_once = lambda end: end.link.close("duplicate-instance")
        relay.version = 1
        relay.keeper.refresh()
        await wait(60.0)
        assert [end.is_closed for end in relay.ends[:2]] == [False, False]
        assert all(end.is_closed for end in relay.ends[2:])
        assert 4 <= len(relay.ends) <= 9, "at a refusal's pace"
        relay.at_once = lambda end: None
        await wait(40.0)
        assert [end.is_closed for end in relay.ends[:2]] == [True, True]
        assert {tunnel.version for tunnel in relay.keeper.tunnels} == {1}
        await relay.close()

    run(tell)


def test_identities_that_change_in_quick_succession_end_at_the_last_one() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        await wait(1.0)
        for _ in range(20):
            relay.version += 1
            relay.keeper.refresh()
            await wait(0.003)
        await wait(5.0)
        assert {tunnel.version for tunnel in relay.keeper.tunnels} == {20}
        assert len(relay.open) == 2
        await relay.close()

    run(tell)


def test_a_renew_only_tunnel_is_no_tunnel_and_is_dialled_anew_once_it_has_renewed() -> None:
    async def tell() -> None:
        relay = Kept(count=1)
        relay.renew_only = True
        began = relay.loop.time()
        await wait(1.0)
        assert relay.renewed == 2, "once for each of the two dials"
        assert relay.keeper.tunnels == []
        assert [end.is_closed for end in relay.ends] == [True, True]
        assert relay.dialled_at[1] - began < 0.1, "at once"
        assert relay.keeper.next_try_at > relay.loop.time() + 10, "a relay that goes on like this has to wait"
        relay.renew_only = False
        await wait(16.0)
        assert len(relay.keeper.tunnels) == 1
        await relay.close()

    run(tell)


def test_a_relay_of_several_processes_gets_a_tunnel_to_each_of_them() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        relay.workers = 4
        await wait(10.0)
        assert sorted(end.worker for end in relay.open) == [0, 1, 2, 3]
        lost = next(end for end in relay.open if end.worker == 2)
        lost.link.abort()
        await wait(3.0)
        assert sorted(end.worker for end in relay.open) == [0, 1, 2, 3]
        await relay.close()

    run(tell)


def test_tunnels_that_came_to_the_same_process_are_spread_once_the_others_are_there() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        relay.workers = 3
        relay.away = {1, 2}
        await wait(5.0)
        assert [end.worker for end in relay.open] == [0, 0, 0]
        relay.away = {2}
        await wait(30.0)
        assert sorted(end.worker for end in relay.open) == [0, 0, 1]
        relay.away = set()
        await wait(130.0)
        assert sorted(end.worker for end in relay.open) == [0, 1, 2]
        dialled = len(relay.dialled_at)
        await wait(300.0)
        assert len(relay.dialled_at) == dialled
        await relay.close()

    run(tell)


def test_a_process_that_never_comes_is_not_dialled_often() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        relay.workers = 3
        relay.away = {2}
        await wait(60.0)
        dialled = len(relay.dialled_at)
        await wait(600.0)
        assert len(relay.dialled_at) - dialled <= 600 / (0.9 * 5) + 2
        assert len(relay.open) == 3
        await relay.close()

    run(tell)


def test_a_relay_of_very_many_processes_gets_no_more_than_eight() -> None:
    async def tell() -> None:
        relay = Kept(count=2)
        relay.workers = 200
        await wait(20.0)
        assert len(relay.open) == len({end.worker for end in relay.open}) == 8
        await relay.close()

    run(tell)
