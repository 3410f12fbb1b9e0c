"""Where a port hands sockets on for one TCP route: who may not come in ends here, before TLS and before any state."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from cloud_relay.health import RelayState
from cloud_relay.sources import source_key
from cloud_relay.tcp.access import log_refused_connection
from cloud_relay.tcp.push import TcpPush
from shared.errors import FAULTS, Fault
from shared.tunnel.endings import let_reset

if TYPE_CHECKING:
    import socket

    from cloud_relay.tcp.context import TcpContext
    from cloud_relay.tcp.routes import TcpRoute
    from shared.tcp.head import Ends

_STARTING: Final = FAULTS["starting"]
_CANNOT_JUDGE: Final = FAULTS["cannot-judge-credential"]
_NETWORK: Final = FAULTS["sender-network-refused"]
_OVERLOADED: Final = FAULTS["overloaded"]
_CONNECTIONS: Final = FAULTS["too-many-connections"]


class TcpEntrance:
    """One route under one config. `tls` None: plain, or sealed."""

    __slots__ = ("_context", "_tls", "route")

    def __init__(self, context: TcpContext, route: TcpRoute, tls: ssl.SSLContext | None) -> None:
        self._context = context
        self._tls = tls
        self.route = route

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        """A connection arrived. It is ours from now on."""
        fault = self._judge(ends)
        if fault is not None:
            let_reset(sock)
            sock.close()
            self.route.metrics.ended(fault, 0.0)
            log_refused_connection(self._context, self.route, ends, fault, server_name)
            return
        TcpPush(self._context, self.route, sock, ends, self._tls, server_name).arrive()

    def _judge(self, ends: Ends) -> Fault | None:
        route, state = self.route, self._context.ingress.state
        if state is not RelayState.SERVING and state is not RelayState.DRAINING:
            return _CANNOT_JUDGE if state is RelayState.BLIND else _STARTING
        if not route.lets_in(ends.source):
            return _NETWORK
        held = route.state
        if (
            held.open >= route.max_connections
            or held.per_source.get(source_key(ends.source), 0) >= route.max_per_source
        ):
            return _CONNECTIONS
        # Those in their handshake are not in the limits' count yet; a process has descriptors for so many.
        if not self._context.has_place_for(route.tenant):
            return _OVERLOADED
        return None

    def __repr__(self) -> str:
        return f"<TcpEntrance of {self.route!r}>"
