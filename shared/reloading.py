"""One config in force: read again when asked or when a file changed, and replaced only by one that is good.

    reloader = Reloader(path, loaded, RelayConfig, apply, log)
    reloader.prime()                     # the files as they are now are what is in force
    spawn(reloader.watch(), "reload watcher")

`apply(loaded)` puts a config into force, or raises ConfigError or PkiError, or returns a refusal, and changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from shared.config import ConfigError, ConfigModel, Loaded, read_config
from shared.outcome import Logger, Outcome, describe_outcome
from shared.pki.files import PkiError
from shared.reload import Change, Reason, ReloadWatcher

Model = TypeVar("Model", bound=ConfigModel)


class Reloader(Generic[Model]):
    """The config in force, and the way to the next one. One reload at a time.

    Watched are the files of the config in force, and after a refusal also those that the refused one named: whoever
    mends one of them need not touch the config once more.
    """

    def __init__(
        self,
        path: Path,
        loaded: Loaded[Model],
        model: type[Model],
        apply: Callable[[Loaded[Model]], Awaitable[Outcome]],
        log: Logger,
        watcher: Callable[..., ReloadWatcher] = ReloadWatcher,
        told: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`told` is entered for as long as a reload lasts."""
        self.path = path
        self.loaded = loaded
        self.last: Outcome | None = None
        self.taken_at = time.time()
        """Since when the config holds, Unix time."""
        self._model = model
        self._apply = apply
        self._log = log
        self._refused: list[Path] = []
        self._watcher = watcher(self.watched, self._on_change)
        self._told = told
        self._lock = asyncio.Lock()

    def watched(self) -> list[Path]:
        """Every file and folder whose change calls for a reload."""
        return list(dict.fromkeys([*self.loaded.watched(), *self._refused]))

    def prime(self) -> None:
        """Take the files as they are now for what is in force."""
        self._watcher.prime()

    def request(self) -> None:
        """Reload soon: SIGHUP."""
        self._watcher.trigger()

    async def watch(self) -> NoReturn:
        """Watch the files until cancelled."""
        await self._watcher.run()

    async def reload(self) -> Outcome:
        """Read everything again, and use it if all of it is good; else keep everything."""
        async with self._lock:
            with self._told():
                self._watcher.prime()  # what is read now is not news to the watcher
                outcome = self.last = await self._read_and_apply()
                self._watcher.adopt()
        describe_outcome(self._log, outcome, self.path)
        return outcome

    def note(self, outcome: Outcome, loaded: Loaded[Model] | None = None) -> None:
        """Another process has reloaded for this one: what that came to, and what is in force now."""
        self.last = outcome
        if loaded is not None:
            self.loaded, self.taken_at = loaded, outcome.at

    async def _read_and_apply(self) -> Outcome:
        try:
            loaded = await asyncio.to_thread(read_config, self.path, self._model, self.loaded.credentials)
        except ConfigError as error:
            self._refused = list(error.looked_at)
            return Outcome.invalid(error.problems)
        try:
            outcome = await self._apply(loaded)
        except ConfigError as error:
            outcome = Outcome.invalid(error.problems)
        except PkiError as error:
            outcome = Outcome.invalid([error])
        if outcome.is_taken:
            self.loaded = loaded
            self.taken_at = outcome.at
        self._refused = [] if outcome.is_taken else loaded.watched()
        return outcome

    async def _on_change(self, change: Change) -> None:
        if change.reason is Reason.FILES:
            self._log.info("files changed", paths=[str(path) for path in change.paths])
        await self.reload()
