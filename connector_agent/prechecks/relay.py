"""The ladder to one relay. Each step stands on the one before; the first that fails is what is to be mended."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from connector_agent import handshake
from connector_agent.dialer import Contexts, Dialer
from connector_agent.handshake import DialError
from connector_agent.identity.join import Joiner
from connector_agent.prechecks.admission import Admission, ask_admission, date_of_relay
from connector_agent.prechecks.route import FAULTS_OF_A_STEP, RouteCheck, exit_code_for, remedy_of
from connector_agent.tls_probe import Shown, probe_tls
from shared.clock import TOLERANCE, TrustedClock
from shared.pki.spiffe import RelayId, parse_spiffe_id
from shared.pki.tls import managed_client_context, unverified_client_context
from shared.pki.trust import pin_of
from shared.prechecks import Checklist, Figure, Precheck, Result, Stopwatch, days_left
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.websocket_client import Endpoint

if TYPE_CHECKING:
    from connector_agent.prechecks.identity import Way
    from shared.config import HostPort

SKEW: Final = 5.0
"""Seconds that two clocks with a time server never are apart."""


class RelayCheck:
    """All steps for one relay; see `run`."""

    def __init__(self, relay: HostPort, way: Way) -> None:
        self.relay = relay
        self.checks = Checklist(f"relay {relay}")
        self._known = way.known
        self._route = RouteCheck(relay, way, self.checks)
        self._buffers = ReadBuffers()
        self._endpoint = Endpoint(relay.host, relay.port)
        self._dialer = Dialer(way.known.contexts or _no_contexts, way.proxies, way.known.check_peer)
        self._shown: Shown | None = None
        self._admission = Admission()

    def __repr__(self) -> str:
        return f"<RelayCheck {self.checks!r}>"

    async def run(self) -> list[Precheck]:
        """Every step up to the first that fails; what stands on that is skipped. The clock is always compared."""
        steps: list[tuple[tuple[str, ...], Callable[[], Awaitable[bool]]]] = [
            (("DNS",), self._route.resolve), (("proxy",), self._route.through_proxy), (("TCP",), self._route.connect),
            (("TLS",), self._shake_hands), (("chain", "interception"), self._verify), (("admission",), self._admit),
        ]  # fmt: skip
        failed = ""
        for names, step in steps:
            if failed:
                self.checks.skipped(f"after {failed}", *names)
            elif not await step():
                failed = next(row.check for row in reversed(self.checks.rows) if row.result is Result.FAILED)
        await self._compare_clocks()
        return self.checks.rows

    # --- who is there

    async def _probe(self, context: ssl.SSLContext) -> Shown:
        raw = await self._dialer.route(self.relay.host, self.relay.port)
        return await probe_tls(raw, context, self._buffers, self._endpoint)

    async def _shake_hands(self) -> bool:
        """Whatever it shows: the next step judges it."""
        try:
            with Stopwatch() as watch:
                self._shown = await self._probe(unverified_client_context())
        except FAULTS_OF_A_STEP as error:
            return self._route.failed("TLS", error)
        self.checks.ok("TLS", self._shown.version, watch.figure)
        return True

    async def _verify(self) -> bool:
        known = self._known
        try:
            if known.contexts is not None:
                chain = (await self._probe(known.contexts().bare)).chain
                rejected = known.check_peer(None if self._certificate is None else _der(self._certificate))
                if rejected is not None:
                    raise rejected
            elif known.token is not None and known.store is not None:
                pinned = await Joiner(self._dialer, known.store, TrustedClock()).authorities(known.token, self.relay)
                # A middlebox may well pass them on: what it shows itself must come from them, too.
                chain = (await self._probe(managed_client_context(pinned))).chain
            else:
                self.checks.skipped("without an identity no CA is known", "chain", "interception")
                return True
        except FAULTS_OF_A_STEP as error:
            return self._chain_failed(error)
        self._say_chain(chain)
        self.checks.ok("interception", "nothing in between opens TLS")
        return True

    def _say_chain(self, chain: tuple[x509.Certificate, ...]) -> None:
        root = f"leads to {_name(chain[-1].subject)}, pin {pin_of(chain[-1])[:16]}…" if chain else ""
        certificate = self._certificate
        if certificate is None:
            self.checks.ok("chain", root)
            return
        now, end = datetime.now(UTC), certificate.not_valid_after_utc
        if end - now < (end - certificate.not_valid_before_utc) / 4:
            self.checks.warning("chain", f"{root}; the relay's certificate ends at {end:%FT%TZ}",
                                "Have it renewed: 'cloud-relay check --live' says why it is not.",
                                days_left(end, now))  # fmt: skip
        else:
            self.checks.ok("chain", root, days_left(end, now))

    def _chain_failed(self, error: Exception) -> bool:
        """A relay's certificate of another CA is a matter of CAs; anything else that nobody vouches for stands in
        between."""
        cause = handshake.explain(error, str(self.relay))
        if cause.code != "relay-untrusted":
            self.checks.failed("chain", cause.text, remedy_of(cause), code=cause.code)
            self.checks.skipped("after chain", "interception")
            return False
        issuer = "nobody" if self._certificate is None else handshake.printable(_name(self._certificate.issuer))
        if self._certificate is not None and _is_relays(self._certificate):
            self.checks.failed(
                "chain", f"a relay is there, but its certificate comes from {issuer}, which is not trusted here",
                "Check that this is the relay that was joined, and with a CA of your own tls.ca; "
                "after 'cloud-relay init' on a new state enrol anew.", code=cause.code,
            )  # fmt: skip
            self.checks.ok("interception", "what is shown is a relay's own certificate")
            return False
        self.checks.skipped("after interception", "chain")
        self.checks.failed(
            "interception", f"what is shown for {self.relay.host} was signed by {issuer}, no CA that is trusted here",
            f"If a middlebox inspects TLS, have {self.relay} excepted from it; else check the address, and with a CA "
            "of your own tls.ca.", code="intercepted",
        )  # fmt: skip
        return False

    @property
    def _certificate(self) -> x509.Certificate | None:
        return self._shown.certificate if self._shown is not None else None

    # --- whether we may come in

    async def _admit(self) -> bool:
        if self._known.contexts is None:
            self.checks.skipped("there is no certificate to show yet", "admission")
            return True
        try:
            with Stopwatch() as watch:
                self._admission = await ask_admission(self._dialer, self.relay)
        except DialError as error:
            self.checks.failed("admission", error.text, remedy_of(error), code=error.code,
                               exit_code=exit_code_for(error.code))  # fmt: skip
            self._admission = Admission.of_refusal(error)
            return False
        hello = self._admission.hello
        told = f"admitted by {hello.software}" if hello is not None and hello.software else "admitted"
        if hello is not None and hello.renew_only:
            self.checks.warning("admission", f"{told}, for a renewal only: the certificate has expired",
                                "Let the connector run: it renews by itself.", watch.figure)  # fmt: skip
        else:
            self.checks.ok("admission", told, watch.figure)
        return True

    async def _compare_clocks(self) -> None:
        """By what the relay said when it took or refused us; else by what answers there, whoever it is."""
        relay = self._admission.clock
        if relay is None and self._shown is not None:
            relay = await date_of_relay(self._dialer, self._endpoint)
        if relay is None:
            self.checks.skipped("the relay told no time", "clock")
            return
        error = relay.read_at - relay.wall
        figure = Figure(error, "s")
        if abs(error) <= SKEW + relay.precision:
            self.checks.ok("clock", "this host and the relay agree", figure)
            return
        told = f"this host's clock is {'ahead of' if error > 0 else 'behind'} the relay's"
        remedy = f"Set it by a time server; here it is {time.strftime('%FT%TZ', time.gmtime(relay.read_at))}."
        if abs(error) <= TOLERANCE:
            self.checks.warning("clock", told, remedy, figure, code="clock-skew")
        else:
            self.checks.failed("clock", told, remedy, figure, code="clock-skew")


def _is_relays(certificate: x509.Certificate) -> bool:
    """Whether it says to be one of ours, whoever signed it."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        return len(uris) == 1 and isinstance(parse_spiffe_id(uris[0]), RelayId)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False


def _name(name: x509.Name) -> str:
    return f"'{handshake.printable(name.rfc4514_string())}'"


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _no_contexts() -> Contexts:
    raise DialError("certificate-required", "This connector has not joined yet.")
