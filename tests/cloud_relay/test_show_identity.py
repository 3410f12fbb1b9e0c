"""Tables that a person reads, in terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cloud_relay import show_identity
from shared.cli import printable
from shared.tables import Rows

FINGERPRINT = "ab" * 32
CERTIFICATE = {
    "fingerprint": FINGERPRINT, "connector": "acme/walldorf/c1", "standing": "certificate-revoked", "serial": "1f",
    "generation": 1, "not_before": "2026-03-01T11:50:00Z", "not_after": "2026-03-08T12:00:00Z", "via": "token",
    "revoked": "2026-03-02T12:00:00Z", "reason": "",
}  # fmt: skip
OWN = {"kind": "ca", "name": "root-1", "not_after": "2036-03-01T12:00:00Z", "warning": False}


def shown(what: object, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False).print(what)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_wide_terminal_gets_a_table():
    lines = shown(show_identity.certs_table({"own": [OWN], "certificates": [CERTIFICATE]}), 200)
    assert lines[0].split() == ["kind", "name", "not", "after", "warning"]
    assert lines[1].endswith("no")
    assert lines[-1].startswith(FINGERPRINT[:16] + "  acme/walldorf/c1")


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_one_gets_a_block_for_each_and_no_broken_cell(width):
    second = CERTIFICATE | {"connector": "acme/walldorf/c2", "revoked": None}
    lines = shown(show_identity.certs_table({"own": [OWN], "certificates": [CERTIFICATE, second]}), width)
    assert "connector    acme/walldorf/c1" in lines
    assert "not after    2026-03-08T12:00:00Z" in lines
    assert lines[-1] == "revoked      -"
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", range(40, 70))
def test_a_table_is_chosen_only_if_no_cell_breaks(width):
    rows = Rows(("a", "b"), [("x" * 30, "é漢字" * 3), ("y", "z" * 25)], "things")
    lines = shown(rows, width)
    assert (lines[0].split() == ["a", "b"]) == (rows.width <= width)
    assert rows.width > width or any("x" * 30 in line for line in lines)


def test_nothing_is_said_in_words():
    assert shown(show_identity.tokens_table({"tokens": []}), 80) == ["no join tokens"]
    assert shown(show_identity.events_table({"events": []}), 80) == ["no events"]


def test_an_event_says_whom_it_is_about_first():
    events = [
        {"number": 1, "at": "T", "kind": "blocked", "by": "root", "connector": "c1", "location": "l", "tenant": "t"},
        {"number": 2, "at": "T", "kind": "revoked", "by": "root", "scope": "location", "location": "l", "tenant": "t"},
        {"number": 3, "at": "T", "kind": "cross-signed", "by": 1, "generation": 2},
    ]  # fmt: skip
    lines = shown(show_identity.events_table({"events": events}), 80)[1:]
    assert [line.split()[3:] for line in lines] == [
        ["t/l/c1", "by=root"], ["t/l", "by=root", "scope=location"], ["generation=2", "signed_by=1"],
    ]  # fmt: skip


def test_a_connector_without_certificates():
    found = {"connector": "acme/walldorf/c1", "state": "blocked", "certificates": []}
    assert shown(show_identity.connector_table(found), 80) == [
        "connector  acme/walldorf/c1", "state      blocked", "", "no certificates",
    ]  # fmt: skip


def test_one_thing_is_shown_whole_and_without_an_empty_head():
    lines = shown(show_identity.pairs(CERTIFICATE), 80)
    assert lines[0] == f"fingerprint  {FINGERPRINT}"
    assert "reason       -" in lines


def test_targets_that_are_not_limited_are_not_shown_as_none():
    token: dict[str, object] = {
        "token": "t1", "connector": "acme/walldorf/c1", "state": "open", "created": "", "expires": "", "used": None,
        "targets": None, "misuses": 0,
    }  # fmt: skip
    assert "any" in shown(show_identity.tokens_table({"tokens": [token]}), 200)[1].split()
    limited = token | {"targets": []}
    assert "none" in shown(show_identity.tokens_table({"tokens": [limited]}), 200)[1].split()


def test_a_name_moves_no_cursor():
    token = {"reason": "\x1b[2Jgone", "kind": "x"}
    assert printable("\x1b") in "".join(shown(show_identity.pairs(token), 80))
    assert "\x1b" not in "".join(shown(show_identity.pairs(token), 80))
