from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.reload import Change, Reason, ReloadWatcher, digest, digests
from shared.tasks import cancel, spawn


class Steps:
    """Stands in for time: the watcher's pauses end when the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[float] = asyncio.Queue()
        self._go = asyncio.Event()

    async def pause(self, event: asyncio.Event, seconds: float) -> None:
        if event.is_set():
            return
        self.asked.put_nowait(seconds)
        waits = [spawn(self._go.wait(), "go"), spawn(event.wait(), "event")]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        await cancel(*waits)
        self._go.clear()

    async def next(self) -> float:
        """Wait until the watcher pauses; the seconds it asks for."""
        return await self.asked.get()

    async def go(self) -> float:
        """End the pause that the watcher is in, and wait for the next one."""
        self._go.set()
        return await self.next()


class Watch:
    def __init__(self, paths: Callable[[], list[Path]]) -> None:
        self.steps = Steps()
        self.changes: list[Change] = []
        self.fails = False
        self.watcher = ReloadWatcher(paths, self.changed, interval=2.0, settle=0.3, pause=self.steps.pause)

    async def changed(self, change: Change) -> None:
        self.changes.append(change)
        if self.fails:
            raise RuntimeError("a bad config")

    @property
    def reasons(self) -> list[Reason]:
        return [change.reason for change in self.changes]


@contextlib.asynccontextmanager
async def watching(*paths: Path) -> AsyncIterator[Watch]:
    watch = Watch(lambda: list(paths))
    task = spawn(watch.watcher.run(), "watch")
    assert await watch.steps.next() == 2.0
    yield watch
    await cancel(task)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("one")
    return path


async def test_nothing_happens_while_nothing_changes(path):
    async with watching(path) as watch:
        for _ in range(3):
            assert await watch.steps.go() == 2.0
        os.utime(path)
        path.write_text("one")
        assert await watch.steps.go() == 2.0
    assert watch.changes == []


async def test_a_change_is_told_once_it_has_settled(path):
    async with watching(path) as watch:
        path.write_text("tw")
        assert await watch.steps.go() == 0.3
        path.write_text("two")
        assert await watch.steps.go() == 0.3
        assert watch.changes == []
        assert await watch.steps.go() == 2.0
        assert watch.changes == [Change(Reason.FILES, (path,))]
        assert await watch.steps.go() == 2.0
    assert len(watch.changes) == 1


async def test_a_change_that_is_taken_back_is_none(path):
    async with watching(path) as watch:
        path.write_text("two")
        assert await watch.steps.go() == 0.3
        path.write_text("one")
        assert await watch.steps.go() == 0.3
        assert await watch.steps.go() == 2.0
    assert watch.changes == []


async def test_a_file_that_never_settles_is_told_in_the_end(path):
    async with watching(path) as watch:
        waits = []
        for n in range(21):
            path.write_text(f"{n}")
            waits.append(await watch.steps.go())
        assert waits == [0.3] * 20 + [2.0]
    assert watch.reasons == [Reason.FILES]


async def test_a_file_that_goes_and_comes(path):
    async with watching(path) as watch:
        path.unlink()
        await watch.steps.go()
        await watch.steps.go()
        path.write_text("one")
        await watch.steps.go()
        await watch.steps.go()
    assert len(watch.changes) == 2


async def test_kubernetes_swaps_a_symbolic_link(tmp_path):
    for name, text in (("..1", "one"), ("..2", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    async with watching(tmp_path / "a.yaml") as watch:
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        await watch.steps.go()
        await watch.steps.go()
    assert watch.reasons == [Reason.FILES]


async def test_a_new_file_in_a_watched_folder(tmp_path):
    async with watching(tmp_path) as watch:
        (tmp_path / ".swap").write_text("")
        assert await watch.steps.go() == 2.0
        (tmp_path / "b.yaml").write_text("")
        assert await watch.steps.go() == 0.3
        await watch.steps.go()
    assert watch.changes == [Change(Reason.FILES, (tmp_path,))]


async def test_a_path_that_comes_to_be_watched_is_no_change(path, tmp_path):
    paths = [path]
    watch = Watch(lambda: paths)
    task = spawn(watch.watcher.run(), "watch")
    await watch.steps.next()
    other = tmp_path / "b.yaml"
    other.write_text("x")
    paths.append(other)
    await watch.steps.go()
    other.write_text("y")
    await watch.steps.go()
    await watch.steps.go()
    await cancel(task)
    assert watch.changes == [Change(Reason.FILES, (other,))]


async def test_what_changes_right_after_it_was_adopted_is_told(path, tmp_path):
    late = tmp_path / "late.yaml"
    late.write_text("one")
    paths = [path]
    watch = Watch(lambda: paths)
    watch.watcher.prime()
    task = spawn(watch.watcher.run(), "watch")
    await watch.steps.next()
    paths.append(late)
    watch.watcher.adopt()
    late.write_text("two")  # before the next look
    await watch.steps.go()
    await watch.steps.go()
    assert [change.paths for change in watch.changes] == [(late,)]
    await cancel(task)


class TestTrigger:
    async def test_reads_again_at_once_without_a_change(self, path):
        async with watching(path) as watch:
            watch.watcher.trigger()
            watch.watcher.trigger()
            assert await watch.steps.next() == 2.0
            assert watch.changes == [Change(Reason.SIGNAL, ())]

    async def test_names_what_changed(self, path):
        async with watching(path) as watch:
            path.write_text("two")
            watch.watcher.trigger()
            await watch.steps.next()
            assert watch.changes == [Change(Reason.SIGNAL, (path,))]

    async def test_does_not_wait_for_a_change_to_settle(self, path):
        async with watching(path) as watch:
            path.write_text("two")
            assert await watch.steps.go() == 0.3
            watch.watcher.trigger()
            assert await watch.steps.next() == 2.0
            assert watch.changes == [Change(Reason.SIGNAL, (path,))]

    async def test_sighup_does_it(self, path):
        loop = asyncio.get_running_loop()
        async with watching(path) as watch:
            watch.watcher.watch_sighup(loop)
            os.kill(os.getpid(), signal.SIGHUP)
            assert await watch.steps.next() == 2.0
            loop.remove_signal_handler(signal.SIGHUP)
        assert watch.reasons == [Reason.SIGNAL]


async def test_a_reload_that_fails_is_not_the_last_one(path):
    async with watching(path) as watch:
        watch.fails = True
        watch.watcher.trigger()
        await watch.steps.next()
        watch.fails = False
        watch.watcher.trigger()
        await watch.steps.next()
    assert len(watch.changes) == 2


async def test_what_changed_before_the_watch_began_counts_after_prime(path):
    watch = Watch(lambda: [path])
    watch.watcher.prime()
    path.write_text("two")
    task = spawn(watch.watcher.run(), "watch")
    await watch.steps.next()
    await watch.steps.go()
    await watch.steps.go()
    await cancel(task)
    assert watch.reasons == [Reason.FILES]


async def test_the_pause_itself_ends_early(path):
    changed = asyncio.Event()

    async def on_change(_change: Change) -> None:
        changed.set()

    watcher = ReloadWatcher(lambda: [path], on_change, interval=3600.0)
    task = spawn(watcher.run(), "watch")
    watcher.trigger()
    async with asyncio.timeout(5):
        await changed.wait()
    await cancel(task)


async def test_the_pause_itself_ends_in_time(path):
    changed = asyncio.Event()

    async def on_change(_change: Change) -> None:
        changed.set()

    watcher = ReloadWatcher(lambda: [path], on_change, interval=0.0, settle=0.0)
    watcher.prime()
    path.write_text("two")
    task = spawn(watcher.run(), "watch")
    async with asyncio.timeout(5):
        await changed.wait()
    await cancel(task)


def test_digests(path, tmp_path):
    assert digest(path) == digest(path) != digest(tmp_path)
    assert digests([tmp_path / "none"]) == {tmp_path / "none": None}
