"""A join token becomes an identity: two connections, the second of them verified.

The first is to somebody unknown. Nothing is sent on it but the question for CA certificates, and of the answer only
what bears the token's pin is kept. The second is verified against exactly these and the relay's name; only there the
secret is told. Whoever stands in between has another CA, and so never sees it.

The key is on disk before it is asked for, and asked for again after any failure: the same token with the same key gets
the same certificate.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from connector_agent import handshake
from connector_agent.handshake import DialError
from connector_agent.identity.judge import BadCertificate, check_own, is_plausible, judge_relay, read_chain
from connector_agent.proxy import ProxyError
from shared.crash_points import reach
from shared.errors import FAULTS
from shared.pki.requests import make_request
from shared.pki.tls import managed_client_context, unverified_client_context
from shared.pki.trust import TrustError, accept_roots, choose_pinned, load_pems
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.websocket import ENROLL_SUBPROTOCOL
from shared.tunnel.websocket_client import (
    CheckPeer,
    ClientTransport,
    Endpoint,
    HandshakeError,
    PeerRejected,
    TlsFailed,
    open_websocket,
)

if TYPE_CHECKING:
    from cryptography import x509

    from connector_agent.dialer import Dialer
    from connector_agent.identity.store import Identity, IdentityStore
    from shared.clock import TrustedClock
    from shared.config import HostPort
    from shared.pki.join_token import JoinToken

ANSWER_TIMEOUT: Final = 10.0
"""Seconds for the relay's answer; it closes after as many."""

MAX_ANSWER: Final = 16 * 1024
"""Bytes of one message of the enrolment."""

REFUSALS: Final = frozenset(
    {"token-unknown", "token-expired", "token-revoked", "token-used", "request-refused", "connector-blocked"}
)
"""Codes that say no to this token, or to this connector: the next try would hear the same."""


class Joined(NamedTuple):
    """What a join came to. `relay` is the one that answered."""

    identity: Identity
    roots: list[x509.Certificate]
    relay: HostPort


class Joiner:
    """Redeems one token. `dialer` is used for the way there (a proxy, if any); its contexts are not."""

    def __init__(self, dialer: Dialer, store: IdentityStore, clock: TrustedClock) -> None:
        self._dialer = dialer
        self._store = store
        self._clock = clock
        self._buffers = ReadBuffers()

    async def join(self, token: JoinToken, relays: Sequence[HostPort]) -> Joined:
        """One try at each of `relays`, until one gives a certificate, which is stored.

        Raises DialError, the last relay's, at once if it is a refusal of the token; StoreError or PkiError where the
        state folder cannot be used. What a cancelled call leaves behind: the pending key, and with luck the identity.
        """
        key = await asyncio.to_thread(self._store.join_key, token.token)
        reach("connector.join.key-written")
        request = make_request(key, token.identity)
        last: DialError | None = None
        for relay in relays:
            try:
                pinned = await self.authorities(token, relay)
                reach("connector.join.authorities-known")
                answer = await self._redeem(token, relay, pinned, request)
                reach("connector.join.answered")
                chain, roots = self._judge(token, pinned, answer, key.public_key())
            except DialError as error:
                if error.code in REFUSALS:
                    raise
                last = error
                continue
            # The roots first: an identity without them could not be used. Those of an identity that is replaced stay
            # until the new one is there, so that a crash in between leaves one that works.
            await asyncio.to_thread(self._store.save_roots, [*roots, *self._store.other_roots(roots)])
            reach("connector.join.roots-written")
            await asyncio.to_thread(self._store.save_relays, token.relays)
            identity = await asyncio.to_thread(self._store.save_identity, key, chain)
            reach("connector.join.identity-written")
            await asyncio.to_thread(self._store.save_roots, roots)
            await asyncio.to_thread(self._store.forget_join_keys)
            return Joined(identity, roots, relay)
        raise last or DialError("not-a-relay", "There is no relay to join at.", "Name one in relays.", is_refusal=True)

    async def authorities(self, token: JoinToken, relay: HostPort) -> list[x509.Certificate]:
        """The root certificates with the token's pin, from a connection that is worth nothing else."""
        answer = await self._ask(relay, unverified_client_context(), {"want": "authorities"}, lambda _: None)
        try:
            return choose_pinned(load_pems(_texts(answer, "roots")), [token.pin], self._clock.now())
        except TrustError as error:
            raise DialError(
                "relay-untrusted", f"What answers at {relay} is not the relay that made the token: {error}.",
                "If a TLS-intercepting middlebox is in the way, have this host and port excepted; else check relays "
                "and the token, and compare this host's clock.", is_refusal=True,
            ) from error  # fmt: skip
        except ValueError as error:
            raise _nonsense(relay, str(error)) from error

    async def _redeem(
        self, token: JoinToken, relay: HostPort, pinned: Sequence[x509.Certificate], request: bytes
    ) -> dict[str, object]:
        question = {
            "want": "certificate", "token": token.token, "secret": token.secret, "request": request.decode("ascii"),
        }  # fmt: skip
        answer = await self._ask(relay, managed_client_context(pinned), question, self._check_relay)
        if "error" in answer:
            raise _refusal(answer)
        return answer

    def _judge(
        self, token: JoinToken, pinned: Sequence[x509.Certificate], answer: Mapping[str, object], public_key: object
    ) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
        """Chain and roots, if they are what was asked for."""
        wall, pem = answer.get("wall"), answer.get("certificate")
        if isinstance(wall, int | float) and is_plausible(wall):
            self._clock.observe(float(wall))  # this relay is verified: its clock is better than one never compared
        now = self._clock.now()
        try:
            roots = accept_roots(pinned, load_pems(_texts(answer, "roots")), load_pems(_texts(answer, "cross")), now)
            chain = read_chain(pem if isinstance(pem, str) else "")
            check_own(chain, public_key, token.identity, roots, now)  # type: ignore[arg-type]  # ours
        except (BadCertificate, ValueError) as error:
            raise DialError(
                "bad-certificate", f"The relay's answer is not taken: {error}.",
                "Look at the relay: its CA, its clock, and its version.", is_refusal=True,
            ) from error  # fmt: skip
        return chain, roots

    def _check_relay(self, der: bytes | None) -> PeerRejected | None:
        clock = self._clock
        return judge_relay(der, clock.now(), clock_error=clock.error_seconds if clock.is_doubtful else 0.0)

    async def _ask(
        self, relay: HostPort, context: ssl.SSLContext, question: Mapping[str, str], check: CheckPeer
    ) -> dict[str, object]:
        """One connection, one question, one answer. Raises DialError."""
        endpoint = Endpoint(relay.host, relay.port, subprotocol=ENROLL_SUBPROTOCOL)
        receiver = _Answer(asyncio.get_running_loop())
        transport: ClientTransport | None = None
        try:
            raw = await self._dialer.route(relay.host, relay.port)
            transport = await open_websocket(
                raw, context, self._buffers, endpoint, lambda _: receiver, check_peer=check
            )
            transport.send(json.dumps(question, separators=(",", ":")).encode())
            reach("connector.join.asked")
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await receiver.done
        except TlsFailed as error:
            if handshake.is_untrusted(error):
                raise handshake.untrusted_by_pin(str(relay)) from error
            raise handshake.explain(error, str(relay)) from error
        except (HandshakeError, OSError, ssl.SSLError, ProxyError) as error:
            raise handshake.explain(error, str(relay)) from error
        finally:
            if transport is not None:
                transport.abort()
        return _object(answer, relay)


