"""When the next certificate is asked for, and over which tunnel: at half of the lifetime, for ever, until it is there.

Time is the relay's, reckoned by a clock that cannot be set (`TrustedClock`): a wall clock that is off moves nothing. An
answer is stored only if it is for the key and the identity that were asked with, and leads to a trusted root.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn

from connector_agent.identity.judge import BadCertificate, check_own, issued_at, lifetime, read_chain
from connector_agent.identity.store import Identity, IdentityStore, StoreError
from connector_agent.identity.trust import Offload
from shared.backoff import Backoff
from shared.errors import FAULTS
from shared.logs import get_logger, log_limited
from shared.pki.files import PkiError
from shared.pki.requests import make_request

if TYPE_CHECKING:
    from cryptography import x509

    from shared.clock import TrustedClock
    from shared.tunnel.link import Link

EARLIEST, LATEST = 0.4, 0.5
"""Parts of the lifetime between which a renewal falls due: no later than half, and not all connectors at once."""

ANSWER_TIMEOUT: Final = 30.0
"""Seconds for the relay's answer."""

MAX_PAUSE: Final = 300.0
"""Seconds between two tries, at most; less where the lifetime is short."""

HINT_PACE: Final = 60.0
"""Seconds that a certificate has lived, at least, before a hint may renew it; a quarter of a short lifetime."""

LOOK: Final = 60.0
"""Seconds after which the clock is looked at again, whatever was reckoned before."""

log = get_logger("connector.identity")


class RenewalFailed(Exception):
    """A try that came to nothing; what was there is there still."""

    def __init__(self, code: str, text: str, remedy: str = "") -> None:
        self.code = code
        self.text = text
        self.remedy = remedy
        super().__init__(f"{code}: {text}")


