"""The log's way into systemd's journal, with every field apart: `journalctl CHATD_EVENT=ready CHATD_NODE=…`.

An entry is one datagram in the journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), a dozen lines that need no
library. Where it cannot be sent, the message goes to stderr, which leads to the journal too, without the fields.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from typing import IO, Any, Final

ADDRESS: Final = "/run/systemd/journal/socket"

# syslog(3); a level not listed is a bug's, and as urgent as an error.
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
ERROR: Final = 3


def reads(stream: Any, environ: Mapping[str, str]) -> bool:
    """Whether what is written to `stream` ends in the journal: JOURNAL_STREAM has its device and inode.

    A descriptor that somebody has redirected since has another inode, so a stale variable misleads nobody.
    """
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # no file, closed, or no descriptor behind it
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def entry(event: Mapping[str, Any]) -> bytes:
    """The datagram for what structlog made of one line of the log: `event`, `level` and whatever else was said."""
    said = {key: value for key, value in event.items() if key not in ("event", "level", "exception")}
    fields = {
        "MESSAGE": message(event["event"], said, event.get("exception", "")),
        "PRIORITY": PRIORITIES.get(event.get("level", ""), ERROR),
        "SYSLOG_IDENTIFIER": "chatd",
        "CHATD_EVENT": event["event"],
        **{field_name(key): value for key, value in said.items()},
    }
    return b"".join(field(name, str(value)) for name, value in fields.items())


def message(event: str, said: Mapping[str, Any], traceback: str) -> str:
    """What a person reads."""
    line = " ".join((event, *(f"{key}={value}" for key, value in said.items())))
    return f"{line}\n{traceback}" if traceback else line


def field_name(key: str) -> str:
    """CHATD_KEY, of the capitals, digits and underscores that the journal allows, 64 at most."""
    return f"CHATD_{re.sub('[^A-Z0-9_]', '_', key.upper())}"[:64]


def field(name: str, value: str) -> bytes:
    """NAME=value, or where the value has several lines the name, its length in 64 bits and the value."""
    text = value.encode(errors="replace")
    if b"\n" not in text:
        return b"%b=%b\n" % (name.encode(), text)
    return b"%b\n%b%b\n" % (name.encode(), len(text).to_bytes(8, "little"), text)


class Journal:
    """What structlog logs to. It waits for nobody: a journal that is busy gets the message by stderr.

    Args:
        fallback: where a message goes as text that could not be sent: no journal there, too long, or too busy.
    """

    def __init__(self, fallback: IO[str], address: str) -> None:
        self._fallback = fallback
        self._address = address

    def msg(self, event: MutableMapping[str, Any]) -> None:
        try:
            # One for each entry: it costs less than a line of the log does, and a log set up anew leaves none behind.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(entry(event), self._address)
        except OSError:
            print(message(event["event"], {}, event.get("exception", "")), file=self._fallback, flush=True)

    log = debug = info = warn = warning = error = critical = exception = fatal = msg
