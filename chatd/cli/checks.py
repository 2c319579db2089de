"""What `chatd doctor` judges: plain functions of what was found, each with one sentence and, where it helps, a remedy.

Nothing is looked at here; that is doctor's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import PurePath
from typing import NamedTuple

from chatd.control import Answers
from chatd.store.errors import StoreError, StoreFull, StoreMisconfigured

from .output import size

# Sockets and files of chatd's own: the listener, the store's connections, logs, the event loop.
OWN_FILES = 64
# Tokens are judged by a node's clock and messages dated by the store's: a second is what a person may notice in a
# message's time, and half a minute what makes fresh tokens "not valid yet".
SKEW_NOTICED_S = 1.0
SKEW_HARMFUL_S = 30.0
# Of a store's memory; past it, it is time to do something.
NEARLY = 0.9
# A replica says every second how far it has come; one that has not for so long hangs, or cannot be reached.
SILENT_REPLICA_S = 3


class State(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(NamedTuple):
    """One thing looked at, in one sentence; `remedy` is empty where there is nothing to mend."""

    name: str
    state: State
    finding: str
    remedy: str = ""


def open_files(allowed: int, connections: int) -> Check:
    """Whether each connection can have a file.

    Args:
        allowed: the hard limit (`ulimit -Hn`), up to which `chatd serve` raises its own.
        connections: as the setting, 0 for no limit.
    """
    wanted = connections + OWN_FILES
    finding = f"{allowed} open files allowed here, limits.connections wants {wanted}"
    if connections == 0 or allowed >= wanted:
        return Check("open files", State.OK, finding)
    remedy = f"LimitNOFILE={wanted} in the unit, `nofile` in /etc/security/limits.conf, or a lower limits.connections"
    return Check("open files", State.WARN, finding, remedy)


def who_listens(name: str, address: str, readiness: Mapping[str, object] | None) -> Check:
    """`readiness` is what the one who holds the port says at /readyz; None: something that is no chatd."""
    if readiness is None:
        remedy = "end that program, or listen elsewhere"
        return Check(name, State.FAIL, f"{address} is held by another program", remedy)
    if not readiness["ready"]:
        return Check(name, State.WARN, f"chatd at {address} is not ready: {readiness['reason']}", "look at its log")
    return Check(name, State.OK, f"chatd answers at {address} and is ready")


def stranger(name: str, address: str, setting: str) -> Check:
    """`setting` is the one that names the address."""
    finding = f"the chatd that answers at {address} is no node of this configuration's store"
    remedy = f"name its own configuration with --config, or end it, or set {setting} to a free place"
    return Check(name, State.WARN, finding, remedy)


def persistence(facts: Mapping[str, str]) -> Check:
    """Whether what the store acknowledged outlives it; `facts` as in its INFO."""
    if facts.get("aof_enabled") == "1":
        if facts.get("aof_last_write_status", "ok") != "ok":
            return Check("persistence", State.FAIL, "the store cannot write its append-only file", "look at its disk")
        return Check("persistence", State.OK, "the store writes an append-only file")
    if facts.get("rdb_last_bgsave_status", "ok") != "ok":
        return Check("persistence", State.FAIL, "the store's last snapshot failed", "look at its disk and its log")
    finding = "the store keeps snapshots at most: if it dies, acknowledged messages are lost"
    return Check("persistence", State.WARN, finding, "`appendonly yes` in the store's configuration")


def writes(facts: Mapping[str, str]) -> Check:
    """Whether the store may take any, as a replica may not, nor a master whose min-replicas-to-write is not met.

    How many it waits for it does not say here, so only that there is none is found.
    """
    if facts.get("role") == "slave":
        remedy = "name its master in redis.url, or its Sentinels (redis+sentinel://)"
        return Check("writes", State.FAIL, "the store is a replica, which takes no writes", remedy)
    if facts.get("min_slaves_good_slaves") == "0":
        finding = "no replica copies the store, and by its min-replicas-to-write it takes no writes without"
        return Check("writes", State.FAIL, finding, "start a replica, or see in its log why it lags")
    return Check("writes", State.OK, "the store may take writes")


def copies(facts: Mapping[str, str], wanted: int) -> Check:
    """Whether as many replicas copy the store as redis.wait_replicas wants."""
    lines = (line for name, line in facts.items() if re.fullmatch(r"slave\d+", name))
    lags = [int(found[1]) for line in lines if (found := re.search(r"\bstate=online,.*\blag=(\d+)", line))]
    there = sum(lag < SILENT_REPLICA_S for lag in lags)
    finding = f"{there} of the {wanted} replicas that redis.wait_replicas wants copy the store"
    if there >= wanted:
        return Check("replicas", State.OK, finding)
    remedy = "start replicas, or see in their logs why they lag, or lower redis.wait_replicas"
    return Check("replicas", State.FAIL, f"{finding}; until then messages are refused", remedy)


def memory(facts: Mapping[str, str]) -> Check:
    """Whether the store has room for more."""
    used, most = int(facts.get("used_memory", "0")), int(facts.get("maxmemory", "0"))
    if not most:
        return Check("memory", State.OK, f"the store uses {size(used)}, and may take all there is")
    finding = f"the store uses {size(used)} of the {size(most)} that its maxmemory allows"
    if used < NEARLY * most:
        return Check("memory", State.OK, finding)
    state = State.WARN if used < most else State.FAIL
    return Check("memory", state, finding, "raise its maxmemory, or have rooms keep less")


def eviction(facts: Mapping[str, str]) -> Check:
    """Whether a store that is full throws away what chatd needs, or refuses, which chatd says to its clients."""
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") == "0" or policy == "noeviction":
        return Check("eviction", State.OK, "the store throws nothing away when memory is short")
    finding = f"the store throws keys away when memory is short (maxmemory-policy {policy})"
    return Check("eviction", State.FAIL, finding, "`maxmemory-policy noeviction` in the store's configuration")


def clocks(skew_s: float) -> Check:
    """`skew_s` is how far the store's clock is ahead of ours."""
    finding = f"the store's clock and ours are {abs(skew_s):.2f} s apart"
    if abs(skew_s) < SKEW_NOTICED_S:
        return Check("clocks", State.OK, finding)
    state = State.WARN if abs(skew_s) < SKEW_HARMFUL_S else State.FAIL
    return Check("clocks", state, finding, "run NTP on both (`timedatectl set-ntp true`)")


