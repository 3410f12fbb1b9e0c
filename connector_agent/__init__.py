"""The connector: dials out to relays and hands pushes to the targets that it exposes."""

import runpy
from pathlib import Path

# Before anything of `shared` is imported: is it ours? Run by its path, since the name is what is in doubt.
runpy.run_path(str(Path(__file__).resolve().parent.parent / "shared" / "guard.py"))["check_shared"](__file__)
