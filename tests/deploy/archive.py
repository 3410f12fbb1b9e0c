"""Images as `docker save` writes them, of one layer."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Final

_AMD64: Final = "amd64"


def layer(*programs: Path) -> bytes:
    """A root file system with nothing but these programs, at its top."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for program in programs:
            content = program.read_bytes()
            entry = tarfile.TarInfo(program.name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def save(path: Path, name: str, layer: bytes, **config: Any) -> None:
    """An archive at `path` with the image `name`; `config` is the image's own: Env, Entrypoint, User."""
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    about = {
        "architecture": _AMD64,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": json.dumps(about).encode(),
        "layer.tar": layer,
    }
    with tarfile.open(path, "w") as tar:
        for part, content in parts.items():
            entry = tarfile.TarInfo(part)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
