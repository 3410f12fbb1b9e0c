"""systemd's journal, where standard error leads there: each line begins with its priority, sd-daemon(3), which the
journal takes off again. So `journalctl -p warning` finds what it should."""

from __future__ import annotations

import os
from typing import Final

PRIORITIES: Final = {"error": 3, "warning": 4, "info": 6, "debug": 7}
"""syslog's, by our levels."""


def leads_to_journal(journal_stream: str, descriptor: int = 2) -> bool:
    """Whether `descriptor` is the one that JOURNAL_STREAM (device:inode) is about, not redirected since."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return journal_stream == f"{found.st_dev}:{found.st_ino}"


def with_priority(text: str, level: str) -> str:
    """One or more lines, each with the priority of `level`."""
    prefix = f"<{PRIORITIES[level]}>"
    return "\n".join(prefix + line if line else line for line in text.split("\n"))
