"""User and password of an address as HTTP says them (RFC 7617), which the libraries that ask there do not.

What is asked, and of whom, is not known here.
"""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import unquote, urlsplit


def authorization(url: str) -> str | None:
    """The value of the header Authorization; None where `url` names no user."""
    user = urlsplit(url).netloc.rpartition("@")[0]
    return f"Basic {b64encode(unquote(user).encode()).decode()}" if user else None
