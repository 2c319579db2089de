"""Settings: what is declared is what the manual says, what is read is what was written, and errors say what to do."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatd import settings as module
from chatd.settings import (
    HEAD,
    Bytes,
    RoomRules,
    Settings,
    SettingsError,
    changed_needing_restart,
    load,
    matches,
    origin,
    reading,
    reloaded,
    to_toml,
    warnings,
)

MANUAL = Path(__file__).parents[1] / "config" / "chatd.toml"
SECRET = "an-hmac-secret-of-more-than-32-bytes"
OWN_HOME = pwd.getpwuid(os.getuid()).pw_dir
KEY = f'[[auth.keys]]\nkid = "main"\nalgorithm = "HS256"\nsecret = "{SECRET}"\n'

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_machine_wide_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "DEFAULT_FILE", tmp_path / "etc.toml")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "chatd.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def complaint(file: Path | None, environ: dict[str, str] | None = None, **flags: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load(file, environ or {}, {key.replace("__", "."): value for key, value in flags.items()})
    return str(caught.value)


# --- the manual -------------------------------------------------------------------------------------------------------


def test_the_manual_is_what_the_declarations_say():
    assert MANUAL.read_text() == HEAD + to_toml(Settings()), "write it anew with `chatd config init`"


def test_the_manual_read_back_changes_nothing():
    loaded, default = load(MANUAL, {}), Settings()
    assert [getattr(loaded, name) for name in module.SECTIONS] == [getattr(default, name) for name in module.SECTIONS]
    assert loaded.room("lobby") == default.room("lobby") == RoomRules()


def test_every_option_has_a_kind_and_an_explanation():
    for section in (*module.SECTIONS.values(), module.Key, RoomRules):
        for name, setting in module.options(section).items():
            assert setting.type in module.KINDS, name
            assert setting.metadata["option"].doc.endswith("."), name


def test_what_is_rendered_reads_back_as_the_same(write: Write):
    text = (
        '[server]\nport = 9\ndrain = "1500ms"\norigins = ["https://a.example"]\n[limits]\nconnects_per_second = 0.5\n'
    )
    text += 'frame = "100B"\nbody = 100\n[rooms."a*"]\nhistory = 5\n[rooms."*"]\npublic = false\n'
    before = load(write(text), {})
    after = load(write(to_toml(before)), {})
    assert (after.server, after.limits, after.room("abc")) == (before.server, before.limits, before.room("abc"))


# --- where values come from -------------------------------------------------------------------------------------------


def test_without_anything_the_defaults_hold():
    settings = load(None, {})
    assert settings == Settings()
    assert set(origin(settings).values()) == {"default"}
    assert origin(settings)["limits.frame"] == origin(settings)['rooms."*".history'] == "default"


def test_the_later_source_wins_and_each_is_remembered(write: Write):
    path = write("[server]\nport = 1\n[redis]\nprefix = 'a'\n[cluster]\nname = 'file'\n")
    environ = {"CHATD_SERVER__PORT": "2", "CHATD_CLUSTER__NAME": "variable"}
    settings = load(path, environ, {"server.port": 3, "server.host": None})
    assert (settings.server.port, settings.cluster.name, settings.redis.prefix) == (3, "variable", "a")
    told = origin(settings)
    assert told["server.port"] == "--port"
    assert told["cluster.name"] == "CHATD_CLUSTER__NAME"
    assert told["redis.prefix"] == f"{path}:4"
    assert told["server.host"] == "default"


def test_the_file_is_the_named_one_else_the_variables_else_the_machines(tmp_path: Path, write: Write):
    (tmp_path / "etc.toml").write_text("[cluster]\nname = 'etc'\n[redis]\nprefix = 'etc'\n")
    other = tmp_path / "other.toml"
    other.write_text("[cluster]\nname = 'other'\n")
    assert load(None, {}).cluster.name == "etc"
    by_variable = load(None, {"CHATD_CONFIG": str(other)})
    assert (by_variable.cluster.name, by_variable.redis.prefix) == ("other", "chatd")
    assert load(write("[cluster]\nname = 'flag'\n"), {"CHATD_CONFIG": str(other)}).cluster.name == "flag"


def test_credentials_of_systemd_stand_between_file_and_environment(tmp_path: Path, write: Write):
    (tmp_path / "chatd.jwt-secret").write_text(SECRET + "\n")
    (tmp_path / "chatd.redis-url").write_text("redis://credential\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = load(write('[redis]\nurl = "redis://file"\n' + KEY), environ)
    assert settings.redis.url == "redis://credential"
    assert [key.kid for key in settings.auth.keys] == ["main", "credential"]
    assert settings.auth.keys[1].secret_bytes == SECRET.encode()
    assert origin(settings)["auth.keys"] == f"{tmp_path / 'chatd.toml'}:3, {tmp_path / 'chatd.jwt-secret'}"
    assert load(None, environ | {"CHATD_REDIS__URL": "redis://variable"}).redis.url == "redis://variable"


def test_a_credentials_directory_without_ours_is_fine(tmp_path: Path):
    assert load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == Settings()


def test_credentials_that_cannot_be_looked_at_are_told_and_not_passed_over(tmp_path: Path):
    (tmp_path / "credentials").symlink_to("credentials")  # as with a directory that is closed to all but root
    with pytest.raises(SettingsError, match=r"to read redis\.url from \S+/chatd\.redis-url, got: Too many levels"):
        load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})


def test_variables_that_kubernetes_sets_beside_a_service_named_chatd_are_not_settings():
    assert load(None, {"CHATD_PORT": "tcp://10.0.0.1:80", "CHATD_SERVICE_HOST": "10.0.0.1"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("CHATD_SERVER__COMPRESSION", "true", True),
        ("CHATD_SERVER__PORT", "0", 0),
        ("CHATD_SERVER__ORIGINS", "https://a.example, app://b", ("https://a.example", "app://b")),
        ("CHATD_SERVER__ORIGINS", "", ()),
        ("CHATD_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,::1", ("10.0.0.0/8", "::1/128")),
        ("CHATD_CLUSTER__NAME", "7", "7"),
        ("CHATD_LIMITS__CONNECTS_PER_SECOND", "0.5", 0.5),
        ("CHATD_LIMITS__OUTBOX", "2MiB", 2 << 20),
        ("CHATD_LIMITS__OUTBOX", "4096", 4096),
        ("CHATD_HEARTBEAT__INTERVAL", "30", 30.0),
    ],
)
def test_a_variable_is_read_as_its_setting_is(variable: str, text: str, value: object):
    settings = load(None, {variable: text})
    section, _, key = variable.removeprefix("CHATD_").lower().partition("__")
    assert getattr(getattr(settings, section), key) == value


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "seconds"),
    [
        ('"150ms"', 0.15),
        ('"25s"', 25),
        ('"1.5s"', 1.5),
        ('"10m"', 600),
        ('"12h"', 43_200),
        ('"30d"', 2_592_000),
        ('"0s"', 0),
        ("7", 7),
        ("0.25", 0.25),
    ],
)
def test_durations_are_seconds_whatever_their_unit(write: Write, toml: str, seconds: float):
    assert load(write(f"[server]\ndrain = {toml}\n"), {}).server.drain == seconds


@pytest.mark.parametrize(
    ("toml", "size"), [('"64KiB"', 65_536), ('"1MiB"', 1 << 20), ('"9B"', 9), ("512", 512), ("0", 0)]
)
def test_sizes_are_bytes_whatever_their_unit(write: Write, toml: str, size: Bytes):
    assert load(write(f"[limits]\noutbox = {toml}\n"), {}).limits.outbox == size


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "line", "sentence"),
    [
        ("\n[server]\nprot = 1", 3, "got server.prot; did you mean server.port?"),
        ("[server]\nlease = 1", 2, "got server.lease; did you mean cluster.lease?"),
        ("port = 1", 1, "got port; did you mean server.port?"),
        ("[servr]\nport = 1", 1, "got servr; did you mean server?"),
        ("[limits]\nzzzzzz = 1", 2, "`chatd config init` shows all there are"),
        ('[rooms."a.b*"]\nhistroy = 1', 2, 'got rooms."a.b*".histroy; did you mean rooms."a.b*".history?'),
        ("[[auth.keys]]\nsecrt = 1", 2, "did you mean auth.keys.secret?"),
        ('server = "here"', 1, "expected a table [server], got text"),
        ("server.port = 99999", 1, "server.port to be a whole number, at least 0 and at most 65535, got 99999"),
        ("[server]\nport = true", 2, "a whole number, at least 0 and at most 65535, got true"),
        ('[server]\nport = "8000"', 2, 'got "8000"'),
        ("[server]\ncompression = 1", 2, "to be true or false, got 1"),
        ('[server]\norigins = "https://a.example"', 2, "a list of origins"),
        ("[server]\nhost = 1", 2, "expected server.host to be text, got 1"),
        ('[server]\norigins = ["https://a.example/"]', 2, "without a path"),
        ('[server]\norigins = ["https://*.example"]', 2, "wildcard"),
        ('[server]\norigins = ["https://A.example"]', 2, "in lower case"),
        ('[server]\norigins = ["https://a.example:443"]', 2, "default port"),
        ('[server]\ntrusted_proxies = ["10.0.0.1/8"]', 2, "a list of addresses or networks"),
        ('[server]\ndrain = "10 parsecs"', 2, 'a duration such as "25s", at least "0s", got "10 parsecs"'),
        ("[server]\ndrain = nan", 2, "got nan"),
        ("[server]\ndrain = inf", 2, "got inf"),
        (f"[server]\ndrain = 1{'0' * 400}", 2, "to be a duration"),
        (f"[limits]\nconnects_per_second = 1{'0' * 400}", 2, "to be a number, at least 0, got 10"),
        ("[server]\ndrain = {a = 1}", 2, "got a table"),
        ('[heartbeat]\ninterval = "0s"', 2, 'at least "1s"'),
        ('[limits]\nframe = "64KB"', 2, 'a size such as "64KiB"'),
        ("[limits]\nmessages_burst = 0", 2, "at least 1, got 0"),
        ("[limits]\nconnections = -1", 2, "at least 0, got -1"),
        ("[limits]\nconnections = 9007199254740992", 2, "and at most 9007199254740991, got 9007199254740992"),
        ("[limits]\nconnects_per_second = 1e16", 2, "at least 0 and at most 9007199254740991, got 1e+16"),
        ('[limits]\noutbox = "4GiB"', 2, 'at least 0 and at most "2GiB", got "4GiB"'),
        ('[rooms."x"]\nretention = "99999999d"', 2, 'at least "1s" and at most "1000000d", got "99999999d"'),
        ('[log]\nlevel = "loud"', 2, 'one of "debug", "info", "warning", "error", got "loud"'),
        ('[rooms."x"]\npayload = "xml"', 2, 'one of "any", "chat", got "xml"'),
        ("[rooms]\nhistory = 1", 2, "expected a table"),
        ("[cluster]\nlease = 6", 2, 'more than twice cluster.renew, "3s"'),
        ("[heartbeat]\ntimeout = 26", 2, 'at most heartbeat.interval, "25s", got "26s"'),
        ('[limits]\nbody = "1MiB"', 2, 'at most limits.frame, "64KiB", got "1MiB"'),
        ('[limits]\nbytes_burst = "1KiB"', 2, "at least limits.frame"),
        ('[auth]\nmode = "jwt"', 2, "expected a key for auth.mode"),
        ('[server]\nhost = "0.0.0.0"', 2, "add an [[auth.keys]] table"),
        ('[redis]\nurl = "http://x"', 2, "expected redis.url to start with one of redis://"),
        (
            '[redis]\nappendfsync = "always"\nurl = "redis://x"',
            2,
            "only for the embedded store, got it with a redis.url",
        ),
        ("[redis]\nwait_replicas = 1", 2, "names one server or its Sentinels, got it without a redis.url"),
        ('[redis]\nwait_replicas = 1\nurl = "redis+cluster://x"', 2, "got it with a cluster; leave it out"),
        (KEY + KEY, 1, 'got "main" twice'),
        ('[[auth.keys]]\nalgorithm = "none"', 2, "auth.keys.algorithm to be one of"),
        ('[[auth.keys]]\nalgorithm = "RS256"\nsecret = "x"', 1, "algorithm HS256 or HS384 or HS512, got RS256"),
        ('[[auth.keys]]\nalgorithm = "HS256"\njwks_file = "x"', 1, "algorithm RS256 or ES256 or EdDSA, got HS256"),
        ('[[auth.keys]]\nsecret = "x"', 1, "got none"),
        ('[[auth.keys]]\njwks_url = "ftp://x"', 1, "jwks_url"),
        ('[[auth.keys]]\nsecret = "x"\nsecret_file = "y"', 1, "got secret and secret_file"),
        ('[[auth.keys]]\njwks_url = "https://"', 1, "jwks_url"),
        ('[auth]\nkeys = "x"', 2, "expected [[auth.keys]] tables, got text"),
        ('[auth]\ncookie = "a b"', 2, 'without spaces, got "a b"'),
        ('[redis]\nprefix = ""', 2, 'expected redis.prefix to be text without { and }, got ""'),
        ('[redis]\nprefix = "chat{1}"', 2, 'got "chat{1}"'),
        ('[heartbeat]\ninterval = "1500ms"\ntimeout = 1', 2, 'whole seconds, as the protocol counts it, got "1500ms"'),
        ('[limits]\nframe = "1KiB"', 2, 'at most limits.frame, "1KiB", got "8KiB"; raise limits.frame'),
        ('[limits]\nframe = "1MiB"', 2, "limits.bytes_burst to be at least limits.frame"),
        ("[cluster]\nrenew = 6", 2, 'more than twice cluster.renew, "6s"'),
        ("[heartbeat]\ninterval = 5", 2, 'at most heartbeat.interval, "5s", got "8s"'),
        ('[hooks]\nurl = "https://shop.example"', 2, "at least 20 bytes where hooks are on, got 0"),
        ('[server]\nhost = ""', 2, 'an address, a name or unix:/path, got ""'),
        ('[server]\nhost = "[::1]"', 2, 'an address, a name or unix:/path, got "[::1]"; write ::1'),
        ('[server]\nhost = "unix:"', 2, 'an address, a name or unix:/path, got "unix:"'),
        ('[redis]\nstate_directory = "/var\\u0000"', 2, r'expected redis.state_directory to be text, got "/var\u0000"'),
        ('[server]\nhost = "127.0.0.1:8000"', 2, 'got "127.0.0.1:8000"'),
        ('[server]\nhost = "http://chat.example"', 2, 'got "http://chat.example"'),
    ],
)
def test_an_error_names_the_line_and_what_to_do(write: Write, toml: str, line: int, sentence: str):
    path = write(toml)
    said = complaint(path)
    assert said.startswith(f"{path}:{line}"), said
    assert sentence in said
    assert "\n" not in said


def test_an_error_in_a_variable_or_a_flag_names_it():
    assert complaint(None, {"CHATD_SERVER__PORT": "x"}).startswith("CHATD_SERVER__PORT: expected server.port to be")
    assert complaint(None, {"CHATD_SERVR__PORT": "1"}).endswith("did you mean server.port?")
    assert complaint(None, server__port=-1).startswith("--port: expected server.port to be")
    assert complaint(None, server__host="0.0.0.0").startswith("--host: expected a loopback address")
    assert "[[auth.keys]] tables in the file" in complaint(None, {"CHATD_AUTH__KEYS": SECRET})


def test_a_file_that_is_missing_or_no_toml_is_an_error(tmp_path: Path, write: Write):
    assert "No such file" in complaint(tmp_path / "missing.toml")
    assert "No such file" in complaint(None, {"CHATD_CONFIG": str(tmp_path / "missing.toml")})
    assert "expected TOML" in complaint(write("[server\n"))
    path = write("")
    path.write_bytes(b"\xff")
    assert "expected TOML" in complaint(path)
    assert "expected to read secret_file" in complaint(
        write('[[auth.keys]]\nalgorithm = "HS256"\nsecret_file = "gone"\n')
    )


@pytest.mark.parametrize(
    "toml",
    [
        f'[auth]\nsecret = "{SECRET}"',
        f'[auth]\nkeys = ["{SECRET}"]',
        f'auth = "{SECRET}"',
        f'[[auth.keys]]\nsecret = ["{SECRET}"]',
        f'[[auth.keys]]\nalgorithm = "RS256"\nsecret = "{SECRET}"',
        f'[[auth.keys]]\nalgorithm = "HS512"\nsecret = "{SECRET}"',
        f'[redis]\nurl = "http://user:{SECRET}@host"',
        f'[redis]\nurl = ["{SECRET}"]',
        f'[[auth.keys]]\nsecret = "{SECRET}" x',
    ],
)
def test_no_error_tells_a_secret(write: Write, toml: str):
    assert SECRET not in complaint(write(toml))


# --- secrets and keys -------------------------------------------------------------------------------------------------


def test_nothing_that_shows_settings_shows_a_secret(write: Write, tmp_path: Path):
    (tmp_path / "hmac").write_text(SECRET)
    urls = f'[redis]\nurl = "redis://me:{SECRET}/@host/0?password={SECRET}"\n'
    by_file = '[[auth.keys]]\nalgorithm = "HS256"\nsecret_file = "hmac"\n'
    settings = load(write(urls + KEY + by_file), {})
    for shown in (repr(settings), str(settings), to_toml(settings), str(origin(settings)), str(warnings(settings))):
        assert SECRET not in shown
    assert 'secret = "***"' in to_toml(settings)
    assert 'url = "redis://***@host/0?password=***"' in to_toml(settings)
    assert settings.redis.url.count(SECRET) == 2


def test_key_files_are_read_afresh_relative_to_the_configuration(write: Write, tmp_path: Path):
    (tmp_path / "hmac").write_text(SECRET + "\n")
    (tmp_path / "public.pem").write_text("PEM")
    path = write(
        '[[auth.keys]]\nkid = "a"\nalgorithm = "HS256"\nsecret_file = "hmac"\n'
        '[[auth.keys]]\nkid = "b"\nalgorithm = "EdDSA"\npublic_key_file = "public.pem"\n'
        '[[auth.keys]]\njwks_file = "jwks.json"\n'
    )
    hmac, public, jwks = load(path, {}).auth.keys
    assert (hmac.secret_bytes, public.public_key) == (SECRET.encode(), "PEM")
    assert jwks.jwks_file == str(tmp_path / "jwks.json")
    (tmp_path / "hmac").write_text(SECRET[::-1])
    assert load(path, {}).auth.keys[0].secret_bytes == SECRET[::-1].encode()


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_at_least_as_long_as_its_hash(write: Write, algorithm: str, least: int):
    def table(length: int) -> str:
        return f'[[auth.keys]]\nalgorithm = "{algorithm}"\nsecret = "{"x" * length}"\n'

    assert load(write(table(least)), {}).auth.keys
    assert f"at least {least} bytes for {algorithm}, got {least - 1}" in complaint(write(table(least - 1)))


def test_keys_close_the_open_mode_and_open_the_network(write: Write):
    assert load(None, {}).auth.effective_mode == "open"
    settings = load(write('[server]\nhost = "0.0.0.0"\n' + KEY), {})
    assert settings.auth.effective_mode == "jwt"
    assert "loopback" in complaint(write('[server]\nhost = "0.0.0.0"\n[auth]\nmode = "open"\n' + KEY))
    for host in ("localhost", "127.0.0.9", "::1", "unix:/run/chatd.sock"):
        assert load(None, {}, {"server.host": host}).server.host == host
    for host in ("::", "fe80::1%eth0", "chat.example", "größe.example", "my_host"):
        assert load(write(KEY), {}, {"server.host": host}).server.host == host


def test_a_secret_that_everybody_may_read_is_warned_of(write: Write, tmp_path: Path):
    hmac = tmp_path / "hmac"
    hmac.write_text(SECRET)
    path = write('[[auth.keys]]\nalgorithm = "HS256"\nsecret_file = "hmac"\n')
    hmac.chmod(0o640)
    assert warnings(load(path, {})) == []
    hmac.chmod(0o644)
    assert [str(hmac) in each for each in warnings(load(path, {}))] == [True]
    path = write(KEY + API_KEY)
    path.chmod(0o644)
    assert [str(path) in each for each in warnings(load(path, {}))] == [True], "once, however many it holds"


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ('[server]\norigins = ["*"]', "any web page"),
        ('[[auth.keys]]\njwks_url = "http://idp.example/jwks"', "not https"),
        ('[redis]\nurl = "redis://10.0.0.1:6379"', "without TLS"),
        ('[redis]\nurl = "redis+sentinel://[::1]:1,10.0.0.1:2/main"', "without TLS"),
        ("[limits]\noutbox = 0", "limits.outbox is 0"),
        ('[server]\ntrusted_proxies = ["0.0.0.0/0"]', "has everybody"),
        ('[admin]\nlisten = "10.0.0.1:9000"', "can be reached from other machines"),
        ('[heartbeat]\ninterval = "40s"', "do not fit into the 60 s"),
        ('[rooms."deal-*"]\nsignatures = "required"', "nobody can speak there"),
    ],
)
def test_what_works_but_is_unwise_is_warned_of(write: Write, toml: str, word: str):
    [said] = warnings(load(write(toml), {}))
    assert word in said


def test_a_variable_that_lacks_an_underscore_is_warned_of_and_none_of_kubernetes():
    environ = {"CHATD_LIMITS_FRAME": "1", "CHATD_SERVER_PORT": "tcp://10.0.0.1:80", "CHATD_SERVER_SERVICE_HOST": "a"}
    said = "CHATD_LIMITS_FRAME is no setting and is ignored; CHATD_LIMITS__FRAME is one"
    assert warnings(load(None, environ), environ) == [said]


def test_a_password_of_the_store_that_everybody_may_read_is_warned_of(write: Write, tmp_path: Path):
    path = write(f'[redis]\nurl = "rediss://:{SECRET}@10.0.0.1"\n')
    assert warnings(load(path, {})) == []
    path.chmod(0o644)
    [said] = warnings(load(path, {}))
    assert f"chmod 640 {path}" in said
    assert SECRET not in said
    assert warnings(load(path, {"CHATD_REDIS__URL": "rediss://:p@10.0.0.1"})) == [], "the file's is not in force"


@pytest.mark.parametrize(
    "url", ["", "redis://localhost:1/0", "redis://[::1]:1", "unix:///a", "rediss://h", "redis://:p@h"]
)
def test_a_store_nearby_or_behind_a_password_is_not_warned_of(url: str):
    assert warnings(load(None, {}, {"redis.url": url})) == []


# --- rooms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*", "", True),
        ("*", "lobby", True),
        ("lobby", "lobby", True),
        ("lobby", "lobby2", False),
        ("a*", "abc", True),
        ("a*", "ba", False),
        ("*c", "abc", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("a*bb*b", "abb", False),
        ("a**b", "ab", True),
        ("a.c", "abc", False),
        ("[a]", "a", False),
        ("a?", "ab", False),
    ],
)
def test_a_star_stands_for_any_run_and_all_else_for_itself(pattern: str, name: str, fits: bool):
    assert matches(pattern, name) is fits


def test_the_most_specific_pattern_wins_key_by_key(write: Write):
    text = (
        '[rooms."*"]\nhistory = 1\nretention = "1d"\npublic = false\n[rooms."sup-*"]\nhistory = 2\nretention = "2d"\n'
    )
    text += '[rooms."sup-vip*"]\nhistory = 3\n'
    settings = load(write(text), {})
    assert settings.room("lobby") == RoomRules(history=1, retention=86_400, public=False)
    assert settings.room("sup-1") == RoomRules(history=2, retention=172_800, public=False)
    assert settings.room("sup-vip1") == RoomRules(history=3, retention=172_800, public=False)
    assert origin(settings)['rooms."sup-vip*".history'].endswith(":9")


def test_equally_long_patterns_go_by_fewer_stars_then_by_order(write: Write):
    text = '[rooms."*b*"]\nhistory = 1\n[rooms."ab*"]\nhistory = 2\n[rooms."*bc"]\nhistory = 3\n'
    assert load(write(text), {}).room("abc").history == 2


def test_rooms_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.rooms, "REMEMBERED_ROOMS", 10)
    settings = Settings()
    first = settings.room("lobby")
    assert settings.room("lobby") is first
    for number in range(10):
        settings.room(f"room-{number}")
    assert settings.room("lobby") is not first


# --- reload and state -------------------------------------------------------------------------------------------------


def test_a_reload_names_what_wants_a_restart(write: Write):
    old = load(None, {})
    reloadable = load(write('[limits]\nframe = "32KiB"\n[log]\nlevel = "debug"\n[rooms."*"]\nhistory = 1\n'), {})
    assert changed_needing_restart(old, reloadable) == []
    assert changed_needing_restart(old, load(None, {}, {"server.port": 1})) == ["server.port"]
    assert changed_needing_restart(old, load(write(KEY), {})) == ["auth.mode"]
    closed = load(write(KEY), {})
    assert changed_needing_restart(closed, load(write(KEY), {}, {"auth.mode": "open"})) == ["auth.mode"]
    assert changed_needing_restart(closed, load(write(KEY), {}, {"auth.mode": "jwt"})) == [], "as it was"


def test_what_wants_a_restart_stays_as_it_was_until_then(write: Write):
    old = load(write(KEY + '[heartbeat]\ninterval = "20s"\n'), {})
    text = '[server]\nport = 1\norigins = ["https://app.example"]\n[heartbeat]\ninterval = "15s"\ntimeout = "9s"\n'
    new = reloaded(old, load(write(text + '[rooms."*"]\nhistory = 1\n'), {}))
    assert (new.server.port, new.server.origins) == (8000, ("https://app.example",))
    assert (new.heartbeat, new.rooms.overrides) == (old.heartbeat, {"*": {"history": 1}})


@pytest.mark.parametrize(("before", "after", "mode"), [(KEY, "", "jwt"), ("", KEY, "open"), (KEY, KEY, "jwt")])
def test_keys_that_come_or_go_do_not_change_who_may_come_without_one(write: Write, before: str, after: str, mode: str):
    old, new = load(write(before), {}), load(write(after), {})
    auth = reloaded(old, new).auth
    assert (auth.effective_mode, auth.keys) == (mode, new.auth.keys)
    assert changed_needing_restart(reloaded(old, new), old) == [], "and can be taken back"


@pytest.mark.parametrize(
    ("given", "environ", "path"),
    [
        ("/given", {"STATE_DIRECTORY": "/systemd"}, "/given"),
        ("", {"STATE_DIRECTORY": "/systemd:/second", "XDG_STATE_HOME": "/xdg"}, "/systemd"),
        ("", {"XDG_STATE_HOME": "/xdg", "HOME": "/home/a"}, "/xdg/chatd"),
        ("", {"HOME": "/home/a"}, "/home/a/.local/state/chatd"),
        ("", {}, f"{OWN_HOME}/.local/state/chatd"),
        ("", {"HOME": ""}, f"{OWN_HOME}/.local/state/chatd"),
    ],
)
def test_the_state_is_where_systemd_or_xdg_wants_it(
    monkeypatch: pytest.MonkeyPatch, given: str, environ: dict[str, str], path: str
):
    monkeypatch.setenv("HOME", "")
    assert load(None, {}, {"redis.state_directory": given}).redis.state_path(environ) == Path(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who is not in the list of users")
def test_who_has_no_home_is_told_what_to_set():
    program = "import os; from chatd.settings import Settings; os.setuid(4242); Settings().redis.state_path({})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
    assert done.stderr.endswith("SettingsError: expected a home directory, got none; set redis.state_directory\n")


def test_settings_are_read_without_touching_the_process_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(os.environ, "CHATD_SERVER__PORT", "1")
    assert load(None, {}).server.port == 8000


# --- the API's keys ---------------------------------------------------------------------------------------------------

API_SECRET = "a secret of the back end"
API_KEY = f'[[api.keys]]\nname = "shop"\nsecret = "{API_SECRET}"\nscopes = ["publish", "message.*"]\n'


def test_an_api_key_is_read_from_its_table_and_its_secret_is_not_shown(write: Write):
    settings = load(write(API_KEY), {})
    [key] = settings.api.keys
    assert (key.name, key.secret_bytes, key.scopes, key.users) == (
        "shop",
        API_SECRET.encode(),
        ("publish", "message.*"),
        (),
    )
    assert API_SECRET not in to_toml(settings) + repr(settings)


def test_an_api_key_may_lie_in_a_file_beside_the_configuration(tmp_path: Path, write: Write):
    (tmp_path / "api-key").write_text(API_SECRET + "\n")
    settings = load(write(API_KEY.replace(f'secret = "{API_SECRET}"', 'secret_file = "api-key"')), {})
    assert settings.api.keys[0].secret_bytes == API_SECRET.encode()


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (API_KEY.replace(API_SECRET, "short"), "at least 20 bytes, got 5"),
        (API_KEY.replace('scopes = ["publish", "message.*"]\n', ""), "scopes"),
        (API_KEY.replace('name = "shop"\n', ""), "name"),
        (API_KEY + API_KEY, "of its own"),
        (API_KEY.replace("scopes", "scope"), "did you mean api.keys.scopes?"),
        ("[api]\nkeys = 7\n", "expected [[api.keys]] tables, got a number"),
    ],
)
def test_an_api_key_that_cannot_be_used_is_refused_in_a_sentence(write: Write, toml: str, says: str):
    sentence = complaint(write(toml))
    assert says in sentence
    assert API_SECRET not in sentence


def test_operators_and_everybody_else_do_not_come_in_by_the_same_port(write: Write):
    both = '[server]\nport = 8001\n[admin]\nlisten = "127.0.0.1:8001"\n'
    assert "admin.listen to differ from where everybody comes in, got 127.0.0.1:8001" in complaint(write(both))
    assert load(write(both.replace("port = 8001", "port = 8002")), {}).admin.listen == "127.0.0.1:8001"


# --- hooks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('url = "https://shop.example"', "hooks.secret to have at least 20 bytes"),
        ('before_publish = "https://shop.example"\nsecret = "short"', "hooks.secret to have at least 20 bytes"),
        ('url = "https://shop.example"\nsecret_file = "short"', "hooks.secret_file to have at least 20 bytes"),
        ('secret_file = "none"', "chatd.toml:2: expected to read hooks.secret_file from "),
        ('secret = "a"\nsecret_file = "short"', "one of hooks.secret and hooks.secret_file, got both"),
        ('url = "ftp://shop.example"', "hooks.url to start with https:// or http://"),
        ('url = "https://"', "hooks.url to start with https:// or http://, and a host"),
        ('url = "https://shop..example"', "hooks.url to start with https:// or http://, and a host"),
        ('url = "https://shöp.example"', "hooks.url to be ASCII"),
        ('before_publish = "https:///say"', "hooks.before_publish to start with https:// or http://, and a host"),
        ('events = ["message", "massage"]', 'got "massage"'),
        ('failing = "ajar"', 'one of "open", "closed"'),
    ],
)
def test_hooks_that_cannot_work_are_refused_in_a_sentence(tmp_path: Path, write: Write, toml: str, says: str):
    (tmp_path / "short").write_text("short\n")
    assert says in complaint(write(f"[hooks]\n{toml}\n"))


def test_what_hooks_are_signed_with_may_lie_in_a_file_that_nobody_else_reads(tmp_path: Path, write: Write):
    (tmp_path / "hooks-secret").write_text(SECRET + "\n")
    (tmp_path / "hooks-secret").chmod(0o644)
    toml = '[hooks]\nurl = "https://shop.example"\nsecret_file = "hooks-secret"\n'
    settings = load(write(toml), {})
    assert settings.hooks.secret_bytes == SECRET.encode()
    assert [each for each in warnings(settings) if "hooks.secret" in each] == [
        f"{tmp_path}/hooks-secret holds hooks.secret and everybody may read it; `chmod 640 {tmp_path}/hooks-secret`"
    ]
    assert SECRET not in to_toml(settings) + repr(settings)


def test_hooks_are_of_the_events_and_rooms_that_are_named_and_never_of_users_own_channels(write: Write):
    toml = (
        f'[hooks]\nurl = "https://shop.example"\nsecret = "{SECRET}"\nevents = ["message"]\nrooms = ["shop-*", "#*"]\n'
    )
    hooks = load(write(toml), {}).hooks
    assert hooks.wants("message", "shop-1")
    assert not hooks.wants("join", "shop-1")
    assert not hooks.wants("message", "lobby")
    assert not hooks.wants("message", "#ana")
    assert SECRET not in to_toml(load(write(toml), {}))
