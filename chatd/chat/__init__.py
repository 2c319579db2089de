"""What clients can do: a message's way goes through here once.

What a client asked for is checked against the rules, carried out on the store, and answered. Chat knows sessions, the
hub, the store and the rules. It knows no wire format and no socket.

desk        requests come in, in order and at their client's pace
rows        a row for each command, a row for each method: what it costs, and who does it
entry       who somebody is, and what the cluster is told of it
living      which nodes answer
reading     being in a room
rights      when somebody may have lost his right to one; pure
rooms       what is written down about it, and who belongs to it
messages    what is said in it
changes     what becomes of that: edits, deletions, reactions
folded      how it stands now
mentions    who is told that he was spoken of
cursors     typing, reading, and what is unread
moderation  what a room's moderators do; blocking and reporting
scrutiny    what is looked at in everything that is said
tokens      what ends, and is renewed
context     what all of these work with
"""

from __future__ import annotations

from . import desk, entry, reading, tokens
from .context import Context


class Chat(Context):
    """The verbs by which the rest of the node speaks to chat. One object per node."""

    seat = desk.seat
    received = desk.received
    emulated = desk.emulated
    heard = desk.heard
    lost = entry.lost
    register_anew = entry.register_anew
    from_now_on = reading.from_now_on
    put_out = reading.put_out
    bring_in = reading.bring_in
    lost_history = reading.lost_history
    expire = tokens.expire
