"""The configuration: what is read, and how what is wrong is said."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from daemon.config import Address, Config, ConfigError, load_config

SMALLEST = """
network = "regtest"

[mongo]
url = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
database = "tellerd"

[[lnd]]
name = "lnd1"
address = "127.0.0.1:10009"
tls_cert_file = "tls.cert"
macaroon_file = "tellerd.macaroon"
"""

WHOLE = (
    SMALLEST
    + """
[bitcoind]
rpc_url = "http://127.0.0.1:18443"
rpc_cookie_file = ".cookie"
zmq = ["tcp://127.0.0.1:28332"]
xpub = "tpubD6NzVbkrYhZ4"

[prices]
source = "fixed"
usd_per_btc = "60000.00"

[api]
listen = "127.0.0.1:50051"

[http]
listen = "127.0.0.1:9464"
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the configuration names."""
    (tmp_path / "tls.cert").write_text("cert")
    (tmp_path / "tls.key").write_text("key")
    (tmp_path / "tellerd.macaroon").write_bytes(b"macaroon")
    return tmp_path


def load(folder: Path, text: str, **environ: str) -> Config:
    path = folder / "tellerd.toml"
    path.write_text(text)
    return load_config(path, environ)


def error(folder: Path, text: str, **environ: str) -> str:
    """What is said, without the file's name in front; always one line."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    said = str(caught.value)
    assert "\n" not in said
    assert said.split(": ")[0] in {str(folder / "tellerd.toml"), *environ}
    return said.partition(": ")[2]


def test_the_smallest_configuration_has_defaults(folder: Path) -> None:
    """Lightning only, no prices, both servers on loopback; relative paths are relative to the file."""
    config = load(folder, SMALLEST)
    assert config.network == "regtest"
    assert config.mongo.url.get_secret_value() == "mongodb://127.0.0.1:27017/?replicaSet=rs0"
    assert (config.mongo.database, config.mongo.init) == ("tellerd", False)
    assert config.lnd[0].address == Address("127.0.0.1", 10009)
    assert config.lnd[0].tls_cert_file == folder / "tls.cert"
    assert (config.bitcoind, config.prices) == (None, None)
    assert (str(config.api.listen), str(config.http.listen)) == ("127.0.0.1:50051", "127.0.0.1:9464")
    assert config.posting.lease_ttl_s == 5.0


def test_the_documented_configuration_is_read(folder: Path) -> None:
    """Every name of design.md section 9."""
    config = load(folder, WHOLE)
    assert config.bitcoind is not None
    assert config.prices is not None
    assert config.bitcoind.zmq == ("tcp://127.0.0.1:28332",)
    assert config.prices.usd_per_btc == Decimal("60000.00")
    assert config.bitcoind.xpub is not None
    assert "tpub" not in repr(config)


@pytest.mark.parametrize(
    "private",
    [
        "tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK",
        "wpkh(xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi/0/*)",
    ],
)
def test_a_private_key_is_refused_and_not_shown(folder: Path, private: str) -> None:
    """Before anything connects; the line does not hold it."""
    said = error(folder, SMALLEST + BITCOIND + f'xpub = "{private}"\n')
    assert "bitcoind.xpub" in said
    assert "private key" in said
    assert private[5:25] not in said


BITCOIND = '[bitcoind]\nrpc_url = "http://127.0.0.1:18443"\nrpc_cookie_file = ".cookie"\n'


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ('[bitcoind]\nrpc_url = "http://127.0.0.1:18443"\n', "rpc_cookie_file"),
        (BITCOIND + 'rpc_user = "u"\n', "rpc_cookie_file"),
        (BITCOIND + 'rpc_user = "u"\nrpc_password_file = "p"\n', "rpc_cookie_file"),
        (BITCOIND + "max_reorg_depth = 0\n", "max_reorg_depth"),
        (BITCOIND + "start_height = -1\n", "start_height"),
        ("[deposits]\nconfirmations = []\n", "confirmations"),
        ("[deposits]\nconfirmations = [{ from_sat = 1, confirmations = 1 }]\n", "from_sat must be 0"),
        ("[deposits]\nconfirmations = [{ from_sat = 0, confirmations = 0 }]\n", "confirmations"),
        ("[deposits]\nflat_fee_sat = -1\n", "flat_fee_sat"),
        ("[deposits]\nfee_basis_points = 1001\n", "fee_basis_points"),
    ],
)
def test_what_cannot_be_right_about_the_chain_is_named(folder: Path, text: str, about: str) -> None:
    """One line with the key and the remedy."""
    assert about in error(folder, SMALLEST + text)


