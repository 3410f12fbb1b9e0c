"""Whatever happens in whatever order: what is left open at the end? And is what looks whole whole?"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloud_relay.ingress.context import IngressSettings
from shared.errors import FAULTS
from tests.cloud_relay.ingress.kit import Relay, SenderSide
from tests.cloud_relay.ingress.wire import get, parse_answers, post

PROFILE = settings().max_examples
"""Examples of the profile in force: stories are long, so they get more of them."""

SMALL = IngressSettings(replay_buffer=40, pipeline_buffer=300, linger_bytes=500, skip_body=100)

REQUESTS = {
    "small": post(b"abc"),
    "chunked": post(b"0123456789" * 5, chunked=True),
    "long": post(b"y" * 120),
    "too long": post(b"z" * 300),
    "get": get(),
    "old": post(b"abc", version="1.0"),
    "last": post(b"abc", connection="close"),
    "nowhere": post(b"abcdef", "/nowhere"),
    "expects": post(b"", expect="100-continue", content_length="3"),
    "body of that": b"abc",
    "garbage": b"\x00\r\n\r\n",
}

EVENTS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(sorted(REQUESTS)), st.integers(0, 60)),
    st.tuples(st.just("answer"), st.sampled_from([200, 204, 500]), st.booleans()),
    st.tuples(st.just("data"), st.integers(0, 50), st.booleans()),
    st.tuples(st.just("raw"), st.binary(max_size=20), st.booleans()),
    st.tuples(
        st.just("reset"),
        st.sampled_from(["tunnel-lost", "connector-draining", "target-lost", "path-not-allowed", "out-of-credit"]),
        st.booleans(),
    ),
    st.tuples(st.just("sleep"), st.sampled_from([0.1, 1.1, 3.1, 6.0, 11.0, 21.0, 80.0]), st.none()),
    st.tuples(st.just("block"), st.sampled_from([0, 50, 400]), st.none()),
    st.tuples(st.just("drain"), st.none(), st.none()),
    st.tuples(st.just("full"), st.none(), st.none()),
    st.tuples(st.just("room"), st.none(), st.none()),
    st.tuples(st.just("attach"), st.none(), st.none()),
    st.tuples(st.just("detach"), st.booleans(), st.none()),
    st.tuples(st.just("hang up"), st.none(), st.none()),
    st.tuples(st.just("vanish"), st.none(), st.none()),
    st.tuples(st.just("slow hash"), st.none(), st.none()),
    st.tuples(st.just("verdict"), st.booleans(), st.none()),
    st.tuples(st.just("abort"), st.none(), st.none()),
)


class Story:
    """Two senders, up to three connectors, and the events of one run."""

    def __init__(self, *, idempotent: bool) -> None:
        self.relay = Relay(settings=SMALL, max_body=200, idempotent=idempotent, max_in_flight=1, budget=2000)
        self.senders = [self.relay.connect(), self.relay.connect(is_tls=True)]
        self.hashes: list[asyncio.Future[Any]] = []

    def run(self, events: list[tuple[str, Any, Any]]) -> None:
        for number, (what, first, second) in enumerate(events):
            sender = self.senders[number % 2]
            if sender.transport.is_lost:
                sender = self.senders[number % 2] = self.relay.connect(is_tls=bool(number % 2))
            getattr(self, "do_" + what.replace(" ", "_"))(sender, first, second)
            for each in self.senders:
                each.flush()

    def do_send(self, sender: SenderSide, name: str, by: int) -> None:
        if not sender.waiting:
            sender.send(REQUESTS[name], by=by)

    def do_answer(self, _: SenderSide, status: int, end: bool) -> None:
        for stream in self.relay.streams:
            if not stream.is_over and not stream.answer_ended and not stream.handed:
                stream.answer(status, b"" if status == 204 else b"ok", end=end, length=None)
                return

    def do_data(self, _: SenderSide, size: int, end: bool) -> None:
        for stream in self.relay.streams:
            if not stream.is_over and not stream.answer_ended and stream.handed:
                stream.data(b"d" * size, end=end)
                return

    def do_raw(self, _: SenderSide, raw: bytes, end: bool) -> None:
        for stream in self.relay.streams:
            if not stream.is_over and not stream.answer_ended and not stream.handed:
                stream.answer_raw(raw, b"ok", end=end)
                return

    def do_reset(self, _: SenderSide, code: str, refused: bool) -> None:
        for stream in self.relay.streams:
            if not stream.is_over or stream.taken < stream.handed:
                stream.fail(code, refused=refused)
                return

    def do_sleep(self, _: SenderSide, seconds: float, __: None) -> None:
        self.relay.sleep(seconds)

    def do_block(self, sender: SenderSide, room: int, _: None) -> None:
        if sender.transport.room >= 0:
            sender.transport.room = room

    def do_drain(self, sender: SenderSide, *_: None) -> None:
        if not sender.transport.is_lost:
            sender.transport.drain()

    def do_full(self, *_: Any) -> None:
        for session in self.relay.registry.sessions:
            session.link.new_streams_have_room = not session.link.new_streams_have_room

    def do_room(self, *_: Any) -> None:
        for stream in list(self.relay.streams):
            stream.make_room()

    def do_attach(self, *_: Any) -> None:
        if len(self.relay.registry.sessions) < 3:
            self.relay.attach(f"c{len(self.relay.streams)}")

    def do_detach(self, _: SenderSide, sent: bool, __: None) -> None:
        if self.relay.registry.sessions:
            self.relay.registry.detach(self.relay.registry.sessions[0], sent=sent)

    def do_hang_up(self, sender: SenderSide, *_: None) -> None:
        sender.hang_up()

    def do_vanish(self, sender: SenderSide, *_: None) -> None:
        sender.vanish()

    def do_abort(self, sender: SenderSide, *_: None) -> None:
        sender.connection.abort()
        self.relay.clock.run()

    def do_slow_hash(self, *_: Any) -> None:
        future: asyncio.Future[Any] = asyncio.Future(loop=cast(Any, self.relay.clock))
        self.relay.authenticator.verdict = future
        self.hashes.append(future)

    def do_verdict(self, _: SenderSide, good: bool, __: None) -> None:
        for future in self.hashes:
            if not future.done():
                future.set_result(self.relay.sender if good else FAULTS["unauthenticated"])
        self.relay.authenticator.verdict = self.relay.sender
        self.relay.clock.run()


def check_answers(relay: Relay) -> None:
    """Complete answers are the target's, or faults of ours; an incomplete one ended its connection badly."""
    for connection in relay.connections:
        transport = cast(Any, connection.transport)
        answers = [answer for answer in parse_answers(b"".join(transport.writes)) if answer.status >= 200]
        for answer in answers:
            if not answer.is_complete and "content-length" in answer.headers:
                assert transport.how_ended in {"reset", "aborted", "lost"}
            if answer.is_complete:
                assert answer.status in {200, 204, 500} or answer.headers["qanat-error"] in FAULTS
        for answer in answers[:-1]:
            assert answer.is_complete
            assert answer.keep_alive, "an answer after the last one"


