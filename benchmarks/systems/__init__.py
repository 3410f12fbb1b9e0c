"""The systems that are measured."""

from __future__ import annotations

from benchmarks.systems.base import Running, Shape, System
from benchmarks.systems.chisel import NginxChisel
from benchmarks.systems.direct import Direct
from benchmarks.systems.frp import Frp
from benchmarks.systems.qanat import COMPILED, Qanat
from benchmarks.systems.rathole import Rathole
from benchmarks.systems.ssh import NginxSsh

OURS = "qanat"
SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        Qanat(OURS),
        Qanat("qanat-compiled", packages=COMPILED),
        Qanat("qanat-workers", workers=2),
        Direct(),
        NginxSsh(),
        Rathole(),
        NginxChisel(),
        Frp(),
    )
}

QUICK = ("qanat", "qanat-compiled", "nginx+ssh-R")
"""Those of a quick run."""

__all__ = ["OURS", "QUICK", "SYSTEMS", "Running", "Shape", "System"]
