"""Authentication: which tokens let somebody in, as whom, and what revoking them does."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from chatd import auth
from chatd.auth import Key, Revocation, Revocations, Verifier, inspect, mint
from chatd.errors import INVALID_TOKEN, PERMISSION_DENIED, TOKEN_EXPIRED, Disconnect, Reject
from chatd.model import Grant, Identity, Invitation, Role

NOW = 1_800_000_000.0
SECRET = b"a secret of sixty-four bytes, so that HS512 is content with it.."
OTHER_SECRET = SECRET[::-1]
RSA, RSA_OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
SIGNERS: dict[str, Any] = {"HS256": SECRET, "HS384": SECRET, "HS512": SECRET, "RS256": RSA, "ES256": EC, "EdDSA": ED}
ANA = {"sub": "ana", "exp": int(NOW) + 60}
HS = Key("main", "HS256", secret=SECRET)


def pem(private: Any) -> str:
    text: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


RS = Key("rsa", "RS256", public_key=pem(RSA))


def key(algorithm: str, kid: str = "main") -> Key:
    signer = SIGNERS[algorithm]
    if isinstance(signer, bytes):
        return Key(kid, algorithm, secret=signer)
    return Key(kid, algorithm, public_key=pem(signer))


def token(
    claims: object = None, *, kid: str | None = "main", algorithm: str = "HS256", signer: Any = None, **header: Any
) -> str:
    """A token as an issuer signs it, however odd: `claims` is any JSON, or bytes that are the payload itself."""
    payload = claims if isinstance(claims, bytes) else json.dumps(ANA if claims is None else claims).encode()
    headers = header if kid is None else {"kid": kid, **header}
    return jwt.PyJWS().encode(payload, signer or SIGNERS[algorithm], algorithm=algorithm, headers=headers)


def by_hand(header: bytes, payload: bytes = json.dumps(ANA).encode(), secret: bytes = SECRET) -> str:
    """A token whose header no library would write, signed with HS256 all the same."""
    signing_input = segment(header) + "." + segment(payload)
    signature = jwt.get_algorithm_by_name("HS256").sign(signing_input.encode(), secret)
    return signing_input + "." + segment(signature)


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def written_otherwise(good: str) -> str:
    """The same bytes in other letters: of a segment's last letter some bits belong to no byte (RFC 4648, 3.5)."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return good[:-1] + letters[letters.index(good[-1]) ^ 1]


def signed_with_the_public_key() -> str:
    """The algorithm swap: the RSA key that everybody knows, used as if it were the secret of HS256."""
    return by_hand(b'{"alg":"HS256","kid":"rsa"}', secret=pem(RSA).encode())


def verifier(*keys: Key, at: float = NOW, **options: Any) -> Verifier:
    return Verifier(keys or (HS,), clock=lambda: at, **options)


# --- the token zoo ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", SIGNERS)
async def test_a_token_of_each_algorithm_is_accepted_with_and_without_kid(algorithm: str) -> None:
    check = verifier(key(algorithm))
    for kid in ("main", None):
        identity = await check.identity(token(algorithm=algorithm, kid=kid))
        assert identity == Identity("ana", expires_at=NOW + 60, kid="main")


async def test_a_token_may_be_padded_as_base64_is_elsewhere() -> None:
    padded = ".".join(part + "=" * (-len(part) % 4) for part in by_hand(b'{"alg":"HS256","b64":true}').split("."))
    signing_input, _, _ = padded.rpartition(".")
    signature = jwt.get_algorithm_by_name("HS256").sign(signing_input.encode(), SECRET)
    assert "=." in signing_input
    assert (await verifier().identity(f"{signing_input}.{base64.urlsafe_b64encode(signature).decode()}")).user == "ana"


