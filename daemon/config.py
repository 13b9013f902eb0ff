"""The configuration: TOML and environment, read once into frozen values, names as in design.md section 9.

Every key can be given as `TELLERD_SECTION__KEY` (`TELLERD_MONGO__URL`, `TELLERD_LND__0__ADDRESS`,
`TELLERD_NETWORK`), which goes before the file. Relative paths are relative to the file. Whatever is wrong
is one `ConfigError` of one line that names the key, the value and the remedy, never the value of a secret.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, DepositTerms, checked_tiers
from daemon.domain.errors import BadInput, TellerdError
from daemon.domain.holds import HoldRules, Release
from daemon.domain.money import SATS_PER_BTC, Price
from daemon.domain.quotes import DEFAULT_QUOTE_S
from daemon.logs import Format, Level
from daemon.matching.deposits import DepositRules

ENVIRONMENT_PREFIX = "TELLERD_"
_SECRET_KEYS = frozenset({"url", "rpc_url", "xpub"})
"""Keys whose value may hold a password or a key: it is not shown in errors."""
_MAX_SHOWN = 80
_MAX_SAT = 21_000_000 * SATS_PER_BTC
_CUSTOM_RECORDS_FROM = 65_536
"""BOLT 1: the types of TLV records that everybody may give a meaning of his own."""
_KEYSEND_RECORD = 5_482_373_484
"""A keysend's preimage."""
_MAX_LND = 64
"""Nodes of one daemon: each has a stream and threads of its own; far more than any bank runs."""


class ConfigError(TellerdError):
    """The configuration cannot be used; its text is one line."""


class _EnvironmentText(str):
    """A value from the environment, where all is text: numbers and truth values are read from it."""

    __slots__ = ()


def _flag(value: object) -> object:
    if isinstance(value, _EnvironmentText) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError("give true or false")
    return value


def _number(value: object) -> object:
    if isinstance(value, _EnvironmentText):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise ValueError("give a number")


def _usd_per_btc(value: object) -> Decimal:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = Decimal(str(value))
            Price.from_usd_per_btc(number)
        except (InvalidOperation, ValueError):
            pass
        else:
            return number
    raise ValueError('give dollars per bitcoin, for example "60000.00"')


def _path(value: object, info: ValidationInfo) -> Path:
    """Relative to the file. A NUL or an empty name would mean the folder itself."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("give the path of a file")
    base: Path = info.context["base"] if info.context else Path()
    return base / Path(value).expanduser()


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"no file at {path}; give the path of a file that exists")
    return path


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens; port 0 lets the operating system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9.-]+)):(?P<port>[0-9]{1,5})")


def _address(value: object) -> Address:
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match["port"]) > 65535:
        raise ValueError('give "host:port", for example "127.0.0.1:50051"')
    return Address(match["ipv6"] or match["host"], int(match["port"]))


Flag = Annotated[bool, BeforeValidator(_flag)]
Number = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[int, BeforeValidator(_number)]
UsdPerBtc = Annotated[Decimal, PlainValidator(_usd_per_btc)]
AnyPath = Annotated[Path, PlainValidator(_path)]
ExistingFile = Annotated[Path, PlainValidator(_path), AfterValidator(_existing)]
Listen = Annotated[Address, PlainValidator(_address)]
Text = Annotated[str, Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _UrlSection(_Section):
    """With a url that may hold a password: given here, or as the first line of a file."""

    url: SecretStr = SecretStr("")
    url_file: ExistingFile | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_url(cls, values: object) -> object:
        if isinstance(values, dict) and ("url" in values) == ("url_file" in values):
            raise ValueError("give either url or url_file")
        return values

    def with_url_read(self) -> Self:
        """The section with the url from its file, if it stands in one."""
        if self.url_file is None:
            return self
        others = self.model_dump(exclude={"url", "url_file"})
        return type(self).model_validate({"url": self.url_file.read_text(encoding="utf-8").strip(), **others})


class MongoConfig(_UrlSection):
    """[mongo]: `url`, or `url_file` with a file whose first line it is; `init` lets `run` make collections."""

    database: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,63}$")]
    init: Flag = False

    @field_validator("url")
    @classmethod
    def _is_mongodb(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError('give "mongodb://host:port/?replicaSet=name"')
        return url


class LndConfig(_Section):
    """[[lnd]]: one Lightning node."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    address: Listen
    tls_cert_file: ExistingFile
    macaroon_file: ExistingFile


