from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from shared import control
from shared.control import (
    ControlFault,
    ControlRequest,
    ControlServer,
    ControlUnreachable,
    bind_socket,
    control_request,
)
from shared.exits import CommandError, ExitCode


async def echo(request: ControlRequest) -> dict[str, object]:
    return {"schema": "x.v1", "params": request.params, "query": request.query, "body": request.body}


async def refuse(_request: ControlRequest) -> dict[str, object]:
    raise ControlFault(409, "blocked", "the name is blocked", "Unblock it first.")


async def fail(_request: ControlRequest) -> dict[str, object]:
    raise KeyError("a bug")


async def sleep(_request: ControlRequest) -> dict[str, object]:
    await asyncio.sleep(60)
    return {}


ROUTES = {
    ("GET", "/v1/things/{name}"): echo,
    ("POST", "/v1/things/{name}"): echo,
    ("POST", "/v1/refuse"): refuse,
    ("POST", "/v1/fail"): fail,
    ("POST", "/v1/sleep"): sleep,
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "control.sock"


@pytest.fixture
async def server(path):
    server = ControlServer(path, ROUTES, grace=0.1)
    await server.start()
    yield server
    await server.close()


async def refused(path: Path, method: str, url: str, json: object = None) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await control_request(path, method, url, json)
    return caught.value


@pytest.mark.usefixtures("server")
class TestRequests:
    async def test_params_query_and_body_arrive(self, path):
        assert await control_request(path, "POST", "/v1/things/a-b?x=1", {"n": [1, None]}) == {
            "schema": "x.v1", "params": {"name": "a-b"}, "query": {"x": "1"}, "body": {"n": [1, None]},
        }  # fmt: skip

    async def test_without_a_body(self, path):
        assert (await control_request(path, "GET", "/v1/things/x"))["body"] is None

    async def test_a_refusal_becomes_an_exit_code(self, path):
        error = await refused(path, "POST", "/v1/refuse")
        assert (error.exit_code, error.code) == (ExitCode.REFUSED, "blocked")
        assert (error.message, error.remedy) == ("the name is blocked", "Unblock it first.")

    async def test_a_bug_is_logged_there_and_not_shown_here(self, path):
        error = await refused(path, "POST", "/v1/fail")
        assert (error.exit_code, error.code) == (ExitCode.FAILED, "internal-error")
        assert "a bug" not in str(error.problem())

    @pytest.mark.parametrize(
        ("method", "url", "code"), [("GET", "/", ExitCode.NOT_FOUND), ("PUT", "/v1/refuse", ExitCode.FAILED)]
    )
    async def test_unknown_requests(self, path, method, url, code):
        assert (await refused(path, method, url)).exit_code == code

    @pytest.mark.parametrize(("body", "status"), [(b"{", b"400"), (b"1" * (1 << 20) + b"1", b"413")])
    async def test_bad_bodies(self, path, body, status):
        reader, writer = await asyncio.open_unix_connection(str(path))
        head = f"POST /v1/things/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"}")
        writer.close()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"application/problem+json" in answer

    async def test_a_daemon_that_does_not_answer_in_time(self, path):
        with pytest.raises(ControlUnreachable, match="does not answer in time"):
            await control_request(path, "POST", "/v1/sleep", patience=0.05)

    async def test_another_user_is_turned_away(self, path, monkeypatch):
        monkeypatch.setattr(control, "peer_uid", lambda _transport: 12345)
        error = await refused(path, "GET", "/v1/things/x")
        assert (error.exit_code, error.code) == (ExitCode.REFUSED, "wrong-user")

    async def test_root_is_not(self, path, monkeypatch):
        monkeypatch.setattr(control, "peer_uid", lambda _transport: 0)
        assert await control_request(path, "GET", "/v1/things/x")

    async def test_a_peer_that_the_kernel_does_not_name_is_turned_away(self, path, monkeypatch):
        monkeypatch.setattr(control, "peer_uid", lambda _transport: None)
        assert (await refused(path, "GET", "/v1/things/x")).code == "wrong-user"


class TestSocket:
    @pytest.mark.usefixtures("server")
    async def test_nobody_else_may_use_it(self, path):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    async def test_it_is_gone_after_the_end(self, path):
        server = ControlServer(path, ROUTES)
        await server.start()
        await server.close()
        await server.close()
        assert not path.exists()

    async def test_a_dead_daemon_s_is_replaced(self, path):
        bind_socket(path).close()
        assert path.exists()
        server = ControlServer(path, ROUTES)
        await server.start()
        assert await control_request(path, "GET", "/v1/things/x")
        await server.close()

    @pytest.mark.usefixtures("server")
    async def test_a_living_daemon_s_is_not(self, path):
        with pytest.raises(CommandError, match="another daemon seems to use") as caught:
            await ControlServer(path, ROUTES).start()
        assert (caught.value.exit_code, caught.value.code) == (ExitCode.REFUSED, "already-running")
        assert await control_request(path, "GET", "/v1/things/x")

    async def test_a_file_in_its_place_is_left_alone(self, path):
        path.parent.mkdir()
        path.write_text("mine")
        with pytest.raises(CommandError, match="is no socket"):
            bind_socket(path)
        assert path.read_text() == "mine"

    async def test_another_one_s_socket_survives_our_end(self, path):
        server = ControlServer(path, ROUTES)
        await server.start()
        path.unlink()
        with bind_socket(path):
            await server.close()
            assert path.exists()

    async def test_a_state_dir_that_is_no_folder(self, path):
        path.parent.write_text("")
        with pytest.raises(CommandError, match="cannot make the control socket") as caught:
            bind_socket(path)
        assert caught.value.exit_code == ExitCode.FAILED

    @pytest.mark.parametrize("size", [108, 200])
    async def test_a_path_that_is_too_long(self, size):
        path = Path("/" + "x" * (size - 1))
        with pytest.raises(CommandError, match=f"has {size} bytes, the system takes at most 107") as caught:
            bind_socket(path)
        assert caught.value.exit_code == ExitCode.CONFIG
        with pytest.raises(CommandError, match="at most 107"):
            await control_request(path, "GET", "/")

    async def test_the_longest_path_works(self, tmp_path):
        room = 107 - len(os.fsencode(tmp_path)) - 1
        if room < 1:
            pytest.skip("the temporary folder's own path is too long")
        bind_socket(tmp_path / ("x" * room)).close()


class TestUnreachable:
    async def test_no_socket(self, tmp_path):
        with pytest.raises(ControlUnreachable, match="there is no socket") as caught:
            await control_request(tmp_path / "no.sock", "GET", "/")
        assert caught.value.exit_code == ExitCode.UNREACHABLE
        assert caught.value.remedy

    async def test_nobody_listens(self, path):
        bind_socket(path).close()
        with pytest.raises(ControlUnreachable, match="nobody listens there"):
            await control_request(path, "GET", "/")

    @pytest.mark.parametrize(
        "answer",
        [
            b"garbage\r\n\r\n",
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
        ],
    )
    async def test_something_else_answers(self, path, answer):
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        path.parent.mkdir()
        async with await asyncio.start_unix_server(serve, str(path)):
            with pytest.raises(ControlUnreachable):
                await control_request(path, "GET", "/")