def nodes(answers: Answers, *, writable: bool) -> Iterator[Check]:
    """Which nodes answer, and whether each hears the store; `writable`: a node could have said there that it lives."""
    if not answers.by_node and not answers.missing:
        remedy = "mend the store first: without writes, a node that runs cannot say that it does"
        yield Check("nodes", State.WARN, "no chatd is alive on this store", "`chatd serve`" if writable else remedy)
    for node in answers.missing:
        remedy = "look at its log; the cluster clears up after it when its lease ends"
        yield Check(f"node {node}", State.FAIL, "does not answer", remedy)
    for node, answer in sorted(answers.by_node.items()):
        feed = answer["node"]["store"]["feed"]
        if feed == "live":
            yield Check(f"node {node}", State.OK, "answers, and its feed from the store is live")
        else:
            remedy = f"`chatd undrain {node}`" if feed == "drained" else "look at its log"
            yield Check(f"node {node}", State.WARN, f"answers, and says: {feed}", remedy)


def refused(name: str, error: StoreError) -> Check:
    """The store is none that we can use, has no room, or does not answer."""
    if isinstance(error, StoreMisconfigured):
        return Check(name, State.FAIL, str(error), "put such a server there, or mend redis.url")
    if isinstance(error, StoreFull):
        return Check(name, State.FAIL, str(error), "make room: chatd goes on by itself as soon as there is some")
    return Check(name, State.FAIL, str(error), "start it, or set redis.url to where it is")


# --- what stands around chatd -----------------------------------------------------------------------------------------

# ProtectHome= and PrivateTmp= of systemd.exec(5) hide these from a service, so that it could not find its own program.
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 -- named, not used

