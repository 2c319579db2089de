"""Who may have lost a right to a room since it was asked: for whoever is entering one, and so is not in it yet.

Decisions only: no waiting, no clock, no store.
"""

from __future__ import annotations

from typing import Final

# Rooms of which is known when it was; with more, it may have been in any.
ROOMS: Final = 4096


class RightsLost:
    """When somebody here may last have lost a right to a room.

    Attributes:
        count: how often somebody may have; a time to ask about, as it is now.
    """

    def __init__(self) -> None:
        self.count = 0
        self._anywhere = 0
        self._in_room: dict[str, int] = {}

    def note(self, room: str = "") -> None:
        """Somebody may have lost his right to `room`; "": to any."""
        self.count += 1
        if room and len(self._in_room) < ROOMS:
            self._in_room[room] = self.count
        else:
            self._anywhere = self.count
            self._in_room.clear()

    def since(self, count: int, room: str) -> bool:
        """Whether somebody may have lost his right to `room` since it was `count`."""
        return max(self._anywhere, self._in_room.get(room, 0)) > count
