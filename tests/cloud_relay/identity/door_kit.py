"""A real listener on a registrar in memory, and connectors that join, dial and renew as the protocol says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from cloud_relay.config import RelayConfig
from cloud_relay.identity.enrolment import Enrolment, EnrolmentLimits
from cloud_relay.identity.policy import BookPolicy
from cloud_relay.identity.registrar import Issued, Lifetimes
from cloud_relay.identity.sessions import RenewalDesk
from cloud_relay.identity.targets import TargetGuard
from cloud_relay.registry import Registry
from cloud_relay.tunnels import TunnelListener
from shared.pki import files, issue
from shared.pki.join_token import JoinToken
from shared.pki.requests import make_request
from shared.pki.spiffe import ConnectorId, relay_id
from shared.pki.tls import managed_client_context, managed_server_context, unverified_client_context
from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.protocol.hello import CAPABILITIES, RENEWAL
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.transport import MessageReceiver
from shared.tunnel.websocket import ENROLL_SUBPROTOCOL
from shared.tunnel.websocket_client import ClientTransport, Endpoint, HandshakeRefused, open_websocket
from tests.cloud_relay.identity.kit import KEY, Office


class Pass(NamedTuple):
    """What a connector dials with: key and chain in one file, and its fingerprint."""

    file: Path
    fingerprint: str


class Enquirer:
    """The client's end of `qanat-enroll.v1`."""

    def __init__(self, transport: ClientTransport) -> None:
        self.transport = transport
        self.answers: list[dict[str, Any]] = []
        self.closed = asyncio.get_running_loop().create_future()

    def message_received(self, message: bytes) -> None:
        self.answers.append(json.loads(message))

    def bytes_received(self) -> None: ...
    def transport_writable(self) -> None: ...
    def transport_closing(self, code: int | None, reason: str) -> None: ...

    def transport_closed(self, code: int | None, reason: str, error: BaseException | None) -> None:
        self.closed.set_result(code)


class Caller:
    """The connector's end of a tunnel: records what the relay says."""

    def __init__(self) -> None:
        self.hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.certificates: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
        self.trusts: asyncio.Queue[Mapping[str, Sequence[str]]] = asyncio.Queue()
        self.hints: asyncio.Queue[float] = asyncio.Queue()
        self.drains: list[float] = []
        self.link: Link

    def on_ready(self, link: Link, hello: Hello) -> None:
        self.hello.set_result(hello)

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None: ...
    def on_targets(self, link: Link, targets: Mapping[str, str]) -> None: ...
    def on_renew(self, link: Link, request: bytes) -> None: ...

    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None:
        self.certificates.put_nowait(answer)

    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None:
        self.trusts.put_nowait(message)

    def on_hint(self, link: Link, within: float) -> None:
        self.hints.put_nowait(within)

    def on_drain(self, link: Link, timeout: float) -> None:
        self.drains.append(timeout)

    def on_replace(self, link: Link, timeout: float) -> None: ...

    def on_usable(self, link: Link) -> None: ...

    def on_room(self, link: Link) -> bool:
        return False

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self.closed.set_result(code)

    def on_handler_error(self, link: Link, error: Exception) -> None:
        raise error


