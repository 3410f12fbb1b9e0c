"""A push from stream to target and back, as transcripts: what the stream saw, what the target got, what is left."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from connector_agent.access import Rule
from connector_agent.headers_policy import HeaderPolicy
from connector_agent.targets import Timeouts
from shared.errors import LocalFault
from tests.connector_agent.kit import FakeStream, World, run

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


def scenario(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in virtual time."""

    def wrapped() -> None:
        run(test)

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    return wrapped


# What goes well.


@scenario
async def test_a_small_push_is_one_write_and_its_answer_one_frame() -> None:
    world = World()
    stream = await world.push(b"hello")
    assert world.transport.writes == 1
    assert world.transport.written == (
        b"POST /x HTTP/1.1\r\nHost: target.test\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
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
    assert world.transport.written.endswith(b"GET /x HTTP/1.1\r\nHost: target.test\r\nContent-Type: text/plain\r\n\r\n")
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
    world.dispatcher.abort("connector-draining")
    assert stream.log == ["reset connector-draining"]
    assert (await world.push(b"abc")).log == ["reset connector-draining refused"]
    await world.settle()
    world.assert_clean(stream)


# What the target does wrong.


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"g",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.1 999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 003\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\n\r\n" * 40,
    ],
    ids=lambda answer: repr(answer[:50]),
)
@pytest.mark.parametrize("step", [1 << 20, 1], ids=["whole", "bytewise"])
def test_malformed_answers(answer: bytes, step: int) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        stream = await world.push(b"x")
        for at in range(0, len(answer), step):
            world.transport.gets(answer[at : at + step])
        assert stream.log[-1] == "reset target-malformed-answer"
        assert not any(line.startswith("answer") and line.endswith("end") for line in stream.log)
        assert world.transport.state == "aborted"
        await world.settle()
        world.assert_clean(stream)
        assert world.pool.total == 0

    tell()


@scenario
async def test_odd_headers_that_frame_nothing_are_dropped_and_counted() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 200 OK\r\nX_Odd: 1\r\nX-Odd: \xe4\r\nContent-Length: 2\r\n\r\nok")
    assert stream.head.headers == []
    assert world.metrics.target("t").dropped_headers == 2
    world.assert_clean(stream)


@scenario
async def test_a_chunk_that_is_malformed_in_the_middle_resets_after_the_head() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    world.transport.gets(b"zz\r\n")
    assert stream.log == ["answer 200 [3]", "reset target-malformed-answer"]
    await world.settle()
    world.assert_clean(stream)


