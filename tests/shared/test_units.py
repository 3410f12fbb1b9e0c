from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from shared.units import (
    Duration,
    Rate,
    Size,
    format_duration,
    format_size,
    parse_byte_rate,
    parse_duration,
    parse_rate,
    parse_size,
)


class Limits(BaseModel):
    body: Size = 0
    rate: Rate = 0.0
    wait: Duration = 0.0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("64KiB", 65536),
        ("10MiB", 10 << 20),
        ("10 MiB", 10 << 20),
        ("2TiB", 2 << 40),
        (7, 7),
    ],
)
def test_sizes_are_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "10MB",
        "10mib",
        "10M",
        "1.5MiB",
        "-1",
        -1,
        "+1",
        "1 2",
        "10MiB ",
        " 10MiB",
        "10MiB\n",
        "1_0",
        "0x10",
        "１０",
        "MiB",
        "9" * 19,
        True,
        1.5,
        None,
        [],
        {},
    ],
)
def test_what_is_no_size_is_refused_with_the_way_to_write_it(text):
    with pytest.raises(ValueError, match="is not a size; write bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("200/s", 200.0), ("1000/min", 1000 / 60), ("5/h", 5 / 3600), ("0.5/s", 0.5), ("3/sec", 3.0)]
)
def test_rates_are_per_second(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text", ["200", "200/", "/s", "200 / s", "200/d", "-1/s", "1e3/s", "1./s", ".5/s", "٣/s", 200, None]
)
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("500ms", 0.5),
        ("2m", 120),
        ("2min", 120),
        ("1.5h", 5400),
        ("7d", 604800),
        (3, 3),
        (0.25, 0.25),
        ("0s", 0),
    ],
)
def test_durations_are_seconds(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["5", "", "5S", "1m30s", "-5s", -5, float("inf"), float("nan"), True, "5 s ", "5s\n", None]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_messages_stay_short_and_printable():
    with pytest.raises(ValueError, match="is not a size") as caught:
        parse_size("\x1b[2J" + "x" * 10_000)
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_as_fields_of_a_model():
    limits = Limits.model_validate({"body": "1KiB", "rate": "60/min", "wait": "2s"})
    assert limits == Limits(body=1024, rate="1/s", wait=2)
    with pytest.raises(ValidationError):
        Limits.model_validate({"body": "1KB"})


def test_the_schema_accepts_what_the_parser_does():
    properties = Limits.model_json_schema()["properties"]
    pattern = properties["body"]["anyOf"][0]["pattern"]
    assert re.search(pattern, "10MiB")
    assert not re.search(pattern, "10MB")
    assert re.search(properties["rate"]["pattern"], "200/s")


@given(st.integers(min_value=0, max_value=1 << 50))
def test_what_is_formatted_is_read_back(size):
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.35, "350ms"),
        (5, "5s"),
        (5.25, "5.2s"),
        (150, "2m30s"),
        (3600, "1h"),
        (3601, "1h"),
        (100_000, "1d3h"),
    ],
)
def test_durations_for_people(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "rate"), [("10MiB/s", 10 << 20), ("60KiB/min", 1024), ("3600/h", 1), ("1 GiB/s", 1 << 30)]
)
def test_rates_of_bytes(text: str, rate: float) -> None:
    assert parse_byte_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "10MiB", "10MB/s", "0/s", "10MiB/d", "/s", "-1/s", "1.5MiB/s", "١/s", 10, None])
def test_what_is_no_rate_of_bytes(text: object) -> None:
    with pytest.raises(ValueError, match=r"is no rate of bytes; write a size for each s, min or h: 10MiB/s"):
        parse_byte_rate(text)
