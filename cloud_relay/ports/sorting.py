"""Who gets a connection: by the port alone, or by the server name in its ClientHello."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    import socket

    from cloud_relay.ports.networks import Network
    from shared.tcp.head import Ends

Found = TypeVar("Found")


class Destination(Protocol):
    """Takes connections."""

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        """A socket from which nothing has been read; it is the destination's own from now on. It does not block.

        `server_name` is known where it was looked at.
        """


class NameTable(Generic[Found]):
    """What belongs to a server name: a whole name goes before a wildcard, which stands for exactly one label."""

    __slots__ = ("_names",)

    def __init__(self, names: Mapping[str, Found]) -> None:
        """Names in lower case; a wildcard as `*.example.com`."""
        self._names = dict(names)

    def get(self, name: str) -> Found | None:
        """What this name, in lower case, belongs to."""
        found = self._names.get(name)
        return found if found is not None else self._names.get("*." + name.partition(".")[2])

    def __len__(self) -> int:
        return len(self._names)

    def replaced(self, names: Mapping[str, Found]) -> NameTable[Found]:
        """The same with these names standing for something else."""
        return NameTable({**self._names, **names})


@dataclass(frozen=True, slots=True)
class Sorting:
    """The rules of one port under one config.

    `default` gets what `names` have nothing for, None: it is refused. With `proxy_from`, each connection begins with a
    PROXY header, and comes from one of these networks.
    """

    default: Destination | None = None
    names: NameTable[Destination] = field(default_factory=lambda: NameTable({}))
    proxy_from: tuple[Network, ...] = ()
    must_look: bool = False
    """Whether the destination wants all of the ClientHello to be there."""

    def with_names(self, names: Mapping[str, Destination]) -> Sorting:
        """The same rules, save that these names go elsewhere."""
        return replace(self, names=self.names.replaced(names))

    @property
    def looks(self) -> bool:
        """Whether the ClientHello has to be looked at."""
        return self.must_look or len(self.names) > 0 or self.default is None
