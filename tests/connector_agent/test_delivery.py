"""A push from stream to target and back, as transcripts: what the stream saw, what the target got, what is left."""

from __future__ import annotations

from typing import Any

import pytest

from connector_agent.access import Rule
from connector_agent.headers_policy import HeaderPolicy
from shared.errors import LocalFault
from tests.connector_agent.kit import NO_CONTENT, OK, FakeStream, World, scenario


@scenario
async def test_a_small_push_is_one_write_and_its_answer_one_frame() -> None:
    world = World()
    stream = await world.push(b"hello")
    assert world.transport.writes == 1
    assert world.transport.written == (
        b"POST /x HTTP/1.1\r\nHost: target.test\r\nContent-Type: text/plain\r\n"
        b"X-Request-Id: req-1\r\nContent-Length: 5\r\n\r\nhello"
    )
    assert stream.consumed_bytes == 5
    world.transport.gets(b"HTTP/1.1 200 Fine by me\r\nContent-Length: 2\r\nServer: x\r\n\r\nok")
    assert stream.log == ["answer 200 [2] end"]
    assert stream.head.headers == [(b"Server", b"x")]
    assert stream.head.content_length == 2
    assert stream.body == b"ok"
    world.assert_clean(stream)
    assert world.pool.idle == 1


@scenario
async def test_the_connection_serves_the_next_push() -> None:
    world = World()
    for _ in range(3):
        stream = await world.push(b"hello")
        world.transport.gets(OK)
        world.assert_clean(stream)
    assert len(world.transports) == 1


@scenario
async def test_two_pushes_at_once_take_two_connections() -> None:
    world = World()
    first = await world.push(b"a")
    second = await world.push(b"b")
    assert len(world.transports) == 2
    world.transports[1].gets(OK)
    world.transports[0].gets(NO_CONTENT)
    assert (first.log, second.log) == (["answer 204 [0] end"], ["answer 200 [2] end"])
    world.assert_clean(first, second)


@scenario
async def test_a_body_in_pieces_with_a_length_is_streamed_as_it_is() -> None:
    world = World()
    stream = await world.push(b"abc", end=False, length=6)
    stream.push_data(b"de")
    stream.push_data(b"f", end=True)
    assert world.transport.written.endswith(b"Content-Length: 6\r\n\r\nabcdef")
    assert stream.consumed_bytes == 6
    world.transport.gets(OK)
    world.assert_clean(stream)
    assert world.pool.idle == 1


