"""From a sender's accepted socket to an edge: at once, or with TLS when its turn has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_relay.handshake_turns import Knock
from cloud_relay.sources import source_key
from shared.tasks import spawn
from shared.tcp.plain import PlainEdge
from shared.tcp.tls import TlsEdge
from shared.tunnel.endings import let_reset

if TYPE_CHECKING:
    import socket
    import ssl

    from cloud_relay.tcp.context import TcpContext
    from cloud_relay.tcp.push import TcpPush


class Welcome:
    """One per connection. The socket is this one's own until there is an edge; the push is told by `on_made`."""

    __slots__ = ("_context", "_knock", "_push", "_sock", "edge", "tls")

    def __init__(self, context: TcpContext, push: TcpPush, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._context = context
        self._push = push
        self._sock = sock
        self._knock: Knock | None = None
        self.tls = tls
        self.edge: PlainEdge | TlsEdge | None = None
        """Made, perhaps still in its TLS handshake."""

    def begin(self) -> None:
        """Make an edge of the socket, soon."""
        if self.tls is None:
            self._open()
            return
        context, source = self._context, source_key(self._push.ends.source)
        self._knock = Knock(context.loop, context.ingress.handshakes, self._sock, source, self._open)

    def give_up(self) -> None:
        """The connection is over, and has no edge; an edge that was lost does not mind."""
        edge, self.edge = self.edge, None
        if edge is not None:
            edge.reset()
        self.let_go()

    def let_go(self) -> None:
        """The connection is over."""
        self.edge = None
        knock, self._knock = self._knock, None
        if knock is not None:
            knock.give_up()
            let_reset(self._sock)
            self._sock.close()

    def _open(self) -> None:
        self._knock = None
        spawn(self._make(), "tcp arrival")

    async def _make(self) -> None:
        push = self._push
        if push not in self._context.connections:  # given up meanwhile
            let_reset(self._sock)
            self._sock.close()
            return
        try:
            _, edge = await self._context.loop.connect_accepted_socket(self._new_edge, self._sock)
        except OSError:  # gone already
            self._sock.close()
            push.end_gone()
            return
        self.edge = edge
        if push.is_over:
            edge.reset()

    def _new_edge(self) -> PlainEdge | TlsEdge:
        context, push = self._context, self._push
        return PlainEdge(push) if self.tls is None else TlsEdge(context.loop, self.tls, context.buffers, push)