# pipx has --global only since 1.5; Debian 12 has 1.1.
WHERE_NOTHING_HIDES = "`PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install chatd`"


def hiding(path: str) -> str:
    """The directory that hides `path` from a sandboxed service; "" when none does."""
    return next((place for place in HIDDEN if PurePath(path).is_relative_to(place)), "")


def installation(prefix: str, supervised: bool) -> Check:
    """`prefix` is where chatd is installed; `supervised`: the machine runs systemd, which may be asked to run it."""
    if not hiding(prefix) or not supervised:
        return Check("installation", State.OK, f"chatd is installed in {prefix}")
    finding = f"chatd is installed in {prefix}, which the sandbox of the shipped units hides"
    return Check("installation", State.WARN, finding, f"for a service, {WHERE_NOTHING_HIDES}")


# Certificates that renew themselves do so a month before their end, or, of 90 days or less, when a third is left.
RENEWAL = timedelta(days=14)


def certificate(ends: datetime, now: datetime) -> Check:
    day = f"{ends:%Y-%m-%d %H:%MZ}"
    remedy = "renew it, and `systemctl reload chatd` (SIGHUP)"
    if ends <= now:
        return Check("certificate", State.FAIL, f"tls.certificate has ended at {day}: nobody can connect", remedy)
    if ends - now < RENEWAL:
        return Check("certificate", State.WARN, f"tls.certificate ends soon, at {day}", remedy)
    return Check("certificate", State.OK, f"tls.certificate is good until {day}")


def certificate_shown(shown: datetime, in_file: datetime) -> Check:
    """Whether the node that listens shows the certificate that is in the file."""
    if shown == in_file:
        return Check("certificate shown", State.OK, "the node shows the certificate that is in the file")
    finding = (
        f"the node shows a certificate until {shown:%Y-%m-%d %H:%MZ}, the file has one until {in_file:%Y-%m-%d %H:%MZ}"
    )
    return Check("certificate shown", State.WARN, finding, "`systemctl reload chatd` (SIGHUP) whenever it is renewed")


SECONDS_BY_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# What NGINX takes when nothing is said (ngx_http_proxy_module).
NGINX_READ_TIMEOUT_S = 60.0


def proxy(file: str, text: str, heartbeat_s: float) -> Check:
    """Whether a proxy, by the `text` of its configuration, has the patience for connections that only answer pings."""
    patience = proxy_patience(text)
    wanted = 2 * heartbeat_s
    if patience is None:
        remedy = "name the file that has the proxy_pass of NGINX or the timeouts of HAProxy"
        return Check("proxy", State.WARN, f"{file} says nothing of how long it waits for a silent connection", remedy)
    if patience > wanted:
        return Check("proxy", State.OK, f"{file} waits {patience:g} s for a silent connection")
    finding = f"{file} cuts connections that are silent for {patience:g} s; two heartbeats take {wanted:g} s"
    remedy = f"`proxy_read_timeout {3 * heartbeat_s:g}s;` (HAProxy: `timeout tunnel`), or a shorter heartbeat.interval"
    return Check("proxy", State.FAIL, finding, remedy)


def proxy_patience(text: str) -> float | None:
    """Seconds after which NGINX or HAProxy cuts a silent connection, by its shortest word; None: it says nothing."""
    said = re.sub(r"#.*", "", text)
    if "proxy_pass" in said:
        times = [_seconds(word, "s") for word in re.findall(r"\bproxy_read_timeout\s+([^;]+);", said)]
        return min(times, default=NGINX_READ_TIMEOUT_S)
    times = [_seconds(word, "ms") for word in re.findall(r"\btimeout\s+tunnel\s+(\S+)", said)]
    times = times or [_seconds(word, "ms") for word in re.findall(r"\btimeout\s+(?:client|server)\s+(\S+)", said)]
    return min(times, default=None)


def _seconds(text: str, unit: str) -> float:
    """`1m30s` or `90`, whose unit each proxy chooses for itself."""
    parts = re.findall(r"([0-9]+)(ms|[smhd])?", text)
    return sum(int(number) * SECONDS_BY_UNIT[given or unit] for number, given in parts)
