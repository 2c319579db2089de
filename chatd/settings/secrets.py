"""What the files beside the configuration hold: secrets and public keys, taken in and judged as they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from .declaring import SettingsError
from .keys import ALGORITHMS, API_KEY_BYTES, HMAC_KEY_BYTES, KEY_SOURCES, ApiKey, Key, SigningKey
from .kinds import is_url, moment, show_text
from .tree import Hooks


def unreadable(what: str, path: Path, error: OSError) -> str:
    return f"expected to read {what} from {path}, got: {error.strerror}; check the path and who may read it"


def with_material(key: Key, base: Path) -> Key:
    """The key with what its files hold; relative paths start at `base`."""
    if complaint := _key_complaint(key):
        raise SettingsError(f"{key.where}: {complaint}")
    files: dict[str, Any] = {
        name: str(base / getattr(key, name)) for name in KEY_SOURCES if "file" in name and getattr(key, name)
    }
    key = replace(key, **files)
    if key.public_key_file:
        content = read_bytes_of("public_key_file", Path(key.public_key_file), key.where)
        return replace(key, public_key=content.decode(errors="replace"))
    if key.algorithm not in HMAC_KEY_BYTES:
        return key
    least, name = HMAC_KEY_BYTES[key.algorithm], f"key {show_text(key.kid)}"
    return replace(key, secret_bytes=_secret_of(key, name, least, f"bytes for {key.algorithm}"))


def _with_api_secret(key: ApiKey, base: Path) -> ApiKey:
    """The key with its secret; a relative path starts at `base`."""
    name = f"key {show_text(key.name)}"
    if not key.name or bool(key.secret) == bool(key.secret_file) or not key.scopes:
        raise SettingsError(
            f"{key.where}: expected {name} of [[api.keys]] to have a name, scopes, and exactly one of secret and "
            "secret_file, got something else"
        )
    key = replace(key, secret_file=str(base / key.secret_file) if key.secret_file else "")
    return replace(key, secret_bytes=_secret_of(key, name, API_KEY_BYTES, make="openssl rand -hex 24"))


def _with_signing_secret(key: SigningKey, base: Path) -> SigningKey:
    """The key with its secret; a relative path starts at `base`."""
    name = f"key {show_text(key.kid)}"
    if not key.kid or ":" in key.kid or bool(key.secret) == bool(key.secret_file):
        raise SettingsError(
            f"{key.where}: expected {name} of [[signatures.keys]] to have a kid without a colon, and exactly one of "
            "secret and secret_file, got something else"
        )
    key = replace(key, secret_file=str(base / key.secret_file) if key.secret_file else "")
    secret = _secret_of(key, name, HMAC_KEY_BYTES["HS256"])
    return replace(key, secret_bytes=secret, until=moment(key.accept_until))


def with_hook_secret(hooks: Hooks, where: str) -> Hooks:
    """The hooks with their secret; `where` is the place that names its file."""
    file = hooks.secret_file
    secret = read_bytes_of("hooks.secret_file", Path(file), where) if file else hooks.secret.encode()
    return replace(hooks, secret_bytes=secret)


def _secret_of(
    key: Key | ApiKey | SigningKey,
    name: str,
    least: int,
    unit: str = "bytes",
    make: str = "openssl rand -base64 48",
) -> bytes:
    """The secret that stands in a key's table or in its file, whose path is whole by now.

    Raises:
        SettingsError: the file cannot be read, or it is shorter than `least` bytes.
    """
    secret = read_bytes_of("secret_file", Path(key.secret_file), key.where) if key.secret_file else key.secret.encode()
    if len(secret) < least:
        raise SettingsError(
            f"{key.where}: expected the secret of {name} to have at least {least} {unit}, got {len(secret)}; "
            f"make one with `{make}`"
        )
    return secret


class Table(NamedTuple):
    """Settings that are a list of tables, such as [[auth.keys]].

    Attributes:
        kind: declares the settings of one; has a `where`.
        complete: judges one and reads its files, which lie relative to a directory.
        example: shown where there is none.
    """

    kind: type
    complete: Callable[[Any, Path], Any]
    example: Any


TABLES: Mapping[tuple[str, str], Table] = {
    ("auth", "keys"): Table(Key, with_material, Key(kid="main", algorithm="HS256")),
    ("api", "keys"): Table(ApiKey, _with_api_secret, ApiKey(name="backend", scopes=("publish", "history"))),
    ("signatures", "keys"): Table(SigningKey, _with_signing_secret, SigningKey(kid="2026-1")),
}


def read_bytes_of(what: str, path: Path, where: str) -> bytes:
    """What `path` holds, without the line end that editors and `echo` leave after it."""
    try:
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise SettingsError(f"{where}: {unreadable(what, path, error)}") from None


def _key_complaint(key: Key) -> str:
    """What is wrong with a key in itself; "" for nothing."""
    name = f"key {show_text(key.kid)}"
    given = [source for source in KEY_SOURCES if getattr(key, source)]
    if len(given) != 1:
        return f"expected {name} to have exactly one of {', '.join(KEY_SOURCES)}, got {' and '.join(given) or 'none'}"
    [source] = given
    wanted = (
        HMAC_KEY_BYTES if source.startswith("secret") else [each for each in ALGORITHMS if each not in HMAC_KEY_BYTES]
    )
    if key.algorithm not in wanted and (key.algorithm or not source.startswith("jwks")):
        came = key.algorithm or "none"
        return f"expected {name}, which has a {source}, to have algorithm {' or '.join(wanted)}, got {came}"
    if key.jwks_url and not is_url(key.jwks_url):
        return f"expected jwks_url of {name} to start with https://, and a host, got something else"
    return ""
