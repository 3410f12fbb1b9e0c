"""Types of single values that only the relay's config has."""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from shared.config import PRIVATE
from shared.pki.spiffe import check_trust_domain
from shared.secrets import SecretHash

_HOST: Final = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,30}|\[[0-9a-f:.]{2,45}\]", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()+,=:@/-]{0,1023}", re.ASCII)
_USERNAME: Final = re.compile(r"[^\x00-\x1f\x7f:]{1,255}")


def check_host(text: str) -> str:
    """Give a host name, or an IPv6 address in brackets, back in lower case; ValueError for anything else."""
    folded = text.lower()
    if _HOST.fullmatch(folded) is None:
        raise ValueError("not a host name; write it without scheme, port and wildcard: push.example.com")
    return folded


def _path(text: str) -> str:
    if _PATH.fullmatch(text) is None:
        raise ValueError("not a path; it starts with '/' and holds no blanks, '%', ';', '?', '#', '*' or '\\'")
    if "//" in text or any(segment in (".", "..") for segment in text.split("/")):
        raise ValueError("a path with '//', '/./' or '/../' is never forwarded")
    return text


def _username(text: str) -> str:
    if _USERNAME.fullmatch(text) is None:
        raise ValueError("a user name has 1 to 255 characters, no colon and no control characters")
    return text


def as_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


Items = TypeVar("Items", bound=tuple[object, ...])


def some(message: str) -> AfterValidator:
    """At least one item, or this message."""

    def check(items: Items) -> Items:
        if not items:
            raise ValueError(message)
        return items

    return AfterValidator(check)


Host = Annotated[str, AfterValidator(check_host)]
UrlPath = Annotated[str, AfterValidator(_path)]
Username = Annotated[str, AfterValidator(_username), PRIVATE]
TrustDomain = Annotated[str, AfterValidator(check_trust_domain)]
Hashes = Annotated[tuple[SecretHash, ...], BeforeValidator(as_list), Field(min_length=1, max_length=4), PRIVATE]
"""One hash or a list of up to four: two count at once while a secret is being rotated."""
