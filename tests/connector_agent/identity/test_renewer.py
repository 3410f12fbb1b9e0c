"""When a renewal falls due and how it is tried again: in virtual time, over links in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from connector_agent.identity.renewer import HINT_PACE, MAX_PAUSE, Renewer
from connector_agent.identity.store import Identity, IdentityStore
from shared.clock import TrustedClock
from shared.pki import issue
from shared.pki.requests import key_id
from shared.pki.spiffe import connector_id
from shared.tasks import cancel, spawn
from shared.tunnel.link import Link
from tests.connector_agent.kit import run, wait
from tests.support.relay_double import Ca

ME = connector_id("qanat.test", "acme", "walldorf", "frun")
DAY = 86400.0


class FakeLink:
    """A link that answers each RENEW at once, by the world's `answer`."""

    is_renewal_offered = True

    def __init__(self, world: World) -> None:
        self.world = world

    def request_certificate(self, request: bytes) -> bool:
        world = self.world
        world.asked_at.append(world.loop.time() - world.began)
        world.loop.call_soon(world.renewer.on_certificate, cast(Link, self), world.answer(request))
        return True


class World:
    """A renewer with an identity of seven days, whose wall clock is the loop's."""

    def __init__(self, folder: Path, lifetime: timedelta = issue.LEAF_LIFETIME, jitter: float = 0.5) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.wall_offset = 0.0
        start = datetime.now(UTC)
        self.start = start.timestamp()
        self.ca = Ca(start)
        self.lifetime = lifetime
        self.clock = TrustedClock(wall=lambda: self.time() + self.wall_offset, monotonic=self.loop.time)
        self.store = IdentityStore(folder)
        key = issue.new_key()
        leaf = issue.issue_connector(self.ca.issuing, ME, key.public_key(), start, lifetime)
        self.identity = self.store.save_identity(key, [leaf, *self.ca.issuing.chain])
        self.asked_at: list[float] = []
        self.answer: Callable[[bytes], Mapping[str, str]] = self.honest
        self.links: list[FakeLink] = [FakeLink(self)]
        self.renewer = Renewer(
            self.store, self.clock, lambda: self.identity, lambda: self.ca.certificates,
            lambda: cast("list[Link]", self.links), self.install, jitter=lambda: jitter, offload=at_once,
        )  # fmt: skip

    def time(self) -> float:
        """What time it is."""
        return self.start + self.loop.time() - self.began

    def install(self, identity: Identity) -> None:
        self.identity = identity

    def honest(self, request: bytes) -> Mapping[str, str]:
        return {"certificate": self.ca.sign(ME, request, self.lifetime, datetime.fromtimestamp(self.time(), UTC))}


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """As asyncio.to_thread, for a loop whose time is virtual."""
    return function(*arguments)


def in_world(folder: Path, tell: Callable[[World], Coroutine[Any, Any, None]], **how: Any) -> None:
    async def main() -> None:
        world = World(folder, **how)
        task = spawn(world.renewer.run(), "renewer")
        try:
            await tell(world)
        finally:
            await cancel(task)

    run(main)


@pytest.mark.parametrize(("jitter", "part"), [(0.0, 0.4), (0.999, 0.5)])
def test_renewals_come_at_half_of_the_lifetime_and_not_all_at_once(tmp_path: Path, jitter: float, part: float) -> None:
    async def tell(world: World) -> None:
        await wait(30 * DAY)
        pauses = [after - before for before, after in zip(world.asked_at, world.asked_at[1:], strict=False)]
        assert len(world.asked_at) >= 8
        assert world.asked_at[0] == pytest.approx(7 * DAY * part, rel=0.01)
        assert pauses == pytest.approx([7 * DAY * part] * len(pauses), rel=0.01)

    in_world(tmp_path, tell, jitter=jitter)


def test_a_relay_that_cannot_issue_is_asked_for_ever(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        world.answer = lambda request: {"error": "cannot-issue", "detail": "the disk is full"}
        await wait(DAY)
        assert len(world.asked_at) > 300, "long past the end of the certificate, too"
        pauses = [after - before for before, after in zip(world.asked_at, world.asked_at[1:], strict=False)]
        assert max(pauses) <= MAX_PAUSE + 1
        assert world.renewer.last_error is not None
        world.answer = world.honest
        await wait(MAX_PAUSE + 1)
        assert world.renewer.last_error is None
        assert world.identity.certificate.not_valid_after_utc.timestamp() > world.time() + 3600

    in_world(tmp_path, tell, lifetime=timedelta(hours=2))


def test_without_a_tunnel_it_waits_and_asks_once_there_is_one(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        links, world.links = world.links, []
        await wait(10 * DAY)
        assert world.asked_at == []
        world.links = links
        world.renewer.on_open()
        await wait(0.1)
        assert len(world.asked_at) == 1

    in_world(tmp_path, tell)


@pytest.mark.parametrize("days", [40, -1])
def test_a_wall_clock_that_jumps_moves_nothing(tmp_path: Path, days: int) -> None:
    async def tell(world: World) -> None:
        await wait(DAY)
        world.clock.observe(world.time())
        world.wall_offset = days * DAY
        await wait(DAY)
        assert world.asked_at == []
        assert world.clock.is_doubtful
        await wait(1.5 * DAY)
        assert world.asked_at == pytest.approx([7 * DAY * 0.45], rel=0.01)

    in_world(tmp_path, tell)


def test_a_flood_of_hints_renews_at_a_bounded_pace(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        for _ in range(600):
            world.renewer.on_hint(0.0)
            await wait(1.0)
        assert len(world.asked_at) == pytest.approx(600 / HINT_PACE, abs=1)
        pauses = [after - before for before, after in zip(world.asked_at, world.asked_at[1:], strict=False)]
        assert min(pauses) >= HINT_PACE - 2

    in_world(tmp_path, tell)


def test_a_hint_is_spread_over_its_time(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        await wait(DAY)
        world.renewer.on_hint(3600.0)
        await wait(1700.0)
        assert world.asked_at == []
        await wait(200.0)
        assert len(world.asked_at) == 1

    in_world(tmp_path, tell)


def test_a_hint_never_puts_a_renewal_off(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        due = world.renewer.due
        world.renewer.on_hint(604_800.0)
        assert world.renewer.due <= due

    in_world(tmp_path, tell)


def test_each_renewal_has_a_new_key(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        keys = {key_id(world.identity.key.public_key())}
        for _ in range(3):
            await world.renewer.renew()
            keys.add(key_id(world.identity.key.public_key()))
        assert len(keys) == 4

    in_world(tmp_path, tell)


def test_lifetimes_of_seconds_are_renewed_thirty_times_a_minute(tmp_path: Path) -> None:
    async def tell(world: World) -> None:
        await wait(60.0)
        assert len(world.asked_at) >= 30
        assert world.identity.certificate.not_valid_after_utc.timestamp() > world.time()

    in_world(tmp_path, tell, lifetime=timedelta(seconds=4))
