"""A push that has become a WebSocket (RFC 9110 §7.8, RFC 6455 §4): from its 101 on a stream of bytes both ways.

It goes on counting as a push in flight of its sender and its route. It ends when both directions have, when either side
is cut off, when nothing moves for the route's idle time-out, and within a second of a reload after which it could not
have begun, or of the end of the client certificate that its sender is known by. Once the target has ended its
direction, it is no fault however the sender's ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloud_relay.ingress.retry import fault_of
from shared.errors import FAULTS
from shared.http.responses import serialize_response_head
from shared.tunnel.duplex import Duplex, EdgeRules

if TYPE_CHECKING:
    from cloud_relay.ingress.connection import SenderConnection
    from cloud_relay.ingress.context import Ingress
    from cloud_relay.ingress.push_end import PushEnd
    from cloud_relay.routing import Route, RoutingTable
    from cloud_relay.senders import Sender
    from shared.errors import Fault
    from shared.http.headers import Headers
    from shared.protocol import StreamEnd

_NO_ROUTE: Final = FAULTS["no-such-route"]
_LOST: Final = "sender-gone"
_IDLE: Final = "idle-too-long"


def upgrade_head(headers: Headers) -> bytes:
    """The 101 as it goes out, of our own making but for the target's end-to-end headers."""
    return serialize_response_head(101, [*headers, (b"Upgrade", b"websocket")], connection=b"Upgrade")


class UpgradedPush:
    """The owner of one upgraded connection; a `DuplexOwner`. `peer`: the certificate that its sender is known by, if it
    is by one."""

    __slots__ = ("_connection", "_duplex", "_ingress", "_push", "_route", "_sender", "peer")

    def __init__(
        self,
        push: PushEnd,
        route: Route,
        sender: Sender,
        connection: SenderConnection,
        ingress: Ingress,
        stream: StreamEnd,
    ) -> None:
        self._push = push
        self._route = route
        self._sender = sender
        self._connection = connection
        self._ingress = ingress
        rules = EdgeRules(route.idle_timeout, _LOST, _IDLE)
        self._duplex = Duplex(self, connection.transport, stream, rules, ingress.loop, ingress.time)
        stream.handler = self._duplex
        known, peer = route.realm.certificates, connection.peer
        is_by_certificate = known is not None and peer is not None and peer.sender_of(known) is sender
        self.peer = peer if is_by_certificate else None
        ingress.upgraded.add(self)
        ingress.certified.add(self)

    def __repr__(self) -> str:
        return f"<UpgradedPush {self._push.request_id} {self._duplex!r}>"

    def start(self, first: bytes, end: bool) -> None:
        """The 101 is written: `first` and `end` are what the target said behind it."""
        connection = self._connection
        early = connection.hand_over(self._duplex)
        self._duplex.start(early, first, end, is_blocked=connection.is_write_blocked)
        self.recheck(self._ingress.context.routing)  # a reload may have come since the target was asked

    def end(self, fault: Fault) -> None:
        """Cut it off, for this reason."""
        self._duplex.abort(fault.code)

    def recheck(self, routing: RoutingTable) -> None:
        """End it unless, by this table, such a push could begin and would go to the same target."""
        if not self._is_allowed(routing):
            self.end(_NO_ROUTE)

    def _is_allowed(self, routing: RoutingTable) -> bool:
        head, old = self._push.head, self._route
        new = routing.lookup(head.host, head.path)
        return (
            new is not None
            and new.upgrades
            and (new.name, new.key) == (old.name, old.key)
            and any(one.name == self._sender.name and not one.is_disabled for one in new.senders)
            and self._is_still_known(new)
        )

    def _is_still_known(self, route: Route) -> bool:
        """Whether its certificate, if it goes by one, is still the same sender's."""
        if self.peer is None:
            return True
        known = route.realm.certificates
        sender = None if known is None else self.peer.sender_of(known)
        return sender is not None and sender.name == self._sender.name

    # DuplexOwner

    def code_of(self, wire_code: int, refused: bool) -> str:
        """See DuplexOwner."""
        return fault_of(wire_code, refused).code

    def on_over(self, code: str) -> None:
        """See DuplexOwner."""
        duplex = self._duplex
        self._ingress.upgraded.discard(self)
        self._ingress.certified.discard(self)
        if code == _LOST and duplex.tunnel_ended:
            code = ""
        self._connection.upgrade_is_over()
        self._push.end_upgraded(FAULTS[code] if code else None, duplex.bytes_in, duplex.bytes_out)

    def on_gone(self, error: Exception | None) -> None:
        """See DuplexOwner."""
        self._connection.connection_lost(error)
