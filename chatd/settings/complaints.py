"""What is wrong between values that are right by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .keys import API_KEY_BYTES, ApiKeys, SigningKeys
from .kinds import host_and_port, is_host, is_loopback, is_url, show_bytes, show_seconds, show_text, unix_path
from .tree import HOOK_EVENTS, Settings

REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://")

# RFC 6265, 4.1.1: a token of HTTP. Empty: no cookie is read.
COOKIE_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]*"


def complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong between values that are right by themselves: the key to look at, and a sentence."""
    yield from _listen_complaints(settings)
    yield from _auth_complaints(settings)
    yield from _worker_complaints(settings)
    yield from _api_complaints(settings.api.keys)
    yield from _hook_complaints(settings)
    yield from _signature_complaints(settings.signatures.keys)
    yield from _time_complaints(settings)
    yield from _size_complaints(settings)
    if bool(settings.tls.certificate) is not bool(settings.tls.key):
        given, missing = ("certificate", "key") if settings.tls.certificate else ("key", "certificate")
        yield f"tls.{given}", f"expected tls.certificate and tls.key together, got no tls.{missing}; set it, or neither"
    url, prefix = settings.redis.url, settings.redis.prefix
    if not prefix or set(prefix) & set("{}"):  # a brace would be a hash tag, and scatter what has to lie together
        yield "redis.prefix", f"expected redis.prefix to be text without {{ and }}, got {show_text(prefix)}"
    if url and not url.startswith(REDIS_SCHEMES):
        yield "redis.url", f"expected redis.url to start with one of {', '.join(REDIS_SCHEMES)}, got something else"
    if settings.redis.wait_replicas and (not url or url.startswith("redis+cluster://")):
        yield (
            "redis.wait_replicas",
            "expected redis.wait_replicas only where redis.url names one server or its Sentinels, got it "
            f"{'with a cluster' if url else 'without a redis.url'}; leave it out",
        )
    if url and settings.redis.appendfsync == "always":
        yield (
            "redis.appendfsync",
            "expected redis.appendfsync only for the embedded store, got it with a redis.url; set it in that server's "
            "own configuration",
        )


def _given(settings: Settings, *keys: str) -> str:
    """The first of these that somebody set, for there is the line to look at; else the first of all."""
    return next((key for key in keys if key in settings.sources), keys[0])


def _auth_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    auth, host = settings.auth, settings.server.host
    kids = [key.kid for key in auth.keys if key.kid]
    for kid in {kid for kid in kids if kids.count(kid) > 1}:
        yield "auth.keys", f"expected every key to have a kid of its own, got {show_text(kid)} twice; rename one"
    if not re.fullmatch(COOKIE_NAME, auth.cookie):
        yield (
            "auth.cookie",
            f"expected auth.cookie to be the name of a cookie, without spaces, got {show_text(auth.cookie)}",
        )
    if auth.mode == "jwt" and not auth.keys:
        yield (
            "auth.mode",
            'expected a key for auth.mode "jwt", got none; add an [[auth.keys]] table',
        )
    if auth.effective_mode == "open" and not is_loopback(host):
        yield (
            "server.host",
            f"expected a loopback address for server.host in open mode, where anybody may be anybody, got "
            f'{show_text(host)}; add an [[auth.keys]] table with auth.mode = "jwt", or set server.host = "127.0.0.1"',
        )


def _worker_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    workers, listen = settings.server.workers, settings.admin.listen
    if workers > 1 and listen and not unix_path(listen):
        port = host_and_port(listen)[1]
        if not 0 < port <= 65_536 - workers:
            yield (
                "admin.listen",
                f"expected a port for admin.listen with {workers - 1} after it, for as many more server.workers, got "
                f"{port}; name one from 1 to {65_536 - workers}",
            )


