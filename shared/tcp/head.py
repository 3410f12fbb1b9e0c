"""What OPEN and ANSWER carry for a TCP connection, as they cross the tunnel. Pure.

    connection:  "tcp" request-id attempt  target sender route  extra… ""
    answer:      "tcp" extra… ""

Fields are ended by a NUL each. `sender` is empty where the route knows its senders by network only. An extra is
`key=value`; unknown ones are skipped, so that a newer side may say more. Known are `source` and `destination`, the two
ends of the sender's connection as `address port`, for targets that want to be told. A connector that does not know
this kind takes it for a malformed push and refuses it; a relay opens none where HELLO does not list `tcp`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from shared.errors import LocalFault

CAPABILITY: Final = "tcp"
"""What a connector's HELLO lists when it takes such streams."""

MARK: Final = b"tcp\0"
ANSWER: Final = b"tcp\0\0"
"""The head of every answer: the target took the connection."""

MAX_HEAD: Final = 4096

_NAME: Final = rb"[a-z0-9][a-z0-9-]{0,62}+"
_EXTRAS: Final = rb"((?:[a-z][a-z0-9_]{0,31}+=[ -~]{0,255}+\0){0,16}+)\0"
_CONNECTION: Final = re.compile(
    rb"tcp\0([A-Za-z0-9._-]{1,64}+)\0([1-9][0-9]{0,2}+)\0(%b)\0((?:%b)?+)\0(%b)\0%b" % (_NAME, _NAME, _NAME, _EXTRAS)
)
_ANSWER: Final = re.compile(rb"tcp\0%b" % _EXTRAS)
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)


class Ends(NamedTuple):
    """Both ends of a sender's connection. Addresses are in their canonical form, of one family."""

    source: str
    source_port: int
    destination: str
    destination_port: int


class ConnectionHead(NamedTuple):
    """A TCP connection, as the relay hands it to a connector. `attempt` counts from 1; `ends` None: not told."""

    target: str
    request_id: str
    attempt: int
    sender: str
    route: str
    ends: Ends | None = None


def encode_connection(head: ConnectionHead) -> bytes:
    """Write a connection's head. All of it is of our own making or checked before."""
    target, request_id, attempt, sender, route, ends = head
    extras = "" if ends is None else f"source={ends[0]} {ends[1]}\0destination={ends[2]} {ends[3]}\0"
    return f"tcp\0{request_id}\0{attempt}\0{target}\0{sender}\0{route}\0{extras}\0".encode("ascii")


def decode_connection(data: bytes) -> ConnectionHead:
    """Read a connection's head from a relay that may be hostile. Raises LocalFault (bad-push)."""
    match = _CONNECTION.fullmatch(data)
    if match is None or len(data) > MAX_HEAD:
        raise LocalFault("bad-push")
    request_id, attempt, target, sender, route, extras = match.groups()
    return ConnectionHead(
        target.decode(), request_id.decode(), int(attempt), sender.decode(), route.decode(), _ends(extras)
    )


def is_answer(data: bytes) -> bool:
    """Whether this is an ANSWER to a TCP connection: the connector may be hostile."""
    return data == ANSWER or (len(data) <= MAX_HEAD and _ANSWER.fullmatch(data) is not None)


def _ends(extras: bytes) -> Ends | None:
    """Both ends, where both are told; LocalFault where they are not two addresses of one family."""
    fields = dict(field.split(b"=", 1) for field in extras.split(b"\0") if field)
    source, destination = fields.get(b"source"), fields.get(b"destination")
    if source is None or destination is None:
        return None
    ends = Ends(*_address(source), *_address(destination))
    if (":" in ends.source) != (":" in ends.destination):
        raise LocalFault("bad-push", "two families of addresses")
    return ends


def _address(field: bytes) -> tuple[str, int]:
    address, _, port = field.decode("ascii").partition(" ")
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise LocalFault("bad-push", "not an address") from None
    if not _PORT.fullmatch(port) or int(port) > 65535 or "%" in address:
        raise LocalFault("bad-push", "not a port")
    return str(found), int(port)
