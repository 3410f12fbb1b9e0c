"""What the old process gives the new one at its start: listening sockets and one end of a channel, in one variable."""

from __future__ import annotations

import socket
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final, NamedTuple

import orjson

from shared.channel import Channel
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited, Listening, adopt

VARIABLE: Final = "QANAT_HAND_OVER"

MAX_PASSED: Final = 1024
"""Connections on their way from one process to the other that neither has taken: anybody can make one."""


class Passed(NamedTuple):
    """What a new process finds. `control` is the listening socket of the control door."""

    channel: Channel
    control: socket.socket
    inherited: Inherited

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Passed | None:
        """What the variable names, which is taken out of `environ`; None for a process that nobody hands over to."""
        text = environ.pop(VARIABLE, "")
        if not text:
            return None
        try:
            given = orjson.loads(text)
            numbers = [int(given["channel"]), int(given["control"])]
            names = {int(number): str(name) for number, name in given["sockets"].items()}
            channel, control = [socket.socket(fileno=number) for number in numbers]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(
                ExitCode.USAGE, f"{VARIABLE} is only for the relay itself to set, and names nothing of use here",
                "Unset it. A running relay hands over by 'cloud-relay upgrade'.",
            ) from error  # fmt: skip
        for sock in (channel, control):
            sock.set_inheritable(False)
        return cls(Channel(channel), control, Inherited([adopt(number, name) for number, name in names.items()]))


class Gift(NamedTuple):
    """What an old process passes on: `descriptors` are inherited under their own numbers, `variables` name them."""

    variables: Mapping[str, str]
    descriptors: Sequence[int]


def wrap(channel: socket.socket, control: socket.socket, sockets: Sequence[Listening]) -> Gift:
    """Name what is passed on. All of it stays the caller's, too."""
    named = {str(one.sock.fileno()): one.name for one in sockets}
    text = orjson.dumps({"channel": channel.fileno(), "control": control.fileno(), "sockets": named}).decode()
    return Gift({VARIABLE: text}, [channel.fileno(), control.fileno(), *(one.sock.fileno() for one in sockets)])
