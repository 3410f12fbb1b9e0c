"""RENEW, CERTIFICATE, TRUST and HINT: how certificates and roots change in a tunnel. JSON objects, as HELLO is.

    connector                              relay
    RENEW {"request"}            ─▶
                                 ◀─       CERTIFICATE {"certificate"} or {"error", "detail"}
    TRUST {"pins"}               ─▶
                                 ◀─       TRUST {"roots", "cross"}
                                 ◀─       HINT {"within"}

Only sizes, types, direction and order are judged here. What a certificate is worth is for the owners of the two ends:
nothing that comes this way is believed because of the tunnel it came by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from shared.protocol import frames
from shared.protocol.driver import State
from shared.protocol.frames import CERTIFICATE, HINT, MAX_PAYLOAD, RENEW, TRUST
from shared.protocol.hello import RENEWAL, BadHello, json_object

if TYPE_CHECKING:
    from shared.protocol.connection import Connection

MAX_REQUEST: Final = 4096
"""Characters of a certificate request in PEM form. Ours have about 500."""

MAX_LISTED: Final = 16
"""Certificates or pins in one list of TRUST: each is a roll-over of the CA."""

MAX_DETAIL: Final = 400
"""Characters that are taken of the other side's own words."""

MAX_WITHIN: Final = 7 * 24 * 3600.0
"""Seconds over which a HINT may spread renewals."""

_CODE: Final = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)
_PIN: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PEM: Final = re.compile(r"[\n\r\x20-\x7e]+", re.ASCII)
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")


class Renewal:
    """The renewal's side of one end of a tunnel: what may be sent now, and what the peer may send.

    Everything that sends says whether it did: nothing goes to a peer that does not know the frames, or before its
    HELLO, or after the end.
    """

    __slots__ = ("_connection", "is_pending")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.is_pending = False
        """Whether a RENEW has not got its CERTIFICATE yet."""

    def __repr__(self) -> str:
        return f"<Renewal {'offered' if self.is_offered else 'not offered'}{', pending' if self.is_pending else ''}>"

    @property
    def is_offered(self) -> bool:
        """Whether both sides know these frames, and the tunnel is open."""
        c = self._connection
        return (
            c.state is State.OPEN
            and c.peer is not None
            and RENEWAL in c.peer.capabilities
            and RENEWAL in c.hello.capabilities
        )

    def request_certificate(self, request: bytes) -> bool:
        """At the connector: ask for a certificate with this request (PEM). One at a time."""
        if self._connection.is_relay or self.is_pending:
            return False
        self.is_pending = self._send(RENEW, {"request": request.decode("ascii")})
        return self.is_pending

    def answer_certificate(self, answer: Mapping[str, str]) -> bool:
        """At the relay: `{"certificate": PEM chain}` or `{"error": code, "detail": text}`, once for each RENEW.

        ValueError where it does not fit a frame.
        """
        if not self._connection.is_relay or not self.is_pending:
            return False
        was_sent = self._send(CERTIFICATE, answer)
        self.is_pending = False
        return was_sent

    def send_trust(self, message: Mapping[str, Sequence[str]]) -> bool:
        """The relay says `{"roots": [PEM, …], "cross": [PEM, …]}`, the connector `{"pins": [hex, …]}`.

        ValueError where it does not fit a frame.
        """
        return self._send(TRUST, {key: list(value) for key, value in message.items()})

    def send_hint(self, within: float) -> bool:
        """At the relay: the connector should renew, at a moment of its own choice within so many seconds."""
        return self._connection.is_relay and self._send(HINT, {"within": min(max(within, 0.0), MAX_WITHIN)})

    def _send(self, kind: int, message: Mapping[str, object]) -> bool:
        if not self.is_offered:
            return False
        self._connection.control(frames.tunnel_frame(kind, json.dumps(message, separators=(",", ":")).encode()))
        return not self._connection.is_closed


def parse_renew(payload: bytes) -> bytes:
    """The request in RENEW, as PEM. Raises BadHello."""
    return _pem(json_object(payload), "request", MAX_REQUEST).encode("ascii")


