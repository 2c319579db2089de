"""Why a figure falls short of its reach where it does, as far as profiles of the real path tell."""

from __future__ import annotations

from typing import Final

_FULL: Final = "the core is full long before it, and a message waits while all rooms are written to once"

# By figure (or figure and who is measured) and how the case begins, the first that fits.
REASONS: Final = (
    (
        "fan-out",
        "",
        "the system calls alone are 1.05 × the floor's; Python adds a third of a microsecond to each, and three "
        "quarters of a millisecond to each message that comes alone, when all of its code is cold",
    ),
    (
        "busy room",
        "16 under way all over",
        "each message costs a look at a table for each reader, and a copy of what waits for them",
    ),
    (
        "publish",
        "64 publishers",
        "each message is a task of its session's, an answer and a room's round of its own",
    ),
    (
        "publish, the store",
        "",
        "one script looks for mutes, locks, slow mode, roles and retention before it appends: its six commands are a "
        "fourth of it, Lua's strings and garbage around them nearly half, and the append-only file a tenth",
    ),
    (
        "storm",
        "another room",
        "what is paced is all that follows on a request; to accept a connection and to read its request is not",
    ),
    (
        "storm",
        "",
        "a third is the door's: uvicorn's, Starlette's and websockets' handshake; then the registry, the user's own "
        "channel, recovery and presence, each a script and a turn of a task; three writes are an eighth, the garbage "
        "collector's look at all that is new a tenth",
    ),
    ("latency", "1 node, rooms of 91, 50%", _FULL),
    ("latency", "2 nodes, rooms of 91, 50%", f"{_FULL}; two nodes share that core"),
    (
        "latency",
        "",
        "a message waits while the readers of other rooms are written to, and for whatever else the core's host does",
    ),
    ("scale-out", "", "two nodes share one core here, and what each does for itself is not shared"),
    ("idle CPU", "", "a ping and its pong are two system calls, a turn of the loop and a parsed message in Python"),
    ("slow readers", "", "the goodbyes to all of them fall into one message's turn"),
)


def reason(figure: str, case: str, who: str) -> str:
    """The sentence for a case that falls short; "" where none is known yet."""
    names = (f"{figure}, {who}", figure)
    found = (why for wanted in names for name, begins, why in REASONS if name == wanted and case.startswith(begins))
    return next(found, "")
