"""Real measurements of this machine, for both kinds of senders."""

from __future__ import annotations

from typing import NamedTuple

import psutil

PUSH_METRIC = "qanat_demo_push"
"""The series whose value is the push's number: with the sender's name it tells the target which push this is."""


class Measurement(NamedTuple):
    """One value with its labels."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def measure() -> list[Measurement]:
    """What the machine does right now: CPU time of each core and mode, memory, load, network, disks."""
    return [*_cpu(), *_memory(), *_network(), *_disks()]


def _cpu() -> list[Measurement]:
    found = []
    for core, times in enumerate(psutil.cpu_times(percpu=True)):
        for mode in ("user", "system", "idle"):
            labels = (("core", str(core)), ("mode", mode))
            found.append(Measurement("system_cpu_seconds_total", labels, float(getattr(times, mode))))
    for minutes, load in zip((1, 5, 15), psutil.getloadavg(), strict=True):
        found.append(Measurement("system_load", (("minutes", str(minutes)),), float(load)))
    return found


def _memory() -> list[Measurement]:
    memory = psutil.virtual_memory()
    return [
        Measurement("system_memory_bytes", (("state", state),), float(getattr(memory, state)))
        for state in ("total", "available", "used", "free")
    ]


def _network() -> list[Measurement]:
    found = []
    for device, counters in (psutil.net_io_counters(pernic=True) or {}).items():
        for direction, value in (("sent", counters.bytes_sent), ("received", counters.bytes_recv)):
            labels = (("device", device), ("direction", direction))
            found.append(Measurement("system_network_bytes_total", labels, float(value)))
    return found


def _disks() -> list[Measurement]:
    counters = psutil.disk_io_counters()
    if counters is None:
        return []
    return [
        Measurement("system_disk_bytes_total", (("direction", "read"),), float(counters.read_bytes)),
        Measurement("system_disk_bytes_total", (("direction", "written"),), float(counters.write_bytes)),
    ]