ZOO: dict[str, tuple[str, str]] = {
    "nothing": ("", "three segments"),
    "no token": ("ana", "three segments"),
    "two segments": (token().rpartition(".")[0], "three segments"),
    "four segments": (token() + ".x", "three segments"),
    "no base64": ("a.b.c", "base64url"),
    "junk before the header": ("!!!!" + token(), "base64url"),
    "junk within the payload": (token().replace(".", ".!!!!", 1), "base64url"),
    "junk within the signature": (token() + "!!!!", "base64url"),
    "base64 of the other alphabet": (by_hand(b'{"alg":"HS256","x":"~~~"}').replace("-", "+"), "base64url"),
    "a signature written otherwise": (written_otherwise(token()), "base64url"),
    "padding of another length": (token() + "=" * (1 + (len(token().rpartition(".")[2]) % 4 == 3)), "base64url"),
    "too much padding": (token() + "====", "base64url"),
    "a line break at its end": (token() + "\n", "base64url"),
    "not ASCII": (token() + "é", "ASCII"),
    "half a surrogate pair": (token() + "\ud800", "ASCII"),
    "huge": (token({**ANA, "info": "x" * auth.TOKEN_BYTES}), "at most 8192"),
    "no algorithm": (by_hand(b'{"kid":"main"}'), "no key here"),
    "algorithm none": (by_hand(b'{"alg":"none","kid":"main"}').rpartition(".")[0] + ".", 'alg "none"'),
    "algorithm None": (by_hand(b'{"alg":null}'), "no key here"),
    "algorithm as a list": (by_hand(b'{"alg":["HS256"],"kid":"main"}'), "no key here"),
    "another algorithm than the key's": (token(algorithm="HS512"), 'alg "HS512"'),
    "HS256 with RSA's public key": (signed_with_the_public_key(), 'kid "rsa" and alg "HS256"'),
    "RS256 with the kid of HS256": (token(algorithm="RS256", kid="main"), "no key here"),
    "another secret": (token(signer=OTHER_SECRET), "no key here"),
    "another secret, no kid": (token(signer=OTHER_SECRET, kid=None), "without a kid"),
    "another RSA key": (token(algorithm="RS256", signer=RSA_OTHER, kid="rsa"), "no key here"),
    "its own key in the header": (token(signer=OTHER_SECRET, jwk={"kty": "oct", "k": segment(OTHER_SECRET)}), "no key"),
    "unknown kid": (token(kid="spare"), 'kid "spare"'),
    "kid that steers a terminal": (token(kid="\x1b[2J"), r"\\x1b\[2J"),
    "kid as a number": (by_hand(b'{"alg":"HS256","kid":7}'), '"kid" must be a string'),
    "kid null": (by_hand(b'{"alg":"HS256","kid":null}'), '"kid" must be a string'),
    "crit": (by_hand(b'{"alg":"HS256","kid":"main","crit":["exp"],"exp":1}'), "crit"),
    "crit b64": (by_hand(b'{"alg":"HS256","kid":"main","crit":["b64"],"b64":true}'), "crit"),
    "b64 false": (by_hand(b'{"alg":"HS256","kid":"main","b64":false}'), "b64"),
    "b64 false without payload": (by_hand(b'{"alg":"HS256","kid":"main","b64":false}', b""), "b64"),
    "b64 as a number": (by_hand(b'{"alg":"HS256","kid":"main","b64":0}'), "b64"),
    "header twice": (by_hand(b'{"alg":"HS256","alg":"HS256","kid":"main"}'), "same name"),
    "header is a list": (by_hand(b'["HS256"]'), "other JSON came"),
    "sub twice": (token(b'{"sub":"bob","sub":"ana","exp":1800000060}'), "same name"),
    "claims are a list": (token(["ana"]), "other JSON came"),
    "claims are no JSON": (token(b"ana"), "JSON object"),
    "claims are not UTF-8": (token(json.dumps(ANA).encode("utf-16")), "JSON object"),
    "claims too deep": (token(b'{"info":' + b"[" * 2500 + b"]" * 2500 + b"}"), "JSON object"),
    "no exp": (token({"sub": "ana"}), '"exp"'),
    "exp null": (token({**ANA, "exp": None}), '"exp"'),
    "exp as text": (token({**ANA, "exp": "1800000060"}), '"exp" must be a number'),
    "exp true": (token({**ANA, "exp": True}), '"exp" must be a number'),
    "exp infinite": (token({**ANA, "exp": math.inf}), '"exp" must be a number'),
    "exp not a number": (token({**ANA, "exp": math.nan}), '"exp" must be a number'),
    "exp past all calendars": (token({**ANA, "exp": 10**400}), '"exp" must be a number'),
    "no sub": (token({"exp": NOW + 60}), '"sub"'),
    "sub empty": (token({**ANA, "sub": ""}), '"sub"'),
    "sub as a number": (token({**ANA, "sub": 7}), '"sub" must be a string'),
    "sub is half a surrogate pair": (token({**ANA, "sub": "\ud800"}), "surrogates not allowed"),
    "nbf in the future": (token({**ANA, "nbf": NOW + 1}), "not valid yet"),
    "nbf as text": (token({**ANA, "nbf": "now"}), '"nbf" must be a number'),
    "iat as text": (token({**ANA, "iat": "now"}), '"iat" must be a number'),
    "jti as a number": (token({**ANA, "jti": 7}), '"jti" must be a string'),
    "audience nobody asked for": (token({**ANA, "aud": "billing"}), "names an audience"),
    "a subscription token": (token({**ANA, "channel": "lobby"}), "subscription token came"),
    "name as a list": (token({**ANA, "name": ["Ana"]}), '"name" must be a string'),
    "rooms as text": (token({**ANA, "rooms": "lobby"}), '"rooms" must be a list'),
    "room as a number": (token({**ANA, "rooms": [7]}), "must be a pattern"),
    "room without pattern": (token({**ANA, "rooms": [{"role": "owner"}]}), "needs a pattern"),
    "room empty": (token({**ANA, "rooms": [""]}), "needs a pattern"),
    "role empty": (token({**ANA, "rooms": [{"pattern": "a", "role": ""}]}), "role, if any, of guest"),
    "role misspelt": (token({**ANA, "rooms": [{"pattern": "a", "roles": "owner"}]}), "must be a pattern"),
    "info with half a character": (token({**ANA, "info": {"a": "\ud800"}}), '"info"'),
    "info infinite": (token(b'{"sub":"ana","exp":1800000060,"info":1e999}'), '"info"'),
    "bad and expired": (token({"sub": "ana", "exp": 1, "aud": "billing"}), "names an audience"),
    "forged and expired": (token({"sub": "ana", "exp": 1}, signer=OTHER_SECRET), "no key here"),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "why"), ZOO.values(), ids=ZOO)
