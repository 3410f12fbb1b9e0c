"""The listening sockets of all workers, held by their supervisor: a worker that dies takes none along."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloud_relay.doors import cannot_listen
from cloud_relay.port_plan import addresses
from shared.listeners import Inherited, Listening, open_sockets

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig


class BoundPorts:
    """What the workers are given. `inherited` are sockets of a service manager."""

    def __init__(self, inherited: Inherited) -> None:
        self._inherited = inherited
        self._sockets: dict[str, list[Listening]] = {}

    def __repr__(self) -> str:
        return f"<BoundPorts {', '.join(self._sockets) or 'none'}>"

    @property
    def sockets(self) -> list[Listening]:
        """All of them."""
        return [one for several in self._sockets.values() for one in several]

    async def bind(self, config: RelayConfig) -> None:
        """Have every address of this config, those that are new on top. CommandError names one that cannot be had."""
        loop = asyncio.get_running_loop()
        for where, listen in addresses(config):
            if str(listen) in self._sockets:
                continue
            try:
                sockets = await open_sockets(loop, listen.host or None, listen.port, self._inherited, where)
            except OSError as error:
                raise cannot_listen(listen, where, error) from error
            self._sockets[str(listen)] = [Listening(where, sock) for sock in sockets]
        self._inherited.refuse_strays()

    def keep_only(self, config: RelayConfig) -> None:
        """Close what this config does not ask for: what comes there would wait for ever."""
        wanted = {str(listen) for _, listen in addresses(config)}
        for address in self._sockets.keys() - wanted:
            self._close(address)

    def close(self) -> None:
        """Close all."""
        self._inherited.close()
        for address in list(self._sockets):
            self._close(address)

    def _close(self, address: str) -> None:
        for one in self._sockets.pop(address):
            one.sock.close()
