"""What a sender process is told: one JSON file, readable by its owner only, since a credential is in it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """Where to push, as whom, how often; each name is a sender of its own within the process."""

    url: str
    ca_file: str | None
    authorization: str
    names: list[str]
    interval_s: float


def write_settings(path: Path, settings: SenderSettings) -> None:
    """Writes the file with mode 0600."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(settings), file)


def read_settings(path: Path) -> SenderSettings:
    return SenderSettings(**json.loads(path.read_text()))
