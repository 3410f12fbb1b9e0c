"""What is read again, what is watched, and what a refusal leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from shared.config import ConfigFile, ConfigModel, ConfigPath, Loaded, read_config
from shared.logs import get_logger
from shared.metrics import Metrics
from shared.outcome import Outcome
from shared.pki.files import PkiError
from shared.reload import ReloadWatcher
from shared.reload_metrics import add_reload_gauges
from shared.reloading import Reloader
from shared.tasks import cancel, spawn


class Config(ConfigModel):
    state_dir: ConfigPath = Path("state")
    number: int = 0
    key: ConfigFile | None = None


class Clock:
    """The watcher's pauses: each lasts until `tick`."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def pause(self, triggered: asyncio.Event, _seconds: float) -> None:
        if not triggered.is_set():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    async def tick(self) -> None:
        """Let one look happen, and one more for the change to settle; done when the watcher waits again."""
        for _ in range(2):
            await self.is_waiting()
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.set_result(None)
            await self.is_waiting()

    async def is_waiting(self) -> None:
        while not self._waiting:
            await asyncio.sleep(0.001)


class Place:
    """A folder with a config, and a reloader that watches it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.main = folder / "main.yaml"
        self.main.write_text("number: 1\ninclude: [conf.d/*.yaml]\n")
        (folder / "conf.d").mkdir()
        self.clock = Clock()
        self.trouble: Exception | Outcome | None = None
        self.reloader = Reloader(
            self.main,
            read_config(self.main, Config),
            Config,
            self._apply,
            get_logger("test"),
            lambda paths, on_change: ReloadWatcher(paths, on_change, pause=self.clock.pause),
        )

    async def _apply(self, loaded: Loaded[Config]) -> Outcome:
        if isinstance(self.trouble, Exception):
            raise self.trouble
        return self.trouble or Outcome.taken([f"number is {loaded.config.number}"])

    @property
    def number(self) -> int:
        return self.reloader.loaded.config.number

    @property
    def watched(self) -> list[str]:
        return [path.relative_to(self.folder).as_posix() for path in self.reloader.watched()]

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    made.reloader.prime()
    task = spawn(made.reloader.watch(), "watch")
    yield made
    await cancel(task)


async def test_a_changed_file_is_read(place: Place) -> None:
    place.write("main.yaml", "number: 2\n")
    await place.clock.tick()
    assert place.number == 2
    assert place.reloader.last is not None
    assert place.reloader.last.lines == ("number is 2",)


async def test_watched_are_sources_folders_and_named_files_but_no_state(place: Place) -> None:
    place.write("k.pem", "1")
    place.write("conf.d/a.yaml", "key: ../k.pem\nstate_dir: s\n")
    await place.reloader.reload()
    assert place.watched == ["main.yaml", "conf.d/a.yaml", "conf.d", "conf.d/../k.pem"]


async def test_a_refused_include_is_watched_until_it_is_mended(place: Place) -> None:
    place.write("conf.d/a.yaml", "numbre: 2\n")
    await place.clock.tick()
    assert place.reloader.last is not None
    assert not place.reloader.last.is_taken
    assert "conf.d/a.yaml" in place.watched
    place.write("conf.d/a.yaml", "key: main.yaml\n")  # relative to conf.d: it is not there
    await place.clock.tick()
    assert "conf.d/main.yaml" in place.watched
    place.write("conf.d/main.yaml.tmp", "")  # a name that no wildcard means; its folder is watched, so it is read again
    (place.folder / "conf.d" / "main.yaml.tmp").rename(place.folder / "conf.d" / "key.pem")
    place.write("conf.d/a.yaml", "key: key.pem\n")
    await place.clock.tick()
    assert place.reloader.last.is_taken
    assert place.watched == ["main.yaml", "conf.d/a.yaml", "conf.d", "conf.d/key.pem"]


async def test_a_missing_file_is_waited_for(place: Place) -> None:
    place.write("main.yaml", "number: 3\nkey: k.pem\n")
    await place.clock.tick()
    assert place.number == 1
    place.write("k.pem", "here I am")
    await place.clock.tick()
    assert place.number == 3


async def test_a_missing_include_is_waited_for(place: Place) -> None:
    place.write("main.yaml", "include: [more.yaml]\n")
    await place.clock.tick()
    assert place.number == 1
    place.write("more.yaml", "number: 4\n")
    await place.clock.tick()
    assert place.number == 4


@pytest.mark.parametrize("trouble", [lambda: PkiError("k.pem: no certificate"), lambda: Outcome.needs_restart(["log"])])
async def test_what_cannot_be_applied_changes_nothing(place: Place, trouble: Callable[[], Exception | Outcome]) -> None:
    place.write("k.pem", "bad")
    place.trouble = trouble()
    place.write("main.yaml", "number: 5\nkey: k.pem\n")
    await place.clock.tick()
    assert place.number == 1
    assert "k.pem" in place.watched
    place.trouble = None
    place.write("k.pem", "good")
    await place.clock.tick()
    assert place.number == 5


async def test_what_the_last_reload_came_to_is_a_metric(place: Place) -> None:
    metrics = Metrics(process=False)
    add_reload_gauges(metrics, "qanat_test", place.reloader)

    def shown() -> list[float]:
        return [float(line.split()[1]) for line in metrics.render().decode().splitlines() if not line.startswith("#")]

    success, started_at = shown()
    assert success == 1.0
    place.write("main.yaml", "number: 2\n")
    await place.reloader.reload()
    success, taken_at = shown()
    assert success == 1.0
    assert taken_at > started_at
    place.write("main.yaml", "no_such_key: 2\n")
    await place.reloader.reload()
    assert shown() == [0.0, taken_at]