class Renewer:
    """Renews the identity that `current` gives. `links` are the tunnels that may be asked; `install` puts a new
    identity, which is stored already, into force."""

    def __init__(
        self,
        store: IdentityStore,
        clock: TrustedClock,
        current: Callable[[], Identity],
        roots: Callable[[], Sequence[x509.Certificate]],
        links: Callable[[], Sequence[Link]],
        install: Callable[[Identity], None],
        *,
        jitter: Callable[[], float] = random.random,
        offload: Offload = asyncio.to_thread,
    ) -> None:
        self._store = store
        self._clock = clock
        self._current = current
        self._roots = roots
        self._links = links
        self._install = install
        self._jitter = jitter
        self._offload = offload
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._waiting: dict[Link, asyncio.Future[Mapping[str, str]]] = {}
        self._backoff = Backoff(cap=MAX_PAUSE, first=1.0, source=jitter)
        self._pause_until = 0.0
        self._due = 0.0
        self.results: dict[str, int] = {}
        """Tries by what they came to: "renewed" or a code."""
        self.last_error: RenewalFailed | None = None
        self._schedule()

    def __repr__(self) -> str:
        return f"<Renewer due {self.due:%FT%TZ} {self.results}>"

    @property
    def due(self) -> datetime:
        """When the next certificate is asked for."""
        return datetime.fromtimestamp(self._due, UTC)

    async def run(self) -> NoReturn:
        """Renew whenever it is time, until cancelled."""
        while True:
            self._look_at_clock()
            wait = max(self._due - self._clock.timestamp(), self._pause_until - self._loop.time())
            link = None if wait > 0 else self._pick()
            if link is None:
                await self._sleep(min(max(wait, 0.05), LOOK) if wait > 0 else LOOK)
                continue
            try:
                await self.renew(link)
            except RenewalFailed:
                pass
            except Exception:  # whatever it was, the next try must come
                log.exception("a renewal failed by a bug of ours")
            else:
                continue
            self._pause_until = self._loop.time() + 0.1 + next(self._backoff)

    async def renew(self, link: Link | None = None) -> Identity:
        """One try, over this tunnel or any that is open; the new identity is in force then. Raises RenewalFailed.

        One at a time: who waited for another's success asks for no more. Cancelled, it leaves the pending key.
        """
        before = self._current()
        async with self._lock:
            if self._current() is not before:
                return self._current()
            try:
                identity = await self._try(link or self._pick())
            except RenewalFailed as error:
                self._note(error.code, error)
                raise
            except (StoreError, PkiError, BadCertificate) as error:
                code = "bad-certificate" if isinstance(error, BadCertificate) else "cannot-store"
                failed = RenewalFailed(code, str(error))
                self._note(code, failed)
                raise failed from error
            self._note("renewed", None)
            self._backoff.reset()
            self._pause_until = self._loop.time() + min(1.0, lifetime(identity.certificate).total_seconds() / 8)
            self._schedule()
            return identity

    # --- what tunnels tell

    def on_open(self) -> None:
        """A tunnel is there that may be asked, or the clock was set right."""
        self._wake.set()

    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None:
        """The answer to a RENEW."""
        waiting = self._waiting.get(link)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def on_closed(self, link: Link) -> None:
        """No answer will come by this tunnel."""
        waiting = self._waiting.get(link)
        if waiting is not None and not waiting.done():
            waiting.set_exception(RenewalFailed("connection-lost", "The tunnel ended before the relay answered."))

    def on_hint(self, within: float) -> None:
        """The relay asks for a renewal. However many hints come, a certificate lives for a while first."""
        certificate = self._current().certificate
        pace = min(HINT_PACE, lifetime(certificate).total_seconds() / 4)
        asked = self._clock.timestamp() + self._jitter() * within
        self._due = min(self._due, max(asked, issued_at(certificate).timestamp() + pace))
        self._wake.set()

    # --- within

    async def _try(self, link: Link | None) -> Identity:
        if link is None:
            raise RenewalFailed(
                "no-tunnel", "No tunnel is open over which to ask.", "Look at 'status': why is there none?"
            )
        before = self._current()
        key = await self._offload(self._store.renewal_key)  # on the disk, so the disk has room
        waiting = self._waiting[link] = self._loop.create_future()
        try:
            if not link.request_certificate(make_request(key, before.id)):
                raise RenewalFailed("connection-lost", "The tunnel ended, or still owes an answer.")
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await waiting
        except TimeoutError as error:
            raise RenewalFailed("timeout", "The relay did not answer in time.") from error
        finally:
            del self._waiting[link]
        try:
            chain = self._judge(answer, before)
            check_own(chain, key.public_key(), before.id, self._roots(), self._clock.now())
        except (RenewalFailed, BadCertificate):
            await self._offload(self._store.forget_renewal_key)  # asking again with it would hear the same
            raise
        identity: Identity = await self._offload(self._store.save_identity, key, chain)
        await self._offload(self._store.forget_renewal_key)
        self._install(identity)
        return identity

    def _judge(self, answer: Mapping[str, str], before: Identity) -> list[x509.Certificate]:
        if "error" not in answer:
            return read_chain(answer["certificate"])
        fault = FAULTS.get(answer["error"])
        if fault is None:
            raise RenewalFailed("unknown-refusal", f"The relay refuses to renew {before.id}: {answer['detail']}")
        told = answer["detail"] if answer["detail"] != fault.title else ""
        raise RenewalFailed(fault.code, f"The relay refuses: {fault.title} {told}".rstrip(), fault.remedy)

    def _pick(self) -> Link | None:
        """The tunnel that is asked: any that offers it, by chance, so that one bad relay keeps us from no other."""
        links = [link for link in self._links() if link.is_renewal_offered and link not in self._waiting]
        return links[int(self._jitter() * len(links)) % len(links)] if links else None

    def _schedule(self) -> None:
        certificate = self._current().certificate
        life = lifetime(certificate).total_seconds()
        self._due = issued_at(certificate).timestamp() + life * (EARLIEST + (LATEST - EARLIEST) * self._jitter())
        self._backoff.cap = min(MAX_PAUSE, max(1.0, life / 20))
        self._wake.set()

    def _note(self, result: str, error: RenewalFailed | None) -> None:
        self.results[result] = self.results.get(result, 0) + 1
        self.last_error = error
        certificate = self._current().certificate
        if error is None:
            log.info("certificate renewed", identity=str(self._current().id), not_after=_text(certificate))
        else:
            log_limited(
                log, "warning", f"renewal {error.code}", "the certificate was not renewed; it is tried again",
                code=error.code, detail=error.text, remedy=error.remedy, not_after=_text(certificate),
            )  # fmt: skip

    def _look_at_clock(self) -> None:
        clock = self._clock
        if clock.is_doubtful:
            log_limited(
                log, "error", "clock", "this host's clock is wrong; certificates are judged without it",
                error_s=round(clock.error_seconds), believed=f"{clock.now():%FT%TZ}",
            )  # fmt: skip

    async def _sleep(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass


def _text(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%FT%TZ}"
