"""What the two sides tell each other, and what they do not take."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol import Hello, frames
from shared.protocol.hello import MAX_TARGETS, BadHello, parse_targets, serialize_targets
from tests.shared.protocol.kit import Pair

names = st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,62}\Z")


@given(
    st.dictionaries(names, st.sampled_from(["http", "tcp"]), max_size=20), st.floats(0, 3600), st.integers(1, 1 << 20)
)
def test_what_was_said_is_understood(targets: dict[str, str], spread: float, streams: int) -> None:
    hello = Hello(
        targets=targets, reconnect_spread=spread, max_streams=streams, session="s-1", clock=12345, renew_only=True
    )
    assert Hello.parse(hello.serialize()) == hello
    assert parse_targets(serialize_targets(targets)) == targets


def test_what_a_newer_peer_adds_is_skipped() -> None:
    fields = json.loads(Hello().serialize()) | {
        "tomorrow": [1],
        "versions": [1, 9],
        "targets": {"a": "http", "b": "quic"},
    }
    hello = Hello.parse(json.dumps(fields).encode())
    assert hello.targets == {"a": "http"}
    assert hello.versions == (1, 9)


BAD = [
    b"", b"nonsense", b"[]", b"\xff", b"[" * 60_000,
    b'{"versions": 1}', b'{"versions": ["1"]}', b'{"versions": [true]}', b'{"stream_credit": -1}',
    b'{"stream_credit": 1e9}',
    b'{"max_streams": 0}', b'{"targets": []}', b'{"targets": {"UPPER": "http"}}', b'{"targets": {"a": 1}}',
    b'{"targets": {"a\\n": "http"}}', b'{"software": "\\u0000"}', b'{"wall": NaN}', b'{"wall": -1}', b'{"clock": 1e3}',
    b'{"renew_only": 1}', b'{"renew_only": null}',
    json.dumps({"targets": {f"t{n}": "http" for n in range(MAX_TARGETS + 1)}}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("payload", BAD, ids=lambda payload: payload[:24].decode(errors="replace"))
def test_a_bad_hello_is_refused(payload: bytes) -> None:
    with pytest.raises(BadHello):
        Hello.parse(payload)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_refused(payload: bytes) -> None:
    try:
        Hello.parse(payload)
    except BadHello:
        pass


def test_no_common_version_is_said_so() -> None:
    pair = Pair(greet=False)
    fields = json.loads(Hello().serialize()) | {"versions": [7]}
    pair.relay.feed(frames.tunnel_frame(frames.HELLO, json.dumps(fields).encode()))
    assert pair.relay.failure == "version-mismatch"


def test_targets_change_while_the_tunnel_lives() -> None:
    pair = Pair()
    pair.connector.core.update_targets({"syslog": "tcp"})
    pair.roundtrip()
    assert pair.relay.log[-1] == ("targets", {"syslog": "tcp"})
