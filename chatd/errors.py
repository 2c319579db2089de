"""What chatd refuses, and how it says goodbye: two tables, and the two exceptions that carry a row of them.

A Reject is a reply: the connection goes on. A Disconnect is a goodbye: its code tells the client whether to come back.
Numbers below 400, and 3000-3999, are the Centrifuge protocol's; 400-499 and 4000-4999 are chatd's own.

Here are only numbers and sentences. Turning them into bytes is wire's work, into HTTP answers web's.
"""

from __future__ import annotations


class Reject(Exception):
    """A command was refused; the connection goes on.

    Args:
        code: the protocol's error code.
        text: one sentence for the developer at the other end: what was expected, what came.
        temporary: whether the same command may succeed later, so that an SDK tries again by itself.
        retry_after_ms: how long to wait first; None where waiting does not help or is not known.
    """

    def __init__(self, code: int, text: str, *, temporary: bool = False, retry_after_ms: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.temporary = temporary
        self.retry_after_ms = retry_after_ms

    def anew(self) -> Reject:
        """The same refusal to be raised: a row of the table itself would keep the traceback of every raise."""
        return self.because(self.text, retry_after_ms=self.retry_after_ms)

    def because(self, text: str, *, retry_after_ms: int | None = None) -> Reject:
        """The same refusal, with a sentence about this very case."""
        return Reject(self.code, text, temporary=self.temporary, retry_after_ms=retry_after_ms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reject) and other.code == self.code

    def __hash__(self) -> int:
        return hash(self.code)


class Disconnect(Exception):
    """The connection ends, with this WebSocket close code and reason (at most 123 bytes, RFC 6455, 5.5)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    @property
    def comes_back(self) -> bool:
        """Whether a client that follows the protocol reconnects by itself after this code."""
        return not (3500 <= self.code < 4000 or 4500 <= self.code < 5000)

    def anew(self) -> Disconnect:
        """The same goodbye to be raised: a row of the table itself would keep the traceback of every raise."""
        return self.because(self.reason)

    def because(self, reason: str) -> Disconnect:
        """The same goodbye, with a reason of its own, cut to what a close frame holds."""
        return Disconnect(self.code, reason.encode()[:123].decode(errors="ignore"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Disconnect) and other.code == self.code

    def __hash__(self) -> int:
        return hash(self.code)


# Replies of the Centrifuge protocol.
INTERNAL = Reject(100, "internal server error", temporary=True)
UNAUTHORIZED = Reject(101, "unauthorized")
PERMISSION_DENIED = Reject(103, "permission denied")
METHOD_NOT_FOUND = Reject(104, "method not found")
ALREADY_SUBSCRIBED = Reject(105, "already subscribed")
LIMIT_EXCEEDED = Reject(106, "limit exceeded")
BAD_REQUEST = Reject(107, "bad request")
NOT_AVAILABLE = Reject(108, "not available")
TOKEN_EXPIRED = Reject(109, "token expired")
TOO_MANY_REQUESTS = Reject(111, "too many requests", temporary=True)
UNRECOVERABLE = Reject(112, "unrecoverable position")

# Replies of chatd's own.
STORE_UNAVAILABLE = Reject(400, "the store does not answer; send the same message again", temporary=True)
MUTED = Reject(401, "muted")
LOCKED = Reject(402, "the room is locked")
BANNED_HERE = Reject(403, "banned from this room")
NO_SUCH = Reject(404, "no such thing")
SLOW_MODE = Reject(405, "the room is slow; wait", temporary=True)
EXISTS = Reject(406, "it exists already")
BAD_SIGNATURE = Reject(407, "bad signature")
SIGNATURE_NEEDED = Reject(408, "this room takes signed messages only")
REPLAYED = Reject(409, "this signature was used before")
DELETED = Reject(410, "the message was deleted")
TOO_LATE = Reject(411, "too late to change this message")
BLOCKED = Reject(412, "this user does not take messages from you")
TOO_LARGE = Reject(413, "message too large")
WORD_REFUSED = Reject(414, "the message has a word that this room does not take")
FULL = Reject(415, "no more fit in")
LOCKDOWN = Reject(416, "the operators have closed this for now", temporary=True)
HOOK_REFUSED = Reject(417, "the application refused the message")

# Goodbyes after which a client comes back.
SHUTDOWN = Disconnect(3001, "shutdown")
INTERNAL_ERROR = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED = Disconnect(3005, "connection expired")
SLOW = Disconnect(3008, "slow")
INSUFFICIENT_STATE = Disconnect(3010, "insufficient state")
FORCE_RECONNECT = Disconnect(3011, "force reconnect")
CLOSED_FOR_NOW = Disconnect(4000, "lockdown: nobody new is let in for now")
NO_PONG = Disconnect(3012, "no pong")
TOO_MANY_MESSAGES = Disconnect(3013, "too many requests")

# Goodbyes after which it stays away.
INVALID_TOKEN = Disconnect(3500, "invalid token")
NO_TOKEN = Disconnect(3501, "a token is needed, and none came")
BAD_COMMAND = Disconnect(3501, "bad request")
STALE = Disconnect(3502, "stale")
FORCE_DISCONNECT = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT = Disconnect(3504, "connection limit")
NO_ACCESS = Disconnect(3507, "permission denied")
NO_HANDLER = Disconnect(3508, "not available")
KICKED = Disconnect(4500, "kicked by an operator")
REVOKED = Disconnect(4501, "token revoked")
BANNED = Disconnect(4502, "banned")

# Goodbyes of WebSocket itself (RFC 6455, 7.4.1).
NORMAL = Disconnect(1000, "")
GOING_AWAY = Disconnect(1001, "")
PROTOCOL_ERROR = Disconnect(1002, "protocol error")
NO_STATUS = Disconnect(1005, "no code given")
ABNORMAL = Disconnect(1006, "connection lost")
INVALID_UTF8 = Disconnect(1007, "invalid UTF-8")
POLICY_VIOLATION = Disconnect(1008, "policy violation")
MESSAGE_TOO_BIG = Disconnect(1009, "message too big")

# Why a subscription ended: below 2500 for good, from there on the SDK subscribes again by itself.
UNSUBSCRIBED_BY_SERVER = (2000, "unsubscribed by the server")
UNSUBSCRIBED_NO_ACCESS = (2000, "this room is not open to you any more")
UNSUBSCRIBED_INSUFFICIENT_STATE = (2500, "insufficient state")
UNSUBSCRIBED_EXPIRED = (2501, "subscription expired")
