"""Every peer really starts from where it was unpacked: better said here than by tests of other things."""

from __future__ import annotations

import subprocess

import pytest

PEERS = [
    ("prometheus", "--version", "prometheus, version"),
    ("victoria-metrics", "--version", ""),
    ("nginx", "-v", "nginx version"),
    ("haproxy", "-v", "HAProxy version"),
    ("tinyproxy", "-v", "tinyproxy"),
    ("wrk", "-v", "wrk"),
    ("sshd", "-V", "OpenSSH"),
    ("ssh", "-V", "OpenSSH"),
    ("rsyslogd", "-v", "rsyslogd"),
]


@pytest.mark.system
@pytest.mark.parametrize(("name", "option", "expected"), PEERS, ids=[name for name, _, _ in PEERS])
def test_it_starts(peer, name, option, expected):
    program = peer(name)
    run = subprocess.run([program.path, option], env=program.environment, capture_output=True, text=True, timeout=30)
    assert expected in run.stdout + run.stderr
    assert "error while loading shared libraries" not in run.stderr