class Door:
    """A relay that is its own CA, as far as the network sees it."""

    def __init__(self, office: Office, folder: Path, limits: EnrolmentLimits | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.office = office
        self.folder = folder
        registrar = office.registrar
        self.registry = Registry(self.loop)
        self.gaps = GapWatch(self.loop)
        self.enrolment = Enrolment(self.loop, registrar, registrar.clock.timestamp, limits)
        self.desk = RenewalDesk(self.loop, registrar)
        self.guard = TargetGuard(office.book)
        tenants = {"acme": _Tenant(("walldorf", "berlin")), "globex": _Tenant(("walldorf",))}
        config = cast(RelayConfig, _Config("qanat.test", tenants))
        self.listener = TunnelListener(
            self.loop, self.context(), BookPolicy(config, office.book), self.registry, budget=MemoryBudget(),
            gaps=self.gaps, clock=registrar.clock, enrolment=self.enrolment, renewal=self.desk, guard=self.guard,
        )  # fmt: skip
        registrar.on_change(self._on_change)
        self.port = 0
        self.callers: list[Caller] = []

    def _on_change(self, _: object) -> None:
        self.listener.retell_trust()
        self.listener.recheck()

    def context(self) -> ssl.SSLContext:
        """The relay's, as it would be made now."""
        authority = self.office.registrar.authority()
        key = issue.new_key()
        leaf = issue.issue_relay(authority, relay_id("qanat.test", "r1"), ["localhost"], key.public_key(),
                                 self.office.now)  # fmt: skip
        path = self.folder / "relay-identity.pem"
        files.write_private(path, issue.key_pem(key) + issue.certificate_pem(leaf, *authority.chain))
        return managed_server_context(path, self.office.book.trust(self.office.now).client_roots)

    # --- connectors

    async def join(self, key: tuple[str, str, str] = KEY, **options: Any) -> Pass:
        """A certificate of the registrar's."""
        private = issue.new_key()
        return self.keep(await self.office.redeem(await self.office.token(key, **options), private), private)

    def keep(self, issued: Issued, private: issue.PrivateKey) -> Pass:
        return self.write(issued.certificate, issued.record.fingerprint, private)

    def write(self, chain: bytes, fingerprint: str, private: issue.PrivateKey) -> Pass:
        path = self.folder / f"{fingerprint[:16]}.pem"
        files.write_private(path, issue.key_pem(private) + chain)
        return Pass(path, fingerprint)

    def forge(self, authority: issue.Authority, *identity: str) -> Pass:
        """A certificate that some CA has made past the registrar."""
        private = issue.new_key()
        name = ConnectorId("qanat.test", *(identity or KEY))
        leaf = issue.issue_connector(authority, name, private.public_key(), self.office.now)
        return self.write(issue.certificate_pem(leaf, *authority.chain), issue.fingerprint(leaf), private)

    async def dial(
        self, who: Pass, targets: Mapping[str, str] | None = None, *, instance: str = "i1", is_old: bool = False
    ) -> Caller:
        """Open a tunnel, and wait for HELLO. HandshakeRefused where the relay does not want it."""
        caller = Caller()
        hello = Hello(
            software="test", instance=instance, targets=targets or {"frun": "http"},
            capabilities=CAPABILITIES if is_old else CAPABILITIES | {RENEWAL},
        )  # fmt: skip
        link = caller.link = Link(
            Role.CONNECTOR, caller, hello, settings=Settings(), budget=MemoryBudget(), gaps=self.gaps, loop=self.loop
        )
        roots = self.office.book.trust(self.office.now).client_roots
        transport = await self._open(managed_client_context(roots, who.file), Endpoint("localhost", self.port), link)
        link.start(transport)
        self.callers.append(caller)
        async with asyncio.timeout(5):
            await caller.hello
        return caller

    async def refusal(self, who: Pass) -> str:
        """The code by which it is refused."""
        try:
            await self.dial(who)
        except HandshakeRefused as refused:
            return refused.headers["qanat-error"]
        return "admitted"

    async def enquire(self, path: str = "/") -> Enquirer:
        """Open a connection for joining."""
        made: list[Enquirer] = []
        endpoint = Endpoint("localhost", self.port, path, ENROLL_SUBPROTOCOL)

        def receiver(transport: ClientTransport) -> MessageReceiver:
            made.append(Enquirer(transport))
            return made[0]

        await self._open(unverified_client_context(), endpoint, receiver)
        return made[0]

    async def ask(self, question: object) -> dict[str, Any]:
        """One question, one answer, and the connection is closed by the relay."""
        enquirer = await self.enquire()
        enquirer.transport.send(question if isinstance(question, bytes) else json.dumps(question).encode())
        async with asyncio.timeout(5):
            await enquirer.closed
        (answer,) = enquirer.answers
        return answer

    async def redeem(self, of: JoinToken, private: issue.PrivateKey, **other: Any) -> dict[str, Any]:
        """Ask for a certificate over the network."""
        question = {
            "want": "certificate", "token": of.token, "secret": of.secret,
            "request": make_request(private).decode(), **other,
        }  # fmt: skip
        return await self.ask(question)

    async def until(self, condition: Any, limit: float = 5.0) -> None:
        async with asyncio.timeout(limit):
            while not condition():
                await asyncio.sleep(0.005)

    async def _open(self, context: ssl.SSLContext, endpoint: Endpoint, receiver: Any) -> ClientTransport:
        raw, _ = await self.loop.create_connection(_Paused, "127.0.0.1", self.port)
        give = receiver if not isinstance(receiver, Link) else lambda _: receiver
        return await open_websocket(raw, context, ReadBuffers(), endpoint, give)


class _Tenant(NamedTuple):
    locations: tuple[str, ...]


class _Config(NamedTuple):
    """What the policy looks at."""

    trust_domain: str
    tenants: dict[str, _Tenant]

    def knows(self, tenant: str, location: str) -> bool:
        """See RelayConfig."""
        return tenant in self.tenants and location in self.tenants[tenant].locations


class _Paused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()


@contextlib.asynccontextmanager
async def door(
    folder: Path, limits: EnrolmentLimits | None = None, lifetimes: Lifetimes | None = None
) -> AsyncIterator[Door]:
    """A door that listens."""
    office = await Office(folder, lifetimes).open()
    made = Door(office, folder, limits)
    await made.listener.listen("127.0.0.1", 0)
    made.port = made.listener.addresses[0][1]
    try:
        yield made
    finally:
        for caller in made.callers:
            caller.link.abort()
        await made.listener.close()
        for caller in made.callers:
            await caller.closed
