"""What the service manager is told, by real datagrams in virtual time."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.service_manager import MAX_KEPT, MAX_STATUS, ServiceManager
from tests.connector_agent.kit import run, wait
from tests.support.manager import Manager


@pytest.fixture(params=["path", "abstract"])
def systemd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Manager]:
    with Manager(tmp_path, is_abstract=request.param == "abstract") as manager:
        yield manager


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path) as manager:
        yield manager


def test_a_life(systemd: Manager) -> None:
    status = "2 tunnels"

    async def live() -> None:
        nonlocal status
        manager = ServiceManager.from_environment(systemd.environment())
        manager.ready(lambda: status)
        assert systemd.hear() == [["READY=1", "STATUS=2 tunnels"]]
        await wait(60)
        assert systemd.hear() == []  # what has not changed is not told, and no watchdog wants to be fed
        status = "no tunnel"
        await wait(6)
        assert systemd.hear() == [["STATUS=no tunnel"]]
        manager.stopping(32.5)
        assert systemd.hear() == [["STOPPING=1", "EXTEND_TIMEOUT_USEC=32500000", "STATUS=draining"]]
        status = "draining, 1 push in flight"
        await wait(6)
        assert systemd.hear() == [["STATUS=draining, 1 push in flight"]]
        manager.close()
        await wait(60)
        assert systemd.hear() == []

    run(live)


def test_the_watchdog_is_fed_twice_in_its_time_until_the_end(plain: Manager) -> None:
    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment(watchdog=4.0))
        manager.ready(lambda: "well")
        await wait(12.5)
        assert plain.hear() == [["READY=1", "STATUS=well"], *[["WATCHDOG=1"]] * 6]
        manager.stopping(30.0)
        await wait(12)
        assert plain.heard("WATCHDOG=1") == 13
        manager.close()

    run(live)


def test_a_patient_watchdog_is_fed_as_often_as_the_status_is_looked_at(plain: Manager) -> None:
    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment(watchdog=3600.0))
        manager.ready(lambda: "well")
        await wait(12)
        assert plain.heard("WATCHDOG=1") == 3
        manager.close()

    run(live)


@pytest.mark.parametrize(
    ("usec", "pid", "is_fed"),
    [("2000000", "", True), ("2000000", "1", False), ("0", "", False), ("-5", "", False), ("٣٠", "", False)],
)
def test_whom_the_watchdog_is_for(plain: Manager, usec: str, pid: str, is_fed: bool) -> None:
    async def live() -> None:
        environ = plain.environment() | {"WATCHDOG_USEC": usec} | ({"WATCHDOG_PID": pid} if pid else {})
        manager = ServiceManager.from_environment(environ)
        manager.ready(lambda: "well")
        await wait(5)
        assert bool(plain.heard("WATCHDOG=1")) is is_fed
        manager.close()

    run(live)


def test_a_reload_lasts_until_it_is_over(plain: Manager) -> None:
    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment())
        manager.ready(lambda: "well")
        plain.hear()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        with manager.reloading():
            ((reloading, at),) = plain.hear()
        assert reloading == "RELOADING=1"
        assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= before + 60_000_000
        assert plain.hear() == [["READY=1"]]
        with pytest.raises(RuntimeError), manager.reloading():
            raise RuntimeError
        assert plain.heard("READY=1") == 3
        manager.close()

    run(live)


def test_a_reload_before_it_serves_or_while_it_ends_says_nothing(plain: Manager) -> None:
    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment())
        with manager.reloading():
            pass
        assert plain.hear() == []
        manager.ready(str)
        with manager.reloading():
            manager.stopping(1.0)
        with manager.reloading():
            pass
        assert plain.heard("READY=1") == 1
        assert plain.heard("RELOADING=1") == 1
        manager.close()

    run(live)


def test_children_do_not_find_the_manager_and_a_successor_does(plain: Manager) -> None:
    environ = plain.environment(watchdog=2.0) | {"PATH": "/bin"}

    async def live() -> None:
        manager = ServiceManager.from_environment(environ)
        assert environ == {"PATH": "/bin"}
        successor = ServiceManager.from_environment(manager.for_successor())
        manager.ready(lambda: "old")
        await manager.hand_over(4711)
        manager.stopping(5.0)  # to nobody
        successor.ready(lambda: "new")
        await wait(1.5)
        assert plain.hear() == [["READY=1", "STATUS=old"], ["MAINPID=4711"], ["READY=1", "STATUS=new"], ["WATCHDOG=1"]]
        successor.close()

    run(live)
    assert ServiceManager.from_environment({}).for_successor() == {}


def test_what_a_busy_manager_does_not_take_comes_later_and_in_order(plain: Manager) -> None:
    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment(watchdog=1.0))
        plain.fill()
        manager.ready(lambda: "well")
        with manager.reloading():
            await wait(30)
        plain.hear()
        await wait(0.2)
        came = plain.hear()
        assert [message[0] for message in came] == ["READY=1", "RELOADING=1", "READY=1"]
        await wait(1)
        assert plain.heard("WATCHDOG=1")
        plain.fill()
        for _ in range(MAX_KEPT):
            with manager.reloading():
                pass
        assert f"kept={MAX_KEPT}" in repr(manager)
        manager.close()

    run(live)


def test_a_successor_is_named_before_anybody_goes_on(plain: Manager) -> None:
    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment(watchdog=1.0))
        manager.ready(lambda: "well")
        plain.fill()
        handing_over = asyncio.get_running_loop().create_task(manager.hand_over(4711))
        await wait(3)
        assert not handing_over.done()
        plain.hear()
        await handing_over
        assert plain.hear() == [["MAINPID=4711"]]

    run(live)


def test_a_manager_that_hangs_holds_up_no_hand_over_and_is_told_when_it_takes_something(plain: Manager) -> None:
    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment(watchdog=1.0))
        manager.ready(lambda: "well")
        plain.fill()
        began = asyncio.get_running_loop().time()
        await manager.hand_over(4711)
        assert asyncio.get_running_loop().time() - began == pytest.approx(4.0, abs=0.01)
        await wait(60)
        plain.hear()
        await wait(1)
        assert plain.hear() == [["MAINPID=4711"]]
        manager.close()

    run(live)


def test_a_status_that_fails_does_not_starve_the_watchdog(plain: Manager) -> None:
    def fail() -> str:
        raise RuntimeError("a bug")

    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment(watchdog=2.0))
        manager.ready(fail)
        await wait(6.5)
        assert plain.hear() == [["READY=1"], *[["WATCHDOG=1"]] * 6]
        manager.close()

    run(live)


def test_a_manager_that_is_gone_harms_nothing(tmp_path: Path) -> None:
    async def live() -> None:
        with Manager(tmp_path) as plain:
            manager = ServiceManager.from_environment(plain.environment(watchdog=1.0))
        for vanish in (lambda: None, Path(tmp_path / "notify").unlink):
            vanish()
            manager.ready(lambda: "well")
            await wait(20)
        manager.stopping(1.0)
        manager.close()
        manager.close()

    run(live)


def test_a_status_is_one_line_of_bounded_length(plain: Manager) -> None:
    async def live() -> None:
        manager = ServiceManager.from_environment(plain.environment())
        manager.ready(lambda: "a\nREADY=1\r\x00b" + "c" * 10_000)
        ((_, status),) = plain.hear()
        assert status.startswith("STATUS=a READY=1 bc")
        assert len(status) == len("STATUS=") + MAX_STATUS
        manager.close()

    run(live)


@pytest.mark.parametrize("address", ["", "@", "vsock:2:1234", "relative/path"])
def test_nobody_or_somebody_unknown(address: str) -> None:
    def fail() -> str:
        raise AssertionError("nobody wants to know")

    async def live() -> None:
        manager = ServiceManager.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
        manager.ready(fail)
        with manager.reloading():
            await wait(10)
        await manager.hand_over(os.getpid())
        manager.stopping(1.0)
        manager.close()

    run(live)


def test_the_socket_is_not_inherited(plain: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    real: Callable[..., socket.socket] = socket.socket

    def remember(*arguments: int) -> socket.socket:
        made.append(real(*arguments))
        return made[-1]

    monkeypatch.setattr("shared.service_manager.socket.socket", remember)
    manager = ServiceManager.from_environment(plain.environment())
    assert [one.get_inheritable() for one in made] == [False]
    manager.close()
    assert [one.fileno() for one in made] == [-1]
