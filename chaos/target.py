"""The target of one tenant: takes pushes, writes down what arrived before it answers, and can be killed at any time.

    python -m chaos.target TENANT JOURNAL HOST PORT

An answer's body is the try's id. `POST …?wait=S` answers after S seconds, and is written down before that.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

from aiohttp import web

from chaos.journal import Writer
from chaos.pushes import body_of

_MAX_BODY = 64 * 1024 * 1024


def make_app(tenant: str, journal: Writer) -> web.Application:
    """The web application; `journal` gets a record for each head and for each whole body."""

    async def take(request: web.Request) -> web.Response:
        begun = time.monotonic()
        query = request.query
        push, try_id = query.get("push", ""), query.get("try", "")
        record = {
            "at_tenant": tenant, "tenant": query.get("tenant", ""), "push": push, "try_id": try_id, "begun": begun,
            "connector": request.headers.get("X-Connector", ""), "request_id": request.headers.get("X-Request-Id", ""),
        }  # fmt: skip
        journal.write(event="begun", **record)
        body = await request.read()
        is_intact = body == body_of(push, int(query.get("size", "0")))
        journal.write(event="arrived", **record, at=time.monotonic(), is_intact=is_intact)
        await asyncio.sleep(float(query.get("wait", "0")))
        return web.Response(text=try_id)

    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_post("/{route}", take)
    return app


async def serve(tenant: str, journal: Writer, host: str, port: int) -> None:
    """Serves until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    runner = web.AppRunner(make_app(tenant, journal), access_log=None, keepalive_timeout=75.0)
    await runner.setup()
    await web.TCPSite(runner, host, port, backlog=1024, reuse_address=True).start()
    await stopped.wait()
    await runner.cleanup()


def main() -> None:
    tenant, journal, host, port = sys.argv[1:]
    asyncio.run(serve(tenant, Writer(Path(journal)), host, int(port)))


if __name__ == "__main__":
    main()
