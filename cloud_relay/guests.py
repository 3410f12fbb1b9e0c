"""Connections that are open at one listener, by where they come from: who gets in, and who has to go for that.

There is room for so many, and for so many of one source (see `source_key`). While there is plenty, anybody gets in.
When it runs short, networks (see `network_of`) have equal shares of it, as `Places` has it; whoever finds no place by
that gets the one of a connection that has been idle for longest: of its own network if that has its share, else of the
network that has most. So does nginx (`ngx_drain_connections`: the idle ones that were used least lately are closed
when few are left), and Bitcoin Core looks for whom to drop in the network that has most. Closing an idle connection
costs its sender a new handshake; refusing a new one costs somebody else a push. Where none is idle, nobody has to go,
and who has no place is refused.

To know which has been idle for longest would cost something on each push. So a few are looked at, those that were
looked at longest ago, and the idlest of them is taken (as Redis does where it forgets).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from cloud_relay.places import Holding, Places
from cloud_relay.sources import network_of, source_key
from cloud_relay.tally import Tally

LOOKED_AT: Final = 16
"""Connections among which the idlest is looked for."""

PATIENCE: Final = 1.0
"""Seconds for which a connection may be idle without being taken for one that is not needed."""

FOR_EVER: Final = float("inf")


class Guest(Protocol):
    """A connection."""

    @property
    def source(self) -> str:
        """Its address."""
        ...

    @property
    def idle_since(self) -> float:
        """Since when nothing has been under way on it, `FOR_EVER` while something is."""
        ...


One = TypeVar("One", bound=Guest)


class _Network(Generic[One]):
    """Those that come from one network, the one that was looked at longest ago first."""

    __slots__ = ("guests", "holding")

    def __init__(self) -> None:
        self.holding = Holding()
        self.guests: OrderedDict[One, None] = OrderedDict()


class Guests(Generic[One]):
    """`turn_out` ends a connection at once, and has it leave from within."""

    __slots__ = ("_networks", "_per_source", "_places", "_sources", "_tally", "_turn_out")

    def __init__(self, turn_out: Callable[[One], object]) -> None:
        self._turn_out = turn_out
        self._places = Places(0)
        self._per_source = 0
        self._sources: dict[str, int] = {}
        self._networks: dict[str, _Network[One]] = {}
        self._tally: Tally[str] = Tally()

    def resize(self, limit: int, per_source: int) -> None:
        """There is room for so many, and for so many of one source."""
        self._places.resize(limit)
        self._per_source = per_source

    def let_in(self, source: str, now: float) -> bool:
        """Whether one more may come from this address. Somebody may have had to go for it."""
        key = source_key(source)
        if self._sources.get(key, 0) >= self._per_source:
            return False
        places = self._places
        if not places.is_short:
            return True
        name = network_of(key)
        known = self._networks.get(name)
        holding = known.holding if known is not None else Holding()
        if places.may_take(holding):
            return True
        has_its_share = holding.held * (places.active + 1) >= places.limit
        return self._make_room(name if has_its_share else self._tally.largest(), now)

    def join(self, guest: One) -> None:
        """One that was let in is here."""
        key = source_key(guest.source)
        self._sources[key] = self._sources.get(key, 0) + 1
        name = network_of(key)
        network = self._networks.get(name)
        if network is None:
            network = self._networks[name] = _Network()
        network.guests[guest] = None
        self._places.take(network.holding)
        self._tally.add(name)

    def leave(self, guest: One) -> None:
        """One that was here is gone."""
        key = source_key(guest.source)
        left = self._sources[key] - 1
        if left:
            self._sources[key] = left
        else:
            del self._sources[key]
        name = network_of(key)
        network = self._networks[name]
        del network.guests[guest]
        self._places.give_back(network.holding)
        self._tally.remove(name)
        if not network.guests:
            del self._networks[name]

    def __len__(self) -> int:
        return self._places.held

    def _make_room(self, name: str | None, now: float) -> bool:
        if name is None or name not in self._networks:
            return False
        guests = self._networks[name].guests
        idlest, since = None, now - PATIENCE
        for guest in [guest for guest, _ in zip(guests, range(LOOKED_AT), strict=False)]:
            guests.move_to_end(guest)
            if guest.idle_since <= since:
                idlest, since = guest, guest.idle_since
        if idlest is not None:
            self._turn_out(idlest)
        return idlest is not None

    def __repr__(self) -> str:
        return f"<Guests {self._places.held} of {self._places.limit} from {len(self._networks)} networks>"
