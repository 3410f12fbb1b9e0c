"""The renewal's frames: what they carry, who may send them when, and what they may hold."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import LocalFault
from shared.protocol import Role, State, frames
from shared.protocol.frames import MAX_PAYLOAD, Frame
from shared.protocol.hello import CAPABILITIES, RENEWAL, BadHello
from shared.protocol.renewal import (
    MAX_DETAIL,
    MAX_LISTED,
    MAX_REQUEST,
    MAX_WITHIN,
    parse_certificate,
    parse_hint,
    parse_pins,
    parse_renew,
    parse_roots,
)
from tests.shared.protocol.kit import End, Pair

BOTH = CAPABILITIES | {RENEWAL}
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PIN = "ab" * 32


def offered(*, renew_only: bool = False) -> Pair:
    return Pair(capabilities=(BOTH, BOTH), renew_only=renew_only)


def test_a_renewal_as_a_transcript() -> None:
    pair = offered()
    relay, connector = pair.relay, pair.connector
    assert connector.core.renewal.request_certificate(b"request")
    pair.roundtrip()
    assert relay.log[-1:] == [("renew", b"request")]
    assert relay.core.renewal.answer_certificate({"certificate": PEM})
    pair.roundtrip()
    assert connector.log[-1] == ("certificate", {"certificate": PEM})
    assert connector.core.renewal.send_trust({"pins": [PIN]})
    pair.roundtrip()
    assert relay.log[-1:] == [("trust", {"pins": [PIN]})]
    assert relay.core.renewal.send_trust({"roots": [PEM], "cross": []})
    assert relay.core.renewal.send_hint(60.0)
    pair.roundtrip()
    assert connector.log[-2:] == [("trust", {"roots": [PEM], "cross": []}), ("hint", 60.0)]
    assert connector.core.renewal.request_certificate(b"again"), "the last one was answered"


def test_one_request_at_a_time() -> None:
    pair = offered()
    assert pair.connector.core.renewal.request_certificate(b"first")
    assert not pair.connector.core.renewal.request_certificate(b"second")
    pair.roundtrip()
    assert [entry for entry in pair.relay.log if entry[0] == "renew"] == [("renew", b"first")]
    assert pair.relay.core.renewal.answer_certificate({"error": "cannot-issue", "detail": "the disk is full"})
    assert not pair.relay.core.renewal.answer_certificate({"certificate": PEM}), "one answer for each"
    pair.roundtrip()
    assert pair.connector.log[-1] == ("certificate", {"error": "cannot-issue", "detail": "the disk is full"})


@pytest.mark.parametrize(
    "capabilities",
    [(CAPABILITIES, BOTH), (BOTH, CAPABILITIES), (CAPABILITIES, CAPABILITIES)],
    ids=["relay does not", "connector does not", "neither does"],
)
def test_nothing_is_sent_to_a_peer_that_does_not_know_the_frames(
    capabilities: tuple[frozenset[str], frozenset[str]],
) -> None:
    pair = Pair(capabilities=capabilities)
    assert not pair.connector.core.renewal.request_certificate(b"request")
    assert not pair.connector.core.renewal.send_trust({"pins": [PIN]})
    assert not pair.relay.core.renewal.send_trust({"roots": [PEM], "cross": []})
    assert not pair.relay.core.renewal.send_hint(60.0)
    assert not pair.connector.core.renewal.is_pending
    assert pair.relay.messages() == pair.connector.messages() == []


def test_nothing_is_sent_before_hello_or_after_the_end_or_the_wrong_way() -> None:
    early = Pair(greet=False, capabilities=(BOTH, BOTH))
    assert not early.connector.core.renewal.request_certificate(b"request")
    late = offered()
    for end in late.ends:
        end.core.lost(end.now)
    assert not late.connector.core.renewal.request_certificate(b"request")
    assert not late.relay.core.renewal.send_hint(1.0)
    pair = offered()
    assert not pair.relay.core.renewal.request_certificate(b"request")
    assert not pair.connector.core.renewal.send_hint(1.0)
    assert not pair.connector.core.renewal.answer_certificate({"certificate": PEM})
    assert not pair.relay.core.renewal.answer_certificate({"certificate": PEM}), "nobody asked"


def test_what_fits_no_frame_is_said_so_and_can_still_be_answered() -> None:
    pair = offered()
    pair.connector.core.renewal.request_certificate(b"request")
    pair.roundtrip()
    with pytest.raises(ValueError, match="does not fit a frame"):
        pair.relay.core.renewal.answer_certificate({"certificate": "x" * MAX_PAYLOAD})
    assert pair.relay.core.renewal.answer_certificate({"error": "cannot-issue", "detail": "too large"})


# --- in every wrong state

SENT = {
    "RENEW": Frame(frames.RENEW, 0, 0, b'{"request":"PEM"}'),
    "CERTIFICATE": Frame(frames.CERTIFICATE, 0, 0, b'{"certificate":"PEM"}'),
    "TRUST": Frame(frames.TRUST, 0, 0, b'{"roots":["PEM"],"cross":[],"pins":[]}'),
    "HINT": Frame(frames.HINT, 0, 0, b'{"within":3600}'),
}
STATES = ("greeting", "not offered", "offered", "asked", "answered", "renew only", "draining", "after a gap", "closed")

TAKEN = {
    Role.RELAY: {
        "RENEW": {"offered", "answered", "renew only", "draining", "after a gap"},
        "CERTIFICATE": set(),
        "TRUST": {"offered", "asked", "answered", "renew only", "draining", "after a gap"},
        "HINT": set(),
    },
    Role.CONNECTOR: {
        "RENEW": set(),
        "CERTIFICATE": {"asked"},
        "TRUST": {"offered", "asked", "answered", "renew only", "draining", "after a gap"},
        "HINT": {"offered", "asked", "answered", "renew only", "draining", "after a gap"},
    },
}
"""Where a frame reaches its handler. Everywhere else it ends the tunnel, save a closed one, where nothing happens."""


def in_state(role: Role, state: str) -> End:
    if state == "greeting":
        pair = Pair(greet=False, capabilities=(BOTH, BOTH))
    else:
        pair = Pair() if state == "not offered" else offered(renew_only=state == "renew only")
    end = pair.relay if role is Role.RELAY else pair.connector
    if state in ("asked", "answered"):
        pair.connector.core.renewal.request_certificate(b"request")
        pair.roundtrip()
    if state == "answered":
        pair.relay.core.renewal.answer_certificate({"certificate": PEM})
        pair.roundtrip()
    elif state == "draining":
        end.core.drain(10.0, end.now)
    elif state == "after a gap":
        end.core.note_gap(end.now)
    elif state == "closed":
        end.core.lost(end.now)
    end.log.clear()
    return end


@pytest.mark.parametrize(("role", "state", "name"), list(itertools.product(Role, STATES, SENT)))
def test_frames_of_the_renewal_in_every_state(role: Role, state: str, name: str) -> None:
    end = in_state(role, state)
    end.feed(SENT[name].serialize())
    told = [entry[0] for entry in end.log if entry[0] in ("renew", "certificate", "trust", "hint")]
    if state in TAKEN[role][name]:
        assert told == [name.lower()]
        assert end.failure is None
    else:
        assert told == []
        assert end.failure == (None if state == "closed" else "protocol-error")


def test_the_table_of_states_is_whole() -> None:
    assert set().union(*(states for kinds in TAKEN.values() for states in kinds.values())) == set(STATES) - {
        "greeting", "not offered", "closed"
    }  # fmt: skip


# --- a renew-only session


def test_no_push_enters_a_renew_only_session() -> None:
    pair = offered(renew_only=True)
    assert pair.connector.core.peer is not None
    assert pair.connector.core.peer.renew_only
    assert not pair.relay.core.can_open
    with pytest.raises(LocalFault):
        pair.relay.open()
    pair.connector.feed(Frame(frames.OPEN, 0, 1, frames.open_head(0, b"head")).serialize())
    assert pair.connector.pushes == []
    assert pair.connector.failure == "protocol-error"


def test_a_renew_only_session_renews() -> None:
    pair = offered(renew_only=True)
    assert pair.connector.core.renewal.request_certificate(b"request")
    pair.roundtrip()
    assert pair.relay.log[-1] == ("renew", b"request")
    assert pair.relay.core.state is State.OPEN


# --- what the payloads may hold

BAD_RENEW = [
    b"", b"[]", b"{}", b'{"request":null}', b'{"request":""}', b'{"request":"\\u0000"}', b'{"request":"\\u00e9"}',
    json.dumps({"request": "x" * (MAX_REQUEST + 1)}).encode(),
]  # fmt: skip
BAD_CERTIFICATE = [
    b"", b"{}", b'{"certificate":1}', b'{"certificate":""}', b'{"error":1}', b'{"error":"UPPER"}', b'{"error":""}',
    b'{"error":"cannot-issue","certificate":"PEM"}', b'{"error":"cannot-issue","detail":1}',
    b'{"certificate":"\\ud800"}', json.dumps({"error": "x" * 65}).encode(),
]  # fmt: skip
BAD_ROOTS = [
    b"", b"{}", b'{"roots":[]}', b'{"roots":"PEM"}', b'{"roots":[1]}', b'{"roots":[""]}',
    b'{"roots":["PEM"],"cross":{}}', b'{"roots":["PEM"],"cross":["\\u0000"]}',
    json.dumps({"roots": ["PEM"] * (MAX_LISTED + 1)}).encode(),
]  # fmt: skip
BAD_PINS = [
    b"", b"[]", b'{"pins":{}}', b'{"pins":["ab"]}', json.dumps({"pins": [PIN.upper()]}).encode(),
    json.dumps({"pins": [PIN + "\n"]}).encode(), json.dumps({"pins": [PIN] * (MAX_LISTED + 1)}).encode(),
]  # fmt: skip
BAD_HINT = [
    b"", b"{}", b'{"within":"1"}', b'{"within":true}', b'{"within":-1}', b'{"within":NaN}', b'{"within":1e308}',
    b'{"within":Infinity}', json.dumps({"within": MAX_WITHIN + 1}).encode(),
]  # fmt: skip
PARSERS = {
    parse_renew: BAD_RENEW, parse_certificate: BAD_CERTIFICATE, parse_roots: BAD_ROOTS, parse_pins: BAD_PINS,
    parse_hint: BAD_HINT,
}  # fmt: skip


@pytest.mark.parametrize(
    ("parser", "payload"), [(parser, payload) for parser, bad in PARSERS.items() for payload in bad],
    ids=lambda value: value[:24].decode(errors="replace") if isinstance(value, bytes) else value.__name__,
)  # fmt: skip
def test_a_bad_payload_is_refused(parser: object, payload: bytes) -> None:
    assert callable(parser)
    with pytest.raises(BadHello):
        parser(payload)


@given(st.sampled_from(list(PARSERS)), st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_refused(parser: object, payload: bytes) -> None:
    assert callable(parser)
    try:
        parser(payload)
    except BadHello:
        pass


def test_the_other_sides_words_are_bounded_and_printable() -> None:
    answer = parse_certificate(json.dumps({"error": "cannot-issue", "detail": "é\x1b[31m" + "x" * 5000}).encode())
    assert answer["detail"].startswith("?[31m")
    assert len(answer["detail"]) <= MAX_DETAIL


def test_what_a_newer_peer_adds_is_skipped() -> None:
    assert parse_renew(b'{"request":"PEM","tomorrow":1}') == b"PEM"
    assert parse_hint(b'{"within":1,"why":"because"}') == 1.0
    assert parse_pins(b"{}") == {"pins": []}
