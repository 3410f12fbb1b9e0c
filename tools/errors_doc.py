"""Writes docs/errors.md from the catalogue in shared/errors.py. With --check, says whether it is up to date instead."""

from __future__ import annotations

import sys
from pathlib import Path

from shared.errors import FAULTS, Fault, Origin

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

INTRODUCTION = """\
# Errors

Made from `shared/errors.py` by `make docs`; do not edit.

Every answer that Qanat itself gives is `application/problem+json` (RFC 9457) with `code`, `origin`, `request_id` and a
sentence that says what to do. The headers `Qanat-Error` and `Qanat-Error-Origin` carry the code and the origin; they
are taken out of targets' answers, so that none of those can pass for one of ours. The request id stands in the access
logs of relay and connector.

*Status* is what the sender gets; a dash means that its connection is closed without an answer. *Number* is what stands
for the code inside the tunnel.
"""

SECTIONS = (
    ("For senders", range(300)),
    ("For connectors: why a tunnel is refused or closed", range(300, 400)),
    ("For connectors: why there is no tunnel", range(400, 500)),
)

ORIGINS = {
    Origin.RELAY: "the relay, in the cloud",
    Origin.TUNNEL: "what lies between relay and connector",
    Origin.CONNECTOR: "the connector, in the data center",
    Origin.TARGET: "the target",
}


def render() -> str:
    """The whole page."""
    lines = [INTRODUCTION, "| origin | the error was made at |", "|---|---|"]
    lines += [f"| `{origin}` | {where} |" for origin, where in ORIGINS.items()]
    for title, numbers in SECTIONS:
        lines += ["", f"## {title}", "", "| code | status | origin | what happened | what to do | number |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [render_row(fault) for fault in FAULTS.values() if fault.wire in numbers]
    return "\n".join(lines) + "\n"


def render_row(fault: Fault) -> str:
    """One line of the table."""
    status = "—" if fault.status is None else str(fault.status)
    if fault.retry_after:
        status += " + Retry-After"
    if fault.closes:
        status += ", closes" if fault.status is not None else ""
    cells = (f"`{fault.code}`", status, str(fault.origin), fault.title, fault.remedy, str(fault.wire))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` compare it. Exit code 0 if it is up to date now."""
    page = render()
    if arguments == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page:
            return 0
        print("docs/errors.md is out of date: run `make docs`", file=sys.stderr)
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