@scenario
async def test_a_body_of_unknown_length_is_chunked() -> None:
    world = World()
    stream = await world.push(b"abc", end=False, length=None)
    stream.push_data(b"defgh")
    stream.push_data(b"", end=True)
    assert world.transport.written.endswith(b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n")
    world.transport.gets(OK)
    world.assert_clean(stream)


@scenario
async def test_the_last_chunk_and_the_end_are_one_write() -> None:
    world = World()
    stream = await world.push(b"", end=False, length=None)
    stream.push_data(b"abc", end=True)
    assert world.transport.written.endswith(b"chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert world.transport.writes == 2
    world.transport.gets(OK)
    world.assert_clean(stream)


@scenario
async def test_a_body_of_unknown_length_that_is_whole_gets_a_length() -> None:
    world = World()
    stream = await world.push(b"abc", length=None)
    assert world.transport.written.endswith(b"Content-Length: 3\r\n\r\nabc")
    world.transport.gets(OK)
    world.assert_clean(stream)


@scenario
async def test_a_post_without_a_body_says_so_and_a_get_says_nothing() -> None:
    world = World()
    post = await world.push(length=None)
    assert b"Content-Length: 0\r\n" in world.transport.written
    world.transport.gets(OK)
    get = await world.push(method="GET")
    assert world.transport.written.endswith(
        b"GET /x HTTP/1.1\r\nHost: target.test\r\nContent-Type: text/plain\r\nX-Request-Id: req-1\r\n\r\n"
    )
    world.transport.gets(OK)
    world.assert_clean(post, get)


@scenario
async def test_bytes_that_come_while_connecting_wait_without_credit() -> None:
    world = World()
    world.mode = "hang"
    stream = await world.push(b"abc", end=False, length=6)
    stream.push_data(b"def", end=True)
    assert stream.consumed_bytes == 0
    world.mode = "connect"
    world.pool._connect_more()
    stream2 = await world.push(b"x")  # starts a connect of its own, which serves whoever waits longest
    assert world.transports[0].written.endswith(b"abcdef")
    assert stream.consumed_bytes == 6
    world.transports[0].gets(OK)
    await world.settle()
    world.transports[-1].gets(OK)
    world.assert_clean(stream, stream2)


@scenario
async def test_an_answer_in_pieces_is_streamed() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab")
    world.transport.gets(b"cd")
    world.transport.gets(b"ef")
    assert stream.log == ["answer 200 [2]", "send [2]", "send [2] end"]
    world.assert_clean(stream)


@scenario
async def test_a_chunked_answer_is_decoded() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    world.transport.gets(b"2\r\nde\r\n0\r\nTrailer: dropped\r\n\r\n")
    assert stream.log == ["answer 200 [3]", "send [2] end"]
    assert stream.head.headers == []
    assert stream.head.content_length is None
    world.assert_clean(stream)
    assert world.pool.idle == 1


@scenario
async def test_a_whole_chunked_answer_gets_a_length() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert (stream.log, stream.head.content_length) == (["answer 200 [3] end"], 3)


@scenario
async def test_an_answer_until_close_ends_with_the_connection() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.0 200 OK\r\n\r\nabc")
    world.transport.gets_eof()
    assert stream.log == ["answer 200 [3]", "send [0] end"]
    await world.settle()
    world.assert_clean(stream)
    assert world.pool.total == 0


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_what_has_no_body_ends_with_its_head(method: str) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        stream = await world.push(method=method)
        status = b"200 OK" if method == "HEAD" else b"304 Not Modified"
        world.transport.gets(b"HTTP/1.1 " + status + b"\r\nContent-Length: 77\r\n\r\n")
        assert stream.ended
        assert stream.head.content_length == 77
        world.assert_clean(stream)
        assert world.pool.idle == 1

    tell()


@scenario
async def test_interim_answers_pass_and_100_is_swallowed() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    assert stream.log == ["interim 103", "answer 200 [2] end"]
    world.assert_clean(stream)


@scenario
async def test_one_byte_segments() -> None:
    world = World()
    stream = await world.push(b"x")
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    for byte in interim + b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
        world.transport.gets(bytes([byte]))
    assert stream.body == b"abc"
    assert stream.ended
    world.assert_clean(stream)


@scenario
async def test_location_to_the_target_leads_back_and_elsewhere_is_dropped() -> None:
    world = World()
    for location, expected in (
        (b"https://target.test/a?b", [(b"Location", b"/a?b")]),
        (b"/a", [(b"Location", b"/a")]),
        (b"https://inside.corp/a", []),
    ):
        stream = await world.push(b"x")
        world.transport.gets(b"HTTP/1.1 307 T\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")
        assert stream.head.headers == expected
        world.assert_clean(stream)


@scenario
async def test_location_to_the_host_that_the_target_was_told_leads_back() -> None:
    world = World(headers=HeaderPolicy("target.test", keep_host=True))
    stream = await world.push(b"x")
    assert b"\r\nHost: push.example.com\r\n" in world.transport.written
    world.transport.gets(b"HTTP/1.1 302 T\r\nLocation: http://push.example.com/a\r\nContent-Length: 0\r\n\r\n")
    assert stream.head.headers == [(b"Location", b"/a")]


@scenario
async def test_qanat_headers_of_a_target_are_dropped() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 503 Busy\r\nQanat-Error: no\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")
    assert stream.head.headers == [(b"Retry-After", b"7")]
    assert stream.head.status == 503


# What is refused before anything is sent.


@pytest.mark.parametrize(
    ("push", "code"),
    [
        ({"target": "other"}, "unknown-target"),
        ({"method": "DELETE", "path": "/sap/frun/x"}, "method-not-allowed"),
        ({"path": "/elsewhere"}, "path-not-allowed"),
        ({"path": "/sap/frunny"}, "path-not-allowed"),
        ({"path": "/sap/frun/%2e%2e/x"}, "path-refused"),
        ({"path": "/sap/frun/../x"}, "path-refused"),
        ({"path": "/sap/frun//x"}, "path-refused"),
        ({"path": "/sap/frun", "body": b"12345678901"}, "target-body-too-large"),
        ({"path": "/sap/frun", "length": 11, "end": False}, "target-body-too-large"),
        ({"path": "/sap/frun", "body": b"123", "length": 2}, "bad-push"),
        ({"path": "/sap/frun", "body": b"123", "length": 4}, "bad-push"),
        ({"path": "/sap/frun", "deadline": 1000.0}, "deadline-exceeded"),
    ],
    ids=str,
)
def test_refused(push: dict[str, Any], code: str) -> None:
    @scenario
    async def tell() -> None:
        world = World(rules=(Rule(("POST",), "/sap/frun", sub_paths=True),), max_body=10)
        stream = await world.push(**push)
        assert stream.log == [f"reset {code} refused"]
        assert world.transports == []
        assert world.lines[-1]["code"] == code
        world.assert_clean(stream)

    tell()


@scenario
async def test_garbage_from_the_relay_is_a_bad_push() -> None:
    world = World()
    stream = FakeStream()
    world.dispatcher.on_stream(stream, b"\xff\x00garbage", b"", True)  # type: ignore[arg-type]  # a fake
    assert stream.log == ["reset bad-push refused"]
    assert world.metrics.refused == {"bad-push": 1}


@pytest.mark.parametrize("code", ["target-unreachable", "target-tls-failed", "target-address-refused"])
def test_no_connection_to_be_had(code: str) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        world.mode = LocalFault(code, "10.0.0.1 says no")
        stream = await world.push(b"abc")
        assert stream.log == [f"reset {code} refused"]
        assert world.lines[-1]["detail"] == "10.0.0.1 says no"
        world.assert_clean(stream)

    tell()


@scenario
async def test_the_deadline_is_looked_at_again_after_waiting() -> None:
    world = World()
    world.mode = "hang"
    stream = await world.push(b"abc", deadline=world.loop.time() + 1.0)
    world.loop.freeze(1.5)  # type: ignore[attr-defined]
    world.mode = "connect"
    world.pool._tasks.clear()
    world.pool._connect_more()
    await world.settle()
    assert stream.log == ["reset deadline-exceeded refused"]
    assert all(transport.written == b"" for transport in world.transports)
    world.assert_clean(stream)


@scenario
async def test_a_closed_dispatcher_takes_nothing() -> None:
    world = World()
    stream = await world.push(b"abc")
    world.mode = "hang"
    waiting = await world.push(b"abc")
    world.dispatcher.abort("connector-draining")
    assert stream.log == ["reset target-lost"]
    assert waiting.log == ["reset connector-draining refused"]
    assert (await world.push(b"abc")).log == ["reset connector-draining refused"]
    await world.settle()
    world.assert_clean(stream)
