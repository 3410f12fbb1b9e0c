"""The kinds of credential in `Authorization`: Basic (RFC 7617) and bearer tokens (RFC 6750).

Generated secrets hold 256 bits and are kept as SHA-256, which is judged at once. Passwords that people chose are kept
as scrypt, which takes a thread of the pool.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from cloud_relay.hashing import Claim, Displaced, HashingPool
from cloud_relay.senders import CANNOT_JUDGE, OVERLOADED, UNAUTHENTICATED, Finding, Sender
from cloud_relay.sources import source_key
from cloud_relay.throttle import FailureThrottle
from shared.errors import FAULTS, Fault

TOO_MANY_FAILURES: Final = FAULTS["too-many-failures"]


class KnownSecret(Protocol):
    """A secret of which a hash is kept, as `shared.secrets.StoredSecret`."""

    @property
    def is_slow(self) -> bool:
        """Whether `verify` belongs on a thread."""

    def verify(self, presented: bytes) -> bool:
        """Whether `presented` is the secret, in constant time."""


Owner = TypeVar("Owner")
"""What a password proves: a sender, or a client of the token endpoint."""


class KnownPassword(NamedTuple, Generic[Owner]):
    """One hash, and what the password proves."""

    secret: KnownSecret
    owner: Owner


class PasswordUser(NamedTuple, Generic[Owner]):
    """One user name with the passwords that count: two while one is being rotated."""

    username: bytes
    passwords: Sequence[KnownPassword[Owner]]


class BearerToken(NamedTuple):
    """One token's SHA-256."""

    digest: bytes
    sender: Sender


class Passwords(Generic[Owner]):
    """Ids with the hashes of their passwords, of one tenant: what Basic and the token endpoint stand on."""

    def __init__(
        self, tenant: str, users: Iterable[PasswordUser[Owner]], pool: HashingPool, throttle: FailureThrottle
    ) -> None:
        self._tenant = tenant
        self._pool = pool
        self._throttle = throttle
        self._users: Final = {user.username: user for user in users}

    def judge(self, username: bytes, password: bytes, source: str) -> Owner | Fault | asyncio.Future[Owner | Fault]:
        """Whose password this is; a future where only a slow hash can tell."""
        user = self._users.get(username)
        if user is None:
            # What a wrong password costs where the hash is a fast one. To spend a slow one here would let anybody fill
            # the queue of hashes without even a user name.
            hashlib.sha256(password).digest()
            return UNAUTHENTICATED
        slow: list[KnownPassword[Owner]] = []
        for known in user.passwords:
            if known.secret.is_slow:
                slow.append(known)
            elif known.secret.verify(password):
                return known.owner
        if slow:
            return self._judge_slowly(username, slow, password, source)
        self._throttle.failed(source, self._tenant, username)
        return UNAUTHENTICATED

    def _judge_slowly(
        self, username: bytes, passwords: Sequence[KnownPassword[Owner]], password: bytes, source: str
    ) -> Fault | asyncio.Future[Owner | Fault]:
        tenant, throttle = self._tenant, self._throttle
        if throttle.is_shut(source, tenant, username):
            return TOO_MANY_FAILURES
        job = self._pool.submit(
            Claim(source_key(source), tenant, username),
            lambda: [one.owner for one in passwords if one.secret.verify(password)],
            is_suspect=throttle.has_failed(source, tenant, username),
        )
        if job is None:
            return OVERLOADED
        finding: asyncio.Future[Owner | Fault] = asyncio.get_running_loop().create_future()

        def tell(done: asyncio.Future[list[Owner]]) -> None:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, Displaced):
                outcome: Owner | Fault = OVERLOADED
            elif done.cancelled() or error is not None:
                outcome = CANNOT_JUDGE
            elif found := done.result():
                outcome = found[0]
            else:
                throttle.failed(source, tenant, username)
                outcome = UNAUTHENTICATED
            if not finding.done():
                finding.set_result(outcome)

        job.add_done_callback(tell)
        return finding


class Basic:
    """User names and passwords in `Authorization`. The user name is what precedes the first colon, in UTF-8."""

    scheme: bytes = b"basic"
    challenge: bytes = b'Basic realm="qanat", charset="UTF-8"'

    def __init__(self, passwords: Passwords[Sender]) -> None:
        self._passwords = passwords

    def judge(self, credentials: bytes, source: str) -> Sender | Fault | asyncio.Future[Sender | Fault]:
        """The sender whose password this is; a future where only a slow hash can tell."""
        pair = read_basic(credentials)
        return UNAUTHENTICATED if pair is None else self._passwords.judge(*pair, source)


def read_basic(credentials: bytes) -> tuple[bytes, bytes] | None:
    """User name and password from what follows "Basic" (RFC 7617 §2); None if it is malformed."""
    try:
        decoded = binascii.a2b_base64(credentials, strict_mode=True)
    except binascii.Error:
        return None
    username, colon, password = decoded.partition(b":")
    return (username, password) if colon else None


class Verifier(Protocol):
    """Judges one kind of structured bearer token: a JWT of ours, or of a foreign issuer."""

    def judge(self, token: bytes) -> Finding | asyncio.Future[Finding] | None:
        """Whose token this is; None if it is not of this kind, and another one may know it."""


class Bearer:
    """Bearer tokens of one tenant: those whose SHA-256 is known, and those that a verifier can judge.

    They are found by their digest: who could steer that through the dictionary has broken SHA-256.
    """

    scheme: bytes = b"bearer"
    challenge: bytes = b'Bearer realm="qanat"'

    def __init__(self, tokens: Iterable[BearerToken], verifiers: Sequence[Verifier] = ()) -> None:
        self._tokens: Final = {token.digest: token.sender for token in tokens}
        self._verifiers = verifiers

    def judge(self, credentials: bytes, source: str) -> Finding | asyncio.Future[Finding]:
        """The sender whose token this is."""
        sender = self._tokens.get(hashlib.sha256(credentials).digest())
        if sender is not None:
            return sender
        for verifier in self._verifiers:
            finding = verifier.judge(credentials)
            if finding is not None:
                return finding
        return UNAUTHENTICATED