def test_the_environment_goes_before_the_file(folder: Path) -> None:
    """Sections, list entries, new list entries, numbers and truth values; what other programs read is left alone."""
    config = load(
        folder,
        SMALLEST,
        TELLERD_NETWORK="signet",
        TELLERD_MONGO__DATABASE="other",
        TELLERD_MONGO__INIT="true",
        TELLERD_POSTING__LEASE_TTL_S="2.5",
        TELLERD_API__MAX_STREAMS="8",
        TELLERD_LND__0__ADDRESS="[::1]:10010",
        TELLERD_LND__1__NAME="lnd2",
        TELLERD_LND__1__ADDRESS="127.0.0.1:10011",
        TELLERD_LND__1__TLS_CERT_FILE="tls.cert",
        TELLERD_LND__1__MACAROON_FILE="tellerd.macaroon",
        TELLERD_LND="/usr/bin/lnd",
        TELLERD_MONGOD="/usr/bin/mongod",
        HOME="/root",
    )
    assert (config.network, config.mongo.database, config.mongo.init) == ("signet", "other", True)
    assert (config.posting.lease_ttl_s, config.api.max_streams) == (2.5, 8)
    assert [node.name for node in config.lnd] == ["lnd1", "lnd2"]
    assert str(config.lnd[0].address) == "[::1]:10010"


def test_the_url_can_stand_in_a_file(folder: Path) -> None:
    """A secret by file: read once, white space around it dropped."""
    (folder / "url").write_text("mongodb://user:pass@host/?replicaSet=rs0\n")
    config = load(folder, SMALLEST.replace('url = "mongodb://127.0.0.1:27017/?replicaSet=rs0"', 'url_file = "url"'))
    assert config.mongo.url.get_secret_value() == "mongodb://user:pass@host/?replicaSet=rs0"
    assert "pass" not in repr(config)


def test_redis_is_left_alone_unless_it_is_configured(folder: Path) -> None:
    """By its url, or a file that holds it; the url is a secret."""
    assert load(folder, SMALLEST).redis is None
    (folder / "redis.url").write_text("rediss://:pass@host:6380/1\n")
    for text, variables in (
        ('[redis]\nurl_file = "redis.url"\n', {}),
        ('[redis]\nurl = "rediss://:pass@host:6380/1"\n', {}),
        ("", {"TELLERD_REDIS__URL": "rediss://:pass@host:6380/1"}),
    ):
        config = load(folder, SMALLEST + text, **variables)
        assert config.redis is not None
        assert config.redis.url.get_secret_value() == "rediss://:pass@host:6380/1"
        assert "pass" not in repr(config)
    (folder / "redis.url").write_text("hunter2")
    for text, begins in (
        ('[redis]\nurl = "hunter2"\n', "redis.url: the value (not shown)"),
        ('[redis]\nurl_file = "redis.url"\n', "redis.url_file: "),
        ("[redis]\n", "redis: give either url or url_file"),
    ):
        said = error(folder, SMALLEST + text)
        assert said.startswith(begins)
        assert "hunter2" not in said


