"""What a worker does with configs: it tries the one that the supervisor has read, and then uses or forgets it.

A worker reads no config by itself, for two might read different ones. Who asks a worker for a reload asks the
supervisor.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud_relay.config import RelayConfig
from cloud_relay.workers.agreement import FILE, capped
from shared.config import ConfigError, Edition, read_config
from shared.exits import CommandError
from shared.logs import get_logger
from shared.outcome import Outcome
from shared.pki.files import PkiError
from shared.tasks import cancel, spawn

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.reloading import Tried
    from shared.channel import Channel, Message

WORDS: Final = frozenset({"try", "use", "forget", "reloaded", "refused"})
"""What the supervisor says of configs."""

log = get_logger("relay.workers")


class Trial:
    """One at each worker."""

    def __init__(self, app: RelayApp, channel: Channel, folder: Path) -> None:
        self._app = app
        self._channel = channel
        self._path = folder / FILE
        self._tried: dict[int, Tried] = {}
        self._task: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[Outcome]] = {}
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<Trial of {len(self._tried)} configs, {len(self._asked)} reloads asked for>"

    def request(self) -> None:
        """Ask for a reload of all workers, soon."""
        self._channel.send({"say": "reload", "of": 0})

    async def reload(self) -> Outcome:
        """Ask for one, and wait for what it comes to."""
        number = next(self._numbers)
        future: asyncio.Future[Outcome] = self._app.loop.create_future()
        self._asked[number] = future
        try:
            self._channel.send({"say": "reload", "of": number})
            return await future
        finally:
            del self._asked[number]

    def heard(self, said: Message) -> None:
        """The supervisor has said one of WORDS."""
        word = said["say"]
        if word == "try":
            self._task = spawn(self._try(said["of"]), "trying a config")
        elif word == "use":
            self._use(said["of"])
        elif word == "forget":
            self._tried.clear()
        elif word == "refused":
            self._app.reloader.note(_outcome(said))
        else:
            self._answer(said)

    async def close(self) -> None:
        """Let go of all."""
        await cancel(self._task)
        for future in self._asked.values():
            if not future.done():
                future.set_result(Outcome.refused(["this worker ends"]))

    # --- within

    async def _try(self, number: int) -> None:
        self._tried.clear()
        try:
            edition = Edition.from_bytes(await asyncio.to_thread(self._path.read_bytes))
            known = self._app.reloader.loaded.credentials
            loaded = await asyncio.to_thread(read_config, self._app.path, RelayConfig, known, edition)
            found = await self._app.applying.try_out(loaded)
        except ConfigError as error:
            found = Outcome.invalid(error.problems)
        except PkiError as error:
            found = Outcome.invalid([error])
        except (CommandError, OSError, ValueError) as error:
            found = Outcome.refused([error])
        except Exception as error:  # whatever it is, the supervisor must not wait for an answer
            log.exception("a config could not be tried")
            found = Outcome.refused([f"{type(error).__name__}: {error}"])
        if isinstance(found, Outcome):
            outcome = found
        else:
            self._tried[number], outcome = found, found.outcome
        lines = capped(outcome.lines)
        self._channel.send({
            "say": "tried", "of": number, "problems": [] if outcome.is_taken else lines,
            "changes": lines if outcome.is_taken else [], "invalid": outcome.is_invalid,
            "restart": outcome.needs_a_restart,
        })  # fmt: skip

    def _use(self, number: int) -> None:
        tried = self._tried.pop(number, None)
        has_failed = tried is None
        try:
            if tried is not None:
                self._app.applying.use(tried)
                self._app.reloader.note(tried.outcome, tried.loaded)
        except Exception:  # whatever it is: who cannot do what it said it could begins anew
            log.exception("a config that was tried cannot be used")
            has_failed = True
        self._channel.send({"say": "used", "of": number, "failed": has_failed})

    def _answer(self, said: Message) -> None:
        future = self._asked.get(said["of"])
        if future is not None and not future.done():
            future.set_result(_outcome(said))


def _outcome(said: Message) -> Outcome:
    """What a reload came to, as the supervisor tells it."""
    if said["taken"]:
        return Outcome.taken(said["lines"])
    needs_a_restart = said.get("restart", False)  # an upgrade leaves the supervisor, which may be an older one
    return Outcome.refused(said["lines"])._replace(is_invalid=said["invalid"], needs_a_restart=needs_a_restart)