@settings(max_examples=4 * PROFILE)
@given(st.lists(EVENTS, max_size=40), st.booleans())
@example([("send", "small", 0), ("answer", 200, True), ("hang up", None, None)], False)
@example([("block", 0, None), ("send", "small", 0), ("answer", 200, True), ("reset", "out-of-credit", False)], False)
def test_nothing_is_ever_left(events, idempotent):
    story = Story(idempotent=idempotent)
    relay = story.relay
    story.run(events)
    assert min(relay.in_flight) >= 0
    check_answers(relay)
    story.do_verdict(story.senders[0], False, None)
    for sender in story.senders:
        sender.vanish()
    check_answers(relay)
    relay.assert_nothing_left()
    relay.assert_all_closed()
    pushes = [line for line in relay.access_log.lines if line.get("kind") != "try"]
    assert len({line["request_id"] for line in pushes}) == len(pushes)
    tries = [(one["request_id"], one["attempt"]) for one in relay.access_log.lines if one.get("kind") == "try"]
    assert len(set(tries)) == len(tries), "each try has one line, and an id of its own"


@settings(max_examples=2 * PROFILE)
@given(st.lists(EVENTS, max_size=40), st.booleans())
@example([("block", 0, None), ("drain", None, None), ("send", "chunked", 0), ("drain", None, None),
          ("send", "body of that", 0)], False)  # fmt: skip
def test_time_alone_ends_everything(events, idempotent):
    story = Story(idempotent=idempotent)
    story.run(events)
    for future in story.hashes:
        future.cancel()
    story.relay.sleep(1000)
    story.relay.assert_nothing_left()
    story.relay.assert_all_closed()


@settings(max_examples=2 * PROFILE)
@given(
    st.lists(st.sampled_from(["small", "chunked", "long", "get", "nowhere"]), min_size=1, max_size=6),
    st.lists(st.integers(1, 400), max_size=30),
)
def test_any_split_means_the_same(names, sizes):
    raw = b"".join(REQUESTS[name] for name in names)
    outcomes = []
    for pieces in (_split(raw, sizes), [raw]):
        relay = Relay(max_body=200)
        sender = relay.connect()
        for piece in pieces:
            sender.send(piece)
        for _ in names:
            for stream in relay.streams:
                if not stream.answer_ended:
                    assert stream.ended
                    stream.answer(200, stream.body)
        outcomes.append(sender.answers())
        relay.assert_nothing_left()
    assert [status for status, _ in outcomes[0]] == [404 if name == "nowhere" else 200 for name in names]
    assert [answer for answer in outcomes[0] if answer[0] == 200] == [a for a in outcomes[1] if a[0] == 200]


def _split(raw: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(raw[:size])
        raw = raw[size:]
    return [piece for piece in [*pieces, raw] if piece]


@settings(max_examples=2 * PROFILE)
@given(st.lists(st.binary(max_size=80) | st.sampled_from(sorted(REQUESTS.values())), max_size=8))
def test_arbitrary_bytes(pieces):
    relay = Relay(settings=SMALL)
    sender = relay.connect()
    for piece in pieces:
        if piece:
            sender.send(piece)
    check_answers(relay)
    relay.sleep(200)
    relay.assert_nothing_left()
    relay.assert_all_closed()
