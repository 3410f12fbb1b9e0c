"""A relay that is its own CA, as a connector sees it: enrolment and tunnels on one port, and it does what a test says.

It is no relay: it keeps no book and lets everybody in that TLS lets in. What it does is what `docs/protocol.md` says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from websockets.typing import Subprotocol

from shared.config import HostPort
from shared.pki import issue
from shared.pki.files import write_private
from shared.pki.issue import LEAF_LIFETIME
from shared.pki.join_token import JoinToken
from shared.pki.requests import read_request
from shared.pki.spiffe import ConnectorId, relay_id
from shared.pki.tls import managed_server_context
from shared.pki.trust import pem_text, pin_of
from shared.protocol import Hello, MemoryBudget, Role, Settings
from shared.protocol.hello import CAPABILITIES, RENEWAL
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.transport import MessageReceiver
from shared.tunnel.websocket import ENROLL_SUBPROTOCOL, SUBPROTOCOL
from shared.tunnel.websocket_server import ServerTransport, UpgradeRequest
from tests.support.development import TRUST_DOMAIN

SECRET = "5e" * 32
SUBPROTOCOLS = [Subprotocol(SUBPROTOCOL), Subprotocol(ENROLL_SUBPROTOCOL)]


class Ca:
    """The generations of roots, each with its issuing CA; the last one signs."""

    def __init__(self, now: datetime | None = None) -> None:
        self.now = now or datetime.now(UTC)
        self.roots = [issue.create_root(self.now)]
        self.cross: list[x509.Certificate] = []
        self.issuing = issue.create_issuing(self.roots[0], "r1", self.now)

    def roll_over(self) -> None:
        """A new root, vouched for by the last one; it signs from now on."""
        root = issue.create_root(self.now)
        self.cross.append(issue.cross_sign(self.roots[-1], root.certificate, self.now))
        self.roots.append(root)
        self.issuing = issue.create_issuing(root, "r1", self.now)

    @property
    def trust(self) -> dict[str, list[str]]:
        """What TRUST and an enrolment say."""
        return {
            "roots": [pem_text(root.certificate) for root in self.roots],
            "cross": [pem_text(one) for one in self.cross],
        }

    @property
    def certificates(self) -> list[x509.Certificate]:
        return [root.certificate for root in self.roots]

    def sign(
        self,
        identity: ConnectorId,
        request: bytes,
        lifetime: timedelta = LEAF_LIFETIME,
        now: datetime | None = None,
    ) -> str:
        """A connector's chain as PEM."""
        key = read_request(request).public_key
        leaf = issue.issue_connector(self.issuing, identity, key, now or datetime.now(UTC), lifetime)
        return self.chain_pem(leaf)

    def chain_pem(self, leaf: x509.Certificate) -> str:
        return issue.certificate_pem(leaf, *self.issuing.chain, *self.cross).decode()

    def server_identity(
        self, folder: Path, *names: str, now: datetime | None = None, lifetime: timedelta = LEAF_LIFETIME
    ) -> Path:
        """One file with key and chain for a relay with these names."""
        key = issue.new_key()
        leaf = issue.issue_relay(
            self.issuing, relay_id(TRUST_DOMAIN, "r1"), names or ("localhost", "127.0.0.1"), key.public_key(),
            now or self.now, lifetime,
        )  # fmt: skip
        path = folder / f"relay-{len(self.roots)}.pem"
        write_private(path, issue.key_pem(key) + self.chain_pem(leaf).encode())
        return path