async def test_a_bad_token_ends_the_connection_with_a_sentence(bad: str, why: str) -> None:
    with pytest.raises(Disconnect, match=why) as goodbye:
        await verifier(HS, RS).identity(bad)
    assert goodbye.value == INVALID_TOKEN
    assert not goodbye.value.comes_back


async def test_a_verifier_without_keys_refuses_everybody() -> None:
    with pytest.raises(Disconnect, match="no key here"):
        await Verifier([]).identity(token())


async def test_a_forgotten_await_lets_nobody_in() -> None:
    forgotten: Any = verifier().identity(token())
    with pytest.raises(AttributeError):
        _ = forgotten.user
    assert not isinstance(forgotten, Identity)
    await forgotten


@pytest.mark.parametrize(
    ("options", "claims", "welcome"),
    [
        ({"audience": "chat"}, {"aud": "chat"}, True),
        ({"audience": "chat"}, {"aud": ["billing", "chat"]}, True),
        ({"audience": "chat"}, {"aud": "chatter"}, False),
        ({"audience": "chat"}, {"aud": {"chat": 1}}, False),
        ({"audience": "chat"}, {"aud": ["billing"]}, False),
        ({"audience": "chat"}, {}, False),
        ({"issuer": "https://id.example"}, {"iss": "https://id.example"}, True),
        ({"issuer": "https://id.example"}, {"iss": "https://id.example.evil"}, False),
        ({"issuer": "https://id.example"}, {"iss": ["https://id.example"]}, False),
        ({"issuer": "https://id.example"}, {}, False),
        ({}, {"iss": "anybody"}, True),
    ],
)
async def test_audience_and_issuer_must_be_the_configured_ones(
    options: dict[str, Any], claims: dict[str, Any], welcome: bool
) -> None:
    presented = verifier(**options).identity(token({**ANA, **claims}))
    if welcome:
        assert (await presented).user == "ana"
    else:
        with pytest.raises(Disconnect):
            await presented


@pytest.mark.parametrize(("leeway", "late"), [(0.0, 60), (0.0, 61), (30.0, 90)])
async def test_a_good_token_after_its_end_is_answered_with_token_expired(leeway: float, late: float) -> None:
    with pytest.raises(Reject, match="expired") as refusal:
        await verifier(at=NOW + late, leeway=leeway).identity(token())
    assert refusal.value == TOKEN_EXPIRED


async def test_leeway_widens_a_token_at_both_ends() -> None:
    assert (await verifier(at=NOW + 89, leeway=30.0).identity(token())).expires_at == NOW + 90
    assert (await verifier(leeway=30.0).identity(token({**ANA, "nbf": NOW + 30}))).user == "ana"


# --- what a good token says -------------------------------------------------------------------------------------------


async def test_every_claim_arrives_in_the_identity() -> None:
    claims = {
        **ANA,
        "name": " Ana\n\u202eLima ",
        "rooms": ["support-*", {"pattern": "staff", "role": "owner"}, {"pattern": "all"}],
        "info": {"color": "red", "line": "a\nb", "big": 12345678901234567890},
        "jti": "t-1",
        "iat": NOW - 5,
    }
    assert await verifier().identity(token(claims)) == Identity(
        user="ana",
        name="Ana Lima",
        info=b'{"color":"red","line":"a\\nb","big":12345678901234567890}',
        grants=(Grant("support-*"), Grant("staff", Role.OWNER), Grant("all")),
        expires_at=NOW + 60,
        token_id="t-1",
        issued_at=NOW - 5,
        kid="main",
    )


