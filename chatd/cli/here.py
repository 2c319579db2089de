"""How a command reaches who listens on this machine: an address to connect to, and whom to believe there."""

from __future__ import annotations

import ssl

# Who listens everywhere is asked here.
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def reachable(host: str) -> str:
    """Where to connect to who listens at `host`."""
    return ANYWHERE.get(host, host)


def anybody() -> ssl.SSLContext:
    """Whoever answers on this machine is believed: its certificate is for another name, and no stranger is here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
