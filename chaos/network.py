"""Where the four parties stand: senders, relay (cloud), connectors (premises), targets (monitoring).

Each in a network namespace of its own, and a line between neighbours; or all on this machine's loopback, where only
processes can be hurt. Nothing of it outlives its processes.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.network import run_command, start_holder, why_no_networks
from benchmarks.programs import ROOT, Process, start_process
from benchmarks.side import HERE, Side, wait_for_file
from chaos.line import MTU, Shape, order_of
from chaos.names import Mood
from chaos.names import order_of as names_order
from tests.support.peers import FOLDER, find_peer

INTERNET, TUNNEL, LAN = "internet", "tunnel", "lan"
LINES: Final = (INTERNET, TUNNEL, LAN)
"""Senders to the relay, connectors to the relay, connectors to targets."""

_NET: Final = "10.213"
_HOSTS: Final[Mapping[str, Mapping[str, str]]] = {
    INTERNET: {"senders": f"{_NET}.1.2", "cloud": f"{_NET}.1.1"},
    TUNNEL: {"premises": f"{_NET}.2.2", "cloud": f"{_NET}.2.1"},
    LAN: {"premises": f"{_NET}.3.2", "monitoring": f"{_NET}.3.1"},
}
"""Addresses, inside the namespaces only."""

RELAY_ADDRESSES: Final[Mapping[str, str]] = {"c1": f"{_NET}.2.11", "c2": f"{_NET}.2.12", "x1": f"{_NET}.2.13"}
"""Each connector dials an address of its own, so that one way can be cut and the others stay."""

OTHER_ADDRESSES: Final[Mapping[str, str]] = {name: f"{_NET}.2.2{n}" for n, name in enumerate(RELAY_ADDRESSES)}
"""Where the relay also listens, for when its names change."""

IPTABLES: Final = "iptables-nft"


def relay_name(connector: str) -> str:
    """The host name by which a connector dials the relay."""
    return f"relay-{connector}.qanat.test"


@dataclass(frozen=True, slots=True)
class Network:
    """The sides, and how they reach each other.

    `ingress` is the relay's address as senders see it, `targets` the targets' as connectors do, `holders` the processes
    that keep it up. `control` is the socket of the lines' process, None on the loopback. `resolver` is the beginning of
    a command that looks names up at the server of `chaos.names`, whose control socket is `names`.
    """

    senders: Side = HERE
    cloud: Side = HERE
    premises: Side = HERE
    monitoring: Side = HERE
    ingress: str = "127.0.0.1"
    targets: str = "127.0.0.1"
    control: Path | None = None
    names: Path | None = None
    resolver: tuple[str, ...] = ()
    shapes: dict[str, Shape] = field(default_factory=dict)

    @property
    def has_lines(self) -> bool:
        return self.control is not None

    def relay_name(self, connector: str) -> str:
        return relay_name(connector) if self.has_lines else "localhost"

    def shape(self, line: str, shape: Shape, seed: int = 0) -> None:
        """From now on the line's packets fare like this."""
        assert self.control is not None
        self.shapes[line] = shape
        _send(self.control, order_of(line, shape, seed))

    def answer(self, mood: Mood = Mood.ANSWERS, addresses: Mapping[str, str] = RELAY_ADDRESSES) -> None:
        """From now on names are looked up like this; `addresses` are the relay's, by connector."""
        assert self.names is not None
        known = {relay_name(connector): address for connector, address in addresses.items()}
        _send(self.names, names_order(mood, known))

    @contextlib.contextmanager
    def dropped(self, side: Side, *rule: str) -> Iterator[None]:
        """Packets that a rule of iptables fits (`-s ADDRESS`) are dropped as they come into a side."""
        peer = find_peer(IPTABLES)
        assert peer is not None
        variables = {**peer.environment, **_extensions()}

        def change(what: str) -> None:
            argv = side.command([peer.path, "-w", what, "INPUT", *rule, "-j", "DROP"])
            subprocess.run(argv, check=True, capture_output=True, timeout=10, env=variables)

        change("-I")
        try:
            yield
        finally:
            change("-D")