@pytest.mark.parametrize("info", [False, 0, "", [], "Zoë\u2028"], ids=ascii)
async def test_any_json_may_be_info(info: object) -> None:
    identity = await verifier().identity(token({**ANA, "info": info}))
    assert identity.info is not None
    assert json.loads(identity.info) == info
    assert b"\n" not in identity.info


async def test_claims_that_are_null_count_as_absent() -> None:
    absent = {"name": None, "rooms": None, "info": None, "jti": None, "iat": None, "nbf": None, "aud": None}
    assert await verifier().identity(token({**ANA, **absent})) == Identity("ana", expires_at=NOW + 60, kid="main")


async def test_a_display_name_is_cut_to_the_configured_length() -> None:
    assert (await verifier(display_name=3).identity(token({**ANA, "name": "Anabel"}))).name == "Ana"


# --- several keys, and what is remembered -----------------------------------------------------------------------------


async def test_while_keys_rotate_both_are_accepted_and_then_only_the_new_one() -> None:
    old, new = HS, Key("next", "HS256", secret=OTHER_SECRET)
    of_old, of_new = token(), token(kid="next", signer=OTHER_SECRET)
    both, only_new = verifier(old, new), verifier(new)
    for presented in (of_old, of_new, token(kid=None), token(kid=None, signer=OTHER_SECRET)):
        assert (await both.identity(presented)).user == "ana"
    assert (await only_new.identity(of_new)).user == "ana"
    with pytest.raises(Disconnect):
        await only_new.identity(of_old)


async def test_a_kid_binds_a_token_to_that_very_key() -> None:
    with pytest.raises(Disconnect):
        await verifier(HS, Key("next", "HS256", secret=OTHER_SECRET)).identity(token(kid="next"))


async def test_a_remembered_token_is_not_verified_again_and_still_ends_in_time() -> None:
    times = [NOW]
    check = Verifier([HS], clock=lambda: times[-1])
    first = await check.identity(token())
    assert await check.identity(token()) is first
    times.append(NOW + 60)
    with pytest.raises(Reject) as refusal:
        await check.identity(token())
    assert refusal.value == TOKEN_EXPIRED


