"""A push crosses, whoever starts first, by either credential; the answer is the target's; both sides log it."""

from __future__ import annotations

import base64

import pytest

from tests.system.kit import Site, assert_honest
from tests.system.programs import until
from tests.system.targets import BODY

pytestmark = pytest.mark.system


@pytest.mark.parametrize("first", ["connector", "relay"])
async def test_whoever_starts_first(site, target, first):
    site.expose(target)
    if first == "connector":
        connector = site.launch_connector()
        # It has tried in vain at least once.
        await until(lambda: "connection-refused" in connector.err, "a first try in vain")
        assert await site.observe(connector, "c1", "/healthz")
        assert not await site.observe(connector, "c1", "/readyz")
        await site.start_relay()
        await site.connector_is_ready()
    else:
        await site.start_relay()
        await site.start_connector()
    answer = await site.push("/push?id=1", b"value 42")
    assert (answer.status, answer.body) == (200, BODY)
    assert [(one.method, one.path, one.body) for one in target.received] == [("POST", "/push?id=1", b"value 42")]


async def test_what_crosses(site, target):
    site.expose(target)
    await site.start()
    for authorization in (site.basic, site.bearer):
        answer = await site.push(authorization=authorization, headers={"X-Custom": "kept", "Connection": "X-Hop"})
        assert (answer.status, answer.body) == (200, BODY)
        assert answer.headers["X-Target"] == "embedded"
        assert not answer.fault
    for received in target.received:
        assert received.headers["x-custom"] == "kept"
        assert received.headers["host"] == f"127.0.0.1:{target.port}"
        assert "authorization" not in received.headers
    # The target's own status, whatever it is.
    for status in (201, 204, 302, 400, 401, 404, 418, 429, 500, 503):
        answer = await site.push(f"/status/{status}")
        assert (answer.status, answer.fault) == (status, "")
        assert answer.body == (b"" if status == 204 else BODY)
    answer = await site.push(method="HEAD", body=None)
    assert (answer.status, answer.body) == (200, b"")
    answer = await site.push(body=_pieces())
    assert answer.status == 200
    assert target.received[-1].body == b"".join([bytes([n]) * 1000 for n in range(100)])


async def _pieces():
    for n in range(100):
        yield bytes([n]) * 1000


async def test_what_is_refused(site, target):
    site.expose(target)["allow"] = [{"methods": ["POST"], "path": "/push"}]
    site.relay_config["tenants"]["acme"]["routes"] = [
        site.make_route("push", "/push", limits={"body": "1KiB"}),
        site.make_route("private", "/private", senders=["ibp"]),
        site.make_route("other", "/other"),
        site.make_route("nobody", "/nobody", target="not-there", hold="100ms"),
    ]
    await site.start()
    cases = [
        (401, "unauthenticated", await site.push(authorization="Bearer wrong")),
        (401, "unauthenticated", await site.push(authorization=_basic("s4", "wrong"))),
        (403, "sender-not-allowed", await site.push("/private")),
        (404, "no-such-route", await site.push("/unknown")),
        (421, "unknown-host", await site.push(headers={"Host": "elsewhere.example.com"})),
        (413, "body-too-large", await site.push(body=b"x" * 1025)),
        (403, "path-not-allowed", await site.push("/other")),
        (403, "method-not-allowed", await site.push(method="PUT")),
        (400, "bad-path", await site.push("/push/..%2fsecret")),
        (503, "no-connector", await site.push("/nobody")),
    ]
    for status, code, answer in cases:
        assert (answer.status, answer.fault) == (status, code)
        assert_honest(answer)
    assert target.begun == 0
    assert (await site.push()).status == 200


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_both_sides_log_one_request_id_and_no_secret(site: Site, target):
    (site.folder / "injected").write_text("Bearer injected-credential\n")
    (site.folder / "injected").chmod(0o600)
    site.expose(target)["headers"] = {"set_from_files": {"Authorization": "injected"}}
    await site.start()
    body = b"payload-that-nobody-logs"
    for authorization in (site.basic, site.bearer, "Bearer not-a-token-of-ours"):
        await site.push(
            "/push?query=not-logged", body, headers={"X-Custom": "header-value"}, authorization=authorization
        )
    error = await site.push("/garbage", body)
    assert_honest(error)

    await until(lambda: len(site.relay.access_lines) >= 4, "access lines of the relay")
    await until(lambda: len(site.connector.access_lines) >= 3, "access lines of the connector")
    relay = {line["request_id"]: line for line in site.relay.access_lines}
    connector = {line["request_id"]: line for line in site.connector.access_lines}
    assert len(relay) == 4
    assert set(relay) > set(connector)
    assert len(connector) == 3
    for request_id, line in connector.items():
        assert line["sender"] == relay[request_id]["sender"]
        assert line["path"] == relay[request_id]["path"]
    assert error.headers["Qanat-Error"] in [line.get("code") for line in connector.values()]
    assert {one.headers["authorization"] for one in target.received} == {"Bearer injected-credential"}

    secrets = [site.password, site.token, site.basic.split()[1], "not-a-token-of-ours", "injected-credential"]
    secrets += ["header-value", "not-logged", body.decode()]
    for program in (site.relay, site.connector):
        for text in secrets:
            assert text not in program.out + program.err, f"{program.name} tells {text!r}"
    assert f"127.0.0.1:{target.port}" not in site.relay.out + site.relay.err
