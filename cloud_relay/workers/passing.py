"""What the supervisor gives each worker at its start: its number, the listening sockets, and one end of a channel.

Over the channel:

    from the worker       {"say": "ready"}                                     it serves
                          {"say": "pass", "to": number, "ends": …, "name": …}  with a socket: another worker's
                          {"say": "alive"}                                     its loop turns
                          {"say": "closed"}                                    it has no senders any more
                          {"say": "roll"}                                      all are to be replaced, one by one
                          {"say": "stop"}                                      all are to end
    from the supervisor   {"say": "leave"}                                     serve out your connections, and end
                          {"say": "all-closed"}                                no worker has any
                          {"say": "take", "ends": …, "name": …}                with a socket that another one has passed

The channel's end is the supervisor's: a worker without one ends, in good order.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from shared.channel import Channel
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited, Listening, adopt

VARIABLE: Final = "QANAT_WORKER"

MAX_WAITING: Final = 256
"""Connections that wait until a process takes them, on either channel of their way. Beyond that they are not passed."""

ALIVE_EVERY: Final = 2.0
"""Seconds between two signs of life of a worker."""

SILENCE: Final = 20
"""Seconds without one, after which a worker is taken for one that hangs: as long as a service manager waits."""


class Assignment(NamedTuple):
    """What a worker finds. `number` counts from 0, there are `workers` of them, and `state_dir` is that of all."""

    number: int
    workers: int
    channel: Channel
    inherited: Inherited
    state_dir: Path

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
            channel = socket.socket(fileno=int(given["channel"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(
                ExitCode.USAGE, f"{VARIABLE} is only for the relay itself to set, and names nothing of use here",
                "Unset it. Workers are started by 'cloud-relay serve --workers N'.",
            ) from error  # fmt: skip
        channel.set_inheritable(False)
        inherited = Inherited([adopt(descriptor, name) for descriptor, name in names.items()])
        return cls(number, workers, Channel(channel), inherited, state_dir)


class Outfit(NamedTuple):
    """What a worker is started with: `descriptors` are inherited under their own numbers, `variables` name them."""

    variables: Mapping[str, str]
    descriptors: Sequence[int]


def outfit(number: int, workers: int, channel: socket.socket, sockets: Sequence[Listening], state_dir: Path) -> Outfit:
    """Name what a worker gets. All of it stays the caller's, too."""
    named = {str(one.sock.fileno()): one.name for one in sockets}
    given = {
        "number": number, "workers": workers, "channel": channel.fileno(), "sockets": named,
        "state_dir": str(state_dir.absolute()),
    }  # fmt: skip
    return Outfit({VARIABLE: orjson.dumps(given).decode()}, [channel.fileno(), *(one.sock.fileno() for one in sockets)])
