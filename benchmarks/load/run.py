"""Starts a generator of ours as a process of its own on the cloud side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from benchmarks.load.bulk import Bulk
from benchmarks.load.figures import Load
from benchmarks.load.openloop import Spec
from benchmarks.load.wrk import authorization
from benchmarks.programs import ROOT, BenchmarkError
from benchmarks.site import HOST, Site

_pool = ThreadPoolExecutor(4, thread_name_prefix="generator")


def sender_headers() -> dict[str, str]:
    """What a push of ours carries: the host that the route matches, and the sender's credential."""
    return {"Host": HOST, "Authorization": authorization(), "Content-Type": "application/octet-stream"}


def _run(site: Site, module: str, spec: str, timeout: float) -> Load:
    result = subprocess.run(
        site.cloud.command([sys.executable, "-m", module]),
        input=spec,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
    )
    if result.returncode != 0:
        raise BenchmarkError(f"{module} failed: {result.stderr[-800:]}")
    return Load(**json.loads(result.stdout))


def run_openloop(site: Site, spec: Spec) -> Load:
    """Runs the open-loop generator to its end."""
    return _run(site, "benchmarks.load.openloop", spec.as_json(), spec.seconds + spec.timeout + 30)


def start_openloop(site: Site, spec: Spec) -> Future[Load]:
    """As `run_openloop`, beside whatever else is going on."""
    return _pool.submit(run_openloop, site, spec)


def start(load: Callable[[], Load]) -> Future[Load]:
    """Runs whatever load beside whatever else is going on."""
    return _pool.submit(load)


def run_bulk(site: Site, spec: Bulk) -> Load:
    """Sends the large bodies to their end."""
    return _run(site, "benchmarks.load.bulk", spec.as_json(), spec.timeout + 30)


def start_bulk(site: Site, spec: Bulk) -> Future[Load]:
    """As `run_bulk`, beside whatever else is going on."""
    return _pool.submit(run_bulk, site, spec)
