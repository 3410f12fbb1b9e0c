"""How every target behind every connector is, and the word to the registry which ones pushes should pass over.

Two witnesses: probes, which are right as far as they go, and pushes. What either says keeps pushes away only as long as
there is another place for them: of what is doubted by pushes alone, one is always left; and where all are ill by their
probes, pushes go to all of them, for a probe may be wrong, and the connector's own 502 tells the sender more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from cloud_relay.probing.doubt import Doubt
from cloud_relay.probing.record import TargetRecord
from shared.logs import get_logger, log_limited

if TYPE_CHECKING:
    from cloud_relay.registry import Registry
    from cloud_relay.session import Key, Session
    from shared.probe import Verdict

FAILINGS: Final = frozenset({
    "target-unreachable", "target-tls-failed", "target-malformed-answer", "target-lost", "target-too-slow",
    "target-credential-refused", "target-address-refused", "connector-error", "deadline-exceeded",
})  # fmt: skip
"""What speaks against a connector's way to its target, among the ends of a push."""

KEPT: Final = 60.0
"""Seconds for which it is remembered how a target was whose connector is gone: it may be back in one."""

log = get_logger("relay.targets")


def _nobody(_record: TargetRecord) -> None:
    """Where no prober listens."""


def _no_one(_key: Key) -> None:
    """Where there are no other workers."""


class HealthBook:
    """The registry's Watcher, and what pushes and the prober report to.

    `on_exposed` is called when a session exposes a target; `on_trouble` when a push failed at one. `doubts` is empty as
    long as no push has failed lately: a delivery then need not be told.
    """

    def __init__(self, registry: Registry, now: Callable[[], float]) -> None:
        self._registry = registry
        self._now = now
        self._records: dict[Key, dict[str, TargetRecord]] = {}
        self._gone: dict[TargetRecord, None] = {}
        self.doubts: dict[TargetRecord, Doubt] = {}
        self.taken_out: dict[tuple[str, ...], int] = {}
        """How often pushes had a target taken out, by (tenant, location, connector, target)."""
        self.on_exposed: Callable[[TargetRecord], None] = _nobody
        self.on_trouble: Callable[[TargetRecord], None] = _nobody
        self.on_change: Callable[[Key], None] = _no_one
        """Told that a target is, behind some connector, not as it was."""

    # --- Watcher

    def exposed(self, session: Session, keys: Sequence[Key]) -> None:
        """A session came, or exposes more."""
        connector = session.identity.connector
        for key in keys:
            records = self._records.setdefault(key, {})
            record = records.get(connector)
            if record is None:
                record = records[connector] = TargetRecord(key, connector)
            record.sessions.append(session)
            self._gone.pop(record, None)
            self._place(key)
            self.on_exposed(record)

    def hidden(self, session: Session, keys: Sequence[Key]) -> None:
        """A session is gone, or exposes less."""
        for key in keys:
            record = self._records[key][session.identity.connector]
            record.sessions.remove(session)
            if not record.sessions:
                record.gone_at = self._now()
                self._gone[record] = None
                self._place(key)

    # --- pushes and probes

    def failed(self, key: Key, connector: str, code: str, now: float) -> None:
        """A push got no answer out of this target by the way of this connector."""
        record = self._find(key, connector)
        if record is None or code not in FAILINGS:
            return
        doubt = record.doubt
        if doubt is None:
            doubt = record.doubt = self.doubts[record] = Doubt(now)
        if doubt.fail(code, now):
            self.taken_out[record.labels] = self.taken_out.get(record.labels, 0) + 1
            log_limited(
                log, "warning", f"out {record.place}", "pushes keep failing at a target",
                code=code, seconds=doubt.out_until - now, place=record.place,
            )  # fmt: skip
            self._place(key)
            self.on_change(key)
        self.on_trouble(record)

    def delivered(self, key: Key, connector: str, now: float) -> None:
        """The target answered a push. Only asked for while there are `doubts`."""
        record = self._find(key, connector)
        if record is not None and record.doubt is not None:
            record.doubt.deliver(now)

    def probed(self, record: TargetRecord, verdict: Verdict, now: float) -> None:
        """A probe was answered."""
        before, said = record.is_ill, (record.state, record.why)
        record.note(verdict, now)
        if record.is_ill != before:
            if record.is_ill:
                log_limited(
                    log, "warning", f"ill {record.place}", "a target fails its probe", code=verdict.code,
                    place=record.place,
                )  # fmt: skip
            else:
                log_limited(log, "info", f"well {record.place}", "a target is well", place=record.place)
        doubt = record.doubt
        if doubt is not None and doubt.is_tripped and not verdict.code and doubt.may_return(now):
            self._bring_back(record, doubt, now)
        elif record.is_ill != before:
            self._place(record.key)
        if said != (record.state, record.why):
            self.on_change(record.key)

    def sweep(self, now: float) -> None:
        """What only time decides; call it once a second or so."""
        for record, doubt in list(self.doubts.items()):
            is_mute = not record.is_probed or now - record.found_at > KEPT
            if doubt.is_tripped and is_mute and doubt.may_return(now):
                self._bring_back(record, doubt, now)
            elif doubt.is_forgotten(now):
                record.doubt = None
                del self.doubts[record]
        for record in list(self._gone):
            if now - record.gone_at >= KEPT:
                self._forget(record)

    # --- what is asked

    def records(self) -> Iterator[TargetRecord]:
        """Those that an attached connector exposes."""
        return (one for records in self._records.values() for one in records.values() if one.sessions)

    def of_key(self, key: Key) -> list[TargetRecord]:
        """The same of one target."""
        return [one for one in self._records.get(key, {}).values() if one.sessions]

    def find(self, key: Key, connector: str) -> TargetRecord | None:
        """The one of this connector."""
        return self._find(key, connector)

    def __repr__(self) -> str:
        return f"<HealthBook {sum(map(len, self._records.values()))} records, {len(self.doubts)} doubts>"

    # --- within

    def _find(self, key: Key, connector: str) -> TargetRecord | None:
        records = self._records.get(key)
        return records.get(connector) if records is not None else None

    def _place(self, key: Key) -> None:
        """Say which connectors are to be passed over. See the theory at the top."""
        present = self.of_key(key)
        has_other = any(not (one.is_ill or one.is_tripped) for one in present)
        over = frozenset(one.connector for one in present if one.is_ill or (one.is_tripped and has_other))
        for one in present:
            one.is_passed_over = one.connector in over and len(over) < len(present)
        self._registry.pass_over(key, over)

    def _bring_back(self, record: TargetRecord, doubt: Doubt, now: float) -> None:
        doubt.come_back(now)
        self._place(record.key)
        self.on_change(record.key)
        log_limited(log, "info", f"back {record.place}", "a target gets pushes again", place=record.place)

    def _forget(self, record: TargetRecord) -> None:
        del self._gone[record]
        self.doubts.pop(record, None)
        self.taken_out.pop(record.labels, None)
        records = self._records[record.key]
        del records[record.connector]
        if not records:
            del self._records[record.key]
