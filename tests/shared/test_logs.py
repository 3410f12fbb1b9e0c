from __future__ import annotations

import errno
import io
import json
import logging
import re

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.logs import MAX_TEXT, LogLimiter, get_logger, log_limited, safe, setup_logging, utc_now


@pytest.fixture
def lines():
    """What was logged since, each line parsed; structlog and the standard library's logging are put back afterwards."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    setup_logging("json", "debug", stream)

    def read() -> list[dict[str, object]]:
        return [json.loads(line) for line in stream.getvalue().split("\n") if line]

    yield read
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_a_line_says_when_how_bad_who_and_what(lines):
    get_logger("relay.tunnels").info("tunnel attached", tenant="acme", count=2, rtt=0.5, open=True, reason=None)
    (line,) = lines()
    assert list(line)[:4] == ["time", "level", "logger", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("time")))
    assert line == {
        "level": "info", "logger": "relay.tunnels", "event": "tunnel attached",
        "tenant": "acme", "count": 2, "rtt": 0.5, "open": True, "reason": None,
    }  # fmt: skip


def test_what_every_line_says_cannot_be_said_otherwise():
    stream = io.StringIO()
    setup_logging("json", "info", stream, always={"worker": 3})
    get_logger("relay").info("relay started", worker=9, tenants=1)
    logging.getLogger("library").warning("careful")
    structlog.reset_defaults()
    ours, theirs = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert list(ours)[3:] == ["event", "worker", "tenants"]
    assert ours["worker"] == theirs["worker"] == 3


def test_times_are_rfc_3339_in_utc():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", utc_now())


def test_the_level_holds_lines_back():
    stream = io.StringIO()
    setup_logging("json", "warning", stream)
    log = get_logger("x")
    log.info("no")
    log.warning("yes")
    structlog.reset_defaults()
    assert stream.getvalue().count("\n") == 1


def test_a_logger_made_before_the_set_up_works(lines):
    log = structlog.get_logger("early")
    log.info("x")
    assert lines()[0]["logger"] == "early"


def test_an_exception_comes_with_its_traceback(lines):
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        get_logger("x").exception("it failed")
    (line,) = lines()
    assert line["level"] == "error"
    trace = line["traceback"]
    assert isinstance(trace, list)
    assert trace[0].startswith("Traceback")
    assert "ValueError: bad" in trace


class TestNothingBreaksALine:
    @pytest.mark.parametrize(
        "hostile",
        ["a\nb", "a\r\nb", "\x1b[2J", "\x9b2J", "a\u2028b", "a\u202eb", "\ud800", "\x00", '"}\n{"event":"forged"}'],
    )
    def test_control_characters_are_escaped(self, lines, hostile):
        get_logger("x").info(hostile, value=hostile, nested={hostile: [hostile]})
        (line,) = lines()
        for text in (line["event"], line["value"], str(line["nested"])):
            assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u202e\ud800]", str(text))

    def test_values_are_capped(self, lines):
        get_logger("x").info("e" * 5000, value="v" * 5000, raw=b"r" * 5000, many=list(range(1000)))
        (line,) = lines()
        assert line["value"] == "v" * MAX_TEXT + f"…({5000 - MAX_TEXT} more)"
        assert len(str(line["event"])) < MAX_TEXT + 30
        assert len(str(line["raw"])) < MAX_TEXT + 30
        assert line["many"] == list(range(32))

    def test_secrets_are_masked_by_their_key(self, lines):
        get_logger("x").info(
            "x", password="p", Authorization="a", client_secret="s", headers={"cookie": "c"}, token_id="t"
        )
        (line,) = lines()
        assert (line["password"], line["Authorization"], line["client_secret"]) == ("***", "***", "***")
        assert line["headers"] == {"cookie": "***"}
        assert line["token_id"] == "t"

    def test_own_keys_cannot_be_replaced(self, lines):
        get_logger("x").info("real", level="forged", time="forged")
        (line,) = lines()
        assert line["level"] == "info"
        assert line["time"] != "forged"

    def test_odd_values_become_texts(self, lines):
        endless: list[object] = []
        endless.append(endless)
        get_logger("x").info("x", a=object, b=1 << 70, c=float("nan"), d={1}, e=endless, f=bytearray(b"\xff"))
        (line,) = lines()
        assert line["b"] == str(1 << 70)
        assert line["c"] is None
        assert line["d"] == [1]
        assert line["f"] == "\\xff"

    @given(
        st.dictionaries(
            st.text(max_size=5), st.text(max_size=30) | st.binary(max_size=30) | st.integers() | st.floats()
        )
    )
    def test_any_value_is_made_safe(self, values):
        import orjson

        assert b"\n" not in orjson.dumps(safe(values))


class TestStandardLibrary:
    def test_what_libraries_log_comes_out_the_same_way(self, lines):
        logging.getLogger("websockets.server").warning("peer %s\nsaid", "x", extra={"a": 1})
        (line,) = lines()
        assert (line["logger"], line["level"]) == ("websockets.server", "warning")
        assert line["event"] == "peer x\\u000asaid"

    def test_exceptions_too(self, lines):
        try:
            raise KeyError("k")
        except KeyError:
            logging.getLogger("asyncio").exception("Task exception was never retrieved")
        assert "traceback" in lines()[0]

    def test_wrong_arguments_lose_no_line(self, lines, monkeypatch):
        root = logging.getLogger()
        ours = [handler for handler in root.handlers if type(handler).__module__ == "shared.logs"]
        monkeypatch.setattr(root, "handlers", ours)  # pytest's own would fail on a line that is wrong on purpose
        logging.getLogger("lib").error("%s and %s", "one")  # noqa: PLE1206 — wrong on purpose
        assert lines()[0]["event"] == "%s and %s"

    def test_libraries_are_quiet_at_info(self):
        stream = io.StringIO()
        setup_logging("json", "info", stream)
        logging.getLogger("aiohttp.access").info("GET /")
        logging.getLogger("websockets").info("connection open")
        assert stream.getvalue() == ""

    def test_setting_up_twice_does_not_double_lines(self, lines):
        setup_logging("json", "info", stream := io.StringIO())
        logging.getLogger("lib").error("once")
        assert stream.getvalue().count("\n") == 1
        assert lines() == []


def test_for_a_terminal(lines):
    setup_logging("console", "info", stream := io.StringIO())
    get_logger("relay").warning("a thing", name="x y", count=1, plain="z", empty="")
    line = stream.getvalue()
    assert re.fullmatch(r'\S+Z warning relay: a thing name="x y" count=1 plain=z empty=""\n', line)


def test_a_reader_that_is_gone_stops_nothing(lines, tmp_path):
    stream = (tmp_path / "log").open("w")
    setup_logging("json", "info", stream)
    stream.close()
    get_logger("x").info("nobody hears")


def test_half_a_line_on_a_full_disk_does_not_take_the_next_one_with_it(lines):
    class Disk(io.StringIO):
        room = 1000

        def write(self, text):
            taken = text[: self.room]
            self.room -= len(taken)
            super().write(taken)
            if len(taken) < len(text):
                raise OSError(errno.ENOSPC, "No space left on device")
            return len(taken)

    disk = Disk()
    setup_logging("json", "info", disk)
    log = get_logger("relay")
    log.info("before")
    disk.room = 10
    log.info("cut off")
    log.info("lost")
    disk.room = 1000
    log.info("after")
    log.info("last")
    first, half, *rest = disk.getvalue().splitlines()
    assert json.loads(first)["event"] == "before"
    assert half.startswith('{"time"')
    assert [json.loads(line)["event"] for line in rest] == ["after", "last"]


def test_the_default_is_standard_error(lines, capsys):
    setup_logging()
    get_logger("x").info("here")
    assert "here" in capsys.readouterr().err


class TestLimiter:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    @pytest.fixture
    def clock(self):
        return self.Clock()

    def test_a_burst_passes_then_the_rate(self, clock):
        limiter = LogLimiter(rate=1.0, burst=3, clock=clock)
        assert [limiter.admit("a") for _ in range(5)] == [0, 0, 0, None, None]
        clock.now = 1.0
        assert limiter.admit("a") == 2
        assert limiter.admit("a") is None

    def test_keys_are_counted_apart(self, clock):
        limiter = LogLimiter(rate=1.0, burst=1, clock=clock)
        assert limiter.admit("a") == 0
        assert limiter.admit("b") == 0
        assert limiter.admit("a") is None

    def test_made_up_keys_share_one_allowance(self, clock):
        limiter = LogLimiter(rate=1.0, burst=2, max_keys=4, clock=clock)
        passed = [limiter.admit(f"key-{n}") for n in range(1000)]
        assert sum(held is not None for held in passed) == 4 + 2

    def test_a_key_that_was_quiet_makes_room(self, clock):
        limiter = LogLimiter(rate=1.0, burst=2, max_keys=2, clock=clock)
        limiter.admit("a")
        limiter.admit("b")
        clock.now = 10.0
        assert [limiter.admit("c") for _ in range(3)] == [0, 0, None]

    def test_keys_of_which_lines_were_held_back_make_room_later(self, clock):
        limiter = LogLimiter(rate=1.0, burst=2, max_keys=2, clock=clock)
        for key in ("a", "b"):
            assert [limiter.admit(key) for _ in range(4)] == [0, 0, None, None]
        clock.now = 10.0
        assert [limiter.admit(f"new-{n}") for n in range(3)] == [0, 0, None], "one allowance for all that find no room"
        clock.now = 31.0
        assert [limiter.admit("new") for _ in range(3)] == [0, 0, None]
        assert [limiter.admit("other") for _ in range(3)] == [0, 0, None]

    def test_log_limited_tells_how_many_it_held_back(self, lines, clock):
        limiter = LogLimiter(rate=1.0, burst=1, clock=clock)
        log = get_logger("x")
        for _ in range(4):
            log_limited(log, "warning", "k", "handshake failed", limiter=limiter, peer="p")
        clock.now = 1.0
        log_limited(log, "warning", "k", "handshake failed", limiter=limiter, peer="p")
        first, second = lines()
        assert "suppressed" not in first
        assert second["suppressed"] == 3
