"""The base of every config model, and field types that need to know where a config stands."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationInfo, WithJsonSchema

from shared.config.problems import Key
from shared.config.tree import Text

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_CREDENTIAL: Final = re.compile(r"\$CREDENTIALS_DIRECTORY/([^/\0]{1,255})")
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)


class _Private(enum.Enum):
    PRIVATE = "private"


PRIVATE: Final = _Private.PRIVATE
"""In a field's annotation: its value is nobody else's business. See `redact`."""


class Flaw(NamedTuple):
    """Something that is wrong although every single value is well-formed: a key (see `problems.Key`) and a message."""

    key: Key
    message: str


class ConfigModel(BaseModel):
    """Base of config models: frozen, unknown keys refused, docstrings of fields become the schema's descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    def flaws(self) -> Iterable[Flaw]:
        """What is wrong between values: unknown names, collisions. Asked of the outermost model once all values fit."""
        return ()


@dataclass(slots=True)
class LoadContext:
    """Validation context of one load; collects the files that the config names, there or not, for whoever watches.

    `credentials` is where the service manager has put this service's secrets, if it has.
    """

    credentials: Path | None = None
    files: list[Path] = field(default_factory=list)


def resolve_credential(text: str, credentials: Path | None) -> Path:
    """The file that `$CREDENTIALS_DIRECTORY/NAME` stands for. ValueError says what is wrong."""
    match = _CREDENTIAL.fullmatch(text)
    if match is None or match[1] in {".", ".."}:
        raise ValueError("nothing but $CREDENTIALS_DIRECTORY/NAME may begin with a $")
    if credentials is None:
        raise ValueError(
            "$CREDENTIALS_DIRECTORY is not set: systemd sets it for a service with LoadCredential; in a shell, set it "
            "to the service's own, as CREDENTIALS_DIRECTORY=/run/credentials/qanat-connector.service"
        )
    return credentials / match[1]


def _resolve(value: object, info: ValidationInfo) -> object:
    """Relative to the file that the value stands in; a value that does not come from a file stays as it is."""
    if isinstance(value, str):
        if not value or "\0" in value:
            raise ValueError("a path must not be empty, nor hold a NUL character")
        if value.startswith("$"):
            context = info.context if isinstance(info.context, LoadContext) else LoadContext()
            return resolve_credential(value, context.credentials)
        source = value.source if isinstance(value, Text) else None
        value = source.parent / value if source else Path(value)
    return value


def _existing(value: object, info: ValidationInfo) -> object:
    path = _resolve(value, info)
    if isinstance(path, Path):
        if isinstance(info.context, LoadContext):
            info.context.files.append(path)
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    return path


_PATH_SCHEMA: Final = WithJsonSchema({"type": "string", "format": "path", "minLength": 1})

ConfigPath = Annotated[Path, BeforeValidator(_resolve), _PATH_SCHEMA]
"""A path, relative to the config file that it stands in, or `$CREDENTIALS_DIRECTORY/NAME`. Nothing is said about
whether it exists, and it is not watched."""

ConfigFile = Annotated[Path, BeforeValidator(_existing), _PATH_SCHEMA]
"""A file that exists and can be read, relative to the config file that it stands in, or
`$CREDENTIALS_DIRECTORY/NAME`."""


class Listen(NamedTuple):
    """Where to listen. `host` "" means every interface; `port` 0 a free port that the system picks."""

    host: str
    port: int

    def __str__(self) -> str:
        return _joined(self.host, self.port)


class HostPort(NamedTuple):
    """Where to connect: a host name or address (IPv6 without brackets) and a port from 1 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return _joined(self.host, self.port)


def parse_listen(value: object) -> Listen:
    """ ":8443", "127.0.0.1:0", "[::1]:443"; ValueError says what is wrong."""
    if isinstance(value, Listen):
        return value
    parts = _split(value)
    if parts is None:
        raise ValueError('this is no address to listen on; write ":8443", "127.0.0.1:9000" or "[::1]:443"')
    return Listen(*parts)


def parse_host_port(value: object) -> HostPort:
    """ "syslog.corp.local:514", "[::1]:514"; ValueError says what is wrong."""
    if isinstance(value, HostPort):
        return value
    parts = _split(value)
    if parts is None or not parts[0] or not parts[1]:
        raise ValueError('this is no address to connect to; write "host.example.com:514" or "[::1]:514"')
    return HostPort(*parts)


def _split(value: object) -> tuple[str, int] | None:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), int(port)
        except ValueError:
            return None
    if host and not _HOST_NAME.fullmatch(host):
        return None
    return host.removesuffix("."), int(port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_ADDRESS_SCHEMA: Final = WithJsonSchema({"type": "string", "pattern": r"^.*:[0-9]{1,5}$"})

ListenField = Annotated[Listen, PlainValidator(parse_listen), _ADDRESS_SCHEMA]
"""A pydantic field that reads a `Listen`."""

HostPortField = Annotated[HostPort, PlainValidator(parse_host_port), _ADDRESS_SCHEMA]
"""A pydantic field that reads a `HostPort`."""
