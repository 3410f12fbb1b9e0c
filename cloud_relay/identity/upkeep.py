"""What time brings: the relay's own certificates are renewed, a roll-over goes on, and whoever should know is warned.

Looked at every second; what cannot be done is said in the log and tried again, for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NoReturn

from cryptography import x509

from cloud_relay.expiries import Expiry
from cloud_relay.identity.events import Event, Kind, new_event
from cloud_relay.identity.ledger import IdentityFault
from cloud_relay.identity.own import OwnCertificate, half_time
from cloud_relay.identity.records import Stage
from cloud_relay.identity.registrar import Registrar
from cloud_relay.identity.rollover import RollOver, WrongStage
from cloud_relay.identity.store import StateError
from shared.clock import rfc3339
from shared.logs import get_logger, log_limited
from shared.pki import issue
from shared.pki.files import PkiError
from shared.pki.issue import Authority
from shared.pki.trust import pem_text

INTERVAL: Final = 1.0
MAX_PACE: Final = 60
"""Looks that are left out, at most, after one that failed."""

FORGET_INTERVAL: Final = timedelta(minutes=1)

REMIND_EVERY: Final = 3600.0
"""Seconds between two warnings of the same thing."""

ROOT_WARNING: Final = timedelta(days=180)
"""A root that ends within this is named: a roll-over is to be planned in peace."""

log = get_logger("relay.identity")


class Upkeep:
    """Keeps the relay's own identity alive. `names` gives what the relay is dialled by; `on_own` is called when the
    tunnel's TLS context has to be made anew."""

    def __init__(
        self,
        registrar: Registrar,
        roll_over: RollOver,
        own: OwnCertificate,
        names: Callable[[], Sequence[str]],
        on_own: Callable[[], None],
        signs: Callable[[], bool] = lambda: True,
    ) -> None:
        """`signs`: whether the relay is its own CA; else nothing is renewed, and warnings are all there is to do."""
        self.registrar = registrar
        self.roll_over = roll_over
        self.own = own
        self.failures = 0
        self.all_expiries: Callable[[], Sequence[Expiry]] = self.expiries
        """Whose ends are warned of: more than our own, where there are others."""
        self.reissue: Callable[[], None] = lambda: None
        """Asks connectors to renew when the CA was switched."""
        self._signs = signs
        self._pace = self._wait = 0
        self._names = names
        self._on_own = on_own
        self._forgotten_at: datetime | None = None
        self._told_at: dict[str, float] = {}
        self._is_requested = asyncio.Event()
        self._at_work = asyncio.Lock()

    async def run(self) -> NoReturn:
        """Look every second, until cancelled."""
        while True:
            async with self._at_work:
                await self.look()
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._is_requested.wait()
            except TimeoutError:
                pass
            self._is_requested.clear()

    async def pause(self) -> None:
        """Let the look under way end; the next one comes after `resume`."""
        await self._at_work.acquire()

    def resume(self) -> None:
        """Go on looking."""
        self._at_work.release()

    def request(self) -> None:
        """Look now."""
        self._wait = 0
        self._is_requested.set()

    async def look(self) -> None:
        """One look. What fails is logged, and tried again, less often the longer it fails."""
        if self._wait > 0:
            self._wait -= 1
        elif self._signs():
            await self._work()
        self._warn()
        now = self.registrar.clock.now()
        if self._forgotten_at is None or now > self._forgotten_at + FORGET_INTERVAL:
            self._forgotten_at = now
            self.registrar.book.forget(now)

    async def _work(self) -> None:
        before = self.failures
        for work in (self._renew_issuing, self._renew_own, self._advance, self._ask_anew):
            try:
                await work()
            except (IdentityFault, WrongStage, StateError, PkiError, OSError) as error:
                self.failures += 1
                log_limited(log, "error", f"upkeep {type(error).__name__}", "the relay's identity needs attention",
                            error=str(error), work=work.__name__.strip("_"))  # fmt: skip
            except Exception as error:  # noqa: BLE001  # a bug of ours; the next look must come all the same
                self.failures += 1
                log_limited(log, "error", "upkeep bug", "the relay's identity failed by a bug of ours", exc_info=error)
        self._pace = min(2 * self._pace + 1, MAX_PACE) if self.failures > before else 0
        self._wait = self._pace

    async def _ask_anew(self) -> None:
        self.reissue()

    async def renew_own(self) -> x509.Certificate:
        """Make the relay's own certificate anew, now. Raises IdentityFault, OSError, PkiError."""
        leaf = await asyncio.to_thread(self.own.make, self._names(), self.registrar.now())
        log.info("the relay's own certificate was renewed", not_after=rfc3339(leaf.not_valid_after_utc))
        self._on_own()
        return leaf

    def expiries(self) -> list[Expiry]:
        """The CA's and the relay's own certificates, the root first."""
        book, now = self.registrar.book, self.registrar.clock.now()
        found = []
        for number in (book.active, book.other):
            if number:
                found += self._ca_expiries(number, now)
        chain = self.own.chain()
        if chain:
            found.append(Expiry("relay", book.relay, chain[0].not_valid_after_utc, _late(chain[0], now)))
        return found

    # --- within

    def _ca_expiries(self, number: int, now: datetime) -> list[Expiry]:
        generation = self.registrar.book.generations[number]
        root_end = generation.root.not_valid_after_utc
        near = min(ROOT_WARNING, self.registrar.lifetimes.root / 10)
        soon = "roll the CA over: 'cloud-relay ca rotate'" if now > root_end - near else ""
        found = [Expiry("root", f"generation {number}", root_end, soon)]
        if generation.issuing is not None:
            late = _late(generation.issuing, now)
            if late and not self.registrar.keys.has_root(generation):
                path = self.registrar.keys.root_path(generation.root).name
                late = f"put the root's key back as ca/{path}: it has to sign the next issuing CA"
            found.append(
                Expiry("issuing", f"generation {number}", generation.issuing.not_valid_after_utc, late)
            )  # fmt: skip
        return found

    async def _renew_issuing(self) -> None:
        registrar, book = self.registrar, self.registrar.book
        generation, now = book.generation, registrar.now()
        issuing, root_end = generation.issuing, generation.root.not_valid_after_utc
        if issuing is not None and issuing.not_valid_before_utc <= now:  # else this host's clock was ahead then
            is_last = issuing.not_valid_after_utc >= root_end  # where the root itself ends, only a roll-over helps
            if is_last or now < half_time(issuing):
                return
        if not registrar.keys.has_root(generation) or now >= root_end:  # offline: `expiries` says when it is wanted
            return
        new, path = await asyncio.to_thread(self._make_issuing, now)

        def decide() -> tuple[list[Event], dict[str, bytes]]:
            if book.active != generation.number or book.generation.issuing != issuing:
                raise IdentityFault("cannot-issue", "the CA has changed meanwhile")
            text = pem_text(new.certificate)
            return [new_event(Kind.ISSUING_CREATED, now, generation=generation.number, certificate=text)], {}

        try:
            await registrar.change(decide, is_urgent=True)
        except BaseException:
            registrar.keys.remove([path])
            raise
        self.roll_over.clear_keys()

    def _make_issuing(self, now: datetime) -> tuple[Authority, Path]:
        registrar = self.registrar
        root = registrar.keys.root(registrar.book.generation)
        new = issue.create_issuing(root, registrar.book.relay, now, registrar.lifetimes.issuing)
        return new, registrar.keys.write_issuing(new)

    async def _renew_own(self) -> None:
        if self.own.is_due(self._names(), self.registrar.now()):
            await self.renew_own()

    async def _advance(self) -> None:
        if self.registrar.book.stage is not Stage.STEADY:
            await self.roll_over.advance()

    def _warn(self) -> None:
        clock = self.registrar.clock
        if clock.is_doubtful and self._is_due("clock"):
            log.error(
                "ALARM: this host's clock has jumped and is not believed", off_by_seconds=round(clock.error_seconds)
            )
        for expiry in self.all_expiries():
            if expiry.warning and self._is_due(f"{expiry.kind} {expiry.name}"):
                log.warning(
                    "a certificate ends soon", kind=expiry.kind, name=expiry.name,
                    not_after=rfc3339(expiry.not_after), remedy=expiry.warning,
                )  # fmt: skip

    def _is_due(self, reminder: str) -> bool:
        """Whether it was not told for an hour: what lasts for weeks is no news every second."""
        now = asyncio.get_running_loop().time()
        self._told_at = {what: at for what, at in self._told_at.items() if now - at < REMIND_EVERY}
        is_due = reminder not in self._told_at
        self._told_at.setdefault(reminder, now)
        return is_due


def _late(certificate: x509.Certificate, now: datetime) -> str:
    """What to say when a certificate should have been renewed long ago: three quarters of its time are over."""
    half = half_time(certificate)
    if now < half + (certificate.not_valid_after_utc - half) / 2:
        return ""
    return "it should have been renewed by itself: look at the log for why that failed"