class RelayDouble:
    """Serve with `serve`; change its attributes at any time."""

    def __init__(self, folder: Path, ca: Ca | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.folder = folder
        self.ca = ca or Ca()
        self.identity = ConnectorId(TRUST_DOMAIN, "acme", "walldorf", "frun")
        self.lifetime = LEAF_LIFETIME
        self.wall: Callable[[], float] = time.time
        self.questions: list[dict[str, Any]] = []
        self.refusal: dict[str, str] | None = None
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = self.honest_answer
        self.renew: Callable[[Tunnel, bytes], Mapping[str, str] | None] = self.honest_renewal
        self.renew_only: Callable[[bytes | None], bool] = lambda _certificate: False
        self.offers_renewal = True
        self.tunnels: list[Tunnel] = []
        self.issued: list[str] = []
        self.port = 0
        self._gaps = GapWatch(self.loop)
        self._context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None

    async def serve(self, server_identity: Path | None = None, *, folder: Path | None = None) -> None:
        """Listen, with this certificate; where it listens already, the next connections see it."""
        path = server_identity or self.ca.server_identity(folder or self.folder)
        self._context = managed_server_context(path, self.ca.certificates)
        if self._server is None:
            buffers = ReadBuffers()
            self._server = await self.loop.create_server(
                lambda: ServerTransport(self.loop, self._the_context(), buffers, _Acceptor(self)),
                "127.0.0.1",
                self.port,
            )
            self.port = self._server.sockets[0].getsockname()[1]

    def token(self, **changes: Any) -> JoinToken:
        """A token for this relay, as `localhost`."""
        token = JoinToken(
            TRUST_DOMAIN, (HostPort("localhost", self.port),), pin_of(self.ca.roots[-1].certificate), "acme",
            "walldorf", "frun", "t0k3n", SECRET,
        )  # fmt: skip
        return token._replace(**changes)

    def honest_answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What a relay says in an enrolment."""
        if question.get("want") == "authorities":
            return self.ca.trust
        if question.get("secret") != SECRET:
            return {"error": "token-unknown", "detail": "no such token"}
        if self.refusal is not None:
            return self.refusal
        pem = self.ca.sign(self.identity, question["request"].encode(), self.lifetime)
        self.issued.append(pem)
        return {"certificate": pem, **self.ca.trust, "wall": self.wall()}

    def honest_renewal(self, tunnel: Tunnel, request: bytes) -> Mapping[str, str]:
        """What a relay says to RENEW."""
        pem = self.ca.sign(self.identity, request, self.lifetime)
        self.issued.append(pem)
        return {"certificate": pem}

    @property
    def open(self) -> list[Tunnel]:
        """Tunnels that are up, and may carry pushes."""
        return [one for one in self.tunnels if one.link.is_open and not one.link.is_draining and not one.is_renew_only]

    def secrets_seen(self) -> list[object]:
        """Secrets that came to this listener."""
        return [question["secret"] for question in self.questions if "secret" in question]

    async def until(self, condition: Callable[[], object], limit: float = 10.0) -> None:
        async with asyncio.timeout(limit):
            while not condition():
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        for tunnel in self.tunnels:
            tunnel.link.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await asyncio.sleep(0.01)

    def _the_context(self) -> ssl.SSLContext:
        assert self._context is not None
        return self._context

    def make_link(self, tunnel: Tunnel, *, renew_only: bool) -> Link:
        capabilities = CAPABILITIES | {RENEWAL} if self.offers_renewal else CAPABILITIES
        hello = Hello(
            capabilities=capabilities, wall=self.wall(), renew_only=renew_only, clock=int(self.loop.time() * 1e6)
        )
        return Link(
            Role.RELAY, tunnel, hello, settings=Settings(), budget=MemoryBudget(), gaps=self._gaps, loop=self.loop
        )


class Tunnel:
    """The relay's LinkHandler of one tunnel."""

    def __init__(self, relay: RelayDouble, certificate: bytes | None) -> None:
        self.relay = relay
        self.certificate = certificate
        self.is_renew_only = relay.renew_only(certificate)
        self.link = relay.make_link(self, renew_only=self.is_renew_only)
        self.hello: Hello | None = None
        self.pins: list[list[str]] = []
        self.renewals = 0
        self.closed: tuple[str, str] | None = None

    def on_ready(self, link: Link, hello: Hello) -> None:
        self.hello = hello

    def on_renew(self, link: Link, request: bytes) -> None:
        self.renewals += 1
        answer = self.relay.renew(self, request)
        if answer is not None:
            link.answer_certificate(answer)

    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None:
        self.pins.append(list(message["pins"]))

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self.closed = (code, detail)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_: None
        raise AttributeError(name)


class _Acceptor:
    def __init__(self, relay: RelayDouble) -> None:
        self.relay = relay
        self.subprotocol: str | None = None
        self.certificate: bytes | None = None

    def decide(self, request: UpgradeRequest) -> bytes | None:
        self.certificate, self.subprotocol = request.certificate, request.subprotocol
        return None

    def refuse(self, fault_code: str, detail: str) -> bytes:
        return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

    def opened(self, transport: ServerTransport) -> MessageReceiver:
        if self.subprotocol == ENROLL_SUBPROTOCOL:
            return _Enrolment(self.relay, transport)
        tunnel = Tunnel(self.relay, self.certificate)
        self.relay.tunnels.append(tunnel)
        self.relay.loop.call_soon(tunnel.link.start, transport)
        return tunnel.link

    def failed(self, transport: ServerTransport, error: BaseException | None) -> None:
        """The connector's tests look at their own side."""


class _Enrolment:
    """One question, one answer."""

    def __init__(self, relay: RelayDouble, transport: ServerTransport) -> None:
        self.relay = relay
        self.transport = transport

    def message_received(self, message: bytes) -> None:
        question = json.loads(message)
        self.relay.questions.append(question)
        answer = self.relay.answer(question)
        if answer is not None:
            self.transport.send(json.dumps(answer).encode())
            self.transport.close()

    def __getattr__(self, name: str) -> Any:
        if name in ("bytes_received", "transport_writable", "transport_closing", "transport_closed"):
            return lambda *_: None
        raise AttributeError(name)


@contextlib.asynccontextmanager
async def relay_double(folder: Path, ca: Ca | None = None, *, serve: bool = True) -> AsyncIterator[RelayDouble]:
    """A double that listens, unless it should not yet."""
    relay = RelayDouble(folder, ca)
    if serve:
        await relay.serve()
    try:
        yield relay
    finally:
        await relay.close()
