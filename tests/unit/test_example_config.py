"""ops/tellerd.example.toml and the README's table say what the code says: every key, and its default."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from daemon.config import (
    ApiConfig,
    BitcoindConfig,
    Config,
    DepositsConfig,
    HoldsConfig,
    HttpConfig,
    LndConfig,
    LogConfig,
    MongoConfig,
    PostingConfig,
    PricesConfig,
    ReconciliationConfig,
    RedisConfig,
    SpontaneousConfig,
    load_config,
)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "ops" / "tellerd.example.toml"
SECTIONS: dict[str, type[BaseModel]] = {
    "mongo": MongoConfig,
    "lnd": LndConfig,
    "bitcoind": BitcoindConfig,
    "deposits": DepositsConfig,
    "prices": PricesConfig,
    "holds": HoldsConfig,
    "spontaneous": SpontaneousConfig,
    "redis": RedisConfig,
    "api": ApiConfig,
    "http": HttpConfig,
    "posting": PostingConfig,
    "reconciliation": ReconciliationConfig,
    "log": LogConfig,
}


API_FILES = {"tls_cert_file": "api.cert", "tls_key_file": "api.key", "client_ca_file": "clients.cert"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files are that the example names."""
    for name in ("tls.cert", "tellerd.macaroon", "mongo.url", "redis.url", *API_FILES.values()):
        (tmp_path / name).write_text("x")
    return tmp_path


def load(folder: Path, text: str) -> Config:
    (folder / "tellerd.toml").write_text(text)
    return load_config(folder / "tellerd.toml", {})


def uncommented() -> str:
    """The example with all that it shows switched on."""
    return re.sub(r"^#(?=\S)", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_the_sections_are_all_here() -> None:
    """A section that is new in the code must come into this test."""
    assert set(Config.model_fields) == {"network", *SECTIONS}


def test_the_example_is_read_as_it_is(folder: Path) -> None:
    """A newcomer copies it, puts two files beside it, and has a daemon with nothing but defaults."""
    config = load(folder, EXAMPLE.read_text())
    assert (config.bitcoind, config.prices, config.redis) == (None, None, None)
    assert (config.api, config.http, config.posting) == (ApiConfig(), HttpConfig(), PostingConfig())
    assert config.log == LogConfig()


def test_every_key_is_in_the_example() -> None:
    """And no other."""
    shown = tomllib.loads(uncommented())
    for name, section in SECTIONS.items():
        keys = shown[name][0] if name == "lnd" else shown[name]
        assert set(keys) == set(section.model_fields), name


def test_what_the_example_shows_as_defaults_are_the_defaults(folder: Path) -> None:
    """Everything switched on is read, and changes no section that has defaults only."""
    shown = uncommented()
    for other_way in (
        'url_file = "mongo.url"\n',
        'url_file = "redis.url"\n',
        'rpc_user = "tellerd"\n',
        'rpc_password_file = "rpc-password"\n',
    ):
        assert other_way in shown
        shown = shown.replace(other_way, "")
    config = load(folder, shown)
    places = {key: folder / name for key, name in API_FILES.items()}
    assert config.api == ApiConfig().model_copy(update=places)
    assert (config.http, config.posting, config.log) == (HttpConfig(), PostingConfig(), LogConfig())
    assert config.deposits == DepositsConfig()
    assert config.holds == HoldsConfig()
    assert config.reconciliation == ReconciliationConfig()
    for section in (config.mongo, config.prices, config.bitcoind):
        assert section is not None
        for key, default in defaults(type(section)):
            if default is not None and key not in {"url", "zmq", "start_height"}:  # places, not defaults
                assert getattr(section, key) == default, key


def defaults(section: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Keys that need not be given, and what they are then."""
    for key, field in section.model_fields.items():
        if field.default is not PydanticUndefined:
            yield key, field.default


def test_the_readme_has_every_key_with_its_default() -> None:
    """One row a key: `| `section.key` | default | …`."""
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| ([^|]*) \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    for name, section in SECTIONS.items():
        for key in section.model_fields:
            assert f"{name}.{key}" in rows
        for key, default in defaults(section):
            if isinstance(default, bool):
                assert rows[f"{name}.{key}"] == str(default).lower()
            elif isinstance(default, int):
                assert rows[f"{name}.{key}"] == str(default)
            elif isinstance(default, float):
                assert rows[f"{name}.{key}"] == f"{default:g}"
    assert rows["api.listen"] == str(ApiConfig().listen)
    assert rows["http.listen"] == str(HttpConfig().listen)
    assert (rows["log.level"], rows["log.format"]) == (LogConfig().level, LogConfig().format)
