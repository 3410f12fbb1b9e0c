"""What OPEN and ANSWER carry for a probe, as they cross the tunnel. Pure.

    question:  "probe" target  extra… ""
    answer:    "probe" verdict age took status  extra… ""

Fields are ended by a NUL each. The question holds a target's name and nothing else that means anything: what a probe
does stands in the connector's config. `verdict` is "ok", "none" (that config says that there is nothing to probe), or
a code of `shared.errors`; `age` and `took` are milliseconds, `status` is what an HTTP target answered, 0 for nothing.
An extra is `key=value`; unknown ones are skipped, so that a newer side may say more; none is known yet.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from shared.errors import FAULTS, LocalFault

CAPABILITY: Final = "probe"
"""What a connector's HELLO lists when it answers such streams."""

MARK: Final = b"probe\0"
OK: Final = "ok"
NONE: Final = "none"
UNKNOWN_CODE: Final = "connector-error"
"""What a code that only a newer connector knows is taken for."""

MAX_HEAD: Final = 4096

_EXTRAS: Final = rb"(?:[a-z][a-z0-9_]{0,31}+=[ -~]{0,255}+\0){0,16}+\0"
_QUESTION: Final = re.compile(rb"probe\0([a-z0-9][a-z0-9-]{0,62}+)\0%b" % _EXTRAS)
_ANSWER: Final = re.compile(rb"probe\0([a-z][a-z-]{0,62}+)\0([0-9]{1,9}+)\0([0-9]{1,9}+)\0([0-9]{1,3}+)\0%b" % _EXTRAS)
_LONGEST: Final = 999_999_999


class Verdict(NamedTuple):
    """What a probe found: `code` is "" when the target is well, NONE, or an entry of `shared.errors`.

    `age` (since it was found out) and `took` in seconds; `status` as above.
    """

    code: str
    age: float = 0.0
    took: float = 0.0
    status: int = 0


def encode_question(target: str) -> bytes:
    """Ask how a target is."""
    return f"probe\0{target}\0\0".encode("ascii")


def decode_question(data: bytes) -> str:
    """Read the target's name in a question of a relay that may be hostile. Raises LocalFault (bad-push)."""
    match = _QUESTION.fullmatch(data) if len(data) <= MAX_HEAD else None
    if match is None:
        raise LocalFault("bad-push", "not a probe")
    return match[1].decode("ascii")


def encode_answer(verdict: Verdict) -> bytes:
    """Write what was found."""
    code, age, took, status = verdict
    return f"probe\0{code or OK}\0{_milliseconds(age)}\0{_milliseconds(took)}\0{status}\0\0".encode("ascii")


def decode_answer(data: bytes) -> Verdict:
    """Read what a connector found, which may be hostile. Raises LocalFault (connector-error)."""
    match = _ANSWER.fullmatch(data) if len(data) <= MAX_HEAD else None
    if match is None:
        raise LocalFault(UNKNOWN_CODE, "not a probe's answer")
    word = match[1].decode("ascii")
    code = "" if word == OK else word if word == NONE or word in FAULTS else UNKNOWN_CODE
    return Verdict(code, int(match[2]) / 1e3, int(match[3]) / 1e3, int(match[4]))


def _milliseconds(seconds: float) -> int:
    return min(max(round(seconds * 1e3), 0), _LONGEST)
