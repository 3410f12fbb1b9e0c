"""The `probe` of a target, as pydantic models."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from connector_agent.probe.spec import ProbeKind, ProbeSpec, default_kind, parse_status
from shared.config import ConfigModel
from shared.http.gate import is_plain_path
from shared.units import Duration

MAX_TIMEOUT: Final = 10.0
"""Seconds: a relay waits a little longer than this for a probe's result, and then holds the silence for one."""

_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()+,=:@%/-]{0,1023})(\?[!-~]{0,1023})?", re.ASCII)


def _path(text: str) -> str:
    match = _PATH.fullmatch(text)
    if match is None or not is_plain_path(match[1].encode("ascii")) or "#" in text:
        raise ValueError(
            "not a path; it starts with '/', may have a query, and holds no blanks, '//', dot segments or '#'"
        )
    return text


def _status_list(value: object) -> object:
    if value == [] or value == ():
        raise ValueError("must not be empty")
    return value if isinstance(value, list | tuple) else [value]


ProbePath = Annotated[str, AfterValidator(_path)]
ProbeStatus = Annotated[
    str,
    PlainValidator(lambda value: str(parse_status(value))),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 100, "maximum": 599}, {"type": "string", "pattern": "^[1-5]xx$"}]}
    ),
]


class ProbeConfig(ConfigModel):
    """How it is found out whether the target is well. A relay may ask for the result, and for nothing else: what is
    done, and how often at most, is said here."""

    kind: Literal["none", "tcp", "tls", "http"] | None = None
    """tcp: a connection; tls: the handshake too; http: a request, and an answer with one of `status`; none: nothing,
    the target's health is then unknown. Unless set: tls for an https url, else tcp."""
    method: Literal["GET", "HEAD", "OPTIONS"] = "GET"
    """Of kind http. Only methods that change nothing."""
    path: ProbePath = "/"
    """Of kind http, with a query if need be. It need not be one that senders may push to. The target's `headers.set`
    and `headers.set_from_files` go with it."""
    status: Annotated[tuple[ProbeStatus, ...], BeforeValidator(_status_list), Field(max_length=32)] = ("2xx",)
    """Of kind http: what a target that is well answers; 2xx unless set. Redirects are not followed."""
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 5.0
    """A good result is told again for so long, however often a relay asks. A bad one may be looked at again after a
    second."""
    timeout: Annotated[Duration, Field(ge=0.1, le=MAX_TIMEOUT)] = 3.0
    """For all of it. Connecting has `timeouts.connect` of the target besides, if that is shorter."""

    def spec(self, scheme: str) -> ProbeSpec:
        """What to do for a target with this scheme ("http", "https", "tcp")."""
        return ProbeSpec(
            default_kind(scheme) if self.kind is None else ProbeKind(self.kind),
            self.timeout,
            self.interval,
            self.method.encode("ascii"),
            self.path.encode("ascii"),
            tuple(map(parse_status, self.status)),
        )
