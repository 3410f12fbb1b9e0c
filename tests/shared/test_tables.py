"""Tables that fit the terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from shared.tables import Rows


def shown(rows: Rows, width: int) -> list[str]:
    """What a terminal of so many columns shows, without spaces at the ends."""
    out = io.StringIO()
    Console(file=out, width=width).print(rows)
    return [line.rstrip() for line in out.getvalue().splitlines()]


ROUTES = Rows(
    ("route", "state", "pushes"), [("acme/metrics", Text("green, 3s ago"), 2), ("acme/logs", "-", 0)], "routes"
)


def test_a_table_where_it_fits():
    assert shown(ROUTES, ROUTES.width) == [
        "route         state          pushes", "acme/metrics  green, 3s ago  2", "acme/logs     -              0",
    ]  # fmt: skip


def test_blocks_where_it_does_not():
    assert shown(ROUTES, ROUTES.width - 1) == [
        "route   acme/metrics", "state   green, 3s ago", "pushes  2", "",
        "route   acme/logs", "state   -", "pushes  0",
    ]  # fmt: skip


def test_nothing_is_said_in_words():
    assert shown(Rows(("route",), [], "routes"), 80) == ["no routes"]
