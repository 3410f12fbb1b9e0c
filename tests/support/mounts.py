"""A folder of files as Kubernetes mounts a Secret: every name leads through `..data`, a link that is swapped."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from shared.pki.files import write_private
from shared.pki.tls import KeyPair


class Mount:
    """`put` replaces what it names, all in one moment; what it does not name stays as it was."""

    def __init__(self, folder: Path, **files: bytes | None) -> None:
        self.folder = folder
        self._files: dict[str, bytes] = {}
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True)
        self.put(**files)

    def put(self, **files: bytes | None) -> None:
        """Contents by name, `__` for a dot: `tls__crt=...`. None takes a file away."""
        for key, content in files.items():
            name = key.replace("__", ".")
            if content is None:
                self._files.pop(name, None)
            else:
                self._files[name] = content
        fresh = self.folder / f"..{next(self._numbers)}"
        fresh.mkdir()
        for name, content in self._files.items():
            write_private(fresh / name, content)
            link = self.folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        swap = self.folder / "..data_tmp"
        swap.symlink_to(fresh.name)
        os.replace(swap, self.folder / "..data")

    def put_pair(self, pair: KeyPair) -> None:
        """A certificate and its key under the names that Kubernetes gives them."""
        self.put(tls__crt=pair.certificate.read_bytes(), tls__key=pair.key.read_bytes())

    def path(self, name: str) -> str:
        """For a config."""
        return str(self.folder / name)
