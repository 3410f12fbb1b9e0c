"""All faults of the suite, by name."""

from __future__ import annotations

from typing import Final

from chaos.fault import Fault
from chaos.faults import clock, crowd, cuts, lines, names, processes, resources, upgrades, workers

_MODULES: Final = (processes, cuts, lines, names, resources, clock, upgrades, workers, crowd)

FAULTS: Final[dict[str, Fault]] = {fault.name: fault for module in _MODULES for fault in module.FAULTS}
