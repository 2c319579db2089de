"""Who somebody is: a token goes in, an Identity comes out, or a refusal.

There is no question here that is answered with true or false: what comes back is what one needs to go on, so a call
that was not awaited, and a refusal that was not caught, let nobody in.

Where a token is found (header, cookie, connect command) is the doors' business; what an identity may do is rules.py's.

tokens       whose a token is; minting
claims       what a token says
keys         what tokens are signed with
revocations  what no longer counts
signatures   proof of who said a message
"""

from __future__ import annotations

from .claims import TOKEN_BYTES
from .keys import ASYMMETRIC, KEY_SET_BYTES, SYMMETRIC, Key
from .revocations import FOR_EVER_S, Revocation, Revocations
from .signatures import Signatures, Signed, SigningKey
from .tokens import KEY_SET_FRESH_S, Verifier, inspect, mint

__all__ = [
    "ASYMMETRIC",
    "FOR_EVER_S",
    "KEY_SET_BYTES",
    "KEY_SET_FRESH_S",
    "SYMMETRIC",
    "TOKEN_BYTES",
    "Key",
    "Revocation",
    "Revocations",
    "Signatures",
    "Signed",
    "SigningKey",
    "Verifier",
    "inspect",
    "mint",
]
