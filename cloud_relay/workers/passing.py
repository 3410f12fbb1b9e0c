"""What the supervisor gives each worker at its start: its number, the config that it has read, the listening sockets
that this config asks for, and one end of a channel.

Over the channel:

    from the worker       {"say": "ready"}                                     it serves
                          {"say": "pass", "to": number, "ends": …, "name": …}  with a socket: another worker's
                          {"say": "alive"}                                     its loop turns
                          {"say": "closed"}                                    it has no senders any more
                          {"say": "roll"}                                      all are to be replaced, one by one
                          {"say": "stop"}                                      all are to end
                          {"say": "reload", "of": number}                      read the config anew, and answer
                          {"say": "tried", "of": …, "problems": …, "changes": …, "invalid": bool}
                                                                               whether it can use a config
                          {"say": "used", "of": number, "failed": bool}        it does
                          {"say": "hello", "version": …}                       its first word
                          {"say": "failed", "problem": …}                      its last, if it cannot start
    from the supervisor   {"say": "leave"}                                     serve out your connections, and end
                          {"say": "all-closed"}                                no worker has any
                          {"say": "take", "ends": …, "name": …}                with a socket that another one has passed
                          {"say": "try", "of": number}                         read a config, and say if it can be used
                          {"say": "use" or "forget", "of": number}             use it, or do not
                          {"say": "refused", "taken": …, "invalid": …, "lines": …}   a reload was
                          {"say": "reloaded", "of": …, …}                      what the reload came to
                          {"say": "upgrade", "upgrade": …}                     how far it is: see `rolling`

The channel's end is the supervisor's: a worker without one ends, in good order.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from shared.channel import Channel
from shared.config import Edition
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited, Listening, adopt

FOLDER: Final = "workers"
"""The name of the workers' folder in the relay's state_dir: sockets, and a config that is being tried."""

VARIABLE: Final = "QANAT_WORKER"

MAX_WAITING: Final = 256
"""Connections that wait until a process takes them, on either channel of their way. Beyond that they are not passed."""

ALIVE_EVERY: Final = 2.0
"""Seconds between two signs of life of a worker."""

SILENCE: Final = 20
"""Seconds without one, after which a worker is taken for one that hangs: as long as a service manager waits."""


class Assignment(NamedTuple):
    """What a worker finds. `number` counts from 0, there are `workers` of them, and `state_dir` is that of all.

    `is_rehearsal`: it is to find out whether it could serve, and to end.
    """

    number: int
    workers: int
    channel: Channel
    inherited: Inherited
    state_dir: Path
    edition: Edition
    is_rehearsal: bool

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Assignment | None:
        """What the variable names, which is taken out of `environ`; None for a process that is no worker.

        CommandError for one that names nothing of use.
        """
        text = environ.pop(VARIABLE, "")
        if not text:
            return None
        try:
            given = orjson.loads(text)
            number, workers = int(given["number"]), int(given["workers"])
            names = {int(descriptor): str(name) for descriptor, name in given["sockets"].items()}
            state_dir = Path(given["state_dir"])
            if not 0 <= number < workers:
                raise ValueError(f"no worker {number} of {workers}")
            edition, is_rehearsal = _read(int(given["config"])), bool(given["rehearsal"])
            channel = socket.socket(fileno=int(given["channel"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(
                ExitCode.USAGE, f"{VARIABLE} is only for the relay itself to set, and names nothing of use here",
                "Unset it. Workers are started by 'cloud-relay serve --workers N'.",
            ) from error  # fmt: skip
        channel.set_inheritable(False)
        sockets = [adopt(descriptor, name) for descriptor, name in names.items()]
        inherited = Inherited(sockets, is_complete=not is_rehearsal)
        return cls(number, workers, Channel(channel), inherited, state_dir, edition, is_rehearsal)


def _read(descriptor: int) -> Edition:
    with open(descriptor, "rb") as file:
        return Edition.from_bytes(file.read())


@contextmanager
def held(edition: Edition) -> Iterator[int]:
    """A descriptor of memory that holds the config, for a process that is about to start."""
    descriptor = os.memfd_create("config")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(edition.to_bytes())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


class Outfit(NamedTuple):
    """What a worker is started with: `descriptors` are inherited under their own numbers, `variables` name them."""

    variables: Mapping[str, str]
    descriptors: Sequence[int]


def outfit(
    place: tuple[int, int],
    channel: socket.socket,
    config: int,
    sockets: Sequence[Listening],
    state_dir: Path,
    *,
    is_rehearsal: bool = False,
) -> Outfit:
    """Name what a worker gets; `place` is its number, and how many there are. All of it stays the caller's, too."""
    named = {str(one.sock.fileno()): one.name for one in sockets}
    number, workers = place
    given = {
        "number": number, "workers": workers, "channel": channel.fileno(), "sockets": named, "config": config,
        "state_dir": str(state_dir.absolute()), "rehearsal": is_rehearsal,
    }  # fmt: skip
    descriptors = [channel.fileno(), config, *(one.sock.fileno() for one in sockets)]
    return Outfit({VARIABLE: orjson.dumps(given).decode()}, descriptors)
