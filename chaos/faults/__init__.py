"""All faults of the suite, by name."""

from __future__ import annotations

from typing import Final

from chaos.fault import Fault
from chaos.faults import cuts, lines, processes

FAULTS: Final[dict[str, Fault]] = {fault.name: fault for fault in (*processes.FAULTS, *cuts.FAULTS, *lines.FAULTS)}