def _listen_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    server, listen = settings.server, settings.admin.listen
    if not is_host(server.host):
        bare = server.host.strip("[]")
        hint = f"; write {bare}" if bare != server.host and is_host(bare) else ""
        yield (
            "server.host",
            f"expected server.host to be an address, a name or unix:/path, got {show_text(server.host)}{hint}",
        )
    if server.port and listen and host_and_port(listen) == (server.host, server.port):
        yield (
            "admin.listen",
            f"expected admin.listen to differ from where everybody comes in, got {listen}, which is server.host and "
            "server.port; name another port",
        )


def _hook_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    hooks = settings.hooks
    if hooks.secret and hooks.secret_file:
        yield "hooks.secret", "expected one of hooks.secret and hooks.secret_file, got both; remove one"
    secret = "hooks.secret_file" if hooks.secret_file else "hooks.secret"
    for key in ("url", "before_publish"):
        url = getattr(hooks, key)
        if url and not is_url(url):
            yield (
                f"hooks.{key}",
                f"expected hooks.{key} to start with https:// or http://, and a host, got something else",
            )
        elif not url.isascii():  # as HTTP wants it
            yield (
                f"hooks.{key}",
                f"expected hooks.{key} to be ASCII, got more; write a name as xn--..., a path as %C3...",
            )
        if url and len(hooks.secret_bytes) < API_KEY_BYTES:
            yield (
                _given(settings, secret, f"hooks.{key}"),
                f"expected {secret} to have at least {API_KEY_BYTES} bytes where hooks are on, got "
                f"{len(hooks.secret_bytes)}; make one with `openssl rand -hex 24`",
            )
    for event in set(hooks.events).difference(HOOK_EVENTS):
        known = ", ".join(HOOK_EVENTS)
        yield "hooks.events", f"expected hooks.events to be some of {known}, got {show_text(event)}"


def _api_complaints(keys: ApiKeys) -> Iterator[tuple[str, str]]:
    names, secrets = [key.name for key in keys], [key.secret_bytes for key in keys]
    if len(set(names)) < len(names) or len(set(secrets)) < len(secrets):
        yield "api.keys", "expected every key of [[api.keys]] to have a name and a secret of its own, got one twice"


def _signature_complaints(keys: SigningKeys) -> Iterator[tuple[str, str]]:
    if len({key.kid for key in keys}) < len(keys):
        yield "signatures.keys", "expected every key of [[signatures.keys]] to have a kid of its own, got one twice"


def _time_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    cluster, heartbeat = settings.cluster, settings.heartbeat
    if cluster.lease <= 2 * cluster.renew:
        yield (
            _given(settings, "cluster.lease", "cluster.renew"),
            f"expected cluster.lease to be more than twice cluster.renew, {show_seconds(cluster.renew)}, so that one "
            f"lost renewal harms nobody, got {show_seconds(cluster.lease)}",
        )
    if heartbeat.interval % 1:
        yield (
            "heartbeat.interval",
            "expected heartbeat.interval to be whole seconds, as the protocol counts it, got "
            f"{show_seconds(heartbeat.interval)}",
        )
    if heartbeat.timeout > heartbeat.interval:
        yield (
            _given(settings, "heartbeat.timeout", "heartbeat.interval"),
            f"expected heartbeat.timeout to be at most heartbeat.interval, {show_seconds(heartbeat.interval)}, got "
            f"{show_seconds(heartbeat.timeout)}",
        )


def _size_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    limits = settings.limits
    if 0 < limits.frame < limits.body:
        yield (
            _given(settings, "limits.body", "limits.frame"),
            f"expected limits.body to be at most limits.frame, {show_bytes(limits.frame)}, got "
            f"{show_bytes(limits.body)}; raise limits.frame, or lower limits.body",
        )
    if limits.bytes_per_second and limits.bytes_burst < limits.frame:
        yield (
            _given(settings, "limits.bytes_burst", "limits.frame"),
            f"expected limits.bytes_burst to be at least limits.frame, {show_bytes(limits.frame)}, or such a frame "
            f"could never be sent, got {show_bytes(limits.bytes_burst)}",
        )