def test_values_are_frozen(folder: Path) -> None:
    """Nobody changes the configuration while the daemon runs."""
    config = load(folder, SMALLEST)
    with pytest.raises(ValidationError):
        config.network = "mainnet"  # type: ignore[misc]  # what must not work is tried


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('network = "regtest"', "", "network: missing; add this key"),
        ('network = "regtest"', 'network = "testnet9"', "network: 'testnet9' cannot be used: "),
        ('database = "tellerd"', 'databse = "tellerd"', "mongo.database: missing; add this key"),
        ("[mongo]", "colour = 1\n[mongo]", "colour: unknown key; remove it or mend its spelling"),
        ('name = "lnd1"', 'name = "lnd1"\nmacaron = "x"', "lnd.0.macaron: unknown key; "),
        ('database = "tellerd"', "database = 7", "mongo.database: 7 cannot be used: "),
        ('database = "tellerd"', 'database = "a b"', "mongo.database: 'a b' cannot be used: does not match "),
        (
            'database = "tellerd"',
            'database = "t"\ninit = "yes"',
            "mongo.init: 'yes' cannot be used: give true",
        ),
        ('database = "tellerd"', 'database = "t"\nurl_file = "x"', "mongo: give either url or url_file"),
        ('"tls.cert"', '"tls.crt"', "no file at "),
        ('"127.0.0.1:10009"', '"127.0.0.1"', """lnd.0.address: '127.0.0.1' cannot be used: give "host:port","""),
        ('"127.0.0.1:10009"', '"127.0.0.1:65536"', "lnd.0.address: "),
        ("[[lnd]]", "[[lnds]]", "lnd: missing; add this key"),
        ("[[lnd]]", "[lnd]", "lnd: "),
        ("[mongo]", "[mongo", "not TOML: "),
    ],
)
def test_what_is_wrong_is_one_line_with_key_value_and_remedy(folder: Path, old: str, new: str, said: str) -> None:
    """Unknown key, wrong type, missing key, missing file, not TOML."""
    assert old in SMALLEST
    assert said in error(folder, SMALLEST.replace(old, new, 1))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('[api]\nlisten = "0.0.0.0:50051"', "api: listen 0.0.0.0:50051 can be reached from other machines"),
        ('[api]\ntls_cert_file = "tls.cert"', "api: give both tls_cert_file and tls_key_file, or neither"),
        ('[api]\ntls_key_file = "tls.key"', "api: give both tls_cert_file and tls_key_file, or neither"),
        ('[api]\nclient_ca_file = "tls.cert"', "api: client_ca_file is for TLS: give tls_cert_file and tls_key_file"),
        ('[api]\ntls_cert_file = "gone.cert"', "no file at "),
        ('[api]\nkeys = "yes"', "api.keys: 'yes' cannot be used: give true or false"),
        ("[api]\nmax_streams = 33", "api.max_streams: 33 cannot be used: "),
        ("[api]\nmax_streams = 1.5", "api.max_streams: 1.5 cannot be used: "),
        ('[log]\nlevel = "loud"', "log.level: 'loud' cannot be used: input should be 'debug', 'info'"),
        ('[log]\nformat = "xml"', "log.format: 'xml' cannot be used: input should be 'auto', 'json' or 'text'"),
        ("[log]\nmoney = 1", "log.money: 1 cannot be used: give true or false"),
        ('[posting]\nlease_ttl_s = "5"', "posting.lease_ttl_s: '5' cannot be used: give a number"),
        ("[posting]\nlease_ttl_s = true", "posting.lease_ttl_s: True cannot be used: give a number"),
        ('[prices]\nsource = "blink"', 'prices: source "blink" needs price_address, dealer_address, or both'),
        ('[prices]\nsource = "blink"\ndealer_address = "dealer"', "prices.dealer_address: 'dealer' cannot be used"),
        ('[prices]\nsource = "fixed"\nusd_per_btc = "1"\nquote_s = 59', "prices.quote_s: 59 cannot be used"),
        ('[prices]\nsource = "fixed"\nusd_per_btc = "1"\nmax_jump_percent = 0', "prices.max_jump_percent: 0 cannot be"),
        (
            '[prices]\nsource = "fixed"\nusd_per_btc = "1"\nmax_jump_percent = 101',
            "prices.max_jump_percent: 101 cannot be",
        ),
        ('[prices]\nsource = "fixed"', 'prices: source "fixed" needs usd_per_btc'),
        (
            '[prices]\nsource = "fixed"\nusd_per_btc = "-1"',
            "prices.usd_per_btc: '-1' cannot be used: give",
        ),
        ('[prices]\nsource = "fixed"\nusd_per_btc = "nan"', "give dollars per bitcoin"),
        ('[prices]\nsource = "http"\nurl = "http://x/"', 'prices: source "http" needs url and json_path'),
        ('[prices]\nsource = "http"\nurl = "file:///etc/passwd"\njson_path = "a"', "prices.url: "),
        ('[bitcoind]\nrpc_url = "http://u:p@h"', "bitcoind.rpc_url: the value (not shown)"),
    ],
)
def test_what_is_wrong_in_a_section_names_it(folder: Path, section: str, said: str) -> None:
    """Bounds, choices, and keys that need each other."""
    assert said in error(folder, SMALLEST + section)


