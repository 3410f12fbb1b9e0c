"""Logs: one line an event, as JSON or for a terminal, that nothing from outside can break, bend or flood.

Every line has `time` (RFC 3339, UTC), `level`, `logger` and `event`; the rest are the values of the call. Texts are
capped, control characters and everything that turns text round are escaped, values of keys such as `password` are
masked. What libraries log through the standard library's logging comes out the same way.

    log = get_logger("relay.tunnels")
    log.info("tunnel attached", tenant="acme", connector="dc1-a")
    log_limited(log, "warning", "bad-handshake", "handshake failed", peer=address)
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import FilteringBoundLogger

from shared.journal import with_priority
from shared.recent import RECENT

LogFormat = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]

MAX_TEXT: Final = 1024
"""Characters of one value. Tracebacks may be longer, see MAX_TRACE."""

MAX_TRACE: Final = 16 * 1024
MAX_ITEMS: Final = 32
"""Members of one list or mapping among the values."""

_ESCAPED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SECRET_KEY: Final = re.compile(r"(?:^|_)(?:authorization|cookie|password|passwd|secret|token|credential|key_pem)s?$")
_MASK: Final = "***"
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def utc_now() -> str:
    """The time as all our logs and outputs write it: 2025-01-31T08:15:30.123Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger; may be called at import time, before `setup_logging`."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def setup_logging(
    format: LogFormat | None = None,  # noqa: A002
    level: Level = "info",
    stream: TextIO | None = None,
    *,
    is_journal: bool = False,
    always: Mapping[str, object] | None = None,
) -> None:
    """Set up this process's logging; may be called again. `stream` is standard error unless given.

    `always` are values of every line. With `is_journal` the lines carry priorities, and are for people unless `format`
    says otherwise, without a time, which the journal has; else they are JSON.
    """
    out = stream or sys.stderr
    chosen = format or ("console" if is_journal else "json")
    render = _render_json if chosen == "json" else _Console(out.isatty(), with_time=not is_journal)
    lines = _JournalLines if is_journal else _Lines
    output = _Output(out)
    structlog.configure(
        processors=[_With(always or {}), _prepare, _keep, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda name="": lines(output, name),
        cache_logger_on_first_use=False,
    )
    handler = _FromStandardLogging()
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _FromStandardLogging)]:
        root.removeHandler(old)
    root.addHandler(handler)
    # What libraries find worth an "info" is every connection of a peer; theirs is ours to log.
    root.setLevel(logging.DEBUG if level == "debug" else max(_LEVELS[level], logging.WARNING))
    logging.captureWarnings(capture=True)


