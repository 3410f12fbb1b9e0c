"""Who pushes: the sender that a credential belongs to.

The route decides whose credentials count: each tenant has a `Realm` of its own, so one user name may mean two senders.
Of what a realm knows, an attacker learns little by time: secrets are compared as hashes in constant time, an unknown
user costs the fast hash of a wrong password, and good credentials are remembered under a keyed digest of them.

Every kind of credential in `Authorization` is one `CredentialKind`, chosen by its scheme (RFC 9110 §11.6.2); the other
place where one can be is the connection, as a client certificate. A push has one identity: that of its certificate
where one of the tenant's senders has it, else that of its `Authorization`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from shared.errors import FAULTS, Fault

if TYPE_CHECKING:
    from cloud_relay.certificates import PeerCertificate, SenderCertificates
    from cloud_relay.gates import Gate
    from cloud_relay.metrics import SenderMetrics
    from cloud_relay.routing import Route
    from shared.http.requests import RequestHead

Verdict: TypeAlias = "Sender | Fault"

UNAUTHENTICATED: Final = FAULTS["unauthenticated"]
NOT_ALLOWED: Final = FAULTS["sender-not-allowed"]
CANNOT_JUDGE: Final = FAULTS["cannot-judge-credential"]
OVERLOADED: Final = FAULTS["overloaded"]
SWITCHED_OFF: Final = FAULTS["sender-disabled"]

MAX_REMEMBERED: Final = 4096
"""Good credentials that one realm remembers. A sender can spell its own in many ways, by blanks and by letter case."""


class Sender:
    """Who may push. One object per sender and config; compared by identity.

    `is_disabled` is set by whoever keeps that state; it counts for the next push, whatever is remembered. `locations`
    are those that its routes lead to.
    """

    __slots__ = ("gate", "is_disabled", "locations", "metrics", "name", "tenant")

    def __init__(self, tenant: str, name: str, gate: Gate, metrics: SenderMetrics) -> None:
        self.is_disabled = False
        self.locations: set[str] = set()
        self.tenant = tenant
        self.name = name
        self.gate = gate
        self.metrics = metrics

    def __repr__(self) -> str:
        return f"<Sender {self.tenant}/{self.name}>"


class Grant(NamedTuple):
    """A sender that a credential proves for a time: until this Unix time, after which it is judged anew."""

    sender: Sender
    until: float


Finding: TypeAlias = "Sender | Grant | Fault"
"""What a kind of credential says."""


class Caller(Protocol):
    """The connection that a push came by, as far as it matters to who sends."""

    @property
    def source(self) -> str:
        """The sender's address."""

    @property
    def peer(self) -> PeerCertificate | None:
        """The verified client certificate, if there is one."""


class CredentialKind(Protocol):
    """One way of proving who one is; holds one tenant's credentials of that kind.

    `scheme` is the lower-case word that `Authorization` starts with, `challenge` what a 401 offers for it.
    """

    scheme: bytes
    challenge: bytes

    def judge(
        self, credentials: bytes, source: str
    ) -> Finding | asyncio.Future[Finding] | asyncio.Future[Sender | Fault]:
        """Say whose `credentials` (what follows the scheme) these are. A future only where judging takes long.

        `source` is the address that they came from. Faults: `unauthenticated` for what was never valid;
        `cannot-judge-credential`, `overloaded` or `too-many-failures` (503, the sender tries again) when it is not
        known.
        """


class Remembered:
    """Good credentials, by digest. Bounded, and forgetful: what was not used over two calls of `age` is gone.

    Only successes come in, so nobody without a credential can push another's out.
    """

    __slots__ = ("_limit", "_new", "_old")

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._new: dict[bytes, Sender | Grant] = {}
        self._old: dict[bytes, Sender | Grant] = {}

    def get(self, digest: bytes) -> Sender | None:
        """The sender, or None."""
        known = self._new.get(digest)
        if known is None and self._old:
            known = self._old.get(digest)
            if known is not None:
                self.add(digest, known)
        if type(known) is Grant:  # isinstance takes twice as long, on every push
            return known.sender if time.time() < known.until else None
        return known  # type: ignore[return-value]  # `type() is` narrows one way only

    def add(self, digest: bytes, known: Sender | Grant) -> None:
        """Remember a success."""
        if len(self._new) >= self._limit and digest not in self._new:
            self.age()
        self._new[digest] = known

    def kept(self, same: Mapping[str, Sender]) -> Remembered:
        """A copy for the next config: only senders whose names are in `same`, which gives their new selves."""
        copy = Remembered(self._limit)
        for known in (self._old, self._new):
            for digest, one in known.items():
                sender = same.get((one.sender if isinstance(one, Grant) else one).name)
                if sender is not None:
                    copy._old[digest] = one._replace(sender=sender) if isinstance(one, Grant) else sender
        return copy

    def age(self) -> None:
        """Forget what was not used since the last call."""
        self._old = self._new
        self._new = {}

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())