class BitcoindConfig(_Section):
    """[bitcoind]: the chain that deposits come on. Without a cookie file: user and password file.

    `start_height` counts at the first start only (default: the tip). A reorg deeper than `max_reorg_depth` stops
    the chain until a person has looked. `back_scan_blocks`: how far back an address is looked for that another
    program wrote after its payment.
    """

    rpc_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    rpc_cookie_file: AnyPath | None = None
    rpc_user: Text | None = None
    rpc_password_file: AnyPath | None = None
    zmq: Annotated[tuple[Annotated[str, Field(pattern=r"^(tcp|ipc)://\S+$")], ...], Field(max_length=8)] = ()
    xpub: SecretStr | None = None
    foreign_addresses: Flag = False
    start_height: Annotated[Whole, Field(ge=0)] | None = None
    max_reorg_depth: Annotated[Whole, Field(ge=1, le=10_000)] = 100
    back_scan_blocks: Annotated[Whole, Field(ge=0, le=10_000)] = 144

    @field_validator("xpub")
    @classmethod
    def _is_public(cls, xpub: SecretStr | None) -> SecretStr | None:
        # The rest is checked where addresses are derived; what is plainly private is refused with the file.
        if xpub is not None and re.search(r"[a-zA-Z]prv[0-9A-Za-z]{8}", xpub.get_secret_value()):
            raise ValueError("it is a private key: give the public one (xpub) and keep the private one off this host")
        return xpub

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        by_password = self.rpc_user is not None and self.rpc_password_file is not None
        if (self.rpc_cookie_file is None) != by_password or (self.rpc_user is None) != (self.rpc_password_file is None):
            raise ValueError("give either rpc_cookie_file, or rpc_user and rpc_password_file")
        return self


class TierConfig(_Section):
    """One of `deposits.confirmations`."""

    from_sat: Annotated[Whole, Field(ge=0)]
    confirmations: Annotated[Whole, Field(ge=1)]


class DepositsConfig(_Section):
    """[deposits]: what is asked of a deposit; the defaults are Blink's. `confirmations` counts until a policy is
    set over the API."""

    confirmations: Annotated[tuple[TierConfig, ...], Field(min_length=1)] = (TierConfig(from_sat=0, confirmations=2),)
    flat_fee_sat: Annotated[Whole, Field(ge=0, le=100_000_000)] = 3_000
    fee_threshold_sat: Annotated[Whole, Field(ge=0, le=_MAX_SAT)] = 1_000_000
    fee_basis_points: Annotated[Whole, Field(ge=0, le=1_000)] = 30
    dust_threshold_sat: Annotated[Whole, Field(ge=0, le=100_000_000)] = 5_000

    @field_validator("confirmations")
    @classmethod
    def _are_a_policy(cls, tiers: tuple[TierConfig, ...]) -> tuple[TierConfig, ...]:
        try:
            _tiers(tiers)
        except BadInput as problem:
            raise ValueError(str(problem)) from None
        return tiers

    def rules(self) -> DepositRules:
        """For the decisions."""
        return DepositRules(
            terms=DepositTerms(
                flat_fee_sat=self.flat_fee_sat,
                fee_threshold_sat=self.fee_threshold_sat,
                fee_basis_points=self.fee_basis_points,
                dust_threshold_sat=self.dust_threshold_sat,
            ),
            default_policy=ConfirmationPolicy(version=0, tiers=_tiers(self.confirmations)),
        )


def _tiers(tiers: tuple[TierConfig, ...]) -> tuple[ConfirmationTier, ...]:
    return checked_tiers([ConfirmationTier(from_sat=tier.from_sat, confirmations=tier.confirmations) for tier in tiers])


class PricesConfig(_Section):
    """[prices]: a fixed price, one read from a JSON document by HTTP, or that of Blink's servers: its price feed
    (`price_address`), its dealer (`dealer_address`), or both. A price that differs by more than `max_jump_percent` from
    the one before is not believed at once. A quote for dollars holds for `quote_s`."""

    source: Literal["fixed", "http", "blink"]
    usd_per_btc: UsdPerBtc | None = None
    url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    json_path: Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")] | None = None
    price_address: Listen | None = None
    dealer_address: Listen | None = None
    refresh_s: Annotated[Number, Field(ge=1, le=3600)] = 30.0
    max_age_s: Annotated[Number, Field(ge=1, le=86400)] = 600.0
    max_jump_percent: Annotated[Number, Field(ge=1, le=100)] = 20.0
    quote_s: Annotated[Whole, Field(ge=60, le=3600)] = DEFAULT_QUOTE_S

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.source == "fixed" and self.usd_per_btc is None:
            raise ValueError('source "fixed" needs usd_per_btc')
        if self.source == "http" and (self.url is None or self.json_path is None):
            raise ValueError('source "http" needs url and json_path')
        if self.source == "blink" and self.price_address is None and self.dealer_address is None:
            raise ValueError('source "blink" needs price_address, dealer_address, or both')
        if self.max_age_s < self.refresh_s:
            raise ValueError("max_age_s must not be below refresh_s, or every price is too old")
        return self


