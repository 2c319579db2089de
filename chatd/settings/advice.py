"""What works, but is unwise."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from .declaring import options
from .keys import ApiKey, Key, SigningKey
from .kinds import host_and_port, is_loopback, show_seconds, show_text
from .tree import SECTIONS, Limits, Settings

# NGINX, the Elastic Load Balancers and many home routers wait so long; mobile networks about as long.
PATIENCE_OF_NATS_S = 60.0


def warnings(settings: Settings, environ: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """What works, but is unwise: one sentence each. Looks at the modes of the files that hold secrets.

    Args:
        environ: as in `os.environ`.
    """
    found = (
        *_exposed_secrets(settings),
        *_exposed_traffic(settings),
        *_unbounded(settings.limits),
        *_cut_off(settings),
        *_silent(settings),
        *_misspelt(environ),
    )
    return list(dict.fromkeys(found))  # of several secrets in one file it is said once


def _exposed_secrets(settings: Settings) -> Iterator[str]:
    if settings.tls.key and _others_may_read(settings.tls.key):
        yield f"{settings.tls.key} holds the key of tls.certificate and everybody may read it; `chmod 640` it"
    keys: tuple[Key | ApiKey | SigningKey, ...] = (
        *settings.auth.keys,
        *settings.api.keys,
        *settings.signatures.keys,
    )
    for key in keys:
        path = key.secret_file or (key.where.rpartition(":")[0] if key.secret else "")
        if path and _others_may_read(path):
            yield f"{path} holds the secret of a key and everybody may read it; `chmod 640 {path}`"

    # "file:line", and no variable or flag, which have no file to be read.
    path = settings.hooks.secret_file or settings.sources.get("hooks.secret", "").rpartition(":")[0]
    if path and settings.hooks.secret_bytes and _others_may_read(path):
        yield f"{path} holds hooks.secret and everybody may read it; `chmod 640 {path}`"
    path = settings.sources.get("redis.url", "").rpartition(":")[0]
    if path and "@" in settings.redis.url and _others_may_read(path):
        yield f"{path} holds the password in redis.url and everybody may read it; `chmod 640 {path}`"


def _others_may_read(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & 0o004)
    except OSError:
        return False


def _exposed_traffic(settings: Settings) -> Iterator[str]:
    if "*" in settings.server.origins:
        yield 'server.origins has "*": any web page may connect from the browser of whoever looks at it; list your own'
    if settings.admin.listen and not is_loopback(host_and_port(settings.admin.listen)[0]):
        yield "admin.listen can be reached from other machines, without TLS: who listens in between can read API keys"
    if any(network.endswith("/0") for network in settings.server.trusted_proxies):
        yield "server.trusted_proxies has everybody: whoever connects may write any address there; list your proxies"
    for key in settings.auth.keys:
        if key.jwks_url.startswith("http://"):
            yield f"the jwks_url of key {show_text(key.name)} is not https: who sits in between can make valid tokens"
    scheme, _, rest = settings.redis.url.partition("://")
    user, _, hosts = rest.partition("/")[0].rpartition("@")
    local = scheme in ("", "unix", "rediss") or all(is_loopback(_host_of(each)) for each in hosts.split(","))
    if not local and not user:
        yield "redis.url names another machine without password and without TLS; set a password, and use rediss://"


def _host_of(address: str) -> str:
    """The host of host:port, [v6]:port or host."""
    return address.rpartition("]")[0].lstrip("[") or address.partition(":")[0]


def _unbounded(limits: Limits) -> Iterator[str]:
    for name in ("frame", "outbox"):
        if getattr(limits, name) == 0:
            yield f"limits.{name} is 0, which is no limit: one client alone can use up the memory of this machine"


def _cut_off(settings: Settings) -> Iterator[str]:
    if settings.heartbeat.interval > PATIENCE_OF_NATS_S / 2:
        yield (
            f"two of heartbeat.interval, {show_seconds(settings.heartbeat.interval)}, do not fit into the "
            f'{PATIENCE_OF_NATS_S:g} s after which many proxies and NATs cut a silent connection; set "25s"'
        )


def _silent(settings: Settings) -> Iterator[str]:
    for pattern, rules in settings.rooms.overrides.items():
        if rules.get("signatures") == "required" and not settings.signatures.keys:
            yield (
                f"[rooms.{show_text(pattern)}] takes signed messages only and there are no [[signatures.keys]], so "
                "nobody can speak there; add one"
            )


def _misspelt(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that would be settings if they had two underscores; no Kubernetes service's, as CHATD_SERVER_PORT."""
    for section, kind in SECTIONS.items():
        for key in options(kind):
            name = f"CHATD_{section}_{key}".upper()
            if not environ.get(name, "tcp://").startswith(("tcp://", "udp://", "sctp://")):
                yield f"{name} is no setting and is ignored; CHATD_{section.upper()}__{key.upper()} is one"
