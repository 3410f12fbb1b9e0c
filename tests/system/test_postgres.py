"""PostgreSQL through a TCP route: psql, pgbench, and COPY of some MiB each way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.systems.ssh import account_of_sshd
from tests.support.peers import Peer
from tests.support.ports import free_port
from tests.system.programs import listens, until

pytestmark = pytest.mark.system

USER = "exporter"
_ROWS = 60_000


@contextlib.contextmanager
def running_postgres(peer: Callable[[str], Peer], password: str, port: int) -> Iterator[None]:
    """A fresh cluster on the loopback, without a Unix socket; not as root, which it refuses."""
    initdb, postgres, uid = peer("initdb"), peer("postgres"), account_of_sshd().uid
    as_whom: dict[str, Any] = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="qanat-pg-"))  # not pytest's: that account may not look into those
    try:
        (folder / "password").write_text(password)
        if uid is not None:
            os.chown(folder, uid, uid)
            os.chown(folder / "password", uid, uid)
        data = str(folder / "data")
        made = subprocess.run(
            [initdb.path, "-D", data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={folder}/password", "-E", "UTF8",
             "--locale=C", "--no-sync"],
            env=initdb.environment, cwd=folder, capture_output=True, timeout=60, **as_whom,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        settings = ("fsync=off", "jit=off", "shared_buffers=16MB", "unix_socket_directories=")
        argv = [postgres.path, "-D", data, "-h", "127.0.0.1", "-p", str(port)]
        argv += [word for setting in settings for word in ("-c", setting)]
        popen = subprocess.Popen(
            argv, env=postgres.environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, **as_whom,
        )  # fmt: skip
        try:
            yield
        finally:
            popen.send_signal(signal.SIGQUIT)  # at once, its children with it
            popen.wait(20)
    finally:
        shutil.rmtree(folder)


async def test_psql_and_pgbench(site, peer):
    psql, pgbench = peer("psql"), peer("pgbench")
    password, port = secrets.token_hex(8), free_port()

    async def run(program: Peer, *more: str, data: bytes = b"") -> bytes:
        argv = [program.path, "-h", "127.0.0.1", "-p", str(listen), "-U", USER, *more]
        env = {**program.environment, "PGPASSWORD": password}
        done = await asyncio.to_thread(subprocess.run, argv, input=data, env=env, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def sql(statement: str, data: bytes = b"") -> bytes:
        return await run(psql, "-X", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", statement, data=data)

    with running_postgres(peer, password, port):
        await until(lambda: listens(port), "postgres")
        listen = site.expose_tcp("postgres", port)
        await site.start()

        value = secrets.token_hex(16)
        await sql(f"CREATE TABLE readings (id int PRIMARY KEY, value text); INSERT INTO readings VALUES (0, '{value}')")
        assert await sql("SELECT value FROM readings") == value.encode() + b"\n"

        rows = b"".join(b"%d\t%s\n" % (number, secrets.token_hex(40).encode()) for number in range(1, _ROWS))
        await sql("COPY readings FROM STDIN", rows)
        assert await sql("COPY (SELECT * FROM readings WHERE id > 0 ORDER BY id) TO STDOUT") == rows
        counted = (await site.status())["tcp_routes"][0]
        assert counted["bytes_in"] > len(rows) < counted["bytes_out"]

        await run(pgbench, "-i", "-q", "postgres")
        said = (await run(pgbench, "-n", "-c", "4", "-T", "3", "postgres")).decode()
        failed = re.search(r"failed transactions: (\d+)", said)  # older ones end at the first that fails
        assert failed is None or failed[1] == "0", said
        processed = re.search(r"transactions actually processed: (\d+)", said)
        assert processed is not None, said
        assert int(processed[1]) > 0
        # each transaction leaves one row
        assert await sql("SELECT count(*) FROM pgbench_history") == processed[1].encode() + b"\n"

        said = (await run(pgbench, "-n", "-S", "-C", "-c", "4", "-t", "10", "postgres")).decode()  # a connection each
        assert "transactions actually processed: 40/40" in said

        def ended() -> list[dict[str, Any]]:
            return [line for line in site.relay.access_lines if line.get("kind") == "tcp"]

        await until(lambda: len(ended()) > 40, "the access lines")
        assert [line for line in ended() if "code" in line] == []
