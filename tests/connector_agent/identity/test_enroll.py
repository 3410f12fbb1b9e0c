"""`enroll`, `certs`, and a connector that joins on its first run: from the config and the command line."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector_agent.app import ConnectorApp
from connector_agent.cli import app as command
from connector_agent.config import ConnectorConfig
from connector_agent.identity.cli import write_config
from connector_agent.identity.store import IdentityStore
from connector_agent.wiring import check_identity, make_tunnels
from shared.cli import invoke
from shared.config import HostPort, load_config, read_config
from shared.control import control_request
from shared.errors import FAULTS
from shared.exits import CommandError
from shared.pki import issue
from shared.pki.files import write_private
from shared.pki.join_token import JoinToken
from shared.pki.requests import make_request
from shared.process import StopRequest
from tests.support.development import Pki
from tests.support.relay_double import SECRET, RelayDouble, relay_double


async def run(*arguments: str | Path) -> int:
    """A command line in a thread of its own, while the relay goes on."""
    return await asyncio.to_thread(invoke, command, [str(one) for one in arguments])


def token_file(folder: Path, relay: RelayDouble, **changes: Any) -> Path:
    path = folder / "token"
    write_private(path, f"{relay.token(**changes)}\n".encode())
    return path


def config_file(folder: Path, text: str = "", relays: str = "") -> Path:
    path = folder / "connector.yaml"
    path.write_text(f"state_dir: state\n{relays}{text}targets: []\n")
    return path


# --- enroll


async def test_enroll_writes_a_config_that_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with relay_double(tmp_path) as relay:
        path = tmp_path / "etc" / "connector.yaml"
        assert await run("enroll", "--token-file", token_file(tmp_path, relay), "--config", path) == 0
        out, told = capsys.readouterr()
        assert f"Joined localhost:{relay.port} as {relay.identity}." in out
        assert "add what this connector should expose under targets" in told
        assert SECRET not in out + told + path.read_text()
        config = load_config(path, ConnectorConfig)
        assert [str(one) for one in config.relay_addresses()] == [f"localhost:{relay.port}"]
        assert config.state_dir == tmp_path / "etc" / "state" / "connector"
        found = check_identity(config)
        assert found is not None
        assert found.id == relay.identity
        assert await run("check", "--config", path) == 0


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("connector.yaml", "/var/lib/qanat-connector"),
        ("connector-berlin.yaml", "/var/lib/qanat-connector-berlin"),
        ("other.yaml", "state/connector"),
    ],
)
def test_a_service_of_several_has_a_state_of_its_own(tmp_path: Path, name: str, state: str) -> None:
    relays = (HostPort("relay.example.com", 8443),)
    token = JoinToken("example.com", relays, "0" * 64, "acme", "walldorf", "c1", "t0k3n", "0" * 64)
    write_config(tmp_path / name, token, tmp_path / "connector.yaml")
    assert yaml.safe_load((tmp_path / name).read_text())["state_dir"] == state


async def test_what_root_enrols_belongs_to_the_owner_of_the_state(tmp_path: Path) -> None:
    user = os.geteuid() or 65_534
    with tempfile.TemporaryDirectory() as place:  # every user may pass through, which is not so of pytest's own
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "state").mkdir(mode=0o700)
        os.chown(folder / "state", user, -1)
        async with relay_double(tmp_path) as relay:
            path = config_file(folder, relays=f"relays: ['wss://localhost:{relay.port}']\n")
            assert await run("enroll", "--token-file", token_file(folder, relay), "--config", path) == 0
        made = {one.name: one.stat().st_uid for one in (folder / "state").rglob("*")}
    assert "identity.pem" in made
    assert set(made.values()) == {user}


async def test_enroll_tells_scripts_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with relay_double(tmp_path) as relay:
        path = config_file(tmp_path, relays=f"relays: ['wss://localhost:{relay.port}']\n")
        assert await run("enroll", "--token-file", token_file(tmp_path, relay), "--config", path, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told["schema"] == "qanat.connector.enroll.v1"
        assert told["id"] == str(relay.identity)
        assert told["config_written"] is False


async def test_a_token_comes_by_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with relay_double(tmp_path) as relay:
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{relay.token()}\n"))
        assert await run("enroll", "--config", tmp_path / "c.yaml") == 0
        assert IdentityStore(tmp_path / "state" / "connector").load_identity() is not None


async def test_an_empty_pipe_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the command before it failed."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert await run("enroll", "--config", tmp_path / "c.yaml") == 7
    assert "no join token came by standard input" in capsys.readouterr().err
    assert not (tmp_path / "c.yaml").exists()


async def test_a_token_is_never_taken_from_the_command_line(tmp_path: Path) -> None:
    assert await run("enroll", "qanat-join-1_x", "--config", tmp_path / "c.yaml") == 2
    assert not (tmp_path / "c.yaml").exists()


@pytest.mark.parametrize("code", ["token-used", "token-expired", "connector-blocked"])
async def test_a_refused_token_is_exit_code_7(tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str) -> None:
    async with relay_double(tmp_path) as relay:
        relay.refusal = {"error": code, "detail": FAULTS[code].title}
        path = config_file(tmp_path)
        assert await run("enroll", "--token-file", token_file(tmp_path, relay), "--config", path, "--json") == 7
        problem = json.loads(capsys.readouterr().err.splitlines()[-1])
        assert problem["code"] == code
        assert problem["title"] == f"The relay refuses: {FAULTS[code].title}"
        assert problem["remedy"]


async def test_a_tampered_token_is_told_before_anybody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with relay_double(tmp_path) as relay:
        text = str(relay.token())
        monkeypatch.setattr("sys.stdin", io.StringIO(text[:-1] + ("0" if text[-1] != "0" else "1")))
        assert await run("enroll", "--config", tmp_path / "c.yaml") == 7
        assert "damaged" in capsys.readouterr().err
        assert relay.questions == []
        assert not (tmp_path / "c.yaml").exists()


async def test_a_config_that_cannot_be_written_is_told_before_the_token_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    async with relay_double(tmp_path) as relay:
        path = tmp_path / "file" / "connector.yaml"
        assert await run("enroll", "--token-file", token_file(tmp_path, relay), "--config", path) == 1
        told = capsys.readouterr().err
        assert "cannot write" in told
        assert "--config connector.yaml" in told
        assert relay.questions == []


async def test_a_relay_that_is_not_there_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with relay_double(tmp_path) as relay:
        token = token_file(tmp_path, relay)
    assert await run("enroll", "--token-file", token, "--config", config_file(tmp_path)) == 1
    assert "was not used up" in capsys.readouterr().err


async def test_a_token_that_others_may_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with relay_double(tmp_path) as relay:
        token = token_file(tmp_path, relay)
        token.chmod(0o644)
        assert await run("enroll", "--token-file", token, "--config", config_file(tmp_path)) == 3
        assert "others may read" in capsys.readouterr().err


async def test_a_token_file_is_told_apart_from_what_is_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "c1.token"
    assert await run("enroll", "--token-file", token, "--config", config_file(tmp_path)) == 3
    assert "missing" in capsys.readouterr().err
    write_private(token, b"not a token\n")
    assert await run("enroll", "--token-file", token, "--config", config_file(tmp_path), "--json") == 7
    problem = json.loads(capsys.readouterr().err)
    assert problem["code"] == "token-unreadable"
    assert str(token) in problem["title"]
    assert problem["remedy"]


async def test_an_identity_is_replaced_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with relay_double(tmp_path) as relay:
        path, token = config_file(tmp_path), token_file(tmp_path, relay)
        assert await run("enroll", "--token-file", token, "--config", path) == 0
        before = (tmp_path / "state" / "identity.pem").read_bytes()
        assert await run("enroll", "--token-file", token, "--config", path) == 5
        assert "--replace" in capsys.readouterr().err
        assert (tmp_path / "state" / "identity.pem").read_bytes() == before
        assert await run("enroll", "--token-file", token, "--config", path, "--replace") == 0
        assert (tmp_path / "state" / "identity.pem").read_bytes() != before


async def test_an_own_ca_has_nothing_to_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pki = Pki(tmp_path)
    pair = pki.connector()
    tls = f"tls: {{certificate: {pair.certificate}, key: {pair.key}, ca: {pki.ca}}}\n"
    async with relay_double(tmp_path) as relay:
        path = config_file(tmp_path, tls, "relays: ['wss://localhost:1']\n")
        assert await run("enroll", "--token-file", token_file(tmp_path, relay), "--config", path) == 5
        assert "your own CA" in capsys.readouterr().err


# --- configs


def test_without_identity_and_token_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no identity yet") as caught:
        check_identity(load_config(config_file(tmp_path), ConnectorConfig))
    assert "enroll" in caught.value.remedy


async def test_a_stale_token_is_ignored_and_one_for_another_is_an_error(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        token = token_file(tmp_path, relay)
        path = config_file(tmp_path, "join: {token_file: token}\n")
        config = load_config(path, ConnectorConfig)
        assert check_identity(config) is None, "it will join"
        assert await run("enroll", "--token-file", token, "--config", path) == 0
        assert check_identity(config) is not None
        token.write_text("nonsense")
        assert check_identity(config) is not None
        token_file(tmp_path, relay, connector="other")
        with pytest.raises(CommandError, match="holds the identity"):
            check_identity(config)


# --- the whole program


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[ConnectorApp]:
    app = ConnectorApp(path, read_config(path, ConnectorConfig), lambda one: make_tunnels(one, {}))
    await app.start(StopRequest())
    try:
        yield app
    finally:
        await app.stop()


async def test_a_connector_joins_on_its_first_run_and_rotates_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with relay_double(tmp_path) as relay:
        path = config_file(tmp_path, "join: {token_file: token}\n")
        async with running(path) as app:
            socket = tmp_path / "state" / "control.sock"
            assert app.status()["identity"]["state"] == "joining"
            with pytest.raises(CommandError, match="not joined"):
                await control_request(socket, "POST", "/v1/certs/rotate")
            assert relay.questions == []
            token_file(tmp_path, relay)
            await relay.until(lambda: len(relay.open) == 2, 20.0)
            status = app.status()
            assert status["identity"]["id"] == str(relay.identity)
            assert status["warnings"] == []
            kinds = [one["kind"] for one in status["certificates"]]
            assert kinds == ["identity", "root"]
            old = relay.issued[-1]
            assert await run("certs", "rotate", "--config", path) == 0
            assert "no push is lost" in capsys.readouterr().out
            assert relay.issued[-1] != old
            assert await run("certs", "show", "--config", path) == 0
            assert str(relay.identity) in capsys.readouterr().out
            metrics = app.metrics.render().decode()
            assert 'qanat_connector_certificate_not_after_seconds{kind="identity",name="frun"}' in metrics
            assert 'qanat_connector_renewals_total{result="renewed"} 1.0' in metrics
            assert "qanat_connector_clock_doubtful 0.0" in metrics
        capsys.readouterr()
        assert await run("certs", "show", "--config", path, "--json") == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["running"] is False
        assert shown["identity"]["id"] == str(relay.identity)


async def test_what_is_about_to_expire_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with relay_double(tmp_path) as relay:
        relay.lifetime = timedelta(hours=3)
        path = config_file(tmp_path, "join: {token_file: token}\n")
        token_file(tmp_path, relay)
        async with running(path) as app:
            await relay.until(lambda: len(relay.open) == 2)
            identity = app.tunnels.identity
            assert identity is not None
            assert app.status()["warnings"] == []
            own = identity.certificates()[0]
            assert own.warning(own.not_after - timedelta(minutes=50)) is not None
            assert own.warning(own.not_after - timedelta(minutes=70)) is None
            assert "has expired" in str(own.warning(own.not_after))
            root = identity.certificates()[1]
            assert root.warning(root.not_after - timedelta(days=29)) is not None
            assert root.warning(root.not_after - timedelta(days=31)) is None


async def test_files_of_an_own_ca_are_read_again_and_bad_ones_are_not_used(tmp_path: Path) -> None:
    """Kubernetes' way: the files are links into a folder that is swapped as a whole."""
    pki = Pki(tmp_path)
    ca = pki.ca.read_bytes()

    def put(name: str, pem: bytes, key: bytes) -> None:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tls.crt").write_bytes(pem)
        write_private(folder / "tls.key", key)
        (folder / "ca.crt").write_bytes(ca)
        link = tmp_path / "swap"
        link.symlink_to(name)
        link.rename(tmp_path / "..data")

    first, second = pki.connector("c1"), pki.connector("c2")
    put("one", first.certificate.read_bytes(), first.key.read_bytes())
    tls = "tls: {certificate: ..data/tls.crt, key: ..data/tls.key, ca: ..data/ca.crt}\n"
    path = config_file(tmp_path, tls, "relays: ['wss://localhost:1']\n")
    async with running(path) as app:
        identity = app.tunnels.identity
        assert identity is not None
        assert (await app.reload()).lines == ()
        put("two", second.certificate.read_bytes(), first.key.read_bytes())
        outcome = await app.reload()
        assert not outcome.is_taken
        assert "does not belong" in outcome.lines[0]
        put("three", second.certificate.read_bytes(), second.key.read_bytes())
        outcome = await app.reload()
        assert outcome.is_taken
        assert "certificate is valid until" in outcome.lines[0]
        with pytest.raises(CommandError, match="your own CA"):
            await control_request(tmp_path / "state" / "control.sock", "POST", "/v1/certs/rotate")
        assert app.status()["identity"]["mode"] == "own-ca"
        assert [one.kind for one in identity.certificates()] == ["identity", "ca"]
        assert identity.certificates()[0].not_after > datetime.now(UTC)


