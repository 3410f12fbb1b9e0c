"""The catalogue of everything that Qanat itself may answer, and the exceptions that carry an entry of it.

Every error that a sender, an operator or the other side of the tunnel sees is one `Fault`: a code, the hop it comes
from, an HTTP status, a number on the tunnel, and a sentence that says what to do. `docs/errors.md` is made from this
file by `tools/errors_doc.py`.

The statuses are chosen by what senders do with them: a 5xx of 502, 503 or 504 is tried again by all of them, most 4xx
are dropped for good, and 500, 501, 405, 408 and 415 each make some sender drop or change its protocol, so they are
never ours.

    QanatError
    ├── LocalFault      something here went wrong, or refuses
    └── RemoteFault     the other side said so
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Origin(enum.StrEnum):
    """The hop at which an error was made."""

    RELAY = "relay"
    TUNNEL = "tunnel"
    CONNECTOR = "connector"
    TARGET = "target"


class Fault(NamedTuple):
    """One entry of the catalogue.

    `wire` is its number in a RESET frame or in a close reason (never reused); `status` the HTTP status a sender gets,
    None where the connection is closed without an answer. `retry_after` says whether `Retry-After` goes with it,
    `closes` whether the sender's connection ends with it.
    """

    code: str
    wire: int
    status: int | None
    origin: Origin
    title: str
    remedy: str
    retry_after: bool = False
    closes: bool = False


_R, _T, _C, _G = Origin.RELAY, Origin.TUNNEL, Origin.CONNECTOR, Origin.TARGET

# One entry a paragraph: code, number, status, origin, title; then the remedy.
# fmt: off
_ENTRIES: Final = (
    # What the sender sent. 4xx: trying again without a change would not help.
    Fault("malformed-request", 100, 400, _R, "The request is malformed or ambiguous.",
          "Check the sender, or the proxy in front of the relay: the request does not follow RFC 9112.", closes=True),
    Fault("bad-path", 101, 400, _R, "The path holds something that is never forwarded.",
          "Send the path in plain form: no encoded slash, dot or percent sign, no dot segments, '//' or ';'.",
          closes=True),
    Fault("target-uri-too-long", 102, 414, _R, "The request target is too long.",
          "Shorten the path or the query.", closes=True),
    Fault("headers-too-large", 103, 431, _R, "The request's header section is too large.",
          "Send fewer or shorter headers.", closes=True),
    Fault("version-not-supported", 104, 505, _R, "Only HTTP/1.0 and HTTP/1.1 are spoken here.",
          "Configure the sender for HTTP/1.1.", closes=True),
    Fault("upgrade-with-body", 105, 400, _R, "An upgrade request may not have a body.",
          "Send the upgrade without a body.", closes=True),
    Fault("sender-too-slow", 106, None, _R, "The sender was too slow.",
          "Look at the network between the sender and the relay.", closes=True),
    Fault("body-too-large", 107, 413, _R, "The body is larger than the route allows.",
          "Raise the route's limits.body, or make the sender's batches smaller.", closes=True),
    Fault("sender-gone", 108, None, _R, "The sender closed its connection before the answer.",
          "Look at the sender's own time-out.", closes=True),
    Fault("incomplete-body", 109, None, _R, "The sender's connection ended in the middle of the body.",
          "Look at the network between the sender and the relay.", closes=True),
    Fault("idle-too-long", 118, None, _R, "Nothing moved on an upgraded connection for too long.",
          "Have either end send WebSocket pings, or raise the route's idle_timeout.", closes=True),
    # Who may.
    Fault("unauthenticated", 120, 401, _R, "The credential is missing or not valid.",
          "Give the sender the credential that the relay's config names for this route."),
    Fault("sender-not-allowed", 121, 403, _R, "This sender may not use this route.",
          "Add the sender to the route's senders in the relay's config."),
    Fault("unknown-host", 122, 421, _R, "No route has this host name.",
          "Check the URL that the sender pushes to against the routes in the relay's config."),
    Fault("no-such-route", 123, 404, _R, "No route has this path.",
          "Check the URL that the sender pushes to against the routes in the relay's config."),
    Fault("cannot-judge-credential", 124, 503, _R, "The credential cannot be judged right now.",
          "Nothing to do: the sender tries again.", retry_after=True),
    Fault("sender-disabled", 125, 401, _R, "This sender is switched off.",
          "Switch it on again if it is trusted: 'cloud-relay senders enable TENANT/NAME'."),
    Fault("too-many-failures", 126, 503, _R, "Too many wrong passwords came from this address for this user name.",
          "Mend the sender that has the wrong password; one that has the right one gets through as it tries again.",
          retry_after=True),
    Fault("sender-certificate-expired", 127, 401, _R, "The sender's client certificate is out of its time.",
          "Renew the sender's certificate, and let the sender connect again."),
    Fault("server-name-mismatch", 128, 421, _R, "The connection was made for another host name than the push names.",
          "With a client certificate, push to the host of the URL over a connection of its own: SNI must equal Host.",
          closes=True),
    # How much.
    Fault("quota-exceeded", 140, 429, _R, "The quota of this sender or route is used up.",
          "Slow the sender down, or raise the limits in the relay's config.", retry_after=True),
    Fault("quota-exceeded-try-later", 141, 503, _R, "The quota of this sender or route is used up.",
          "Slow the sender down, or raise the limits in the relay's config.", retry_after=True),
    Fault("overloaded", 142, 503, _R, "The relay has no room for this push right now.",
          "Nothing to do if it is rare; otherwise give the relay more memory or workers.", retry_after=True),
    Fault("starting", 143, 503, _R, "The relay is starting or stopping.",
          "Nothing to do: the sender tries again.", retry_after=True, closes=True),
    Fault("internal-error", 144, 503, _R, "The relay failed on this push.",
          "Report it, with the request id and the relay's log.", retry_after=True, closes=True),
    # Connections of TCP routes; they get a TCP RST, or a TLS alert, and no answer.
    Fault("sender-network-refused", 150, None, _R, "The sender's address is in none of the route's networks.",
          "Add the sender's network to the route's networks in the relay's config.", closes=True),
    Fault("sender-certificate-required", 151, None, _R, "The sender showed no client certificate.",
          "Give the sender a certificate of the CA that the route's tls.client_ca names.", closes=True),
    Fault("sender-certificate-unknown", 152, None, _R, "The certificate belongs to none of the route's senders.",
          "Pin it to a sender (certificate: dns, uri or subject) and list that in the route's senders.", closes=True),
    Fault("unknown-server-name", 153, None, _R, "No route of this port has the server name that the sender asks for.",
          "Check the name that the sender connects to against the routes' sni in the relay's config.", closes=True),
    Fault("bad-client-hello", 154, None, _R, "The sender does not begin with a TLS ClientHello.",
          "Switch TLS on at the sender, or point it at a port that is plain.", closes=True),
    Fault("bad-proxy-header", 155, None, _R, "The load balancer's PROXY header is missing or malformed.",
          "Let the load balancer send the PROXY protocol, version 2, or drop proxy_from.", closes=True),
    Fault("proxy-refused", 156, None, _R, "The connection does not come from a load balancer that is trusted.",
          "Connect through the load balancer, or add its network to proxy_from.", closes=True),
    Fault("too-many-connections", 157, None, _R, "The route, or this source, has as many connections as it may.",
          "Raise the route's limits.connections or limits.connections_per_source.", closes=True),
    Fault("sender-tls-failed", 158, None, _R, "The TLS handshake with the sender failed.",
          "Look whether the sender trusts the listener's certificate, and shows one that we trust.", closes=True),
    Fault("sender-reset", 159, None, _R, "The sender's connection was reset, or ended in the middle.",
          "Look at the sender, and at the network between it and the relay.", closes=True),
    # The way through the tunnel.
    Fault("no-connector", 160, 503, _T, "No connector that exposes the target is attached.",
          "Look whether the connector runs, reaches the relay, and exposes this target: 'cloud-relay status'.",
          retry_after=True),
    Fault("tunnel-lost", 161, 502, _T, "The tunnel was lost; the push may or may not have been delivered (ambiguous).",
          "Nothing to do if the target can bear a repeated push; the connector reconnects by itself.",
          retry_after=True),
    Fault("tunnel-refused", 162, 503, _T, "The connector did not take the push.",
          "Nothing to do: the sender tries again.", retry_after=True),
    Fault("out-of-credit", 163, 503, _T, "The memory budget was reached; this push had been stalled the longest.",
          "Look why the target reads so slowly, or raise memory.budget.", retry_after=True),
    Fault("deadline-exceeded", 164, 504, _T, "The push's deadline passed before the target answered.",
          "Look at the target's response time, or raise the route's time-out.", retry_after=True),
    Fault("idle-timeout", 166, 504, _R, "Nothing moved on the connection for too long.",
          "Raise the route's idle in the relay's config if that is its nature.", closes=True),
    Fault("connector-draining", 165, 503, _T, "The connector is shutting down.",
          "Nothing to do: another connector, or the same one after its restart, takes it.", retry_after=True),
    # What the connector says.
    Fault("unknown-target", 180, 503, _C, "The connector does not expose this target (any more).",
          "Add the target to the connector's config, or mend the route's 'to'.", retry_after=True),
    Fault("method-not-allowed", 181, 403, _C, "The target's policy does not allow this method.",
          "Add the method to the target's allow list in the connector's config."),
    Fault("path-not-allowed", 182, 403, _C, "The target's policy does not allow this path.",
          "Add the path to the target's allow list in the connector's config."),
    Fault("path-refused", 183, 400, _C, "The path holds something that is never forwarded.",
          "Send the path in plain form: no encoded slash, dot or percent sign, no dot segments, '//' or ';'."),
    Fault("content-type-not-allowed", 198, 403, _C, "The target's policy does not allow bodies of this type.",
          "Add the type to the target's content_types in the connector's config, or mend the sender."),
    Fault("target-body-too-large", 184, 413, _C, "The body is larger than the target's policy allows.",
          "Raise the target's limit in the connector's config, or make the sender's batches smaller."),
    Fault("bad-push", 185, 502, _C, "The connector could not read what the relay sent.",
          "Relay and connector do not fit together: look at both versions.", retry_after=True),
    Fault("target-unreachable", 186, 502, _C, "The connector could not connect to the target.",
          "Look at the connector's log: it names the address and the cause.", retry_after=True),
    Fault("target-tls-failed", 187, 502, _C, "The TLS handshake with the target failed.",
          "Look at the connector's log: it names the certificate and the cause.", retry_after=True),
    Fault("target-malformed-answer", 188, 502, _C, "The target's answer is malformed or ambiguous.",
          "Look at the target: its answer does not follow RFC 9112.", retry_after=True),
    Fault("target-lost", 189, 502, _C,
          "The target's connection was lost; the push may have been delivered (ambiguous).",
          "Look at the target's log.", retry_after=True),
    Fault("target-too-slow", 190, 504, _C, "The target did not answer in time.",
          "Look at the target's response time, or raise the target's time-outs in the connector's config.",
          retry_after=True),
    Fault("target-credential-refused", 191, 502, _C, "The target refused the credential that the connector injects.",
          "Renew the credential in the connector's config (headers.set_from_files).", retry_after=True),
    Fault("target-address-refused", 192, 502, _C, "The target's name resolves to an address that is not allowed.",
          "Look at the target's allowed networks in the connector's config, and at its DNS.", retry_after=True),
    Fault("connector-overloaded", 193, 503, _C, "The connector has no room for this push right now.",
          "Nothing to do if it is rare; otherwise look at the target's speed.", retry_after=True),
    Fault("connector-error", 194, 502, _C, "The connector failed on this push.",
          "Report it, with the request id and the connector's log.", retry_after=True),
    Fault("connection-closed", 195, 502, _G, "The target closed the connection in the middle of its answer.",
          "Look at the target's log.", retry_after=True),
    Fault("target-reset", 196, 502, _G, "The target reset the connection, or it was lost.",
          "Look at the target's log.", retry_after=True),
    Fault("target-idle", 197, 504, _C, "Nothing moved on the connection to the target for too long.",
          "Raise the target's timeouts.idle in the connector's config if that is its nature.", retry_after=True),
    Fault("target-unexpected-status", 199, 502, _G, "The target answers its probe with a status that is not expected.",
          "Look at the target; or mend probe.path or probe.status in the connector's config.", retry_after=True),
    # Why a tunnel is refused or closed; no sender sees these.
    Fault("certificate-required", 300, 401, _R, "The tunnel needs a client certificate.",
          "Enrol this connector, or point tls.certificate and tls.key at its certificate."),
    Fault("certificate-expired", 301, 401, _R, "The connector's certificate has expired.",
          "Renew the connector's certificate."),
    Fault("certificate-not-yet-valid", 302, 401, _R, "The connector's certificate is not valid yet.",
          "Compare the clocks of the CA and the relay."),
    Fault("certificate-revoked", 303, 401, _R, "The connector's certificate was revoked.",
          "Enrol this connector again if it is still trusted."),
    Fault("certificate-unknown", 304, 401, _R, "The relay does not know this certificate as this connector's.",
          "Enrol this connector with a new join token."),
    Fault("certificate-wrong-identity", 305, 403, _R, "The certificate names no connector of this relay.",
          "The certificate needs exactly one SPIFFE id: "
          "spiffe://<trust domain>/tenant/<t>/location/<l>/connector/<name>."),
    Fault("certificate-wrong-usage", 306, 403, _R, "The certificate may not be used by a TLS client.",
          "Issue it with the extended key usage clientAuth."),
    Fault("unknown-location", 307, 403, _R, "The relay's config does not know this tenant or location.",
          "Add the tenant and the location to the relay's config."),
    Fault("connector-blocked", 308, 403, _R, "This connector is blocked.",
          "Unblock it at the relay if it is trusted again."),
    Fault("certificate-foreign", 309, 401, _R, "The certificate was signed by a CA that this relay does not trust.",
          "Use a certificate of this relay's own CA."),
    Fault("wrong-path", 310, 404, _R, "There is no tunnel at this path.",
          "Use the relay's address without a path."),
    Fault("wrong-subprotocol", 311, 400, _R, "The tunnel speaks 'qanat.v1', and 'qanat-enroll.v1' for joining.",
          "Use a connector of a matching version."),
    Fault("not-a-websocket", 312, 400, _R, "This port serves tunnels only.",
          "Push to the ingress; connectors come here by WebSocket."),
    Fault("protocol-error", 320, None, _T, "The other side broke the tunnel protocol.",
          "Relay and connector do not fit together: look at both versions and at what stands between them."),
    Fault("version-mismatch", 321, None, _T, "The two sides share no version of the tunnel protocol.",
          "Upgrade the older side."),
    Fault("duplicate-instance", 322, None, _T, "Another running instance holds the same identity.",
          "Every connector needs a certificate of its own: enrol the second host under another name."),
    Fault("silent", 323, None, _T, "Nothing was heard from the other side for too long.",
          "Look at the network between connector and relay; the connector reconnects by itself."),
    Fault("replaced", 324, None, _T, "A newer session of the same connector took this one's place.",
          "Nothing to do."),
    Fault("going-away", 325, None, _T, "The other side shut this tunnel down in good order.",
          "Nothing to do: the connector reconnects by itself."),
    Fault("connection-lost", 326, None, _T, "The connection ended without a goodbye.",
          "Nothing to do if it is rare: the connector reconnects by itself."),
    # Joining and renewing.
    Fault("token-unknown", 340, 403, _R, "The relay never made this join token, or it is another relay's.",
          "Make a token at this relay: 'cloud-relay tokens create'."),
    Fault("token-expired", 341, 403, _R, "The join token has expired.",
          "Make a new one: 'cloud-relay tokens create', with --lifetime if an hour is too short."),
    Fault("token-revoked", 342, 403, _R, "The join token was revoked.",
          "Make a new one if this connector is still wanted: 'cloud-relay tokens create'."),
    Fault("token-used", 343, 403, _R, "The join token was used already, with another key.",
          "If it was not this connector that used it, somebody else has the token: revoke that connector's "
          "certificates and block it. Else make a new token."),
    Fault("request-refused", 344, 403, _R, "The certificate request is not one that this connector may make.",
          "It must be signed by a P-256 key that is new, and name no identity but the connector's own."),
    Fault("cannot-issue", 345, 503, _R, "The relay cannot issue certificates right now.",
          "Look at the relay's log: its clock, its disk or its CA needs attention. The connector tries again.",
          retry_after=True),
    Fault("renewed-too-often", 346, 403, _R, "This connector has more unexpired certificates than one can need.",
          "Look why it renews so often; it may try again when some have expired."),
    Fault("signs-nothing", 347, 403, _R, "This relay signs no certificates: its CA is the operator's own.",
          "Get the connector's certificate from that CA, and name it in tls.certificate, tls.key and tls.ca."),
    # Dialling: why there is no tunnel. For the connector's log and status; a relay never says them.
    Fault("dns-failure", 400, None, _C, "The relay's name cannot be resolved.",
          "Check the address in relays, and this host's DNS."),
    Fault("unreachable", 401, None, _C, "The relay's address cannot be reached.",
          "Look at the firewall and the network; one way out, to the relay's tunnel port, is enough."),
    Fault("connection-refused", 402, None, _C, "Nothing listens at the relay's address.",
          "Look whether the relay runs, and at the port in relays."),
    Fault("timeout", 403, None, _C, "No answer from the relay's address in time.",
          "Look at the firewall and the network."),
    Fault("not-tls", 404, None, _C, "What answers at the relay's address does not speak TLS.",
          "Check the port in relays."),
    Fault("tls-failed", 405, None, _C, "TLS with the relay failed.",
          "Look at what stands between connector and relay, and at the detail in the log."),
    Fault("not-a-relay", 406, None, _C, "What answers at the relay's address is no Qanat relay.",
          "Check the address in relays, and what stands in between."),
    Fault("relay-untrusted", 407, None, _C, "The relay's certificate leads to no CA that this connector trusts.",
          "Check tls.ca; have host and port excepted from TLS inspection if a middlebox shows its own certificate."),
    Fault("relay-wrong-name", 408, None, _C, "The relay's certificate is for another name.",
          "Use a name of tunnel.advertise in relays, or add this one to the relay's certificate."),
    Fault("relay-expired", 409, None, _C, "The relay's certificate has expired.",
          "Renew the relay's certificate, and compare the clocks."),
    Fault("relay-not-yet-valid", 410, None, _C, "The relay's certificate is not valid yet.",
          "Compare the clocks of this host and the relay's CA."),
    Fault("certificate-refused", 411, None, _C, "The relay refuses this connector's certificate inside TLS.",
          "Check tls.certificate, or enrol this connector again."),
    Fault("proxy-bad-url", 420, None, _C, "The proxy's URL cannot be used.",
          "Write it as http://host:port, without credentials; those belong into proxy.auth_file."),
    Fault("proxy-bad-credentials", 421, None, _C, "The file with the proxy's credentials cannot be used.",
          "proxy.auth_file must hold one line in ASCII: user:password."),
    Fault("proxy-credentials-refused", 422, None, _C, "The proxy refuses the credentials, or asks for some.",
          "Look at proxy.auth_file."),
    Fault("proxy-denied", 423, None, _C, "The proxy does not let this connector through to the relay.",
          "Have the relay's host and port allowed for CONNECT."),
    Fault("proxy-cannot-connect", 424, None, _C, "The proxy cannot connect to the relay.",
          "Nothing to do if the relay is away; otherwise look at the proxy's own log."),
    Fault("proxy-bad-answer", 425, None, _C, "What answers at the proxy's address is no HTTP proxy.",
          "Check the proxy's address."),
    Fault("proxy-closed", 426, None, _C, "The proxy ended the connection without an answer.",
          "Look at the proxy's own log."),
    Fault("proxy-tls-failed", 427, None, _C, "TLS with the proxy failed.",
          "Check the proxy's address; Qanat speaks plain HTTP to it unless its URL says https."),
    Fault("proxy-unreachable", 428, None, _C, "The proxy cannot be reached.",
          "Check the proxy's address, and the network."),
    Fault("proxy-dns-failure", 429, None, _C, "The proxy's name cannot be resolved.",
          "Check the proxy's address, and this host's DNS."),
    Fault("proxy-connection-refused", 430, None, _C, "Nothing listens at the proxy's address.",
          "Check the proxy's address."),
    Fault("cannot-join", 440, None, _C, "This connector could not join.",
          "Look at the detail in the log; it is tried again."),
    Fault("bad-certificate", 441, None, _C, "The relay's certificate for this connector is not the one it asked for.",
          "Look at the relay: its CA, its clock, and its version."),
)
# fmt: on

FAULTS: Final[dict[str, Fault]] = {fault.code: fault for fault in _ENTRIES}
"""Every fault by its code."""

BY_WIRE: Final[dict[int, Fault]] = {fault.wire: fault for fault in _ENTRIES}
"""Every fault by its number on the tunnel; unknown numbers (a newer peer) are for the caller to judge."""


class QanatError(Exception):
    """The root of Qanat's own exceptions: an entry of the catalogue, and a detail for our own log only."""

    def __init__(self, code: str, detail: str = "") -> None:
        self.fault = FAULTS[code]
        self.detail = detail
        super().__init__(f"{code}: {detail}" if detail else code)


class LocalFault(QanatError):
    """Something on this side went wrong, or refuses."""


class RemoteFault(QanatError):
    """The other side said so."""
