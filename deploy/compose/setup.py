"""Prepares a folder for docker-compose.yml: certificates, a token, both configs. Does nothing a second time.

python deploy/compose/setup.py FOLDER
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from shared.pki import files
from shared.secrets import hash_secret, new_secret

HERE = Path(__file__).resolve().parent
GENERATOR = HERE.parents[1] / "certs" / "generate.py"
HOSTS = ("relay", "localhost", "127.0.0.1")


def main(arguments: list[str]) -> int:
    """Fill the folder. Exit code 0 when it is ready, 2 for wrong usage."""
    if len(arguments) != 1:
        print("usage: setup.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if (folder / "connector.yaml").exists():
        print(f"setup: {folder} is ready since an earlier run; its certificates live for 30 days")
        return 0
    options = ["--out", str(folder), "--days", "30"]
    for host in HOSTS:
        options += ["--host", host]
    code = runpy.run_path(str(GENERATOR))["main"](options)
    if code != 0:
        return int(code)

    token = new_secret()
    files.write_private(folder / "token", token.encode())
    relay = (HERE / "relay.yaml").read_text(encoding="utf-8").replace("@TOKEN_HASH@", hash_secret(token))
    files.write_private(folder / "relay.yaml", relay.encode())
    # The last one: what stands there tells the next run that all of it is there.
    files.write_private(folder / "connector.yaml", (HERE / "connector.yaml").read_bytes())
    for name in ("state-relay", "state-connector"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
