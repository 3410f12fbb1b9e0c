"""An upgrade with workers: each is replaced by a new process, one after the other. Whoever asks hears how far it is.

    rehearsal ── cannot ──────────────────────────────▶ failed: nobody has left
        │ can
        ▼
    worker N leaves ─▶ its new process serves ─▶ worker N-1 … ─▶ worker 0 ─▶ done
                                └─ does not ──────────▶ failed: the others stay as they are

The rehearsal is a process of what is installed now, with the config as it is now: it does all of a worker's start that
can be done beside workers that serve, and ends.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from shared.config import ConfigError
from shared.exits import CommandError, ExitCode
from shared.logs import get_logger

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from cloud_relay.workers.place import Worker
    from shared.config import Loaded

log = get_logger("relay.workers")


class Stage(enum.Enum):
    """How far an upgrade is."""

    REHEARSING = "rehearsing"
    LEAVING = "leaving"
    STARTING = "starting"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self in {Stage.DONE, Stage.FAILED}


class Crew(Protocol):
    """What an upgrade needs of the supervisor."""

    @property
    def workers(self) -> Sequence[Worker]: ...
    async def read_anew(self) -> Loaded[RelayConfig]:
        """The config as it is now, with its ports bound. ConfigError, CommandError."""

    async def rehearse(self, loaded: Loaded[RelayConfig]) -> str:
        """Whether a new process could serve it; its version. CommandError."""

    def put(self, loaded: Loaded[RelayConfig]) -> Loaded[RelayConfig]:
        """Workers that start from now on start with this; what they did before."""

    def settle(self) -> None:
        """Let go of ports that no worker has a use for any more."""

    def tell(self, upgrade: dict[str, Any]) -> None:
        """All workers are to know how far it is."""


class Rolling:
    """One upgrade: `run` it once. `number` tells it from others, in the life of the supervisor."""

    def __init__(self, crew: Crew, number: int) -> None:
        self.number = number
        self.stage = Stage.REHEARSING
        self.leaving: Worker | None = None
        """Who is being replaced."""
        self.replaced = 0
        """How many were."""
        self._crew = crew
        self._version = ""
        self._problem: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Rolling {self.number} {self.stage.value} {self.replaced}>"

    def describe(self) -> dict[str, Any]:
        """How far it is, JSON-able. `worker` is who is being replaced, `error` a problem object."""
        return {
            "number": self.number, "stage": self.stage.value, "workers": len(self._crew.workers),
            "replaced": self.replaced, "worker": self.leaving.number if self.leaving is not None else None,
            "version": self._version, "error": self._problem,
        }  # fmt: skip

    def sentence(self) -> str:
        """How far it is, for people."""
        if self.leaving is None:
            return f"an upgrade: {self.stage.value}"
        return f"an upgrade: worker {self.replaced + 1} of {len(self._crew.workers)} {self.stage.value}"

    async def run(self) -> None:
        """Replace all workers, the first one, which is asked, last. What goes wrong is told, not raised."""
        crew = self._crew
        before: Loaded[RelayConfig] | None = None
        try:
            self._tell(Stage.REHEARSING)
            loaded = await crew.read_anew()
            self._version = await crew.rehearse(loaded)
            before = crew.put(loaded)
            for worker in reversed(crew.workers):
                await self._replace(worker)
                before = None  # it is in force somewhere: there is no way back
        except Exception as error:  # noqa: BLE001 — whatever it is, whoever waits for the end must hear of it
            if before is not None:
                crew.put(before)
            self._fail(error)
        else:
            log.info("all workers are replaced", workers=len(crew.workers), version=self._version)
            self.leaving = None
            self._tell(Stage.DONE)
        if self.stage is Stage.DONE or not self.replaced:
            crew.settle()

    async def _replace(self, worker: Worker) -> None:
        """A worker that drains takes no more connections; those that come are the others', and wait for none."""
        self.leaving = worker
        log.info("a worker is replaced", worker=worker.number)
        self._tell(Stage.LEAVING)
        worker.leave()
        await worker.has_begun.wait()
        self._tell(Stage.STARTING)
        await worker.is_settled.wait()
        if not worker.is_ready.is_set():
            raise _failure(worker)
        self.replaced += 1

    def _fail(self, error: Exception) -> None:
        fault = error if isinstance(error, CommandError) else _as_fault(error)
        if not isinstance(error, CommandError | ConfigError):
            log.error("a bug", exc_info=error)
        self._problem = {
            name: value
            for name, value in fault.problem().items()
            if name in {"title", "code", "remedy", "detail", "exit_code"}
        }
        log.error("the upgrade has failed", cause=fault.message, replaced=self.replaced)
        self._tell(Stage.FAILED)

    def _tell(self, stage: Stage) -> None:
        self.stage = stage
        self._crew.tell(self.describe())


def _as_fault(error: Exception) -> CommandError:
    if not isinstance(error, ConfigError):
        return CommandError(
            ExitCode.FAILED, f"{type(error).__name__}: {error}"[:2000], "The log says more.", "internal-error"
        )
    return CommandError(
        ExitCode.CONFIG, f"the config cannot be used: {error}"[:2000],
        "Mend it; nothing was replaced, and the relay serves on.", "config-invalid",
    )  # fmt: skip


def _failure(worker: Worker) -> CommandError:
    cause = worker.failure.get("title", "") if worker.failure else "its log says why"
    return CommandError(
        ExitCode.FAILED, f"the new process of worker {worker.number} did not come to serve: {cause}",
        "It is tried again and again, and the others serve on. Mend the cause, and upgrade anew.", "worker-failed",
    )  # fmt: skip
