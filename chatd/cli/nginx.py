"""`chatd nginx`: the NGINX site that suits this configuration.

The text of the site is here and nowhere else; nginx/chatd.conf is what `chatd nginx print` says of the defaults. What
stands in it for a number comes from the settings, so that proxy and node never disagree on a limit or a timeout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil
from string import Template

import click

from chatd.settings import Settings

from .arguments import ports
from .common import loaded, note

# The instances of `systemctl enable chatd@8001 chatd@8002`, for who has not configured an address of his own.
INSTANCES = "8001,8002"
# Two heartbeats may be late, the third may not: by then the node has closed the silent itself.
HEARTBEATS = 3
# What an office behind one address needs: everybody at once after a deploy, and then a few a second.
HANDSHAKES_PER_SECOND = 10


class Part(Template):
    """NGINX's own variables begin with $, so ours begin with @."""

    delimiter = "@"


SITE = Part("""\
# chatd behind NGINX, made by `chatd nginx print`: put it into /etc/nginx/conf.d/, which the http block includes.
#
# Tell chatd whose X-Forwarded-For to believe: server.trusted_proxies = ["127.0.0.1"]; on a unix socket it need not be
# told. A node that drains or has died refuses, and the next one is asked: NGINX does not look at /readyz.
#
# In nginx.conf itself, outside of http: a proxied connection is two sockets here, and Debian's 768 are soon gone.
#     worker_rlimit_nofile @sockets;
#     events { worker_connections @sockets; }
#     worker_shutdown_timeout 10m;    # how long a reload leaves old connections to the old workers before it cuts them

# A handshake asks for an upgrade, and everything else keeps its connection alive.
map $http_upgrade $chatd_connection {
    default upgrade;
    ""      "";
}

# No query string and no header: nothing that could hold a token reaches the log.
log_format chatd '$remote_addr [$time_iso8601] $request_method $uri $status $request_time '
                 '$upstream_addr $upstream_status $upstream_connect_time';
@zones
upstream chatd {
    # One count for all workers: else each knows only of the connections, and of the failures, that it has seen itself.
    zone chatd_nodes 256k;
    least_conn;
    # A node that refuses twice in five seconds, because it drains or is dead, is left alone for five. One address takes
    # 28,000 connections, which is how many ports NGINX has to come from; a unix socket knows no such end.
@servers
    keepalive 16;
}

# The same nodes for what those say who are in by plain HTTP: also a node that is left alone above, since it lets nobody
# in, hears it.
upstream chatd_heard {
    zone chatd_heard 256k;
@servers
    keepalive 16;
}
@head
    access_log /var/log/nginx/chatd.log chatd;
    # The error log quotes whole requests, query string and all. What went wrong with one is in the access log too.
    error_log /var/log/nginx/chatd.error.log emerg;

    # For Prometheus, which asks each node.
    location = /metrics {
        return 404;
    }

    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $chatd_connection;
    proxy_set_header Host $http_host;
    # Set, not added to: what a client wrote there itself is worth nothing.
    proxy_set_header X-Forwarded-For $remote_addr;

    proxy_buffering off;
    proxy_connect_timeout 3s;
    # More than two heartbeats of @heartbeat, so that only the dead are cut here.
    proxy_read_timeout @silence;
    proxy_send_timeout @silence;

    location = /emulation {
        proxy_pass http://chatd_heard;
        proxy_next_upstream error timeout;
    }

    location / {@limits
        proxy_pass http://chatd;
        proxy_next_upstream error timeout http_503;
    }
}
""")

ZONES = Part("""
# Only handshakes are counted, and who comes to stay by plain HTTP: what has an empty key is not. chatd itself counts
# IPv6 by the /64.
map $uri $chatd_stream {
    default                 "";
    /connection/http_stream stream;
}
map $http_upgrade$chatd_stream $chatd_client {
    default $binary_remote_addr;
    ""      "";
}
limit_conn_zone $chatd_client zone=chatd_connections:10m;
limit_conn_status 429;
limit_req_zone $chatd_client zone=chatd_handshakes:10m rate=@{rate}r/s;
limit_req_status 429;
""")

LIMITS = Part("""
        limit_conn chatd_connections @connections;
        limit_req zone=chatd_handshakes burst=@connections nodelay;
""")

PLAIN = Part("""
server {
    listen 80;
    listen [::]:80;
    server_name @name;
    # Name what stands before this, or all clients count as one:
    #     set_real_ip_from 10.0.0.0/8;
    #     real_ip_header X-Forwarded-For;
""")

