"""A push that crosses from the worker at which it arrived to the one that has a tunnel for it: two streams, joined.

    sender ─▶ worker A ── stream of the pair's link ──▶ worker B ── stream of a tunnel ──▶ connector

B is to A what a connector is, and to the connector what a relay is. Nothing is read or changed on the way but the
prefix that names the location, and what A knows of the push (whether it was sent, refused, or lost) stays as true as it
would be over a tunnel of its own. Credit goes back on one stream when the other has room, so B holds no more of a push
than the two streams' own marks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cloud_relay.ingress.retry import fault_of
from shared.errors import FAULTS, LocalFault

if TYPE_CHECKING:
    from cloud_relay.session import Key, Session
    from shared.protocol import StreamEnd

Choose = Callable[["Key", Sequence[str]], "Session | None"]
"""A tunnel of this very worker for (tenant, location, target), of none of these connectors."""

_FIELDS: Final = 4
_NO_CONNECTOR: Final = FAULTS["no-connector"].wire
_DEADLINE: Final = FAULTS["deadline-exceeded"]
_BAD_PUSH: Final = FAULTS["bad-push"].wire


Witness = Callable[["Key", str, str], None]
"""Takes a key, a connector, and what became of a push: a code, or "" for the target's answer."""


def address(key: Key, avoid: Sequence[str], head: bytes) -> bytes:
    """A push's head behind the prefix that says where it is to go: `tenant NUL location NUL target NUL avoid NUL`.

    `avoid` are names of connectors that have had the push already, joined by commas.
    """
    return f"{key[0]}\0{key[1]}\0{key[2]}\0{','.join(avoid)}\0".encode("ascii") + head


def read_address(head: bytes) -> tuple[Key, list[str], bytes]:
    """The key, whom to avoid, and the push's own head. ValueError if there is no such prefix."""
    tenant, location, target, avoid, rest = head.split(b"\0", _FIELDS)
    key = (tenant.decode("ascii"), location.decode("ascii"), target.decode("ascii"))
    return key, avoid.decode("ascii").split(",") if avoid else [], rest


def cross(
    choose: Choose, arrived: StreamEnd, head: bytes, body: bytes, end: bool, witness: Witness = lambda *_: None
) -> bool:
    """Carry on a stream that came from a sibling, or refuse it; whether it is carried on.

    `witness` is told what became of it.
    """
    try:
        key, avoid, own = read_address(head)
    except ValueError:
        arrived.reset(_BAD_PUSH, refused=True)
        return False
    session = choose(key, avoid)
    if session is None:
        arrived.reset(_NO_CONNECTOR, refused=True)
        return False
    connector = session.identity.connector
    answers = _Answers(lambda code: witness(key, connector, code))
    try:
        onward = session.link.open_stream(answers, own, body, end, arrived.deadline)
    except LocalFault as error:
        arrived.reset(error.fault.wire, refused=True)
        return False
    arrived.handler = pushed = _Pushed()
    pushed.join(arrived, onward, answers)
    answers.join(onward, arrived, pushed)
    pushed.took(len(body))
    return True


class _Half:
    """The handler of one of the two streams: what comes there goes on to the other one.

    `owed` is credit of the stream that is held back until the other one has room.
    """

    __slots__ = ("_onto", "_other", "_stream", "owed")

    def __init__(self) -> None:
        self._stream: StreamEnd | None = None
        self._onto: StreamEnd | None = None
        self._other: _Half | None = None
        self.owed = 0

    def join(self, stream: StreamEnd, onto: StreamEnd, other: _Half) -> None:
        """What comes by `stream` goes on by `onto`, whose handler is `other`."""
        self._stream, self._onto, self._other = stream, onto, other

    def on_data(self, data: bytes, end: bool) -> None:
        """See StreamHandler."""
        if self._onto is not None:
            self._onto.send(data, end)
            self.took(len(data))

    def on_writable(self) -> None:
        """See StreamHandler. What `other` took for this stream has gone."""
        if self._other is not None:
            self._other.pay()

    def took(self, size: int) -> None:
        """Count bytes that were passed on."""
        if size and self._onto is not None and self._stream is not None:
            self.owed += size
            if self._onto.is_writable:
                self.pay()

    def pay(self) -> None:
        """Give back all credit that is owed."""
        owed, self.owed = self.owed, 0
        if owed and self._stream is not None:
            self._stream.consumed(owed)


class _Pushed(_Half):
    """The handler of the stream from the sibling: the push itself."""

    __slots__ = ()

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """Never comes: only an opener gets an answer."""

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """See StreamHandler: the sender is gone, or the sibling is, or there is no more time."""
        if wire_code == _DEADLINE.wire and isinstance(self._other, _Answers):
            self._other.give_up(_DEADLINE.code)
        if self._onto is not None:
            self._onto.reset(wire_code)


class _Answers(_Half):
    """The handler of the stream to the connector: its answer."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell` is called by a code, or by "" when the target has answered."""
        super().__init__()
        self._tell = tell

    def give_up(self, code: str) -> None:
        """The sender's side did not wait any longer."""
        self._tell(code)

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """See StreamHandler."""
        if not interim:
            self._tell("")
        if self._onto is not None:
            self._onto.answer(head, body, end, interim)
            self.took(len(body))

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """See StreamHandler. What never left this worker surely reached no target."""
        self._tell(fault_of(wire_code, refused).code)
        if self._onto is not None:
            was_sent = self._stream is not None and self._stream.was_sent
            self._onto.reset(wire_code, refused or not was_sent)
