"""What a failed try is called, and that nothing of a hostile answer gets through."""

from __future__ import annotations

import json
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_agent.handshake import MAX_DETAIL, DialError, explain, explain_refusal, untrusted
from connector_agent.proxy import ProxyError
from shared.errors import FAULTS
from shared.http.problem import problem_response
from shared.tunnel.websocket_client import BadHandshake, HandshakeRefused, TlsFailed

WHERE = "relay.test:443"


def tls_error(reason: str) -> TlsFailed:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return TlsFailed(error)


def verification_error(code: int) -> TlsFailed:
    error = ssl.SSLCertVerificationError(1, "failed")
    error.verify_code, error.verify_message = code, "some reason"
    return TlsFailed(error)


CASES = [
    (socket.gaierror(-2, "Name or service not known"), "dns-failure", False),
    (ConnectionRefusedError(111, "refused"), "connection-refused", False),
    (ConnectionResetError(104, "reset"), "unreachable", False),
    (TimeoutError(), "timeout", False),
    (OSError(113, "No route to host"), "unreachable", False),
    (BadHandshake("ended", has_ended=True), "connection-lost", False),
    (BadHandshake("garbage"), "not-a-relay", True),
    (ProxyError("proxy-denied", "no"), "proxy-denied", True),
    (ProxyError("proxy-closed", "no"), "proxy-closed", False),
    (ProxyError("proxy-cannot-connect", "no"), "proxy-cannot-connect", False),
    (verification_error(62), "relay-wrong-name", True),
    (verification_error(64), "relay-wrong-name", True),
    (verification_error(10), "relay-expired", True),
    (verification_error(9), "relay-not-yet-valid", True),
    (verification_error(20), "relay-untrusted", True),
    (verification_error(23), "relay-untrusted", True),
    (tls_error("TLSV1_ALERT_UNKNOWN_CA"), "certificate-refused", True),
    (tls_error("WRONG_VERSION_NUMBER"), "not-tls", True),
    (tls_error("TLSV1_ALERT_INTERNAL_ERROR"), "tls-failed", False),
    (TlsFailed(ValueError("bad name")), "tls-failed", False),
    (RuntimeError("?"), "internal-error", False),
    (DialError("timeout", "as it is"), "timeout", False),
]


@pytest.mark.parametrize(("error", "code", "is_refusal"), CASES)
def test_causes(error, code, is_refusal):
    found = explain(error, WHERE)
    assert (found.code, found.is_refusal) == (code, is_refusal)
    assert found.text


@pytest.mark.parametrize("code", ["certificate-expired", "unknown-location", "wrong-path", "overloaded"])
def test_the_relays_own_words(code):
    fault = FAULTS[code]
    body = problem_response(fault, "", keep_alive=False, detail="It expired at noon.").partition(b"\r\n\r\n")[2]
    found = explain_refusal(HandshakeRefused(fault.status or 0, {}, body))
    assert found.code == code
    assert found.text == f"The relay refuses (HTTP {fault.status}): {fault.title} It expired at noon."
    assert found.remedy == fault.remedy
    assert found.is_refusal == (code != "overloaded")


@pytest.mark.parametrize("code", ["unknown-host", "no-such-route", "unauthenticated"])
def test_the_ingress_is_told_from_the_tunnels_listener(code):
    fault = FAULTS[code]
    body = problem_response(fault, "", keep_alive=False).partition(b"\r\n\r\n")[2]
    found = explain_refusal(HandshakeRefused(fault.status or 0, {}, body))
    assert (found.code, found.is_refusal) == ("not-a-relay", True)
    assert "ingress" in found.text
    assert "tunnel.advertise" in found.remedy


@pytest.mark.parametrize("status", [200, 302, 403, 407, 502])
def test_anything_else_is_no_relay(status):
    found = explain_refusal(HandshakeRefused(status, {}, b"<html>Blocked by policy</html>"))
    assert (found.code, found.is_refusal) == ("not-a-relay", status < 500)
    assert "html" not in str(found)


JSON = st.recursive(st.text() | st.none() | st.floats(), st.lists)


@given(st.binary(max_size=300) | JSON.map(json.dumps).map(str.encode))
def test_no_body_does_harm(body):
    assert explain_refusal(HandshakeRefused(401, {}, body)).code == "not-a-relay"


@given(st.text())
def test_a_detail_is_printable_and_short(detail):
    body = json.dumps({"code": "certificate-expired", "detail": detail}).encode()
    found = explain_refusal(HandshakeRefused(401, {}, body))
    assert found.code == "certificate-expired"
    assert found.text.isascii()
    assert found.text.isprintable()
    assert len(found.text) <= 2 * MAX_DETAIL + 200


def test_an_issuer_is_shown_clean():
    assert "'CN=Evil?'" in untrusted(WHERE, "CN=Evil\r\n").text