class RedisConfig(_UrlSection):
    """[redis]: Blink's Redis, for its locks and messages: `url`, or `url_file` with a file whose first line it is."""

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError('give "redis://host:6379/0", or rediss:// with TLS')
        return url


class HoldsConfig(_Section):
    """[holds]: what is done with payments that a node holds. `release` counts for invoices that other programs made
    and whose preimage is known: "automatic" takes them as soon as they can be credited, "manual" waits for
    SettleInvoice. `margin_blocks` before LND gives one back by itself it is decided."""

    release: Literal["automatic", "manual"] = "automatic"
    margin_blocks: Annotated[Whole, Field(ge=1, le=40)] = 6

    def rules(self) -> HoldRules:
        """For the decisions."""
        return HoldRules(release=Release(self.release), margin_blocks=self.margin_blocks)


class SpontaneousConfig(_Section):
    """[spontaneous]: payments that nobody asked for (keysend, AMP). `wallet_record` is the type of the custom TLV
    record whose text is the id of the wallet that gets the money."""

    wallet_record: Annotated[Whole, Field(ge=_CUSTOM_RECORDS_FROM, lt=1 << 63)] | None = None

    @field_validator("wallet_record")
    @classmethod
    def _names_a_wallet(cls, record: int | None) -> int | None:
        if record == _KEYSEND_RECORD:
            raise ValueError("it is the record of a keysend's preimage: give one of your own")
        return record


class ApiConfig(_Section):
    """[api]: the gRPC server. `max_streams` stays well below its 48 threads, or streams starve the calls.

    With `client_ca_file` clients must show a certificate that is signed by one in it; with `keys` they must give an
    API key. Off loopback both TLS and keys are needed: money could be taken by whoever reaches the port.
    """

    listen: Listen = Address("127.0.0.1", 50051)
    tls_cert_file: ExistingFile | None = None
    tls_key_file: ExistingFile | None = None
    client_ca_file: ExistingFile | None = None
    keys: Flag = False
    max_streams: Annotated[Whole, Field(ge=1, le=32)] = 24

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("give both tls_cert_file and tls_key_file, or neither")
        if self.client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("client_ca_file is for TLS: give tls_cert_file and tls_key_file, too")
        missing = [] if self.tls_cert_file is not None else ["tls_cert_file", "tls_key_file"]
        missing += [] if self.keys else ["keys = true"]
        if missing and not self.listen.is_loopback:
            raise ValueError(
                f"listen {self.listen} can be reached from other machines, for which the API needs TLS and keys: "
                f'set {", ".join(missing)}, or listen = "127.0.0.1:{self.listen.port}"'
            )
        return self


class HttpConfig(_Section):
    """[http]: /metrics, /healthz, /readyz, and / for people."""

    listen: Listen = Address("127.0.0.1", 9464)
    blink_metrics: Flag = False


class PostingConfig(_Section):
    """[posting]: a standby takes over `lease_ttl_s` after the leader's last sign of life; at SIGTERM work in
    flight has `drain_s` to end."""

    lease_ttl_s: Annotated[Number, Field(ge=1, le=60)] = 5.0
    drain_s: Annotated[Number, Field(ge=1, le=120)] = 10.0


class ReconciliationConfig(_Section):
    """[reconciliation]: books against nodes every `every_s`; every invoice and deposit nightly at `nightly_at`, UTC.

    `book_routing` and `book_channel_fees` false: another program's cron books them, as Blink's does; then they are kept
    as explained gaps.
    """

    every_s: Annotated[Number, Field(ge=0.2, le=3600)] = 60.0
    nightly_at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "03:00"
    book_routing: Flag = True
    book_channel_fees: Flag = True

    @property
    def nightly_time(self) -> time:
        """`nightly_at` as a time of day."""
        return time.fromisoformat(self.nightly_at)


class LogConfig(_Section):
    """[log]: `format` "auto" is text on a terminal and JSON elsewhere. `money`: one line for each fact that moved
    money. The level is read again at SIGHUP."""

    level: Level = "info"
    format: Format = "auto"
    money: Flag = True


