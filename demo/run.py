"""`make demo`: the main job with separate processes and no configuration. DEMO_SECONDS says how long it pushes (20).

It exits 0 only if every push that was acknowledged arrived, and the rest was told an honest error. Its last line:

    demo: sent=N acknowledged=N delivered=N lost=N refused=N p50_ms=X p99_ms=X recovery_s=X
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the folder above is not on the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from demo.course import Passage, Progress, run
from demo.display import showing
from demo.processes import DemoError
from demo.product import Product

_DEFAULT_S = 20.0
_SHORTEST_S = 2.0


def seconds_from(text: str | None) -> float:
    """DEMO_SECONDS as a number.

    Raises:
        DemoError: it is none, or too small for a connector to be killed and to come back.
    """
    try:
        seconds = float(text) if text else _DEFAULT_S
    except ValueError:
        seconds = -1.0
    if not _SHORTEST_S <= seconds <= 86_400:
        raise DemoError(f"DEMO_SECONDS must be a number of seconds from {_SHORTEST_S:.0f} up, not {text!r}")
    return seconds


async def play(passage: Passage, folder: Path, seconds: float, console: Console) -> int:
    """The demo with its display; returns the exit code."""
    progress = Progress()
    try:
        async with showing(progress, console):
            await run(passage, folder, seconds, progress)
    except* DemoError as group:
        for error in _leaves(group):
            console.print(f"demo: {error}", highlight=False, markup=False, soft_wrap=True)
        progress.remark("failed")
    return conclude(progress, console)


def _leaves(group: BaseExceptionGroup[DemoError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def conclude(progress: Progress, console: Console) -> int:
    """Prints the verdict and the last line; 0 when nobody was lied to."""
    ledger = progress.ledger
    for reason, count in ledger.reasons.most_common(8):
        console.print(f"  {count} tries ended with: {reason}", highlight=False, markup=False, soft_wrap=True)
    has_failed = "failed" in progress.remarks
    faults = [] if has_failed else progress.faults()
    for fault in faults[:20]:
        console.print(f"  FAULT {fault}", highlight=False, markup=False, soft_wrap=True)
    code = 1 if faults or has_failed else 0
    verdict = (
        "every acknowledged push is among them" if not ledger.lost else f"{len(ledger.lost)} acknowledged ones did not"
    )
    console.print(f"  {len(ledger.delivered)} pushes with {ledger.series:,} series arrived; {verdict}", highlight=False)
    console.file.write(ledger.last_line(progress.recovery_s) + "\n")
    console.file.flush()
    return code


async def _main(console: Console) -> int:
    seconds = seconds_from(os.environ.get("DEMO_SECONDS"))
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with tempfile.TemporaryDirectory(prefix="qanat-demo-") as name:
        folder = Path(name)
        return await play(Product(folder), folder, seconds, console)


def main() -> None:
    console = Console()
    try:
        sys.exit(asyncio.run(_main(console)))
    except DemoError as error:
        console.print(f"demo: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
    except asyncio.CancelledError:
        sys.exit(130)


if __name__ == "__main__":
    main()
