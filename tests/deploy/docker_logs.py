"""What containers have said, read while they say it: a container that is removed takes its log along."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any, Final, NamedTuple

PROGRAMS: Final = {"cloud-relay": "serve", "connector-agent": "run"}
"""Ours, and the verbs by which they are daemons, whose every line is JSON."""

_LOUD_LEVELS: Final = {"warning", "error", "critical"}
_LOUD_TEXT: Final = re.compile(
    r"\b(level=(?!info|debug)\w+|WARN|ERROR|panic|Traceback|error:|warning:)|\t(warn|error|fatal)\t"
)
_PAUSE: Final = 0.1


class Line(NamedTuple):
    """One line of a container."""

    container: str
    daemon: bool
    text: str

    @property
    def is_loud(self) -> bool:
        """Whether an operator would stop at it: a warning or worse; of our daemons, also what is not JSON. A push's
        line has no level."""
        if not self.text.startswith("{"):
            return self.daemon or _LOUD_TEXT.search(self.text) is not None
        try:
            said = json.loads(self.text)
        except ValueError:
            return True
        return said.get("level") in _LOUD_LEVELS

    @property
    def is_access(self) -> bool:
        """Whether it tells of one push."""
        return self.daemon and '"level":' not in self.text

    def __str__(self) -> str:
        return f"{self.container}: {self.text}"


class Container:
    """A container's log file, which stays readable when the container is gone."""

    def __init__(self, folder: Path) -> None:
        config: dict[str, Any] = json.loads((folder / "config.v2.json").read_text())
        self.name = config["Name"].lstrip("/")
        self.image = config["Config"]["Image"]
        self.is_daemon = PROGRAMS.get(Path(config["Path"]).name, "") in config["Args"][:1]
        self._file = (folder / f"{folder.name}-json.log").open("rb")
        self._begun = b""

    def read(self) -> list[Line]:
        """The lines that have come since."""
        found = []
        for line in self._file:
            self._begun += line
            if self._begun.endswith(b"\n"):
                found.append(Line(self.name, self.is_daemon, json.loads(self._begun)["log"].rstrip("\n")))
                self._begun = b""
        return found

    def close(self) -> None:
        self._file.close()


class Logs:
    """A thread that follows every container of these images below an engine's folder, until `close`."""

    def __init__(self, folder: Path, images: set[str]) -> None:
        self._folder = folder
        self._images = images
        self._containers: dict[str, Container | None] = {}
        self._lines: list[Line] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="logs", daemon=True)
        self._thread.start()

    def take(self) -> list[Line]:
        """What has been said since this was last asked."""
        self._read()
        with self._lock:
            taken, self._lines = self._lines, []
        return taken

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for container in filter(None, self._containers.values()):
            container.close()

    def _follow(self) -> None:
        while not self._ended.wait(_PAUSE):
            self._read()

    def _read(self) -> None:
        with self._lock:
            for folder in self._folder.glob("*"):
                if folder.name not in self._containers:
                    self._open(folder)
            for container in filter(None, self._containers.values()):
                self._lines += container.read()

    def _open(self, folder: Path) -> None:
        try:
            container = Container(folder)
        except (OSError, ValueError):  # half made, or gone already
            return
        if container.image in self._images:
            self._containers[folder.name] = container
            return
        container.close()
        self._containers[folder.name] = None
