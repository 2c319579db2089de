"""TLS in chatd itself: one context for as long as we listen, into which new certificates are loaded.

A certificate lives for weeks and a node for months: who connects after a reload is shown the new one, and who is in
stays in. Which files is the settings' business, when they are read again the node's.
"""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509

from chatd.settings import Tls

# For TLS 1.2, what Mozilla calls intermediate, without the DHE suites that no client of today needs; 1.3 has only good
# ones. All have forward secrecy: who steals the key cannot read what was said before.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def context(tls: Tls) -> ssl.SSLContext | None:
    """A context with the certificate that the settings name; None: they name none.

    Raises:
        ValueError: it cannot be used; one sentence with what to do.
    """
    if not tls.certificate:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_ciphers(CIPHERS)
    made.set_alpn_protocols(["http/1.1"])
    _load(made, tls)
    return made


def renew(kept: ssl.SSLContext, tls: Tls) -> None:
    """Have `kept` show the certificate that is in the files now.

    Raises:
        ValueError: it cannot be used, and `kept` goes on with the old one.
    """
    context(tls)  # on its own first: when the two files do not go together, half of them would be in force
    _load(kept, tls)


def expires_at(certificate: str) -> datetime:
    """When the first certificate of the file, which is ours, ends.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    return x509.load_pem_x509_certificates(Path(certificate).read_bytes())[0].not_valid_after_utc


def shown_until(der: bytes) -> datetime:
    """When a certificate as it is shown in a handshake ends."""
    return x509.load_der_x509_certificate(der).not_valid_after_utc


def _load(made: ssl.SSLContext, tls: Tls) -> None:
    _read("tls.certificate", tls.certificate)
    if b"ENCRYPTED" in _read("tls.key", tls.key):
        raise ValueError(
            f"expected tls.key without a password, which nobody could type here, got {tls.key} with one; write it anew "
            "with `openssl pkey` and let only chatd read it"
        )
    try:
        made.load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(
                f"expected tls.key to be the key of tls.certificate, got another in {tls.key}; name the two that were "
                "made together"
            ) from None
        raise ValueError(
            f"expected PEM in tls.certificate and tls.key, got something else in {tls.certificate} or {tls.key}"
            f" ({error.reason or error}); the certificate comes first, then those of its issuers"
        ) from None


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(
            f"expected to read {setting} from {path}, got: {error.strerror}; check the path and who may read it"
        ) from None
