"""A worker that cannot read what was revoked: at last it serves nobody, and it serves again when it can."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloud_relay.doors import Doors
from cloud_relay.handover import follow
from cloud_relay.handover.follow import Follower
from cloud_relay.health import RelayState
from cloud_relay.tunnels import TunnelListener
from cloud_relay.workers import blindness
from cloud_relay.workers.blindness import BLIND_AFTER, LOOK, Blindness
from cloud_relay.workers.host import Host

LOOKS = int(BLIND_AFTER / LOOK)


class Ground:
    """A worker with one sibling; what was done to its doors, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.follower = SimpleNamespace(unread_for=0.0)
        self.sibling = SimpleNamespace(number=2, is_connected=True, is_blind=False)
        self.app = SimpleNamespace(ingress=SimpleNamespace(state=RelayState.SERVING), doors=self)
        self.tunnel = self
        self.senders = SimpleNamespace(is_unfit=True)
        self.blindness = Blindness(
            cast(Any, self), 1, cast(Any, self.follower), cast(Any, self),
            cast(Any, SimpleNamespace(siblings=[self.sibling])),
        )  # fmt: skip

    @property
    def state(self) -> RelayState:
        return RelayState(self.app.ingress.state)

    def is_at(self) -> str:
        return self.state.value

    @property
    def ingress(self) -> Any:
        return self.app.ingress

    @property
    def doors(self) -> Ground:
        return self

    def __getattr__(self, name: str) -> Any:
        if not any(hasattr(kind, name) for kind in (Doors, TunnelListener, Host)):
            raise AttributeError(name)

        def do(*_values: Any, **named: Any) -> None:
            self.done.append("tell" if "is_blind" in named else name)

        return do

    def look(self, unread_for: float, times: int = 1) -> list[str]:
        self.follower.unread_for = unread_for
        self.done.clear()
        for _ in range(times):
            self.blindness.look()
        return self.done


def test_it_serves_on_for_a_while_and_then_nobody_and_then_again() -> None:
    ground = Ground()
    assert ground.look(30.0, LOOKS - 1) == []
    assert ground.is_at() == "serving"
    assert ground.blindness.health() == {"state_unread_s": 30.0, "blind_workers": []}
    assert ground.look(60.0) == ["suspend", "tell", "cut_off", "pause_ports"]
    assert ground.is_at() == "blind"
    assert ground.blindness.health() == {"state_unread_s": 60.0, "blind_workers": [1]}
    assert ground.look(61.0, 10) == ["cut_off"] * 10, "whoever was let in by a hair"
    assert ground.look(0.0) == ["resume", "recheck", "resume_ports", "tell"]
    assert ground.is_at() == "serving"
    assert ground.look(0.0, 10) == []


def test_one_that_was_frozen_has_not_failed_to_read() -> None:
    ground = Ground()
    assert ground.look(3600.0, 3) == []
    assert ground.look(0.0) == []
    assert ground.is_at() == "serving"


def test_where_nobody_can_read_it_who_comes_is_told() -> None:
    ground = Ground()
    ground.sibling.is_blind = True
    assert "pause_ports" not in ground.look(60.0, LOOKS)
    assert not ground.blindness.is_relieved
    assert ground.blindness.health()["blind_workers"] == [1, 2]
    ground.sibling.is_blind = False
    assert ground.look(60.0) == ["cut_off", "pause_ports"]
    ground.sibling.is_connected = False
    assert ground.look(60.0) == ["cut_off", "resume_ports"]


def test_one_that_ends_meanwhile_does_not_come_back() -> None:
    ground = Ground()
    ground.look(60.0, LOOKS)
    ground.app.ingress.state = RelayState.STOPPED
    ground.sibling.is_connected = False
    assert "resume_ports" not in ground.look(60.0)
    assert "resume_ports" not in ground.look(0.0)
    assert ground.is_at() == "stopped"


@pytest.mark.parametrize("is_blind_first", [True, False])
def test_one_that_leaves_serves_nobody_meanwhile_and_lets_in_nobody_afterwards(is_blind_first: bool) -> None:
    ground = Ground()
    if is_blind_first:
        ground.look(60.0, LOOKS)
    ground.app.ingress.state = RelayState.DRAINING
    if is_blind_first:
        ground.blindness.keep_shut()  # what the app does
    else:
        ground.look(60.0, LOOKS)
    assert ground.is_at() == "blind"
    ground.sibling.is_connected = False
    assert ground.look(60.0) == ["cut_off"], "its ports are the next process's"
    assert "resume_ports" not in ground.look(0.0)
    assert ground.is_at() == "draining"


async def test_a_bug_at_one_look_does_not_end_the_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blindness, "LOOK", 0.001)
    ground = Ground()
    seen = []

    def look() -> None:
        seen.append(1)
        raise RuntimeError("a bug")

    ground.blindness.look = look  # type: ignore[method-assign]  # one that fails
    task = asyncio.get_running_loop().create_task(ground.blindness.run())
    async with asyncio.timeout(5):
        while len(seen) < 3:
            await asyncio.sleep(0.001)
    task.cancel()


def test_what_metrics_show_of_it() -> None:
    ground = Ground()
    shown: dict[str, Any] = {}
    metrics = SimpleNamespace(gauge=lambda name, _text, read: shown.update({name.removeprefix("qanat_relay_"): read}))
    ground.blindness._number = 0
    ground.blindness.add_gauges(cast(Any, metrics))
    ground.sibling.is_blind = True
    ground.follower.unread_for = 6.5
    assert {name: read() for name, read in shown.items()} == {
        "workers_blind": 1.0, "state_unread_seconds": 6.5, "sender_state_unfit": 1.0,
    }  # fmt: skip
    ground.blindness._number = 1
    assert shown["workers_blind"]() == 0.0, "the first says it, once for all"


@pytest.mark.parametrize("hangs", [False, True])
async def test_reading_that_fails_or_never_ends_is_no_reading(hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK", 0.01)
    monkeypatch.setattr(follow, "PATIENCE", 5)
    loop, is_away = asyncio.get_running_loop(), False

    async def read() -> None:
        if is_away and hangs:
            await asyncio.sleep(3600)
        if is_away:
            raise OSError("no such disk")

    identity, senders = SimpleNamespace(follow=read), SimpleNamespace(follow=lambda: None)
    follower = Follower(cast(Any, SimpleNamespace(loop=loop, identity=identity, senders=senders)))
    assert follower.unread_for == 0.0
    task = loop.create_task(follower.run())
    await asyncio.sleep(0.1)
    assert follower.unread_for == 0.0
    is_away = True
    await asyncio.sleep(0.15)
    assert follower.unread_for > 0.05
    if not hangs:
        is_away = False
        await asyncio.sleep(0.05)
        assert follower.unread_for == 0.0
    task.cancel()
