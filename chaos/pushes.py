"""What a push of the fault suite is made of, and the records that senders and targets keep of it.

The identity of a push stands in its query, as the target sees it: `tenant`, `push` and `try`. A push that is not
acknowledged is tried again by its sender, under the same push id and a new try id. Its body follows from the push id
and the size, so that a target can tell whether it is intact.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

TENANTS: Final = ("acme", "globex")
"""Two always: nothing of one may ever reach the other."""

PLAIN, IDEMPOTENT = "plain", "idempotent"
ROUTES: Final = (PLAIN, IDEMPOTENT)
"""Routes of each tenant, by the first part of the path; the second says `idempotent: true`."""


def body_of(push: str, size: int) -> bytes:
    """The body of a push."""
    digest = hashlib.sha256(push.encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


@dataclass(frozen=True, slots=True)
class Try:
    """One try, as its sender saw it. Times are monotonic seconds, which all processes of one machine share.

    `status` is 0 when there was no answer; `code` that of our own error, "" for a target's answer; `cause` the kind of
    exception. `answer_intact` is False when a 2xx came with another body than the target's.
    """

    tenant: str
    route: str
    push: str
    id: str
    size: int
    began: float
    ended: float
    status: int
    code: str = ""
    cause: str = ""
    is_honest: bool = True

    @property
    def is_acknowledged(self) -> bool:
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """In a word or two, why it was not acknowledged."""
        return self.code or self.cause or str(self.status)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One push at a target: `begun` when its head arrived, `at` when its body was whole, 0.0 if it never was.

    `tenant` is the sender's, `at_tenant` whose target it is; `connector` who delivered it, `request_id` the relay's.
    """

    at_tenant: str
    tenant: str
    push: str
    try_id: str
    begun: float
    at: float
    is_intact: bool
    connector: str
    request_id: str


def try_of(record: dict[str, Any]) -> Try:
    """A sender's record."""
    return Try(**{key: value for key, value in record.items() if key != "event"})


def arrival_of(record: dict[str, Any]) -> Arrival:
    """A target's record."""
    return Arrival(**{key: value for key, value in record.items() if key != "event"})
