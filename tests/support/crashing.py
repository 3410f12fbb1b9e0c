"""Runs one of the programs and kills it with SIGKILL where a crash point is reached first.

usage: crashing.py POINT cloud-relay|connector-agent ARGUMENTS…
"""

from __future__ import annotations

import os
import signal
import sys

from shared import crash_points


def main() -> None:
    point, program, *arguments = sys.argv[1:]
    if point not in (*crash_points.RELAY_POINTS, *crash_points.CONNECTOR_POINTS):
        raise SystemExit(f"no such point: {point}")

    def die(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    crash_points.arm(die)
    sys.argv = [program, *arguments]
    if program == "cloud-relay":
        from cloud_relay.cli import main as run
    else:
        from connector_agent.cli import main as run
    run()


if __name__ == "__main__":
    main()
