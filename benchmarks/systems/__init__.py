"""The systems that are measured."""

from __future__ import annotations

from benchmarks.systems.base import Running, Shape, System
from benchmarks.systems.chisel import NginxChisel
from benchmarks.systems.direct import Direct
from benchmarks.systems.frp import Frp
from benchmarks.systems.qanat import Qanat
from benchmarks.systems.rathole import Rathole
from benchmarks.systems.ssh import NginxSsh

OURS = "qanat"
SYSTEMS: dict[str, System] = {
    system.name: system for system in (Qanat(), Direct(), NginxSsh(), NginxChisel(), Frp(), Rathole())
}

__all__ = ["OURS", "SYSTEMS", "Running", "Shape", "System"]