async def test_a_refused_token_is_not_remembered_and_the_oldest_good_ones_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth.tokens, "CACHED_TOKENS", 2)
    check = verifier()
    ana = await check.identity(token())
    bob = await check.identity(token({**ANA, "sub": "bob"}))
    assert await check.identity(token()) is ana
    with pytest.raises(Disconnect):
        await check.identity(token(signer=OTHER_SECRET))
    await check.identity(token({**ANA, "sub": "eve"}))
    assert await check.identity(token()) is ana
    assert await check.identity(token({**ANA, "sub": "bob"})) is not bob


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ([Key("k", "HS256", secret=b"short")], "too weak for HS256"),
        ([Key("k", "HS512", secret=b"x" * 63)], "too weak for HS512"),
        ([Key("k", "RS256", public_key=pem(rsa.generate_private_key(65537, 1024)))], "too weak for RS256"),
        ([Key("k", "HS256", secret=pem(RSA).encode())], "no key for HS256"),
        ([Key("k", "HS256", public_key=pem(RSA))], "wants a secret"),
        ([Key("k", "RS256", secret=SECRET)], "wants a public key"),
        ([Key("k", "RS256", public_key=pem(EC))], "no key for RS256"),
        ([Key("k", "ES256", public_key=pem(ec.generate_private_key(ec.SECP384R1())))], "no key for ES256"),
        ([Key("k", "EdDSA", public_key="hello")], "no key for EdDSA"),
        ([Key("k", "RS256", public_key=RSA.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())], "a private one came"),
        ([Key("k", "none", public_key="")], '"none" came'),
        ([Key("k", "", public_key=pem(RSA))], "expected an algorithm"),
        ([HS, Key("main", "HS512", secret=SECRET)], "configured twice"),
        ([Key("k", "HS256", jwks_url="https://id.example/keys")], '"HS256" came'),
        ([Key("k", "RS256", jwks_file="keys.json", jwks_url="https://id.example/keys")], "one source"),
        ([Key("k", "RS256", secret=SECRET, jwks_file="keys.json")], "one source"),
        ([Key("k", "RS256", jwks_url="file:///etc/passwd")], "https://"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_trusted_is_refused_at_start_with_its_kid(keys: list[Key], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refusal:
        Verifier(keys)
    assert f'"{keys[-1].kid}"' in str(refusal.value)


def test_a_key_shows_no_secret() -> None:
    shown = repr(Key("main", "HS256", secret=SECRET, jwks_url="https://user:password@id.example/"))
    assert "main" in shown
    assert "secret of" not in shown
    assert "password" not in shown


# --- key sets ---------------------------------------------------------------------------------------------------------


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    algorithm = next(name for name, signer in SIGNERS.items() if type(signer) is type(private))
    loaded: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
    return {**loaded, **members}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


class Issuer(ThreadingHTTPServer):
    """A real HTTP server that publishes `body` with `status` and counts who asks; it answers while `open` is set, and
    until then begins to, where it `drips`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), IssuerHandler)
        self.body, self.status, self.asked, self.drips = b"", 200, 0, False
        self.given: str | None = None
        self.open = threading.Event()
        self.open.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/keys"


class IssuerHandler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.given = self.headers["Authorization"]
        self.server.drips or self.server.open.wait(10)
        self.send_response(self.server.status)
        self.send_header("Location", self.server.url)
        self.end_headers()
        while self.server.drips and not self.server.open.wait(0.01):
            self.wfile.write(b" ")
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Issuer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.open.set()
        server.shutdown()
        thread.join()


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def of_ed(kid: str | None = "ed") -> str:
    return token(algorithm="EdDSA", kid=kid)


@pytest.mark.parametrize("algorithm", sorted(auth.ASYMMETRIC))
@pytest.mark.parametrize("kid", ["a", None])
async def test_keys_come_from_a_file(tmp_path: Path, algorithm: str, kid: str | None) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(jwk(RSA, kid="a"), jwk(EC, kid="a"), jwk(ED, kid="a"), jwk(RSA_OTHER, kid="b")))
    check = verifier(Key("file", "", jwks_file=str(path)))
    assert (await check.identity(token(algorithm=algorithm, kid=kid))).user == "ana"


async def test_one_reading_serves_many_who_wait_for_an_unknown_kid(issuer: Issuer) -> None:
    issuer.body = key_set(jwk(ED, kid="ed"))
    issuer.open.clear()
    check = verifier(HS, Key("web", "EdDSA", jwks_url=issuer.url))
    async with asyncio.TaskGroup() as arrivals:
        waiting = [arrivals.create_task(check.identity(of_ed())) for _ in range(50)]
        gave_up = arrivals.create_task(check.identity(of_ed()))
        await asyncio.sleep(0)  # one turn, in which they all come to wait
        assert (await check.identity(token())).user == "ana", "who has a known key does not wait"
        gave_up.cancel()
        issuer.open.set()
    assert {task.result().user for task in waiting} == {"ana"}
    assert issuer.asked == 1


async def test_a_reading_under_way_is_joined_however_late_it_is(issuer: Issuer) -> None:
    issuer.body = key_set(jwk(ED, kid="ed"))
    issuer.open.clear()
    clock = Clock()
    check = Verifier([Key("web", "", jwks_url=issuer.url)], clock=clock)
    async with asyncio.TaskGroup() as arrivals:
        for clock.now in (NOW, NOW + 31):
            arrivals.create_task(check.read_key_sets())
            await asyncio.sleep(0)  # one turn, in which it comes to wait
        issuer.open.set()
    assert issuer.asked == 1


async def test_a_kid_nobody_knows_makes_us_read_at_most_every_30_seconds(issuer: Issuer) -> None:
    issuer.body = key_set(jwk(EC, kid="old"))
    clock = Clock()
    check = Verifier([Key("web", "", jwks_url=issuer.url)], clock=clock)
    for asked, clock.now in [(1, NOW), (1, NOW + 29), (2, NOW + 30), (2, NOW + 59)]:
        with pytest.raises(Disconnect, match='kid "ed"'):
            await check.identity(of_ed())
        assert issuer.asked == asked
    issuer.body = key_set(jwk(ED, kid="ed"))
    clock.now = NOW + 60
    with pytest.raises(Reject, match="expired"):
        await check.identity(of_ed())
    assert issuer.asked == 3


async def test_a_clock_set_back_does_not_stop_the_reading(issuer: Issuer) -> None:
    issuer.body = key_set(jwk(EC, kid="old"))
    clock = Clock()
    check = Verifier([Key("web", "", jwks_url=issuer.url)], clock=clock)
    assert await check.read_key_sets() == []
    issuer.body = key_set(jwk(ED, kid="ed"))
    clock.now = NOW - 3600
    assert (await check.identity(of_ed())).user == "ana"


def a_page(issuer: Issuer) -> None:
    issuer.body = b"<html>"


def gone(issuer: Issuer) -> None:
    issuer.status = 404


def moved(issuer: Issuer) -> None:
    issuer.status = 302


def too_long(issuer: Issuer) -> None:
    issuer.body = key_set(jwk(ED, kid="ed", pad="x" * auth.KEY_SET_BYTES))


def without_list(issuer: Issuer) -> None:
    issuer.body = b'{"keys":{}}'


def only_unusable(issuer: Issuer) -> None:
    weak = rsa.generate_private_key(65537, 1024)
    secret = {"kty": "oct", "k": segment(SECRET), "alg": "HS256", "kid": "main"}
    leaked = {**jwk(ED, kid="ed"), "d": segment(ED.private_bytes_raw())}
    odd: list[Any] = [7, {}, {"kty": "?"}, {"kty": "RSA", "n": "?", "e": "?"}]
    others = [jwk(ED, use="enc"), jwk(ED, kid=7), jwk(RSA, alg="RS512"), jwk(RSA, alg="none"), jwk(weak)]
    issuer.body = key_set(*odd, secret, leaked, *others)


@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (a_page, "JSON object"),
        (gone, "404"),
        (moved, "302"),
        (too_long, "at most 262144"),
        (without_list, 'list "keys"'),
        (only_unusable, "no public key"),
    ],
)
async def test_a_source_that_fails_keeps_its_old_keys_and_says_why(
    issuer: Issuer, breaks: Callable[[Issuer], None], why: str
) -> None:
    issuer.body = key_set(jwk(ED, kid="ed"))
    clock = Clock()
    check = Verifier([Key("web", "", jwks_url=issuer.url)], clock=clock)
    assert await check.read_key_sets() == []
    breaks(issuer)
    clock.now = NOW + 31
    [trouble] = await check.read_key_sets()
    assert why in trouble
    assert '"web" could not be read, its old keys stay' in trouble
    assert (await check.identity(of_ed())).user == "ana"
    issuer.body, issuer.status = key_set(jwk(ED, kid="ed")), 200
    clock.now = NOW + 62
    assert await check.read_key_sets() == []


async def test_a_source_is_told_the_user_and_password_of_its_address(issuer: Issuer) -> None:
    issuer.body = key_set(jwk(ED, kid="ed"))
    address = issuer.url.replace("://", "://ana:a%2Fb%40c@")
    assert await Verifier([Key("web", "", jwks_url=address)]).read_key_sets() == []
    assert issuer.given == f"Basic {base64.b64encode(b'ana:a/b@c').decode()}"
    assert await Verifier([Key("web", "", jwks_url=issuer.url)]).read_key_sets() == []
    assert issuer.given is None


async def test_a_source_that_drips_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatd.auth.keys.KEY_SET_TIMEOUT_S", 0.5)
    issuer.drips = True
    issuer.open.clear()
    [trouble] = await Verifier([Key("web", "", jwks_url=issuer.url)]).read_key_sets()
    issuer.open.set()
    assert trouble == 'key set "web" could not be read, so nobody comes in by it: TimeoutError'


async def test_a_source_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    [trouble] = await verifier(HS, Key("file", "", jwks_file=str(tmp_path / "none.json"))).read_key_sets()
    assert trouble.startswith('key set "file" could not be read')


@pytest.mark.parametrize("declared", ["", "RS256"])
async def test_a_key_set_never_verifies_with_a_shared_secret(issuer: Issuer, declared: str) -> None:
    secret = {"kty": "oct", "k": segment(SECRET), "alg": "HS256", "kid": "main"}
    issuer.body = key_set(secret, jwk(RSA, kid="rsa"))
    check = verifier(Key("web", declared, jwks_url=issuer.url))
    for forged in (token(), token(kid=None), signed_with_the_public_key()):
        with pytest.raises(Disconnect):
            await check.identity(forged)


async def test_a_key_on_another_curve_than_its_algorithm_says_is_left_out(issuer: Issuer) -> None:
    wider = ec.generate_private_key(ec.SECP384R1())
    members = jwt.get_algorithm_by_name("ES384").to_jwk(wider.public_key(), as_dict=True)
    issuer.body = key_set({**members, "kid": "ec", "alg": "ES256"})
    [trouble] = await verifier(Key("web", "", jwks_url=issuer.url)).read_key_sets()
    assert "no public key" in trouble


async def test_a_declared_algorithm_leaves_out_the_other_keys_of_a_set(issuer: Issuer) -> None:
    issuer.body = key_set(jwk(RSA, kid="rsa"), jwk(ED, kid="ed"))
    check = verifier(Key("web", "RS256", jwks_url=issuer.url))
    assert (await check.identity(token(algorithm="RS256", kid="rsa"))).user == "ana"
    with pytest.raises(Disconnect):
        await check.identity(of_ed())


async def test_a_key_that_left_its_set_takes_the_remembered_tokens_along(issuer: Issuer) -> None:
    long_lived = token({"sub": "ana", "exp": NOW + 86_400}, algorithm="EdDSA", kid="ed")
    issuer.body = key_set(jwk(ED, kid="ed"))
    clock = Clock()
    check = Verifier([Key("web", "", jwks_url=issuer.url)], clock=clock)
    first = await check.identity(long_lived)
    clock.now = NOW + 31
    await check.read_key_sets()
    assert await check.identity(long_lived) is first, "the set has not changed"
    issuer.body = key_set(jwk(EC, kid="ec"))
    clock.now = NOW + 62
    await check.read_key_sets()
    with pytest.raises(Disconnect, match='kid "ed"'):
        await check.identity(long_lived)


async def test_a_stale_key_set_is_read_again_behind_a_token_that_is_known(issuer: Issuer) -> None:
    long_lived = token({"sub": "ana", "exp": NOW + 86_400}, algorithm="EdDSA", kid="ed")
    issuer.body = key_set(jwk(ED, kid="ed"))
    clock = Clock()
    check = Verifier([Key("web", "", jwks_url=issuer.url)], clock=clock)
    await check.identity(long_lived)
    issuer.body = key_set(jwk(EC, kid="ec"))
    clock.now = NOW + auth.KEY_SET_FRESH_S
    assert (await check.identity(long_lived)).user == "ana"
    assert "read key set web" in {task.get_name() for task in asyncio.all_tasks()}
    assert await check.read_key_sets() == [], "waits for the reading under way"
    assert issuer.asked == 2
    with pytest.raises(Disconnect):
        await check.identity(long_lived)


# --- subscription tokens ----------------------------------------------------------------------------------------------

LOBBY = {**ANA, "channel": "lobby"}


def subscribe(claims: object, **options: Any) -> Any:
    return verifier(**options).subscription(token(claims), user="ana", client="c-1", room="lobby")


async def test_a_subscription_token_says_until_when() -> None:
    assert (await subscribe(LOBBY)).expires_at == NOW + 60
    assert (await subscribe({**LOBBY, "client": "c-1"})).expires_at == NOW + 60
    assert (await subscribe({"sub": "ana", "channel": "lobby"})).expires_at is None
    assert (await subscribe(LOBBY, leeway=5.0, at=NOW + 64)).expires_at == NOW + 65


async def test_a_subscription_token_says_what_it_can_be_revoked_by() -> None:
    invitation = await subscribe({"sub": "ana", "channel": "lobby", "jti": "s-1", "iat": NOW})
    assert invitation == Invitation("ana", None, "s-1", NOW, "main")
    revocations = Revocations()
    assert not revocations.void(invitation, NOW)
    revocations.load([Revocation("token", "s-1", NOW + 60)])
    assert revocations.void(invitation, NOW)
    revocations = Revocations()
    revocations.load([Revocation("user", "ana", NOW + 60, NOW)])
    assert revocations.void(invitation, NOW)
    assert not revocations.void(invitation._replace(issued_at=NOW + 1), NOW)
    revocations = Revocations()
    revocations.load([Revocation.of_key("main", NOW)])
    assert revocations.void(invitation._replace(issued_at=NOW + 1), NOW)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({**LOBBY, "sub": "bob"}, "another user's"),
        ({"channel": "lobby"}, '"sub"'),
        ({**LOBBY, "channel": "staff"}, "not for this channel"),
        (ANA, "not for this channel"),
        ({**LOBBY, "client": "c-2"}, "another connection's"),
        ({**LOBBY, "client": ""}, "another connection's"),
        ({**LOBBY, "exp": "soon"}, "number of Unix seconds"),
        ({**LOBBY, "aud": "billing"}, "names an audience"),
        ({**LOBBY, "sub": "bob", "exp": 1}, "another user's"),
    ],
)
async def test_a_subscription_token_of_somebody_or_somewhere_else_is_denied(claims: object, why: str) -> None:
    with pytest.raises(Reject, match=why) as refusal:
        await subscribe(claims)
    assert refusal.value == PERMISSION_DENIED


async def test_a_forged_subscription_token_is_denied() -> None:
    for forged in ("", "x.y.z", token(LOBBY, signer=OTHER_SECRET)):
        with pytest.raises(Reject) as refusal:
            await verifier().subscription(forged, user="ana", client="c-1", room="lobby")
        assert refusal.value == PERMISSION_DENIED


async def test_an_ended_subscription_token_wants_a_new_one() -> None:
    with pytest.raises(Reject) as refusal:
        await subscribe(LOBBY, at=NOW + 60)
    assert refusal.value == TOKEN_EXPIRED


# --- revoking ---------------------------------------------------------------------------------------------------------


def bearer(user: str, **claims: Any) -> Identity:
    return Identity(user, expires_at=NOW, **claims)


def test_a_revoked_token_is_void_until_it_would_have_ended() -> None:
    revoked = Revocations()
    revoked.load([Revocation("token", "t-1", 100)])
    assert revoked.covers(bearer("ana", token_id="t-1"), now=99)
    assert not revoked.covers(bearer("ana", token_id="t-1"), now=100)
    assert not revoked.covers(bearer("ana", token_id="t-2"), now=99)
    assert not revoked.covers(bearer("t-1"), now=99), "a user named like the token"


def test_a_revoked_user_comes_back_only_with_a_token_issued_since() -> None:
    revoked = Revocations()
    revoked.load([Revocation("user", "ana", 100, 50)])
    assert revoked.covers(bearer("ana", issued_at=50), now=60)
    assert revoked.covers(bearer("ana", issued_at=None), now=60)
    assert not revoked.covers(bearer("ana", issued_at=51), now=60)
    assert not revoked.covers(bearer("ana", issued_at=50), now=100)
    assert not revoked.covers(bearer("bob", issued_at=50), now=60)
    assert not revoked.covers(bearer("bob", token_id="ana", issued_at=50), now=60)


def test_of_a_revoked_key_nothing_counts_whatever_it_says_of_its_time() -> None:
    revoked = Revocations()
    revoked.load([Revocation.of_key("main", 50)])
    assert revoked.covers(bearer("ana", kid="main", token_id="t-1", issued_at=1e9), now=60)
    assert not revoked.covers(bearer("ana", kid="other"), now=60)
    assert not revoked.covers(bearer("main", token_id="main"), now=60), "a user and a token named like the key"
    revoked.load([Revocation("key", "", 100)])
    assert not revoked.covers(bearer("ana"), now=60), "a key without a name"


def test_nothing_is_revoked_of_whoever_came_without_a_token() -> None:
    revoked = Revocations()
    revoked.load([Revocation("user", "ana", 100, 50)])
    assert not revoked.covers(Identity("ana"), now=60)


def test_revocations_come_in_any_order_and_again_and_are_news_only_once() -> None:
    rows = [Revocation("token", "t-1", 100), Revocation("user", "ana", 100, 50), Revocation("user", "ana", 200, 40)]
    for carried in (rows, rows[::-1]):
        revoked = Revocations()
        assert revoked.load(json.loads(json.dumps(carried)))
        assert not revoked.load(carried)
        assert revoked.covers(bearer("ana", issued_at=50), now=150), "the wider of each bound"
        assert revoked.covers(bearer("bob", token_id="t-1"), now=60)


def test_revocations_that_cover_nothing_any_more_are_forgotten() -> None:
    token, user = Revocation("token", "t-1", 100), Revocation("user", "ana", 200, 50)
    revoked = Revocations()
    revoked.load([token, user])
    revoked.forget_ended(now=100)
    assert not revoked.load([user])
    assert revoked.load([token])


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", sorted(auth.SYMMETRIC))
async def test_a_minted_token_is_accepted_for_its_lifetime(algorithm: str) -> None:
    minted = mint(key(algorithm), {"sub": "ana", "jti": "t-1", "exp": 1}, now=NOW, lifetime=3600)
    assert await verifier(key(algorithm)).identity(minted) == Identity(
        "ana", expires_at=NOW + 3600, token_id="t-1", issued_at=NOW, kid="main"
    )
    assert inspect(minted) == {
        "header": {"alg": algorithm, "kid": "main", "typ": "JWT"},
        "claims": {"sub": "ana", "jti": "t-1", "iat": int(NOW), "exp": int(NOW) + 3600},
    }


async def test_a_key_without_kid_mints_a_token_without_kid() -> None:
    nameless = Key("", "HS256", secret=SECRET)
    minted = mint(nameless, {"sub": "ana"}, now=NOW, lifetime=1)
    assert "kid" not in inspect(minted)["header"]
    assert (await verifier(nameless).identity(minted)).user == "ana"


@pytest.mark.parametrize(
    ("with_key", "claims", "lifetime", "why"),
    [
        (RS, {"sub": "ana"}, 60, "can verify but not sign"),
        (Key("web", "", jwks_url="https://id.example/keys"), {"sub": "ana"}, 60, "can verify but not sign"),
        (Key("k", "HS256", secret=b"short"), {"sub": "ana"}, 60, "too weak"),
        (HS, {}, 60, '"sub"'),
        (HS, {"sub": 7}, 60, '"sub" must be a string'),
        (HS, {"sub": "ana"}, 0, "lifetime"),
    ],
)
def test_what_would_be_refused_is_not_minted(with_key: Key, claims: Any, lifetime: float, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        mint(with_key, claims, now=NOW, lifetime=lifetime)


def test_a_token_can_be_looked_at_without_any_key() -> None:
    seen = inspect(token({"sub": "ana", "exp": 1}, signer=OTHER_SECRET))
    assert seen["header"]["kid"] == "main"
    assert seen["claims"] == {"sub": "ana", "exp": 1}


@pytest.mark.parametrize("text", ["", "ana", "a.b", "a.b.c", "....", "é.é.é"])
def test_what_is_no_token_is_not_inspected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        inspect(text)
