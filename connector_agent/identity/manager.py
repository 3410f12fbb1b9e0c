"""The identity of a connector whose relay is the CA: joined, used for each dial, renewed, its trust kept up to date.

    run() ─▶ join, for ever, until there is an identity ─▶ `begin(relays)` ─▶ renew and take new roots, for ever

`contexts`, `version` and `check_relay` are what dialling takes; the `on_…` calls are what tunnels tell.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from connector_agent.certificates import InUse, in_use
from connector_agent.dialer import Contexts
from connector_agent.handshake import DialError
from connector_agent.identity.judge import is_plausible, judge_relay
from connector_agent.identity.renewer import RenewalFailed, Renewer
from connector_agent.identity.trust import Offload, TrustKeeper
from shared.backoff import Backoff
from shared.control import ControlFault
from shared.errors import FAULTS
from shared.logs import get_logger, log_limited
from shared.pki.tls import managed_client_context
from shared.pki.trust import pin_of

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from connector_agent.identity.join import Joined
    from connector_agent.identity.store import Identity, IdentityStore
    from connector_agent.tunnel import Tunnel
    from shared.clock import TrustedClock
    from shared.protocol import Hello
    from shared.tunnel.link import Link
    from shared.tunnel.websocket_client import PeerRejected

REFUSAL_DELAY: Final = 15.0
"""Seconds until the next try to join after a refusal: somebody has to do something first."""

JOIN_PAUSE: Final = 5.0
"""Seconds between two tries to join, at most, while the relay is not there."""

log = get_logger("connector.identity")


class Join(Protocol):
    """One try to join. Raises DialError, StoreError, PkiError, or ValueError for a token that cannot be read."""

    async def __call__(self) -> Joined: ...


class ServedTunnels(Protocol):
    """The tunnels that are dialled with the identity."""

    def begin(self, relays: Sequence[tuple[str, int]]) -> None:
        """There is an identity: dial the relays of the config, or else these."""

    def refresh(self) -> None:
        """New tunnels take the place of the old ones, make-before-break."""

    def open_links(self) -> Sequence[Link]:
        """The links over which a relay can be asked now."""


class ManagedIdentity:
    """See above. `bind` it to the tunnels that it serves before it runs."""

    def __init__(
        self,
        store: IdentityStore,
        clock: TrustedClock,
        *,
        join: Join | None = None,
        jitter: Callable[[], float] = random.random,
        offload: Offload = asyncio.to_thread,
    ) -> None:
        """Raises PkiError where an identity is there and cannot be used."""
        self.store = store
        self.clock = clock
        self.version = 0
        self.identity: Identity | None = store.load_identity()
        self.renewer: Renewer | None = None
        self.trust = TrustKeeper([], store, clock, self._on_trust, offload)
        self.join_error: DialError | None = None
        self._join = join
        self._tunnels: ServedTunnels | None = None
        self._jitter = jitter
        self._offload = offload
        self._contexts: Contexts | None = None
        if self.identity is not None:
            self._take(self.identity, store.load_roots())

    def __repr__(self) -> str:
        return f"<ManagedIdentity {self.identity!r} version {self.version} {self.trust!r}>"

    def bind(self, tunnels: ServedTunnels) -> None:
        """These are dialled with this identity."""
        self._tunnels = tunnels

    @property
    def roots(self) -> list[x509.Certificate]:
        """The roots that are trusted now."""
        return self.trust.roots

    async def run(self) -> None:
        """Join if need be, then keep everything up to date until cancelled."""
        if self.identity is None:
            joined = await self._join_for_ever()
            self._take(joined.identity, joined.roots)
        renewer, tunnels = self.renewer, self._tunnels
        if renewer is None or tunnels is None:
            raise RuntimeError("an identity that serves no tunnels")
        tunnels.begin(self.store.load_relays())
        async with asyncio.TaskGroup() as group:
            group.create_task(renewer.run(), name="renewal of the certificate")
            group.create_task(self.trust.run(), name="trust in new roots")

    # --- what dialling takes

    def contexts(self) -> Contexts:
        """TLS with the identity as it is now. Only once there is one."""
        if self._contexts is None:
            raise DialError("certificate-required", "This connector has not joined yet.")
        return self._contexts

    def check_relay(self, der: bytes | None) -> PeerRejected | None:
        """Whether the relay's certificate, verified by TLS but for its dates, is valid by the clock that we believe, or
        by the wall clock: a relay whose own clock was wrong once must not keep us from all of them."""
        clock = self.clock
        rejected = judge_relay(der, clock.now(), clock_error=clock.error_seconds if clock.is_doubtful else 0.0)
        if rejected is None or judge_relay(der, clock.wall_now(), clock_error=0.0) is None:
            return None
        return rejected

    async def renew_over(self, tunnel: Tunnel) -> DialError | None:
        """In a renew-only session: renew at once; None when the next dial has a newer certificate than this one had."""
        if self.renewer is None or tunnel.link is None or tunnel.version != self.version:
            return None
        try:
            await self.renewer.renew(tunnel.link)
        except RenewalFailed as error:
            fault = FAULTS.get(error.code)
            is_refusal = fault is not None and fault.status in (401, 403)
            return DialError(error.code, error.text, error.remedy, is_refusal=is_refusal)
        return None

    # --- what tunnels tell

    def on_ready(self, tunnel: Tunnel, hello: Hello) -> None:
        """HELLOs are exchanged."""
        if is_plausible(hello.wall):
            self.clock.observe(hello.wall)
        if tunnel.link is not None:
            tunnel.link.send_trust({"pins": self.trust.pins})
        if self.renewer is not None:
            self.renewer.on_open()

    def on_certificate(self, tunnel: Tunnel, answer: Mapping[str, str]) -> None:
        """The relay's answer to RENEW."""
        if self.renewer is not None and tunnel.link is not None:
            self.renewer.on_certificate(tunnel.link, answer)

    def on_trust(self, tunnel: Tunnel, message: Mapping[str, Sequence[str]]) -> None:
        """The relay's roots."""
        self.trust.offer(message)

    def on_hint(self, tunnel: Tunnel, within: float) -> None:
        """The relay asks for a renewal."""
        if self.renewer is not None:
            self.renewer.on_hint(within)

    def on_closed(self, tunnel: Tunnel) -> None:
        """The tunnel is over."""
        if self.renewer is not None and tunnel.link is not None:
            self.renewer.on_closed(tunnel.link)

    # --- what is asked

    def read(self) -> None:
        """Nothing of it is in files that others change."""

    def use(self, loaded: object) -> list[str]:
        """Likewise."""
        return []

    def certificates(self) -> list[InUse]:
        """The identity and the roots."""
        if self.identity is None:
            return []
        rows = [in_use("identity", self.identity.id.connector, self.identity.certificate, is_renewed=True)]
        return rows + [in_use("root", pin_of(root), root, is_renewed=True) for root in self.roots]

    def now(self) -> datetime:
        """What time it is by the relay's clock, or by a wall clock that agrees with it."""
        return self.clock.now()

    def counts(self) -> dict[str, int]:
        """Renewals by result."""
        return self.renewer.results if self.renewer is not None else {}

    def describe(self) -> dict[str, Any]:
        """For `status` and `certs show`. JSON-able."""
        renewer = self.renewer
        error = self.join_error or (renewer.last_error if renewer is not None else None)
        return {
            "mode": "managed",
            "state": "joining" if self.identity is None else "joined",
            "id": str(self.identity.id) if self.identity is not None else None,
            "next_renewal": f"{renewer.due:%FT%TZ}" if renewer is not None else None,
            "error": None if error is None else {"code": error.code, "detail": error.text, "remedy": error.remedy},
            "clock": {
                "error_s": round(self.clock.error_seconds, 1), "is_doubtful": self.clock.is_doubtful,
            },
        }  # fmt: skip

    async def rotate(self) -> dict[str, Any]:
        """Renew now. ControlFault when that fails."""
        identity, renewer = self.identity, self.renewer
        if identity is None or renewer is None:
            raise ControlFault(409, "not-joined", "this connector has not joined yet", "'status' says why.")
        try:
            new = await renewer.renew()
        except RenewalFailed as error:
            raise ControlFault(409, error.code, error.text, error.remedy) from error
        return {
            "id": str(new.id),
            "old_not_after": f"{identity.certificate.not_valid_after_utc:%FT%TZ}",
            "new_not_after": f"{new.certificate.not_valid_after_utc:%FT%TZ}",
        }

    # --- within

    def _take(self, identity: Identity, roots: Sequence[x509.Certificate]) -> None:
        self.trust.roots = list(roots)
        self._install(identity)
        self.renewer = Renewer(
            self.store, self.clock, self._current, lambda: self.trust.roots, self._links, self._install,
            jitter=self._jitter, offload=self._offload,
        )  # fmt: skip

    def _current(self) -> Identity:
        if self.identity is None:
            raise RuntimeError("asked for an identity before there is one")
        return self.identity

    def _links(self) -> Sequence[Link]:
        return self._tunnels.open_links() if self._tunnels is not None else ()

    def _refresh(self) -> None:
        if self._tunnels is not None:
            self._tunnels.refresh()

    def _install(self, identity: Identity) -> None:
        """New tunnels take the identity that is on disk now. Raises PkiError."""
        self._contexts = self._make_contexts()
        self.identity = identity
        self.version += 1
        self._refresh()

    def _make_contexts(self) -> Contexts:
        roots = self.trust.roots
        return Contexts(managed_client_context(roots, self.store.identity_file), managed_client_context(roots))

    def _on_trust(self) -> None:
        self._contexts = self._make_contexts()
        self.version += 1
        for link in self._links():
            link.send_trust({"pins": self.trust.pins})
        self._refresh()

    async def _join_for_ever(self) -> Joined:
        if self._join is None:
            raise RuntimeError("no identity, and no way to one")  # the config's check lets none of these pass
        backoff = Backoff(cap=JOIN_PAUSE, source=self._jitter)
        while True:
            try:
                joined = await self._join()
            except Exception as error:  # noqa: BLE001  # whatever somebody in between has sent, the next try must come
                failed = error if isinstance(error, DialError) else DialError("cannot-join", str(error))
                self.join_error = failed
                log_limited(
                    log, "warning", f"join {failed.code}", "not joined yet; it is tried again",
                    code=failed.code, detail=failed.text, remedy=failed.remedy,
                )  # fmt: skip
                pause = REFUSAL_DELAY * (0.8 + 0.2 * self._jitter()) if failed.is_refusal else next(backoff)
                await asyncio.sleep(pause)
            else:
                self.join_error = None
                log.info("joined", identity=str(joined.identity.id), relay=str(joined.relay))
                return joined
