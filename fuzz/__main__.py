"""Fuzz each target for some seconds; the exit code is 1 if any of them broke.

atheris (libFuzzer) ends its process, so each target gets one of its own. What broke a target is written into FOLDER,
beside the corpus that was found, and the command to run it again is printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

MAX_LENGTH = 4096
"""Bytes of an input: what is longer is tested for its length elsewhere."""


def main(arguments: list[str]) -> int:
    """Run the targets that are asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="their names; all of them if none is given")
    parser.add_argument("--seconds", type=int, default=10, help="for each target (default: 10)")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="corpus and crashes (default: .fuzz)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _fuzz(options.child, options.folder, options.seconds, options.targets)
        return 0
    from fuzz.seeds import SEEDS

    names = options.targets or list(SEEDS)
    if unknown := set(names) - set(SEEDS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(SEEDS)}")
    broken = [name for name in names if not _run(name, options.folder, options.seconds)]
    print(f"fuzz: {len(names) - len(broken)} of {len(names)} targets held" + (f"; broken: {broken}" if broken else ""))
    return 1 if broken else 0


def _run(name: str, folder: Path, seconds: int) -> bool:
    from fuzz.seeds import SEEDS

    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    argv = [sys.executable, "-m", "fuzz", "--child", name, "--folder", str(folder), "--seconds", str(seconds)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, errors="replace")
    lines = done.stderr.splitlines()
    told = [line for line in lines if line.startswith(("Done ", "stat::")) or "ERROR" in line]
    print(f"fuzz: {name}: {told[-1] if told else lines[-1] if lines else 'nothing was said'}")
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-8000:], sep="\n", file=sys.stderr)
        print(f"fuzz: again: {' '.join(argv)} FILE", file=sys.stderr)
    return not done.returncode


def _fuzz(name: str, folder: Path, seconds: int, files: list[str]) -> None:
    """In a process of its own: instrument our parsers, and let libFuzzer at one of them. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["shared"]):
        from fuzz.targets import TARGETS
    argv = [sys.argv[0], f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", "-timeout=10", "-rss_limit_mb=2048"]
    argv += [f"-artifact_prefix={folder}/{name}-", *(files or [str(folder / name)])]
    atheris.Setup(argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
