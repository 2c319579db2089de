"""Starlette at the door, callbacks inside: how a socket comes in through uvicorn and then leaves ASGI behind.

door       uvicorn's HTTP protocol, with bounds on what may happen before a request is complete
handshake  the WebSocket class given to uvicorn: one ASGI handshake
link       what a connection is afterwards: a small object that feeds a Receiver and writes prepared bytes
stream     the same over plain HTTP: an answer that the door has begun, and that does not end

It rests on uvicorn calling `Config(http=…, ws=…)` as it does in 0.53 and 0.54; tests fail if that changes. No task, no
timer and no closure per connection remains after the handshake: what has a deadline is looked at by a sweep. Only the
TLS handshake, which comes before any of this, is timed by the event loop itself.
"""

from __future__ import annotations

from .door import HEADERS, PIPELINED, UNREAD_S, Door, Doorway
from .handshake import ARRIVALS_A_TURN, Arrivals, Handshake
from .link import CLOSING_S, Closing, Link, LinkRules, Receiver
from .stream import Stream

__all__ = [
    "ARRIVALS_A_TURN",
    "CLOSING_S",
    "HEADERS",
    "PIPELINED",
    "UNREAD_S",
    "Arrivals",
    "Closing",
    "Door",
    "Doorway",
    "Handshake",
    "Link",
    "LinkRules",
    "Receiver",
    "Stream",
]