TLS = Part("""
server {
    listen 80;
    listen [::]:80;
    server_name @name;
    access_log /var/log/nginx/chatd.log chatd;
    error_log /var/log/nginx/chatd.error.log emerg;
    return 301 https://$host$request_uri;
}

server {
    # Without http2: NGINX carries no WebSocket over it, so a browser would open a second connection anyway.
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name @name;

    ssl_certificate @certificate;
    ssl_certificate_key @key;
    # TLS 1.2 for the old phones that know no 1.3, and of it only what is forward secret and authenticated.
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers @ciphers;
    ssl_prefer_server_ciphers off;
    ssl_session_cache shared:chatd_tls:10m;
    ssl_session_timeout 1d;
    ssl_session_tickets off;
    # Chat is small: 16k, the default, would be held for each connection.
    ssl_buffer_size 4k;
    add_header Strict-Transport-Security "max-age=63072000" always;
""")

CIPHERS = ":".join(
    f"ECDHE-{signed}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signed in ("ECDSA", "RSA")
)


@click.group(help="The NGINX site for this configuration.")
def nginx() -> None:
    pass


def plain_words(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Text that ends no directive of NGINX's: a path or a name, and not a piece of configuration."""
    if value is not None and not re.fullmatch(r"[^\s;{}\"'$#\\]+", value):
        raise click.BadParameter(f"expected {parameter.metavar} without spaces, quotes and ; {{ }} $ #, got {value!r}")
    return value


def every_address(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"unix:/[\w./@-]+|(\[[0-9a-fA-F:]+\]|[\w.-]+):[0-9]{1,5}", value):
            raise click.BadParameter(f"expected host:port or unix:/path, got {value!r}")
    return values


@nginx.command("print", help="Print a site that balances over the nodes, to be put into /etc/nginx/conf.d/.")
@click.option("--instances", callback=ports, metavar="PORTS", help=f"Nodes on this host, such as {INSTANCES}.")
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    callback=every_address,
    metavar="ADDRESS",
    help="A node's host:port or unix:/path; may be given again.",
)
@click.option(
    "--server-name",
    default="chat.example.org",
    show_default=True,
    callback=plain_words,
    metavar="NAME",
    help="What clients call it.",
)
@click.option("--certificate", callback=plain_words, metavar="PATH", help="Chain as PEM; else where certbot puts it.")
@click.option("--key", callback=plain_words, metavar="PATH", help="Its private key.")
@click.option("--no-tls", is_flag=True, help="Plain HTTP on port 80, behind something else that ends TLS.")
@click.pass_context
def print_site(
    context: click.Context,
    instances: tuple[int, ...],
    upstreams: tuple[str, ...],
    server_name: str,
    certificate: str | None,
    key: str | None,
    no_tls: bool,
) -> None:
    if instances and upstreams:
        raise click.UsageError("expected --instances or --upstream, got both")
    if (certificate is None) != (key is None):
        raise click.UsageError("expected --certificate and --key together, got one of them")
    settings = loaded(context)
    addresses = upstreams or nodes(settings, instances)
    directory = f"/etc/letsencrypt/live/{server_name}"
    certificate, key = certificate or f"{directory}/fullchain.pem", key or f"{directory}/privkey.pem"
    head = plain_server(server_name) if no_tls else tls_server(server_name, certificate, key)
    click.echo(site(settings, addresses, head), nl=False)
    if not settings.server.trusted_proxies and any(not address.startswith("unix:") for address in addresses):
        note("server.trusted_proxies is empty, so chatd would take NGINX for every client; name NGINX's address there")


def nodes(settings: Settings, instances: Sequence[int]) -> tuple[str, ...]:
    """Where the nodes listen, as NGINX writes it: the ports on the configured host, else what is configured."""
    host = settings.server.host
    if host.startswith("unix:"):
        if instances:
            raise click.UsageError(
                f"expected ports to be listened on, got server.host = {host}; name each by --upstream"
            )
        return (host,)
    if not instances:
        configured = {"server.host", "server.port"} & settings.sources.keys()
        instances = [settings.server.port] if configured else [int(port) for port in INSTANCES.split(",")]
    # Who listens everywhere is reached on the loopback address.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for port in instances)


def site(settings: Settings, addresses: Sequence[str], head: str) -> str:
    """The whole site.

    Args:
        addresses: of the nodes, at least one.
        head: the beginning of the server, from plain_server or tls_server.
    """
    per_address = settings.limits.connections_per_address
    return SITE.substitute(
        sockets=2 * (settings.limits.connections or 100_000) * len(addresses),
        zones=ZONES.substitute(rate=HANDSHAKES_PER_SECOND) if per_address else "",
        servers="\n".join(f"    server {address} max_fails=2 fail_timeout=5s;" for address in addresses),
        head=head,
        limits=LIMITS.substitute(connections=per_address) if per_address else "",
        heartbeat=f"{settings.heartbeat.interval:g} s",
        silence=f"{ceil(HEARTBEATS * settings.heartbeat.interval)}s",
    )


def plain_server(name: str) -> str:
    return PLAIN.substitute(name=name)


def tls_server(name: str, certificate: str, key: str) -> str:
    return TLS.substitute(name=name, certificate=certificate, key=key, ciphers=CIPHERS)