@pytest.mark.parametrize("how", ["breaks", "gets_eof"])
@pytest.mark.parametrize("so_far", [b"HTT", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
def test_the_target_is_lost_in_the_middle_of_its_answer(how: str, so_far: bytes) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        stream = await world.push(b"x")
        world.transport.gets(so_far)
        getattr(world.transport, how)()
        assert stream.log[-1] == "reset connection-closed"
        await world.settle()
        world.assert_clean(stream)
        assert world.pool.total == 0

    tell()


@pytest.mark.parametrize("how", ["breaks", "gets_eof"])
def test_the_target_is_lost_before_its_answer(how: str) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        stream = await world.push(b"x")
        getattr(world.transport, how)()
        assert stream.log == ["reset target-lost"]
        assert len(world.transports) == 1
        await world.settle()
        world.assert_clean(stream)

    tell()


@scenario
async def test_an_answer_until_close_that_is_cut_is_no_answer() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 200 OK\r\n\r\nabc")
    world.transport.breaks()
    assert stream.log == ["answer 200 [3]", "reset connection-closed"]


@scenario
async def test_a_post_on_a_stale_connection_is_never_repeated() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(OK)
    stream = await world.push(b"y")
    world.transport.gets_eof()
    await world.settle()
    assert stream.log == ["reset target-lost"]
    assert len(world.transports) == 1


@scenario
async def test_a_get_on_a_stale_connection_is_repeated_once() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(OK)
    stream = await world.push(method="GET")
    world.transport.gets_eof()
    await world.settle()
    assert len(world.transports) == 2
    assert stream.log == []
    world.transport.gets(OK)
    assert stream.log == ["answer 200 [2] end"]
    world.assert_clean(stream)


@scenario
async def test_a_get_that_fails_on_a_fresh_connection_is_not_repeated() -> None:
    world = World()
    stream = await world.push(method="GET")
    world.transport.gets_eof()
    await world.settle()
    assert stream.log == ["reset target-lost"]


@scenario
async def test_a_repeated_get_that_finds_no_connection_is_not_called_refused() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(OK)
    stream = await world.push(method="GET")
    world.mode = LocalFault("target-unreachable")
    world.transport.gets_eof()
    await world.settle()
    assert stream.log == ["reset target-unreachable"]
    world.assert_clean(stream)


@scenario
async def test_bytes_behind_the_answer_end_the_connection() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(OK + b"HTTP/1.1 200 OK\r\n\r\n")
    assert stream.log == ["answer 200 [2] end"]
    assert world.transport.state == "aborted"
    world.assert_clean(stream)


@scenario
async def test_bytes_on_an_idle_connection_end_it() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(OK)
    world.transport.gets(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert world.transport.state == "aborted"
    assert world.pool.total == 0


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.0 204 N\r\n\r\n"]
)
def test_a_connection_that_is_to_close_is_not_kept(answer: bytes) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        stream = await world.push(b"x")
        world.transport.gets(answer)
        assert stream.ended
        assert world.pool.total == 0

    tell()


@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize("injects", [True, False])
def test_a_refused_credential_of_ours_is_our_fault(status: int, injects: bool) -> None:
    @scenario
    async def tell() -> None:
        policy = HeaderPolicy("target.test", secrets={"Authorization": "Basic c2VjcmV0"} if injects else {})
        world = World(headers=policy)
        stream = await world.push(b"x")
        world.transport.gets(b"HTTP/1.1 %d No\r\nContent-Length: 3\r\n\r\nabc" % status)
        assert stream.log == (["reset target-credential-refused"] if injects else [f"answer {status} [3] end"])
        await world.settle()
        world.assert_clean(stream)

    tell()


# Time.


@pytest.mark.parametrize(
    ("so_far", "deadline", "after", "log"),
    [
        (b"", 0.0, 25.0, ["reset target-too-slow"]),
        (b"HTTP/1.1", 0.0, 25.0, ["reset target-too-slow"]),
        (b"", 3.0, 3.0, ["reset target-too-slow"]),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", 3.0, 60.0, ["answer 200 [2]", "reset target-too-slow"]),
    ],
    ids=str,
)
def test_a_target_that_never_answers(so_far: bytes, deadline: float, after: float, log: list[str]) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        began = world.loop.time()
        stream = await world.push(b"x", deadline=began + deadline if deadline else 0.0)
        if so_far:
            world.transport.gets(so_far)
        while not stream.was_reset:
            await world.settle()
            await _wait(world, 0.5)
        assert abs(world.loop.time() - began - after) < 1.0
        assert stream.log == log
        assert world.transport.state == "aborted"
        world.assert_clean(stream)

    tell()


async def _wait(world: World, seconds: float) -> None:
    done = world.loop.create_future()
    world.loop.call_later(seconds, done.set_result, None)
    await done


@scenario
async def test_a_target_that_stops_reading_is_given_up() -> None:
    world = World(timeouts=Timeouts(first_byte=5.0, idle=10.0))
    world.full_at = 100
    stream = await world.push(b"x" * 200, end=False, length=1000)
    assert stream.consumed_bytes == 0
    await _wait(world, 9.0)
    assert stream.log == []
    await _wait(world, 1.5)
    assert stream.log == ["reset target-too-slow"]
    world.assert_clean(stream)


@scenario
async def test_waiting_for_the_sender_is_not_the_targets_fault() -> None:
    world = World(timeouts=Timeouts(first_byte=5.0, idle=10.0))
    stream = await world.push(b"x", end=False, length=2)
    await _wait(world, 100.0)
    stream.push_data(b"y", end=True)
    await _wait(world, 4.0)
    world.transport.gets(OK)
    assert stream.log == ["answer 200 [2] end"]


@scenario
async def test_an_idle_connection_is_closed_after_four_seconds() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(OK)
    await _wait(world, 3.9)
    assert world.pool.idle == 1
    await _wait(world, 0.3)
    assert world.pool.total == 0
    assert world.transport.state == "closed"
    assert world.loop.timers == 0  # type: ignore[attr-defined]


@scenario
async def test_a_stale_connection_is_not_used_when_the_sweep_is_late() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(OK)
    world.loop.freeze(5.0)  # type: ignore[attr-defined]
    assert world.pool.take(world.loop.time()) is None
    assert world.pool.total == 0


@scenario
async def test_the_targets_own_keep_alive_timeout_counts() -> None:
    world = World()
    await world.push(b"x")
    world.transport.gets(b"HTTP/1.1 204 N\r\nKeep-Alive: timeout=2\r\n\r\n")
    await _wait(world, 1.4)
    assert world.pool.idle == 1
    await _wait(world, 0.2)
    assert world.pool.total == 0


# Back-pressure, both ways.


@scenario
async def test_a_slow_target_holds_credit_back() -> None:
    world = World()
    world.full_at = 100
    stream = await world.push(b"x" * 200, end=False, length=500)
    stream.push_data(b"y" * 100)
    assert stream.consumed_bytes == 0
    world.transport.drain()
    assert stream.consumed_bytes == 300
    stream.push_data(b"z" * 200, end=True)
    assert stream.consumed_bytes == 500
    world.transport.gets(OK)
    world.assert_clean(stream)


@scenario
async def test_a_slow_sender_pauses_the_target() -> None:
    world = World()
    stream = FakeStream()
    stream.holds_back = True
    await world.push(b"x", stream=stream)
    world.transport.gets(b"HTTP/1.1 200 OK\r\nContent-Length: 300003\r\n\r\n" + b"a" * 300_000)
    assert not world.transport.is_reading_now
    await _wait(world, 1000.0)  # while we do not read, the target is not too slow
    stream.relay_reads()
    assert world.transport.is_reading_now
    world.transport.gets(b"end")
    assert stream.ended
    world.assert_clean(stream)
    assert world.pool.idle == 1


@scenario
async def test_a_connection_whose_last_bytes_have_not_left_is_not_kept() -> None:
    world = World()
    world.full_at = 1
    stream = await world.push(b"x" * 10)
    world.transport.gets(OK)
    assert stream.ended
    assert world.transport.state == "aborted"
    world.assert_clean(stream)


# Early answers and early ends.


@scenario
async def test_an_early_refusal_passes_and_the_rest_of_the_push_goes_nowhere() -> None:
    world = World()
    stream = await world.push(b"abc", end=False, length=100)
    world.transport.gets(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nno")
    written = world.transport.written
    stream.push_data(b"d" * 50)
    assert world.transport.written == written
    world.transport.gets(b"!!")
    assert stream.log == ["answer 413 [2]", "send [2] end"]
    assert world.transport.state == "aborted"
    stream.push_data(b"d" * 47, end=True)
    world.assert_clean(stream)


@scenario
async def test_an_early_answer_of_2xx_may_go_on_both_ways() -> None:
    world = World()
    stream = await world.push(b"abc", end=False, length=None)
    world.transport.gets(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    stream.push_data(b"de", end=True)
    assert world.transport.written.endswith(b"2\r\nde\r\n0\r\n\r\n")
    world.transport.gets(b"2\r\nde\r\n0\r\n\r\n")
    assert stream.log == ["answer 200 [3]", "send [2] end"]
    world.assert_clean(stream)
    assert world.pool.idle == 1


@scenario
async def test_an_early_whole_answer_ends_the_push() -> None:
    world = World()
    stream = await world.push(b"abc", end=False, length=100)
    world.transport.gets(OK)
    assert stream.log == ["answer 200 [2] end"]
    assert world.transport.state == "aborted"
    stream.push_data(b"d" * 97, end=True)
    world.assert_clean(stream)


@scenario
async def test_a_body_that_grows_over_the_limit_is_cut_off() -> None:
    world = World(max_body=10)
    stream = await world.push(b"12345678", end=False, length=None)
    stream.push_data(b"901")
    assert stream.log == ["reset target-body-too-large"]
    assert not world.transport.written.endswith(b"0\r\n\r\n")
    assert world.transport.state == "aborted"
    world.assert_clean(stream)


@pytest.mark.parametrize("is_tls", [True, False])
def test_the_sender_hangs_up(is_tls: bool) -> None:
    @scenario
    async def tell() -> None:
        world = World(is_tls=is_tls)
        stream = await world.push(b"abc", end=False, length=100)
        stream.relay_resets()
        assert world.transport.state == "aborted"
        assert world.lines[-1]["code"] == "sender-gone"
        await world.settle()
        world.assert_clean(stream)

    tell()


@scenario
async def test_the_sender_hangs_up_while_the_push_waits() -> None:
    world = World()
    world.mode = "hang"
    stream = await world.push(b"abc")
    stream.relay_resets()
    world.assert_clean(stream)
    await _wait(world, 10.0)
    assert stream.log == ["relay resets"]


@scenario
async def test_a_stream_that_is_reset_while_it_takes_bytes() -> None:
    """The memory budget may take a stream in the middle of our own call."""
    world = World()
    stream = FakeStream()
    stream.on_call = stream.relay_resets
    await world.push(b"x", stream=stream)
    world.transport.gets(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
    assert world.transport.state == "aborted"
    assert world.dispatcher.in_flight == 0


@scenario
async def test_a_late_reset_after_the_answer_is_nothing() -> None:
    world = World()
    stream = await world.push(b"x")
    world.transport.gets(OK)
    stream.relay_resets()
    assert len(world.lines) == 1
    assert world.pool.idle == 1


@scenario
async def test_the_access_line() -> None:
    world = World()
    await world.push(b"hello", path="/x?token=secret")
    world.transport.gets(OK)
    line = world.lines[0]
    assert {key: line[key] for key in line if not key.endswith("_ms") and key != "time"} == {
        "request_id": "req-1", "attempt": 1, "sender": "s4-prod", "route": "r", "target": "t", "method": "POST",
        "path": "/x", "status": 200, "bytes_in": 5, "bytes_out": 2, "reused": False,
    }  # fmt: skip
    assert world.metrics.target("t").by_class[2] == 1


async def _more(stream: FakeStream) -> None:
    stream.push_data(b"y", end=True)


@pytest.mark.parametrize("when", ["start", "data"])
def test_a_bug_of_ours_ends_one_push_and_leaves_nothing(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def tell() -> None:
        world = World()
        await world.push(b"warm")
        world.transport.gets(OK)
        stream = FakeStream()
        if when == "data":
            await world.push(b"x", end=False, length=2, stream=stream)
        monkeypatch.setattr(world.transport, "write", lambda data: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await (_more(stream) if when == "data" else world.push(b"x", stream=stream))
        assert stream.log == ["reset connector-error"]
        assert world.transport.state == "aborted"
        await world.settle()
        world.assert_clean(stream)

    tell()
