"""What is wrong between values that are right by themselves."""

from __future__ import annotations

from collections.abc import Iterator

from .keys import API_KEY_BYTES, ApiKeys, SigningKeys
from .kinds import host_and_port, is_loopback, show_bytes, show_seconds, show_text, unix_path
from .tree import HOOK_EVENTS, Hooks, Limits, Settings

REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://")


def complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong between values that are right by themselves: the key to look at, and a sentence."""
    yield from _auth_complaints(settings)
    yield from _worker_complaints(settings)
    yield from _listen_complaints(settings)
    yield from _api_complaints(settings.api.keys)
    yield from _hook_complaints(settings.hooks)
    yield from _signature_complaints(settings.signatures.keys)
    yield from _time_complaints(settings)
    yield from _size_complaints(settings.limits)
    if bool(settings.tls.certificate) is not bool(settings.tls.key):
        given, missing = ("certificate", "key") if settings.tls.certificate else ("key", "certificate")
        yield f"tls.{given}", f"expected tls.certificate and tls.key together, got no tls.{missing}; set it, or neither"
    url = settings.redis.url
    if url and not url.startswith(REDIS_SCHEMES):
        yield "redis.url", f"expected redis.url to start with one of {', '.join(REDIS_SCHEMES)}, got something else"


def _auth_complaints(settings: Settings) -> Iterator[tuple[str, str]]:
    auth, host = settings.auth, settings.server.host
    kids = [key.kid for key in auth.keys if key.kid]
    for kid in {kid for kid in kids if kids.count(kid) > 1}:
        yield "auth.keys", f"expected every key to have a kid of its own, got {show_text(kid)} twice; rename one"
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
    if server.port and listen and host_and_port(listen) == (server.host, server.port):
        yield (
            "admin.listen",
            f"expected admin.listen to differ from where everybody comes in, got {listen}, which is server.host and "
            "server.port; name another port",
        )


def _hook_complaints(hooks: Hooks) -> Iterator[tuple[str, str]]:
    if hooks.secret and hooks.secret_file:
        yield "hooks.secret", "expected one of hooks.secret and hooks.secret_file, got both; remove one"
    secret = "hooks.secret_file" if hooks.secret_file else "hooks.secret"
    for key in ("url", "before_publish"):
        url = getattr(hooks, key)
        if url and not url.startswith(("https://", "http://")):
            yield f"hooks.{key}", f"expected hooks.{key} to start with https:// or http://, got something else"
        if url and len(hooks.secret_bytes) < API_KEY_BYTES:
            yield (
                secret,
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
            "cluster.lease",
            f"expected cluster.lease to be more than twice cluster.renew, {show_seconds(cluster.renew)}, so that one "
            f"lost renewal harms nobody, got {show_seconds(cluster.lease)}",
        )
    if heartbeat.timeout > heartbeat.interval:
        yield (
            "heartbeat.timeout",
            f"expected heartbeat.timeout to be at most heartbeat.interval, {show_seconds(heartbeat.interval)}, got "
            f"{show_seconds(heartbeat.timeout)}",
        )


def _size_complaints(limits: Limits) -> Iterator[tuple[str, str]]:
    if 0 < limits.frame < limits.body:
        yield (
            "limits.body",
            f"expected limits.body to be at most limits.frame, {show_bytes(limits.frame)}, got "
            f"{show_bytes(limits.body)}; raise limits.frame too",
        )
    if limits.bytes_per_second and limits.bytes_burst < limits.frame:
        yield (
            "limits.bytes_burst",
            f"expected limits.bytes_burst to be at least limits.frame, {show_bytes(limits.frame)}, or such a frame "
            f"could never be sent, got {show_bytes(limits.bytes_burst)}",
        )
