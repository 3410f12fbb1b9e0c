"""What targets do wrong: each is told honestly, and nothing that was unusual is used again."""

from __future__ import annotations

from collections import Counter

import pytest

from connector_agent.access import Rule
from connector_agent.dispatch import REFUSALS_BURST
from connector_agent.headers_policy import HeaderPolicy
from shared.errors import LocalFault
from tests.connector_agent.kit import OK, FakeStream, World, scenario, wait


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
async def test_a_target_cannot_fill_the_tunnel_with_interim_answers() -> None:
    world = World()
    stream = await world.push(b"x")
    large = b"HTTP/1.1 103 Early Hints\r\nLink: %b\r\n\r\n" % (b"x" * 4096)
    small = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    world.transport.gets(large + small)
    assert world.metrics.target("t").dropped_interims == 1
    world.transport.gets(small * 19 + large)
    world.transport.gets(OK)
    assert stream.log == ["interim 103"] * 8 + ["answer 200 [2] end"]
    assert world.metrics.target("t").dropped_interims == 14  # both large ones, and twelve
    assert b'qanat_connector_dropped_interims_total{target="t"} 14.0' in world.metrics.render()
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


@scenario
async def test_ten_thousand_bad_pushes_write_few_lines() -> None:
    world = World(rules=(Rule(("POST",), "/x", sub_paths=False),))
    nowhere = [await world.push(target="nowhere") for _ in range(300)]
    streams = nowhere + [await world.push(path="/elsewhere") for _ in range(300)]
    for _ in range(9400):
        stream = FakeStream()
        world.dispatcher.on_stream(stream, b"no head", b"", True)  # type: ignore[arg-type]  # a fake
        streams.append(stream)
    codes = Counter(line["code"] for line in world.lines)
    assert codes.keys() == {"unknown-target", "path-not-allowed", "bad-push"}
    assert max(codes.values()) <= REFUSALS_BURST + 5
    assert world.metrics.refused["bad-push"] == 9400
    await wait(10.0)
    streams.append(await world.push(target="nowhere"))
    assert world.lines[-1]["suppressed"] == 300 - codes["unknown-target"]
    world.assert_clean(*streams)
