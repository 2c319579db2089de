"""Where frames leave at once: the sockets of this process's connections, by number.

A frame for a thousand readers is a thousand system calls. All that they need of a connection lies side by side in one
table, and the loop over them is in C: objects of each connection's own, spread over megabytes, and a loop in Python
would cost a tenth of what the kernel does for a frame. Whose a number is, and what waits behind it, is not known here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import repeat
from os import write
from typing import Final

# Stands for the bytes that an outlet took, when it took none because of what is behind it.
REFUSED: Final = -1

# No file has this descriptor: to write to it is an error, as to a socket that takes nothing.
_SHUT: Final = -1
_descriptors: Final = array("i")
_free: Final[list[int]] = []


class Outlet:
    """A connection's socket, to send on past its transport; shut, it takes nothing.

    The socket is the transport's to close; both event loops call `connection_lost` before they do, and then this must
    be shut, so that it never sends to whoever is given the descriptor next.

    Attributes:
        number: of this outlet alone, as long as it lives.
    """

    __slots__ = ("_descriptor", "number")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        if _free:
            self.number = _free.pop()
        else:
            self.number = len(_descriptors)
            _descriptors.append(_SHUT)
        self.open()

    def __del__(self) -> None:
        # Not before: who still has the number, in a room that is left only later, must not send to another.
        self.shut()
        _free.append(self.number)

    def open(self) -> None:
        _descriptors[self.number] = self._descriptor

    def shut(self) -> None:
        _descriptors[self.number] = _SHUT

    def send(self, frame: bytes) -> int:
        """How many of its bytes were taken.

        Raises:
            OSError: none were: something waits behind it; or its socket is full, or was reset a moment ago.
        """
        return write(_descriptors[self.number], frame)


def send_each(numbers: Iterable[int], frames: Iterable[bytes]) -> list[int]:
    """Send each outlet its frame; returns how many bytes each took, or REFUSED."""
    sent: list[int] = []
    descriptors, left = map(_descriptors.__getitem__, numbers), iter(frames)
    while True:
        try:
            sent.extend(map(write, descriptors, left))  # keeps those before one that raises
            return sent
        except OSError:
            sent.append(REFUSED)


def send_all(numbers: Iterable[int], frame: bytes) -> list[int]:
    """As `send_each`, the same frame to all."""
    return send_each(numbers, repeat(frame))