TLS = 'tls_cert_file = "tls.cert"\ntls_key_file = "tls.key"\n'
KEYS = "keys = true\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.1", "example.com"])
@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("", "set tls_cert_file, tls_key_file, keys = true, or listen"),
        (KEYS, "set tls_cert_file, tls_key_file, or listen"),
        (TLS, "set keys = true, or listen"),
        (TLS + 'client_ca_file = "tls.cert"\n', "set keys = true, or listen"),
    ],
)
def test_off_loopback_the_api_needs_tls_and_keys(folder: Path, host: str, given: str, missing: str) -> None:
    """One line that names what is missing, and with both it is accepted."""
    listen = f'[api]\nlisten = "{host}:50051"\n'
    assert error(folder, SMALLEST + listen + given).endswith(f'{missing} = "127.0.0.1:50051"')
    api = load(folder, SMALLEST + listen + TLS + KEYS).api
    assert not api.listen.is_loopback
    assert (api.tls_cert_file, api.tls_key_file, api.keys) == (folder / "tls.cert", folder / "tls.key", True)


@pytest.mark.parametrize("given", ["", TLS, KEYS, TLS + KEYS])
def test_on_loopback_either_may_be_left_out(folder: Path, given: str) -> None:
    """Only this machine can reach it."""
    api = load(folder, f"{SMALLEST}[api]\n{given}").api
    assert (api.tls_cert_file is not None, api.keys) == (TLS in given, KEYS in given)


def test_the_environment_cannot_open_it_either(folder: Path) -> None:
    """The check is of what is in force, wherever it comes from."""
    assert "keys = true" in error(folder, f"{SMALLEST}[api]\n{TLS}", TELLERD_API__LISTEN="0.0.0.0:50051")
    on = load(folder, f"{SMALLEST}[api]\n{TLS}", TELLERD_API__LISTEN="0.0.0.0:50051", TELLERD_API__KEYS="true")
    assert on.api.keys


def test_an_error_in_the_environment_names_the_variable(folder: Path) -> None:
    """The file is not to blame."""
    assert error(folder, SMALLEST, TELLERD_MONGO__INIT="maybe").startswith("mongo.init: 'maybe' cannot be used: ")
    assert error(folder, SMALLEST, TELLERD_MONGO__COLOUR="red").startswith("mongo.colour: unknown key")
    assert "no place for '2'" in error(folder, SMALLEST, TELLERD_LND__2__NAME="x")
    assert "no place for 'name'" in error(folder, SMALLEST, TELLERD_LND__NAME="x")
    assert "no place for 'deep'" in error(folder, SMALLEST, TELLERD_MONGO__URL__DEEP="x")


@pytest.mark.parametrize("url", ["postgres://u:hunter2@h/", "hunter2"])
def test_a_secret_is_never_shown(folder: Path, url: str) -> None:
    """Neither from file nor environment, nor from url_file."""
    good = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
    for said in (
        error(folder, SMALLEST.replace(good, url)),
        error(folder, SMALLEST, TELLERD_MONGO__URL=url),
    ):
        assert said.startswith("mongo.url: the value (not shown) cannot be used: give ")
        assert "hunter2" not in said
    (folder / "url").write_text(url)
    said = error(folder, SMALLEST.replace(f'url = "{good}"', 'url_file = "url"'))
    assert said.startswith("mongo.url_file: ")
    assert "hunter2" not in said


def test_two_nodes_of_one_name_are_refused(folder: Path) -> None:
    """Names are what metrics and requests tell nodes apart by."""
    entry = SMALLEST[SMALLEST.index("[[lnd]]") :]
    assert "two nodes are named 'lnd1'" in error(folder, SMALLEST + entry)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """With the way to give one."""
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file or directory; give .* --config FILE$"):
        load_config(tmp_path / "absent.toml", {})


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_is_known(text: str, loopback: bool) -> None:
    """By address, or the one name that means it."""
    assert Address(text, 1).is_loopback is loopback