class _Answer:
    """A MessageReceiver that waits for one message."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[bytes] = loop.create_future()

    def message_received(self, message: bytes) -> None:
        if not self.done.done():
            self.done.set_result(message)

    def bytes_received(self) -> None:
        """Nothing hangs on it: the answer has its own time limit."""

    def transport_writable(self) -> None:
        """One question is all that is sent."""

    def transport_closing(self, code: int | None, reason: str) -> None:
        """`transport_closed` follows."""

    def transport_closed(self, code: int | None, reason: str, error: BaseException | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionResetError("the connection ended without an answer"))
            self.done.exception()  # whoever stopped waiting has a better reason to tell


def _object(answer: bytes, relay: HostPort) -> dict[str, object]:
    try:
        parsed = json.loads(answer) if len(answer) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise _nonsense(relay, "no JSON object of a sensible size")
    return parsed


def _texts(fields: Mapping[str, object], key: str) -> list[str]:
    value = fields.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        msg = f"{key} is not a list of texts"
        raise ValueError(msg)
    return value


def _nonsense(relay: HostPort, detail: str) -> DialError:
    return DialError("not-a-relay", f"What answers at {relay} is no Qanat relay: {handshake.printable(detail)}.",
                     "Check the address in relays, and what stands in between.", is_refusal=True)  # fmt: skip


def _refusal(answer: Mapping[str, object]) -> DialError:
    """The relay's no. Only a code of the catalogue counts as its own word."""
    code, detail = answer.get("error"), answer.get("detail")
    fault = FAULTS.get(code) if isinstance(code, str) else None
    told = handshake.printable(detail) if isinstance(detail, str) else ""
    if fault is not None and told == fault.title:
        told = ""  # the relay knows no more than the catalogue
    if fault is None:
        return DialError("not-a-relay", f"An answer that this version does not know: {told}",
                         "Upgrade the connector.", is_refusal=True)  # fmt: skip
    return DialError(
        fault.code, f"The relay refuses: {fault.title} {told}".rstrip(), fault.remedy, is_refusal=fault.code in REFUSALS
    )
