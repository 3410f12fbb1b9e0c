"""nginx, as the target that answers 204 and as the TLS ingress before a peer's tunnel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from benchmarks.programs import Process, need_program
from benchmarks.side import Side, free_port, wait_for_port
from benchmarks.site import Site

_MAIN = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}-error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path {folder}/{name}-body;
    proxy_temp_path {folder}/{name}-proxy;
    fastcgi_temp_path {folder}/{name}-fastcgi;
    uwsgi_temp_path {folder}/{name}-uwsgi;
    scgi_temp_path {folder}/{name}-scgi;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size 64k;
{http}
}}
"""

_TARGET = """\
    server {{
        listen {address}:{port} backlog=4096;
        location / {{ return 204; }}
    }}
"""

_UPSTREAM = """\
    upstream {target} {{
        server {address}:{port};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
"""

_INGRESS = """\
    server {{
        listen 127.0.0.1:{tls_port} ssl backlog=4096;
        listen 127.0.0.1:{plain_port} backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_request_buffering off;
        proxy_buffering off;
        proxy_read_timeout 120s;
{locations}
    }}
"""

_LOCATION = "        location /{target} {{ proxy_pass http://{target}; }}"


def main_config(name: str, folder: Path, http: str) -> str:
    """A whole nginx.conf around some servers; nothing of it lies outside `folder`."""
    user = "user root;" if os.geteuid() == 0 else ""
    return _MAIN.format(user=user, folder=folder, name=name, http=http)


def ingress_config(site: Site, upstreams: Mapping[str, tuple[str, int]], tls_port: int, plain_port: int) -> str:
    """Servers that pass /<target> to the address of that target, over kept connections, unbuffered."""
    parts = [_UPSTREAM.format(target=name, address=host, port=port) for name, (host, port) in upstreams.items()]
    locations = "\n".join(_LOCATION.format(target=name) for name in upstreams)
    parts.append(
        _INGRESS.format(
            tls_port=tls_port,
            plain_port=plain_port,
            certificate=site.certificate,
            key=site.key,
            locations=locations,
        )
    )
    return "".join(parts)


def start_nginx(site: Site, side: Side, name: str, http: str) -> Process:
    """Starts an nginx with these servers."""
    program = need_program("nginx")
    path = site.folder / f"{name}.conf"
    path.write_text(main_config(name, site.folder, http))
    argv = [program.path, "-p", str(site.folder), "-c", str(path), "-e", str(site.folder / f"{name}-start.log")]
    return site.start(side, argv, name, program.environment)


def start_target(site: Site) -> int:
    """Starts the target that answers 204 to everything; returns its port on the premises' loopback."""
    port = free_port()
    process = start_nginx(
        site, site.premises, "target", _TARGET.format(address=site.premises.listen_address, port=port)
    )
    wait_for_port(port, process, site.premises)
    return port


def start_ingress(site: Site, upstreams: Mapping[str, tuple[str, int]]) -> tuple[Process, int, int]:
    """Starts the ingress in the cloud; returns it with its TLS port and its plain port."""
    tls_port, plain_port = free_port(), free_port()
    http = ingress_config(site, upstreams, tls_port, plain_port)
    process = start_nginx(site, site.cloud, "ingress", http)
    wait_for_port(tls_port, process, site.cloud)
    return process, tls_port, plain_port