def parse_certificate(payload: bytes) -> dict[str, str]:
    """CERTIFICATE: {"certificate"}, or {"error", "detail"} with a detail that can be shown. Raises BadHello."""
    fields = json_object(payload)
    if "error" not in fields:
        return {"certificate": _pem(fields, "certificate", MAX_PAYLOAD)}
    code, detail = fields["error"], fields.get("detail", "")
    if "certificate" in fields or not isinstance(code, str) or not _CODE.fullmatch(code) or not isinstance(detail, str):
        raise BadHello("error: not a code and a detail, and nothing else")
    return {"error": code, "detail": _UNPRINTABLE.sub("?", detail[:MAX_DETAIL])}


def parse_roots(payload: bytes) -> dict[str, list[str]]:
    """The relay's TRUST: {"roots", "cross"}, at least one root. Raises BadHello."""
    fields = json_object(payload)
    roots, cross = _texts(fields, "roots", _PEM), _texts(fields, "cross", _PEM)
    if not roots:
        raise BadHello("roots: an empty list would leave nobody to trust")
    return {"roots": roots, "cross": cross}


def parse_pins(payload: bytes) -> dict[str, list[str]]:
    """The connector's TRUST: {"pins"}. Raises BadHello."""
    return {"pins": _texts(json_object(payload), "pins", _PIN)}


def parse_hint(payload: bytes) -> float:
    """The seconds in HINT. Raises BadHello."""
    within = json_object(payload).get("within")
    if type(within) not in (int, float) or not 0 <= within <= MAX_WITHIN:  # type: ignore[operator]  # the type was just looked at
        raise BadHello(f"within: not a number from 0 to {MAX_WITHIN:.0f}")
    return float(within)  # type: ignore[arg-type]  # likewise


def on_renew(c: Connection, payload: bytes) -> None:
    if not c.is_relay or c.renewal.is_pending:
        c.fail("protocol-error", "RENEW from the relay, or before the last one was answered")
        return
    request = parse_renew(payload)
    c.renewal.is_pending = True
    c.handler.on_renew(request)


def on_certificate(c: Connection, payload: bytes) -> None:
    if c.is_relay or not c.renewal.is_pending:
        c.fail("protocol-error", "CERTIFICATE without a RENEW")
        return
    answer = parse_certificate(payload)
    c.renewal.is_pending = False
    c.handler.on_certificate(answer)


def on_trust(c: Connection, payload: bytes) -> None:
    c.handler.on_trust(parse_pins(payload) if c.is_relay else parse_roots(payload))


def on_hint(c: Connection, payload: bytes) -> None:
    if c.is_relay:
        c.fail("protocol-error", "HINT from the connector")
        return
    c.handler.on_hint(parse_hint(payload))


_RECEIVERS: Final[dict[int, Callable[[Connection, bytes], None]]] = {
    RENEW: on_renew,
    CERTIFICATE: on_certificate,
    TRUST: on_trust,
    HINT: on_hint,
}


RENEWAL_FRAMES: Final = frozenset(_RECEIVERS)


def receive_renewal(c: Connection, kind: int, stream_id: int, payload: bytes) -> None:
    """One of the four came. Whoever sends it to a side that did not offer it has broken the protocol."""
    name = frames.NAMES[kind]
    if stream_id or RENEWAL not in c.hello.capabilities:
        c.fail("protocol-error", f"{name} on stream {stream_id}" if stream_id else f"{name}, which was not offered")
        return
    try:
        _RECEIVERS[kind](c, payload)
    except BadHello as error:
        c.fail("protocol-error", f"{name}: {error}")


def _pem(fields: Mapping[str, object], key: str, limit: int) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or len(value) > limit or not _PEM.fullmatch(value):
        raise BadHello(f"{key}: not a PEM text of at most {limit} characters")
    return value


def _texts(fields: Mapping[str, object], key: str, form: re.Pattern[str]) -> list[str]:
    value = fields.get(key, [])
    if not isinstance(value, list) or len(value) > MAX_LISTED:
        raise BadHello(f"{key}: not a list, or too long")
    texts = [one for one in value if isinstance(one, str) and form.fullmatch(one)]
    if len(texts) != len(value):
        raise BadHello(f"{key}: something in it is not what belongs there")
    return texts
