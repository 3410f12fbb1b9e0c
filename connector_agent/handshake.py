"""Why a tunnel could not be opened: every failure becomes one DialError with a cause and what to do about it.

What a peer sends is not trusted: of an HTTP refusal only the code is used, if the catalogue has it, and a short
printable detail.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from typing import Final

from connector_agent.proxy import ProxyError
from shared.errors import FAULTS
from shared.tunnel.websocket_client import BadHandshake, HandshakeRefused, PeerRejected, TlsFailed

MAX_DETAIL: Final = 200
"""Characters that are taken of a peer's own words."""

_PRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")

REFUSALS: Final = frozenset(
    {
        "certificate-required", "certificate-expired", "certificate-not-yet-valid", "certificate-revoked",
        "certificate-wrong-identity", "certificate-wrong-usage", "certificate-foreign",
        "certificate-unknown", "unknown-location", "connector-blocked", "wrong-path", "wrong-subprotocol",
        "not-a-websocket", "duplicate-instance", "version-mismatch",
    }
)  # fmt: skip
"""Codes of the relay after which trying again soon is of no use. None that we may fail a tunnel with ourselves: what
the network or a single odd frame broke may well be whole the next time."""

_OF_THE_INGRESS: Final = frozenset({"unknown-host", "no-such-route", "unauthenticated"})
"""Codes that only the listener for senders answers with: the connector dialled the wrong port."""

_ABOUT_OUR_CERTIFICATE: Final = frozenset(
    {
        "TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_BAD_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "SSLV3_ALERT_CERTIFICATE_EXPIRED", "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "TLSV1_ALERT_DECRYPT_ERROR", "TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_ACCESS_DENIED",
    }
)  # fmt: skip
"""OpenSSL's names of alerts that a server sends about a client's certificate."""

_PROXY_OUTAGES: Final = frozenset({"proxy-closed", "proxy-cannot-connect"})
"""Codes of ProxyError that pass by themselves: a relay that is back behind a proxy should be found at once, too."""

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "UNEXPECTED_MESSAGE"})

_HOSTNAME_MISMATCH: Final = 62
_IP_MISMATCH: Final = 64
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21, 24, 27})
"""X509_V_ERR_…: no issuer found, or self-signed, or a CA that is none."""


class DialError(Exception):
    """A try that failed. `is_refusal`: trying again soon is of no use. `remedy` may be empty."""

    def __init__(self, code: str, text: str, remedy: str = "", *, is_refusal: bool = False) -> None:
        self.code = code
        self.text = text
        self.remedy = remedy
        self.is_refusal = is_refusal
        super().__init__(f"{code}: {text}" + (f" {remedy}" if remedy else ""))


def is_untrusted(error: BaseException) -> bool:
    """Whether the relay's certificate comes from a CA that we do not know: a probe can tell from whom."""
    return (
        isinstance(error, TlsFailed)
        and isinstance(error.error, ssl.SSLCertVerificationError)
        and error.error.verify_code in _UNTRUSTED
    )


def is_about_our_certificate(error: BaseException) -> bool:
    """Whether the relay refused our certificate inside TLS: a probe without one can tell more."""
    return isinstance(error, TlsFailed) and getattr(error.error, "reason", None) in _ABOUT_OUR_CERTIFICATE


def explain(error: BaseException, where: str) -> DialError:
    """Say what an exception of a try means. `where` is the relay's host:port."""
    if isinstance(error, DialError):
        return error
    if isinstance(error, ProxyError):
        return DialError(error.code, str(error), is_refusal=error.code not in _PROXY_OUTAGES)
    if isinstance(error, TlsFailed):
        return _explain_tls(error.error, where)
    if isinstance(error, PeerRejected):
        return DialError(error.code, f"The certificate of {where} {error.detail}",
                         "Compare this host's clock with the relay's, and look at the relay's certificate.",
                         is_refusal=True)  # fmt: skip
    if isinstance(error, HandshakeRefused):
        return explain_refusal(error)
    if isinstance(error, BadHandshake):
        if error.has_ended:
            return DialError("connection-lost", f"{where} ended the connection during the handshake ({error}).")
        return DialError("not-a-relay", f"What answers at {where} is no Qanat relay: {error}.",
                         "Check the address in relays, and what stands in between.", is_refusal=True)  # fmt: skip
    if isinstance(error, TimeoutError):
        return DialError("timeout", f"No answer from {where} in time.", "Look at the firewall and the network.")
    if isinstance(error, socket.gaierror):
        return DialError("dns-failure", f"The name in {where} cannot be resolved: {error.strerror}.",
                         "Check the address in relays, and this host's DNS.")  # fmt: skip
    if isinstance(error, ConnectionRefusedError):
        return DialError("connection-refused", f"Nothing listens at {where}.")
    if isinstance(error, OSError):
        return DialError("unreachable", f"{where} cannot be reached: {error.strerror or error}.")
    return DialError("internal-error", f"{type(error).__name__}: {error}")