def safe(value: object, limit: int = MAX_TEXT, depth: int = 4) -> Any:
    """A value fit for a line: texts capped and escaped, numbers as they are, containers bounded, all else as text."""
    if depth < 0:
        return "…"
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else _text(str(value), limit)
    if isinstance(value, bytes | bytearray):
        return _text(bytes(value[: limit + 1]).decode("ascii", "backslashreplace"), limit)
    if isinstance(value, Mapping):
        return {_text(str(key), 64): masked(str(key), item, depth - 1) for key, item in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_fields"):
        return [safe(item, limit, depth - 1) for item in list(value)[:MAX_ITEMS]]
    return _text(str(value), limit)


def masked(key: str, value: object, depth: int = 4) -> Any:
    """`safe`, or *** where the key says that the value is a secret. A safety net: no secret should come here."""
    return _MASK if _SECRET_KEY.search(key.lower()) and value is not None else safe(value, MAX_TEXT, depth)


def _text(text: str, limit: int) -> str:
    if len(text) > limit:
        text = f"{text[:limit]}…({len(text) - limit} more)"
    if text.isascii() and text.isprintable():
        return text
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _prepare(logger: object, level: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """structlog's values in our order, made harmless."""
    line: dict[str, Any] = {
        "time": utc_now(),
        "level": "error" if level in ("exception", "critical", "fatal") else level,
        "logger": getattr(logger, "name", ""),
        "event": safe(event.pop("event", "")),
    }
    trace = _trace(event.pop("exc_info", None), with_current=level == "exception")
    event.pop("stack_info", None)
    for key, value in event.items():
        if key not in line:
            line[key] = masked(key, value)
    if trace:
        line["traceback"] = trace
    return line


class _With:
    """The first of structlog's processors: what every line of this process says, ahead of the values of the call."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = dict(values)

    def __call__(self, _logger: object, _level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**self._values, **event, **self._values} if self._values else event


def _keep(_logger: object, _level: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What is worth a look is at hand later, too."""
    RECENT.note(line)
    return line


def _trace(exc_info: Any, with_current: bool = False) -> list[str] | None:
    """The traceback as lines, its end kept where it is too long."""
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if error is True or (error is None and with_current):
        error = sys.exc_info()[1]
    if not isinstance(error, BaseException):
        return None
    text = "".join(traceback.format_exception(error))[-MAX_TRACE:]
    return [_text(line, MAX_TEXT) for line in text.splitlines()]


def _render_json(_logger: object, _level: str, line: MutableMapping[str, Any]) -> str:
    return orjson.dumps(line, default=str).decode()


class _Console:
    """For a terminal: time, level, event, then key=value; tracebacks on lines of their own."""

    _COLOURS: Final = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}

    def __init__(self, colours: bool, with_time: bool) -> None:
        self._colours = colours
        self._with_time = with_time

    def __call__(self, _logger: object, _level: str, line: MutableMapping[str, Any]) -> str:
        level = line.pop("level")
        shown = f"{self._COLOURS.get(level, '')}{level:7}\x1b[0m" if self._colours else f"{level:7}"
        trace = line.pop("traceback", [])
        time = line.pop("time")
        head = f"{time} " * self._with_time + f"{shown} {line.pop('logger')}: {line.pop('event')}"
        values = "".join(f" {key}={_shown(value)}" for key, value in line.items())
        return "\n".join([head + values, *(f"    {part}" for part in trace)])


def _shown(value: Any) -> str:
    if isinstance(value, str) and value and value.isprintable() and not set(value) & set(' "='):
        return value
    return orjson.dumps(value, default=str).decode()


class _Output:
    """Where all loggers of the process write, line by line."""

    __slots__ = ("_is_cut", "_stream")

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_cut = False

    def line(self, line: str) -> None:
        """Write it, if that can be."""
        try:
            self._stream.write(f"\n{line}\n" if self._is_cut else f"{line}\n")
            self._stream.flush()
            self._is_cut = False
        except (OSError, ValueError):
            # The reader is gone, the stream was closed at exit, or the disk is full. There is nothing to tell it to;
            # but half a line may be all that a disk took, and the next one must not be its other half.
            self._is_cut = True


class _Lines:
    """The end of structlog's chain: one write a line, so that lines of several processes do not mix."""

    __slots__ = ("_output", "name")

    def __init__(self, output: _Output, name: str) -> None:
        self._output = output
        self.name = name

    def msg(self, line: str) -> None:
        self._output.line(line)

    debug = info = warning = error = critical = fatal = exception = log = msg


class _JournalLines(_Lines):
    """The same, for the journal."""

    __slots__ = ()

    def debug(self, line: str) -> None:
        self.msg(with_priority(line, "debug"))

    def info(self, line: str) -> None:
        self.msg(with_priority(line, "info"))

    def warning(self, line: str) -> None:
        self.msg(with_priority(line, "warning"))

    def error(self, line: str) -> None:
        self.msg(with_priority(line, "error"))

    critical = fatal = exception = error


class _FromStandardLogging(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= 40 else "warning" if record.levelno >= 30 else "info"
        level = "debug" if record.levelno < 20 else level
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        values = {"exc_info": record.exc_info} if record.exc_info else {}
        getattr(get_logger(record.name), level)(message, **values)


_OVERFLOW: Final = "…"
_HELD_LONGER: Final = 10
"""So many times longer is a key remembered of which lines were held back."""


class LogLimiter:
    """Lets `burst` lines of a key pass at once and then `rate` a second; tells how many it held back with the next one.

    The number of keys is bounded: a peer that makes up keys gets one allowance for all of those that find no room.
    """

    def __init__(
        self, rate: float = 0.2, burst: int = 5, max_keys: int = 512, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._max_keys = max_keys
        self._clock = clock
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()  # key: tokens, time, held back

    def admit(self, key: str) -> int | None:
        """None: hold this line back. Otherwise how many of the key were held back since the last one that passed."""
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            key = self._find_room(key, now)
            bucket = self._buckets.setdefault(key, [self._burst, now, 0.0])
        self._buckets.move_to_end(key)
        bucket[0] = min(self._burst, bucket[0] + (now - bucket[1]) * self._rate)
        bucket[1] = now
        if bucket[0] < 1.0:
            bucket[2] += 1.0
            return None
        bucket[0] -= 1.0
        held, bucket[2] = int(bucket[2]), 0.0
        return held

    def _find_room(self, key: str, now: float) -> str:
        """The key to count under: itself, once the least used one has been quiet for long enough to be forgotten."""
        if len(self._buckets) < self._max_keys:
            return key
        oldest, (_, last, held) = next(iter(self._buckets.items()))
        # What was held back of a key that never comes again is never told: a flood of keys must not stay for good.
        if (now - last) * self._rate >= self._burst * (_HELD_LONGER if held else 1):
            del self._buckets[oldest]
            return key
        return _OVERFLOW


_LIMITER: Final = LogLimiter()


def log_limited(
    logger: FilteringBoundLogger,
    level: Level,
    key: str,
    event: str,
    *,
    limiter: LogLimiter = _LIMITER,
    **values: Any,
) -> None:
    """Log unless `key` was logged too often lately; `suppressed` says how many were held back meanwhile."""
    held = limiter.admit(key)
    if held is None:
        return
    if held:
        values["suppressed"] = held
    getattr(logger, level)(event, **values)
