"""How a receiver knows that a request is ours; and what callers know of it without the library that carries it."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import NamedTuple


class HookFailed(Exception):
    """The application did not take it; one sentence."""


class Answer(NamedTuple):
    status: int
    body: bytes


def signature(secret: bytes, at: int, body: bytes) -> str:
    """X-Chatd-Signature of a body sent at Unix second `at`: "t=<at>,v1=<hex>", the HMAC-SHA256 of "<at>.<body>".

    The time is under the signature, so that a receiver can refuse what was recorded and sent again.
    """
    mac = hmac.new(secret, b"%d." % at + body, sha256)
    return f"t={at},v1={mac.hexdigest()}"