LOOPBACK: Final = Network()
"""All on this machine's loopback."""


def why_loopback() -> str:
    """Why there are no networks on this machine, "" if there are."""
    lack = why_no_networks()
    return lack or ("" if find_peer(IPTABLES) else f"missing: {IPTABLES} (make peers)")


@contextlib.contextmanager
def networks(folder: Path) -> Iterator[Network]:
    """Four namespaces and three lines; ends all of it at the end."""
    processes: list[Process] = []
    try:
        holders = {name: start_holder(folder, name, processes) for name in _sides()}
        control = folder / "lines.sock"
        _start_lines(folder, control, holders, processes)
        names = _start_names(folder, holders["premises"], processes)
        for line, ends in _HOSTS.items():
            for side, address in ends.items():
                _configure(holders[side], f"qanat-{line}", address)
        for address in itertools.chain(RELAY_ADDRESSES.values(), OTHER_ADDRESSES.values()):
            _inside(holders["cloud"], "ip", "addr", "add", f"{address}/24", "dev", f"qanat-{TUNNEL}")
        sides = {name: Side(_address_of(name), holder) for name, holder in holders.items()}
        network = Network(
            sides["senders"],
            sides["cloud"],
            sides["premises"],
            sides["monitoring"],
            ingress=_HOSTS[INTERNET]["cloud"],
            targets=_HOSTS[LAN]["monitoring"],
            control=control,
            names=names,
            resolver=_resolver(folder),
        )
        network.answer()
        yield network
    finally:
        for process in reversed(processes):
            process.stop()


def _send(control: Path, order: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(order, str(control))


def _address_of(side: str) -> str:
    return next(ends[side] for ends in _HOSTS.values() if side in ends)


def _sides() -> list[str]:
    return list(dict.fromkeys(side for ends in _HOSTS.values() for side in ends))


def _start_lines(folder: Path, control: Path, holders: Mapping[str, int], processes: list[Process]) -> None:
    ready = folder / "lines.ready"
    argv = [sys.executable, "-m", "chaos.line", str(ready), str(control)]
    argv += [f"{line}={','.join(str(holders[side]) for side in ends)}" for line, ends in _HOSTS.items()]
    process = start_process(argv, name="lines", folder=folder, environment={"PYTHONPATH": str(ROOT)})
    processes.append(process)
    wait_for_file(ready, process)


def _start_names(folder: Path, holder: int, processes: list[Process]) -> Path:
    """The connectors' name server; its control socket."""
    _inside(holder, "ip", "link", "set", "lo", "up")
    ready, control = folder / "names.ready", folder / "names.sock"
    argv = [sys.executable, "-m", "chaos.names", str(ready), str(control)]
    argv = Side(holder=holder).command(argv)
    process = start_process(argv, name="names", folder=folder, environment={"PYTHONPATH": str(ROOT)})
    processes.append(process)
    wait_for_file(ready, process)
    return control


def _resolver(folder: Path) -> tuple[str, ...]:
    """The beginning of a command that sees a resolv.conf of ours: by a mount namespace of its own, without a fork."""
    path = folder / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
    return ("unshare", "--mount", "sh", "-c", f'mount --bind {path} /etc/resolv.conf && exec "$@"', "sh")


def _configure(holder: int, device: str, address: str) -> None:
    _inside(holder, "ip", "link", "set", "lo", "up")
    _inside(holder, "ip", "addr", "add", f"{address}/24", "dev", device)
    _inside(holder, "ip", "link", "set", device, "mtu", str(MTU), "up")


def _inside(holder: int, *argv: str) -> None:
    run_command(["nsenter", f"--net=/proc/{holder}/ns/net", *argv])


def _extensions() -> dict[str, str]:
    """Where iptables finds its own extensions: beside it, if it was unpacked."""
    found = next(FOLDER.glob("usr/lib/*/xtables"), None)
    return {"XTABLES_LIBDIR": str(found)} if found is not None else {}