class Realm:
    """The credentials of one tenant under one config. A reload makes a new one."""

    __slots__ = ("_key", "_kinds", "_waiting", "certificates", "remembered", "tenant")

    def __init__(
        self,
        tenant: str,
        kinds: Iterable[CredentialKind],
        succeeds: Realm | None = None,
        same: Mapping[str, Sender] | None = None,
        certificates: SenderCertificates | None = None,
    ) -> None:
        """`certificates` finds the senders that have one. `succeeds` is the realm of the config before; of what it
        remembers, that of the senders in `same` (old name → new sender) still counts, so that a reload does not cost
        every sender a slow hash."""
        self.tenant = tenant
        self.certificates = certificates
        self._kinds: Mapping[bytes, CredentialKind] = {kind.scheme: kind for kind in kinds}
        self._key: bytes = succeeds._key if succeeds else secrets.token_bytes(32)
        self._waiting: dict[bytes, list[Callable[[Verdict], None]]] = {}
        self.remembered: Remembered = succeeds.remembered.kept(same or {}) if succeeds else Remembered()

    def judge(self, authorization: bytes, source: str = "") -> Verdict | asyncio.Future[Verdict]:
        """Whose `Authorization` value this is, which came from the address `source`. Equal values that come while one
        is judged wait for its verdict."""
        digest = blake2b(authorization, key=self._key, digest_size=16).digest()
        sender = self.remembered.get(digest)
        if sender is not None:
            return sender
        if (waiting := self._waiting.get(digest)) is not None:
            return _joined(waiting)
        scheme, _, credentials = authorization.partition(b" ")
        kind = self._kinds.get(scheme.lower())
        if kind is None:
            return UNAUTHENTICATED
        finding = kind.judge(credentials.strip(b" "), source)
        if isinstance(finding, asyncio.Future):
            return self._later(digest, finding)
        return self._learn(digest, finding)

    def _learn(self, digest: bytes, finding: Finding) -> Verdict:
        if isinstance(finding, Fault):
            return finding
        self.remembered.add(digest, finding)
        return finding.sender if isinstance(finding, Grant) else finding

    def challenges(self, schemes: Iterable[bytes]) -> bytes:
        """The value of `WWW-Authenticate` that offers these schemes; where only a certificate counts, it says that."""
        offered = [self._kinds[scheme].challenge for scheme in sorted(schemes) if scheme in self._kinds]
        return b", ".join(offered) or b'ClientCertificate realm="qanat"'

    def _later(
        self, digest: bytes, verdict: asyncio.Future[Finding] | asyncio.Future[Sender | Fault]
    ) -> asyncio.Future[Verdict]:
        waiting: list[Callable[[Verdict], None]] = []
        self._waiting[digest] = waiting
        joined = _joined(waiting)

        def tell(done: asyncio.Future[Finding] | asyncio.Future[Sender | Fault]) -> None:
            del self._waiting[digest]
            is_broken = done.cancelled() or done.exception() is not None
            outcome = CANNOT_JUDGE if is_broken else self._learn(digest, done.result())
            for callback in waiting:
                callback(outcome)

        verdict.add_done_callback(tell)
        return joined

    def __repr__(self) -> str:
        kinds = ", ".join(scheme.decode() for scheme in self._kinds)
        return f"<Realm {self.tenant}: {kinds}; {len(self.remembered)} remembered, {len(self._waiting)} judged>"


class Authenticator:
    """Tells a push's sender from its head. Holds nothing itself: the route brings its tenant's realm along."""

    __slots__ = ("_now",)

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now` is the time by which certificates are judged, Unix seconds."""
        self._now = now

    def authenticate(self, route: Route, head: RequestHead, caller: Caller) -> Verdict | asyncio.Future[Verdict]:
        """The sender, if it may use `route`; else the fault to answer with. A future only while a slow hash runs.

        The future is the caller's own: cancelling it disturbs nobody else. Two Authorization headers are no credential:
        joined by a comma, as `fields` has them, they are none that any kind knows.
        """
        realm = route.realm
        if caller.peer is not None and realm.certificates is not None:
            found = realm.certificates.judge(caller.peer, head.host, self._now())
            if found is not None:
                return found if isinstance(found, Fault) else _allowed(found, route)
        value = head.fields.get(b"authorization")
        if value is None:
            return UNAUTHENTICATED
        verdict = realm.judge(value, caller.source)
        if type(verdict) is Sender:
            if verdict.is_disabled:
                return SWITCHED_OFF
            return verdict if verdict in route.senders else NOT_ALLOWED
        if isinstance(verdict, asyncio.Future):
            return _allowed_later(verdict, route)
        return verdict


def _allowed(sender: Sender, route: Route) -> Verdict:
    """The sender under the eyes of the route, and of whoever may have switched it off."""
    if sender.is_disabled:
        return SWITCHED_OFF
    return sender if sender in route.senders else NOT_ALLOWED


def _joined(waiting: list[Callable[[Verdict], None]]) -> asyncio.Future[Verdict]:
    """A future of the caller's own that is set with the others."""
    future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def tell(verdict: Verdict) -> None:
        if not future.done():
            future.set_result(verdict)

    waiting.append(tell)
    return future


def _allowed_later(verdict: asyncio.Future[Verdict], route: Route) -> asyncio.Future[Verdict]:
    """The same verdict, once it is there, under the eyes of the route."""
    allowed: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def tell(done: asyncio.Future[Verdict]) -> None:
        if allowed.done():
            return
        outcome = done.result()
        allowed.set_result(_allowed(outcome, route) if isinstance(outcome, Sender) else outcome)

    verdict.add_done_callback(tell)
    return allowed