async def test_new_files_of_an_own_ca_replace_the_tunnels_new_before_old(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        relay.offers_renewal = False

        def put() -> None:
            key = issue.new_key()
            (tmp_path / "c.pem").write_text(relay.ca.sign(relay.identity, make_request(key)))
            write_private(tmp_path / "c.key", issue.key_pem(key))

        put()
        (tmp_path / "ca.pem").write_text("".join(relay.ca.trust["roots"]))
        tls = "tls: {certificate: c.pem, key: c.key, ca: ca.pem}\n"
        path = config_file(tmp_path, tls, f"relays: ['wss://localhost:{relay.port}']\n")
        async with running(path) as app:
            await relay.until(lambda: len(relay.open) == 2)
            before = {tunnel.certificate for tunnel in relay.open}
            put()
            assert (await app.reload()).is_taken
            fewest = 2

            def look() -> bool:
                nonlocal fewest
                fewest = min(fewest, len(relay.open))
                return len(relay.open) == 2 and not before & {tunnel.certificate for tunnel in relay.open}

            await relay.until(look)
            assert fewest == 2


async def test_a_join_goes_through_the_proxy(tmp_path: Path) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.partition(b"\r\n")[0])
        there, back = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
        except OSError:
            pass
        sink.close()

    async with relay_double(tmp_path, serve=False) as relay:
        await relay.serve(relay.ca.server_identity(tmp_path, "relay.example.com"))
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        path = config_file(tmp_path, f"proxy: {{url: 'http://127.0.0.1:{port}'}}\n")
        token = token_file(tmp_path, relay, relays=(HostPort("relay.example.com", 443),))
        assert await run("enroll", "--token-file", token, "--config", path) == 0
        assert asked == [b"CONNECT relay.example.com:443 HTTP/1.1"] * 2
        server.close()
