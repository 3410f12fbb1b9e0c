"""Runs one of the programs and kills it with SIGKILL where a crash point is reached first.

usage: crashing.py POINT cloud-relay|connector-agent ARGUMENTS…

POINT may be @FILE, which holds the point; nothing in it, and the program lives. A relay that hands over starts this
script anew: what the file holds by then is the next one's.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from shared import crash_points


def main() -> None:
    point, program, *arguments = sys.argv[1:]
    if point.startswith("@"):
        point = Path(point[1:]).read_text()
    if point and point not in crash_points.POINTS:
        raise SystemExit(f"no such point: {point}")

    def die(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    crash_points.arm(die)
    sys.argv = [f"{__file__}/{program}", *arguments]  # no program: whoever starts this again, starts this very script
    if program == "cloud-relay":
        from cloud_relay.cli import main as run
    else:
        from connector_agent.cli import main as run
    run()


if __name__ == "__main__":
    main()