def explain_refusal(error: HandshakeRefused) -> DialError:
    """An HTTP status instead of a tunnel. Only a problem with a code of the catalogue is the relay's own word."""
    code, detail = _read_problem(error.body)
    fault = FAULTS.get(code)
    if fault is None:
        return DialError("not-a-relay", f"HTTP {error.status} from something that is no Qanat relay.",
                         "Look at what stands between here and the relay.", is_refusal=error.status < 500)  # fmt: skip
    if code in _OF_THE_INGRESS:
        return DialError("not-a-relay", f"What answers there (HTTP {error.status}, {code}) is a relay's ingress for "
                         "senders, not its listener for connectors.",
                         "Name the port of the relay's tunnel.advertise in relays.", is_refusal=True)  # fmt: skip
    text = f"The relay refuses (HTTP {error.status}): {fault.title}"
    told = detail.removesuffix(fault.remedy).strip()
    return DialError(code, f"{text} {told}".rstrip(), fault.remedy, is_refusal=code in REFUSALS)


def refused_certificate(error: TlsFailed) -> DialError:
    """What a probe without a certificate has shown: the relay is well, and it is our certificate that it refuses.

    OpenSSL tells one made for servers (X509_V_ERR_INVALID_PURPOSE) from one of a CA that the relay does not know.
    """
    is_for_others = getattr(error.error, "reason", None) == "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"
    fault = FAULTS["certificate-wrong-usage" if is_for_others else "certificate-foreign"]
    return DialError(fault.code, f"The relay refuses inside TLS: {fault.title}", fault.remedy, is_refusal=True)


def untrusted(where: str, issuer: str | None) -> DialError:
    """The server's certificate was not signed by our CA; `issuer` is who signed it, as far as a probe could tell."""
    if issuer is None:
        return DialError("relay-untrusted", f"The certificate of {where} was not signed by a CA that is trusted here.",
                         "Check tls.ca, where the CA is your own.", is_refusal=True)  # fmt: skip
    return DialError(
        "relay-untrusted",
        f"The certificate shown for {where} was not signed by a CA that is trusted here, but by '{printable(issuer)}': "
        "a TLS-intercepting middlebox, or the wrong CA file.",
        "Have this host and port excepted from TLS inspection; with a CA of your own, mend tls.ca; with the relay's, "
        "enrol this connector anew if the relay was made anew.",
        is_refusal=True,
    )


def untrusted_by_pin(where: str) -> DialError:
    """In a join the pinned CA was offered, but the certificate was not signed by it."""
    return DialError(
        "relay-untrusted", f"The certificate shown for {where} was not signed by the CA that the join token pins.",
        "Somebody stands in between, or the relay's certificate is another CA's. The token was not sent.",
        is_refusal=True,
    )  # fmt: skip


def _explain_tls(error: ssl.SSLError | ValueError, where: str) -> DialError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error, where)
    reason = getattr(error, "reason", None) or str(error)
    if reason in _ABOUT_OUR_CERTIFICATE:
        return DialError("certificate-refused", f"{where} refuses this connector's certificate inside TLS ({reason}).",
                         "Check tls.certificate.", is_refusal=True)  # fmt: skip
    if reason in _NO_TLS:
        return DialError("not-tls", f"What answers at {where} does not speak TLS.", "Check the port in relays.",
                         is_refusal=True)  # fmt: skip
    return DialError("tls-failed", f"TLS with {where} failed: {printable(str(reason))}.")


def _explain_verification(error: ssl.SSLCertVerificationError, where: str) -> DialError:
    if error.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        return DialError("relay-wrong-name", f"The certificate of {where} is for another name.",
                         "Use a name of tunnel.advertise in relays, or add this one to the relay's certificate.",
                         is_refusal=True)  # fmt: skip
    if error.verify_code == _EXPIRED:
        return DialError("relay-expired", f"The certificate of {where} has expired.",
                         "Renew the relay's certificate, and compare the clocks.", is_refusal=True)  # fmt: skip
    if error.verify_code == _NOT_YET_VALID:
        return DialError("relay-not-yet-valid", f"The certificate of {where} is not valid yet.",
                         "Compare the clocks of this host and the relay's CA.", is_refusal=True)  # fmt: skip
    if error.verify_code in _UNTRUSTED:
        return untrusted(where, None)
    return DialError("relay-untrusted", f"The certificate of {where} is refused: {printable(error.verify_message)}.",
                     "Check tls.ca and the relay's certificate.", is_refusal=True)  # fmt: skip


def _read_problem(body: bytes) -> tuple[str, str]:
    """(code, detail) of a problem+json body, each empty where it cannot be used."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(problem, dict):
        return "", ""
    code, detail = problem.get("code"), problem.get("detail")
    return code if isinstance(code, str) else "", printable(detail) if isinstance(detail, str) else ""


def printable(text: str) -> str:
    """A peer's words, cut and without anything but printable ASCII."""
    return _PRINTABLE.sub("?", text[: 2 * MAX_DETAIL])[: 2 * MAX_DETAIL]
