"""Writes the tables of docs/metrics.md from what both programs expose. With --check, says whether it is up to date.

The programs are made, and not started: nothing listens, and nothing is dialled.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from prometheus_client.core import Metric

from cloud_relay.app import RelayApp
from cloud_relay.config import RelayConfig
from cloud_relay.doors import require_contexts
from cloud_relay.identity.found import found
from cloud_relay.identity.service import open_identity
from cloud_relay.wiring import make_doors
from cloud_relay.workers.passing import Assignment
from connector_agent.app import ConnectorApp
from connector_agent.config import ConnectorConfig
from connector_agent.wiring import make_tunnels
from shared.channel import Channel
from shared.config import Edition, read_config
from shared.listeners import Inherited
from shared.logs import setup_logging
from tools.marked import with_part

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
BEGIN: Final = "<!-- made by `make docs`: do not edit from here -->"
END: Final = "<!-- to here -->"

RELAY: Final = """\
state_dir: state
trust_domain: qanat.test
tunnel: {listen: "127.0.0.1:8443", advertise: ["localhost:8443"]}
ingress: [{listen: "127.0.0.1:9443"}]
tenants: {}
"""
CONNECTOR: Final = """\
relays: ["wss://localhost:8443"]
state_dir: connector-state
join: {token_file: token}
targets: []
"""


class Row(NamedTuple):
    """A metric by the name that its samples have."""

    name: str
    type: str
    labels: tuple[str, ...]
    text: str

    @classmethod
    def of(cls, family: Metric) -> Row:
        """What a scrape would show of it."""
        suffix = "_total" if family.type == "counter" else ""
        labels = tuple(getattr(family, "_labelnames", ()))  # no public way without samples
        return cls(family.name + suffix, family.type, labels, family.documentation)

    def __str__(self) -> str:
        labels = ", ".join(f"`{label}`" for label in self.labels)
        return f"| `{self.name}` | {self.type} | {labels} | {self.text} |"


async def _relay(folder: Path) -> list[Metric]:
    """Of a relay that is its own CA, the first of two workers: it has all that there is."""
    path = folder / "relay.yaml"
    path.write_text(RELAY, encoding="utf-8")
    edition = Edition()
    loaded = read_config(path, RelayConfig, edition=edition)
    await found(loaded.config.state_dir, loaded.config.trust_domain, "relay-1", datetime.now(UTC))
    channel, theirs = Channel.pair()
    with theirs:
        assignment = Assignment(0, 2, channel, Inherited(), folder, edition, is_rehearsal=False)
        app = RelayApp(path, loaded, assignment=assignment)
        try:
            app.identity = identity = await open_identity(app)
            make_doors(app, require_contexts(loaded.config, identity.context))
            return list(app.metrics.collect())
        finally:
            await app.stop()
            channel.close()


async def _connector(folder: Path) -> list[Metric]:
    path = folder / "connector.yaml"
    path.write_text(CONNECTOR, encoding="utf-8")
    app = ConnectorApp(path, read_config(path, ConnectorConfig), lambda made: make_tunnels(made, {}))
    try:
        return list(app.metrics.collect())
    finally:
        await app.stop()


def tables() -> str:
    """A table for each program."""
    with TemporaryDirectory() as folder:
        relay = asyncio.run(_relay(Path(folder)))
        connector = asyncio.run(_connector(Path(folder)))
    return "\n\n".join([_table("The relay", relay), _table("The connector", connector)])


def _table(title: str, families: Iterable[Metric]) -> str:
    rows = sorted(map(Row.of, families))
    return "\n".join([f"## {title}", "", "| name | type | labels | |", "|---|---|---|---|", *map(str, rows)])


def main(arguments: list[str]) -> int:
    """Write the tables, or with `--check` compare them. Exit code 0 if they are up to date now."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = with_part(page, BEGIN, END, tables())
    if arguments == ["--check"]:
        if page == wanted:
            return 0
        print("docs/metrics.md is out of date: run `make docs`", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    setup_logging("console", "error")
    sys.exit(main(sys.argv[1:]))
