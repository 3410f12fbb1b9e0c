"""The kinds of credential whose hashes stand in the config: Basic (RFC 7617) and bearer tokens (RFC 6750).

Generated secrets hold 256 bits and are kept as SHA-256, which is judged at once. Passwords that people chose are kept
as scrypt, which takes a thread of the pool.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from cloud_relay.hashing import HashingPool
from cloud_relay.senders import CANNOT_JUDGE, OVERLOADED, UNAUTHENTICATED, Sender, Verdict


class KnownSecret(Protocol):
    """A secret of which a hash is kept, as `shared.secrets.StoredSecret`."""

    @property
    def is_slow(self) -> bool:
        """Whether `verify` belongs on a thread."""

    def verify(self, presented: bytes) -> bool:
        """Whether `presented` is the secret, in constant time."""


class BasicUser(NamedTuple):
    """One user name with the hashes of the passwords that count: two while one is being rotated."""

    username: bytes
    sender: Sender
    hashes: Sequence[KnownSecret]


class BearerToken(NamedTuple):
    """One token's SHA-256."""

    digest: bytes
    sender: Sender


class Basic:
    """User names and passwords of one tenant. The user name is whatever precedes the first colon, in UTF-8."""

    scheme: bytes = b"basic"
    challenge: bytes = b'Basic realm="qanat", charset="UTF-8"'

    def __init__(self, tenant: str, users: Iterable[BasicUser], pool: HashingPool) -> None:
        self._tenant = tenant
        self._pool = pool
        self._users: Final = {user.username: user for user in users}

    def judge(self, credentials: bytes) -> Verdict | asyncio.Future[Verdict]:
        """The sender whose password this is; a future where only a slow hash can tell."""
        try:
            decoded = binascii.a2b_base64(credentials, strict_mode=True)
        except binascii.Error:
            return UNAUTHENTICATED
        username, colon, password = decoded.partition(b":")
        user = self._users.get(username)
        if user is None or not colon:
            # What a wrong password costs where the hash is a fast one. To spend a slow one here would let anybody fill
            # the queue of hashes without even a user name.
            hashlib.sha256(password).digest()
            return UNAUTHENTICATED
        slow: list[KnownSecret] = []
        for known in user.hashes:
            if known.is_slow:
                slow.append(known)
            elif known.verify(password):
                return user.sender
        return self._judge_slowly(user.sender, slow, password) if slow else UNAUTHENTICATED

    def _judge_slowly(
        self, sender: Sender, hashes: Sequence[KnownSecret], password: bytes
    ) -> Verdict | asyncio.Future[Verdict]:
        job = self._pool.submit(self._tenant, lambda: any(known.verify(password) for known in hashes))
        if job is None:
            return OVERLOADED
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def tell(done: asyncio.Future[bool]) -> None:
            if verdict.done():
                return
            if done.cancelled() or done.exception() is not None:
                verdict.set_result(CANNOT_JUDGE)
            else:
                verdict.set_result(sender if done.result() else UNAUTHENTICATED)

        job.add_done_callback(tell)
        return verdict


class Bearer:
    """Tokens of one tenant, found by their SHA-256: who could steer that through the dictionary has broken SHA-256."""

    scheme: bytes = b"bearer"
    challenge: bytes = b'Bearer realm="qanat"'

    def __init__(self, tokens: Iterable[BearerToken]) -> None:
        self._tokens: Final = {token.digest: token.sender for token in tokens}

    def judge(self, credentials: bytes) -> Verdict:
        """The sender whose token this is."""
        return self._tokens.get(hashlib.sha256(credentials).digest(), UNAUTHENTICATED)