class Config(_Section):
    """All of it."""

    network: Literal["mainnet", "testnet", "signet", "regtest"]
    mongo: MongoConfig
    lnd: Annotated[tuple[LndConfig, ...], Field(min_length=1, max_length=_MAX_LND)]
    bitcoind: BitcoindConfig | None = None
    deposits: DepositsConfig = DepositsConfig()
    prices: PricesConfig | None = None
    holds: HoldsConfig = HoldsConfig()
    spontaneous: SpontaneousConfig = SpontaneousConfig()
    redis: RedisConfig | None = None
    api: ApiConfig = ApiConfig()
    http: HttpConfig = HttpConfig()
    posting: PostingConfig = PostingConfig()
    log: LogConfig = LogConfig()
    reconciliation: ReconciliationConfig = ReconciliationConfig()

    @field_validator("lnd")
    @classmethod
    def _names_differ(cls, nodes: tuple[LndConfig, ...]) -> tuple[LndConfig, ...]:
        names = [node.name for node in nodes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two nodes are named {twice!r}: give each a name of its own")
        return nodes


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Reads file and environment; raises ConfigError."""
    values = _read_toml(path)
    origins = _overlay(values, environ)
    try:
        config = Config.model_validate(values, context={"base": path.resolve().parent})
    except ValidationError as problems:
        raise ConfigError(_one_line(problems.errors()[0], path, origins)) from None
    read = {"mongo": _mongo_with_url(config.mongo, path), "redis": _redis_with_url(config.redis, path)}
    return config.model_copy(update=read)


def _redis_with_url(redis: RedisConfig | None, path: Path) -> RedisConfig | None:
    try:
        return None if redis is None else redis.with_url_read()
    except (ValidationError, OSError, UnicodeError):
        raise ConfigError(
            f'{path}: redis.url_file: {redis.url_file if redis else ""} holds no url; write "redis://host:6379/0" '
            "into it and let tellerd read it"
        ) from None


def _mongo_with_url(mongo: MongoConfig, path: Path) -> MongoConfig:
    try:
        return mongo.with_url_read()
    except (ValidationError, OSError, UnicodeError):
        raise ConfigError(
            f'{path}: mongo.url_file: {mongo.url_file} holds no url; write "mongodb://host:port/?replicaSet=name" '
            "into it and let tellerd read it"
        ) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise ConfigError(f"{path}: {reason}; give the configuration with --config FILE") from None
    except UnicodeError:
        raise ConfigError(f"{path}: not UTF-8; save the file as UTF-8 text") from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(f"{path}: not TOML: {' '.join(str(problem).split())}; mend that line") from None


def _overlay(values: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Puts values from the environment over those of the file; returns which variable gave which key."""
    origins: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        keys = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if len(keys) == 1 and keys != ["network"]:
            continue  # TELLERD_LND, TELLERD_MONGOD and the like name programs for the regtest stack
        _put(values, keys, _EnvironmentText(environ[variable]), variable)
        origins[_dotted(keys)] = variable
    return origins


def _put(values: dict[str, Any], keys: list[str], text: str, variable: str) -> None:
    place: Any = values
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        new: Any = text if following is None else [] if following.isdigit() else {}
        if isinstance(place, list) and key.isdigit() and int(key) <= len(place):
            if int(key) == len(place):
                place.append(new)
            elif following is None:
                place[int(key)] = new
            place = place[int(key)]
        elif isinstance(place, dict) and not key.isdigit():
            if following is None:
                place[key] = new
            place = place.setdefault(key, new)
        else:
            raise ConfigError(
                f"{variable}: no place for {key!r} in the configuration; "
                "lists are counted from 0 without gaps, as in TELLERD_LND__0__ADDRESS"
            )


def _dotted(keys: list[str] | tuple[int | str, ...]) -> str:
    return ".".join(str(key) for key in keys)


def _one_line(problem: ErrorDetails, path: Path, origins: Mapping[str, str]) -> str:
    """`<file or variable>: <key>: <value> …; <remedy>`."""
    # Positions inside a union or a function's schema are pydantic's, not the reader's.
    keys = tuple(key for key in problem["loc"] if isinstance(key, int) or re.fullmatch(r"[A-Za-z0-9_-]+", key))
    name = _dotted(keys)
    origin = origins.get(name, str(path))
    shown = _shown(keys, problem)
    match problem["type"]:
        case "missing":
            return f"{origin}: {name}: missing; add this key"
        case "extra_forbidden":
            return f"{origin}: {name}: unknown key; remove it or mend its spelling"
        case "string_pattern_mismatch":
            what = f"does not match {problem['ctx']['pattern']}"
        case _:
            what = problem["msg"].removeprefix("Value error, ")
            what = what[:1].lower() + what[1:]
    return " ".join(f"{origin}: {name}: {shown}{what}".split())


def _shown(keys: tuple[int | str, ...], problem: ErrorDetails) -> str:
    value = problem["input"]
    if not isinstance(value, str | int | float):
        return ""
    if keys and keys[-1] in _SECRET_KEYS:
        return "the value (not shown) cannot be used: "
    text = repr(str(value) if isinstance(value, str) else value)
    return f"{text[:_MAX_SHOWN]} cannot be used: "
