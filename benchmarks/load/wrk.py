"""wrk: a closed loop of kept connections, each with one push in flight. Fast, but blind to what a stall delays."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile

from benchmarks.load.figures import Load
from benchmarks.programs import BenchmarkError, need_program
from benchmarks.site import HOST, PASSWORD, USER, Site
from benchmarks.systems.base import Endpoint

# wrk prints microseconds; the last line of ours is JSON
_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Host"] = "{host}"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Authorization"] = "{authorization}"
wrk.body = string.rep("q", {size})
{requests}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{{"us":%d,"requests":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,'
    .. '"p50":%d,"p90":%d,"p99":%d,"p999":%d}}\\n',
    summary.duration, summary.requests, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"""

# a request for each number in turn, made once
_ROUND = """\
local made, turn = {{}}, 0
init = function()
  for number = 0, {paths} - 1 do made[number] = wrk.format(nil, (string.gsub("{path}", "%%d", tostring(number)))) end
end
request = function()
  turn = (turn + 1) % {paths}
  return made[turn]
end
"""

_ERRORS = ("connect", "read", "write", "status", "timeout")


def sender(number: int = 0) -> tuple[str, str]:
    """User name and password of a sender. The first one does the pushing; a second one is there to get in its way."""
    return (USER, PASSWORD) if number == 0 else (f"{USER}-{number}", f"{PASSWORD}-{number}")


def authorization(number: int = 0) -> str:
    """A sender's Basic credential as a header value."""
    return "Basic " + base64.b64encode(":".join(sender(number)).encode()).decode()


def script(size: int, number: int = 0, path: str = "/", paths: int = 1) -> str:
    """The Lua that makes wrk push bodies of `size` bytes as this sender; to `paths` paths in turn, if it has a `%d`."""
    requests = _ROUND.format(paths=paths, path=path) if "%d" in path else ""
    return _SCRIPT.format(host=HOST, authorization=authorization(number), size=size, requests=requests)


def parse_output(text: str) -> Load:
    """Reads what the script printed last.

    Raises:
        BenchmarkError: there is no such line.
    """
    lines = [line for line in text.splitlines() if line.startswith('{"us":')]
    if not lines:
        raise BenchmarkError(f"wrk printed no figures:\n{text[-800:]}")
    figures: dict[str, int] = json.loads(lines[-1])
    failures = {kind: figures[kind] for kind in _ERRORS if figures[kind]}
    # wrk counts an answer that is not 2xx or 3xx as a request too
    pushes = figures["requests"] - figures["status"]
    p50, p90, p99, p999 = (figures[key] / 1e3 for key in ("p50", "p90", "p99", "p999"))
    return Load(figures["us"] / 1e6, pushes, sum(failures.values()), p50, p90, p99, p999, failures)


def run_wrk(
    site: Site,
    endpoint: Endpoint,
    path: str,
    *,
    size: int,
    in_flight: int,
    seconds: float,
    number: int = 0,
    paths: int = 1,
) -> Load:
    """Pushes as a sender from the cloud side for `seconds`; one thread, `in_flight` connections.

    A `%d` in `path` stands for all numbers below `paths` in turn.
    """
    program = need_program("wrk")
    with tempfile.NamedTemporaryFile("w", dir=site.folder, prefix="push-", suffix=".lua", delete=False) as lua:
        lua.write(script(size, number, path, paths))  # a file of its own: several may run at once
    scheme = "https" if endpoint.is_tls else "http"
    argv = [program.path, "-t1", f"-c{in_flight}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", lua.name]
    argv.append(f"{scheme}://{endpoint.host}:{endpoint.port}{path.replace('%d', '0')}")
    result = subprocess.run(
        site.cloud.command(argv),
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
        env={"PATH": "/usr/bin:/bin", **program.environment},
    )
    if result.returncode != 0:
        raise BenchmarkError(f"wrk failed: {result.stdout[-400:]} {result.stderr[-400:]}")
    return parse_output(result.stdout)
