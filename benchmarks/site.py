"""Where a benchmark takes place: a folder, a certificate for the ingress, the targets, and the two sides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from benchmarks.programs import BenchmarkError, Process, start_process
from benchmarks.side import HERE, Side

HOST = "localhost"
USER, PASSWORD = "bench", "bench-password-of-no-value"
TARGETS = (
    "push",
    "sink",
)  # nginx that answers 204 at once; ours that reads each body to its end, counts it, stalls, floods


@dataclass(frozen=True, slots=True)
class FileServer:
    """An sshd on the premises that scp copies to; the folder has the client's key and what it knows of the host."""

    folder: Path
    port: int
    user: str


@dataclass(slots=True)
class Site:
    """The surroundings of one system. Processes that are started here are ended by `close`, the last one first."""

    folder: Path
    certificate: Path
    key: Path
    authority: Path
    targets: Mapping[str, int]
    cloud: Side = HERE
    premises: Side = HERE
    file_server: FileServer | None = None
    processes: list[Process] = field(default_factory=list)

    def start(
        self,
        side: Side,
        argv: Sequence[str],
        name: str,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> Process:
        """Starts a program on one side; its output goes to a file in the folder."""
        process = start_process(side.command(list(argv), user), name=name, folder=self.folder, environment=environment)
        self.processes.append(process)
        return process

    def end(self, process: Process) -> None:
        """Ends one process before the others."""
        self.processes.remove(process)
        process.stop()

    def check(self) -> None:
        """Are all still running?

        Raises:
            BenchmarkError: one ended; with the last lines of its output.
        """
        for process in self.processes:
            if not process.is_running:
                raise BenchmarkError(f"{process.name} ended by itself\n{process.tail()}")

    def close(self) -> None:
        while self.processes:
            self.processes.pop().stop()

    def subsite(self, name: str) -> Site:
        """The same surroundings for one system: a folder and processes of its own."""
        folder = self.folder / name
        folder.mkdir(mode=0o755)
        return Site(
            folder, self.certificate, self.key, self.authority, self.targets, self.cloud, self.premises,
            self.file_server,
        )  # fmt: skip


def make_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """A P-256 certificate for the ingress, its key, and the authority that signed it."""
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST, "127.0.0.1")
    certificate, key, root = folder / "ingress.pem", folder / "ingress.key", folder / "ingress-ca.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(leaf.private_key_pem.bytes())
    root.write_bytes(authority.cert_pem.bytes())
    return certificate, key, root


@contextlib.contextmanager
def closing(site: Site) -> Iterator[Site]:
    """Ends the site's processes at the end, whatever happens."""
    try:
        yield site
    finally:
        site.close()
