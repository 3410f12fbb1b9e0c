"""The relay: takes pushes from senders and hands them to the tunnel of a connector."""

import runpy
from pathlib import Path

# Before anything of `shared` is imported: is it ours? Run by its path, since the name is what is in doubt.
runpy.run_path(str(Path(__file__).resolve().parent.parent / "shared" / "guard.py"))["check_shared"](__file__)
