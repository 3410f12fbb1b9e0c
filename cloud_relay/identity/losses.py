"""What a restore takes away: the events that the replaced state has beyond the backup, told to the operator.

Two lists of events are one history as far as they are the same, event by event; a number alone says nothing, since
after an earlier restore the same numbers stand for other events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cloud_relay.identity.events import Event, Kind, Step
from shared.clock import rfc3339


def events_since(old: Sequence[Event], backup: Sequence[Event]) -> list[Event]:
    """The events of `old` after what it has in common with `backup`."""
    common = 0
    for mine, other in zip(old, backup, strict=False):
        if mine != other:
            break
        common += 1
    return list(old[common:])


def losses(old: Sequence[Event], backup: Sequence[Event]) -> list[str]:
    """What was done since, and must be done again: one line each."""
    tokens = {event.text("token"): event for event in old if event.kind is Kind.TOKEN_CREATED}
    return [_LINES[event.kind](event, tokens) for event in events_since(old, backup) if event.kind in _LINES]


def distrusted(old: Sequence[Event], backup: Sequence[Event]) -> Event | None:
    """The `ca rotate --compromised` that the backup does not know of: it would revive the CA that was given up."""
    wanted = (event for event in events_since(old, backup) if event.data.get("step") == Step.COMPROMISED.value)
    return next(wanted, None)


# ---------------------------------------------------------------- one function a kind

_Tokens = dict[str, Event]


def _named(event: Event, _tokens: _Tokens) -> str:
    parts = [str(event.data.get(name) or "") for name in ("tenant", "location", "connector")]
    what = "/".join(part for part in parts if part) or str(event.data.get("fingerprint"))
    return _line(event, what)


def _token(event: Event, tokens: _Tokens) -> str:
    created = tokens.get(event.text("token"))
    return _line(event, event.text("token") + (f" for {'/'.join(created.connector)}" if created else ""))


def _joined(event: Event, tokens: _Tokens) -> str:
    created = tokens.get(event.text("token"))
    if created is None:
        return _token(event, tokens)
    targets = created.texts("targets")
    limit = "any target" if targets is None else f"only {', '.join(sorted(targets)) or 'no target'}"
    return _line(event, f"{event.text('token')}: {'/'.join(created.connector)} joined, and may announce {limit}")


def _step(event: Event, _tokens: _Tokens) -> str:
    return _line(event, f"{event.text('step')}, generation {event.whole('generation')} of the CA")


def _begun(event: Event, _tokens: _Tokens) -> str:
    return _line(event, f"the CA of {event.text('trust_domain')}, relay {event.text('relay')}: all of it")


def _line(event: Event, what: str) -> str:
    return f"{event.kind.value} {what} ({rfc3339(event.at)})"


_LINES: Final[dict[Kind, Callable[[Event, _Tokens], str]]] = {
    Kind.INITIALISED: _begun,
    Kind.ROLL_OVER: _step,
    Kind.TOKEN_CREATED: _token,
    Kind.TOKEN_REVOKED: _token,
    Kind.TOKEN_USED: _joined,
    Kind.REVOKED: _named,
    Kind.BLOCKED: _named,
    Kind.UNBLOCKED: _named,
}
