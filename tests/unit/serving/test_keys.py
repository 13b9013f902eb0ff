"""Who a caller is: keys made, read, kept for seconds, and refused without telling why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import pytest
from structlog.testing import capture_logs

from adapters.memory import MemoryStore
from daemon.domain.api_keys import ApiKey, KeyText, Scope
from daemon.domain.errors import BadInput, NotFound, Unavailable
from daemon.domain.ports import ApiKeys
from daemon.serving import keys
from daemon.serving.keys import CACHE_S, MAX_CACHED, TOUCH_MS, Forbidden, KeyCheck, Unauthenticated

NOW_MS = 1_790_000_000_000
GET = "tellerd.v1.WalletService/GetWallet"
CREATE = "tellerd.v1.InvoiceService/CreateInvoice"


@dataclass
class Keys:
    """Keys in memory behind a connection that can break, and a clock that tests set."""

    store: ApiKeys = field(default_factory=lambda: MemoryStore().api_keys)
    now_ms: int = NOW_MS
    asked: list[str] = field(default_factory=list)
    touched: list[tuple[str, int]] = field(default_factory=list)
    away: bool = False
    touch_fails: bool = False

    def get(self, key_id: str) -> ApiKey | None:
        self.asked.append(key_id)
        if self.away:
            raise Unavailable("the database is away")
        return self.store.get(key_id)

    def touch_last_used(self, key_id: str, *, at_ms: int) -> None:
        self.touched.append((key_id, at_ms))
        if self.touch_fails:
            raise Unavailable("the database is away")
        self.store.touch_last_used(key_id, at_ms=at_ms)

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def make(self, *scopes: Scope, expires_at_ms: int | None = None) -> str:
        """A key's text."""
        _, text = keys.create_api_key(
            self.store, name="core", scopes=scopes or (Scope.READ,), expires_at_ms=expires_at_ms, now_ms=self.now_ms
        )
        return text.reveal()

    def check(self) -> KeyCheck:
        return KeyCheck(self, now_ms=lambda: self.now_ms, monotonic_s=lambda: self.now_ms / 1000)  # type: ignore[arg-type]  # the rest by __getattr__

    def advance(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


def bearer(text: str) -> list[str]:
    return [f"Bearer {text}"]


def test_a_made_key_says_who_calls() -> None:
    """By the id that its text begins with; the scheme is told in any case."""
    world = Keys()
    text = world.make(Scope.READ)
    check = world.check()
    for header in (f"Bearer {text}", f"bearer {text}", f"BEARER {text}"):
        who = check.authorise(GET, [header])
        assert (who.key_id, who.name) == (text[:12], "core")


def test_two_keys_share_nothing() -> None:
    """Ids and secrets are drawn anew, and none of them is kept as text."""
    world = Keys()
    texts = [world.make() for _ in range(3)]
    assert len({text[:12] for text in texts}) == len({text[13:] for text in texts}) == 3
    kept = repr([asdict(key) for key in world.store.page(after=None, limit=10)[0]])
    assert all(text[:12] in kept and text[13:] not in kept for text in texts)


def refusal(check: KeyCheck, header: list[str]) -> str:
    with pytest.raises(Unauthenticated) as caught:
        check.authorise(GET, header)
    return str(caught.value)


def test_every_reason_to_refuse_a_key_reads_the_same() -> None:
    """No key, malformed, unknown, wrong secret, expired, revoked: a caller cannot tell them apart."""
    world = Keys()
    good, expired, revoked = world.make(), world.make(expires_at_ms=NOW_MS + 1000), world.make()
    keys.revoke_api_key(world.store, revoked[:12], now_ms=NOW_MS)
    world.advance(1)
    unknown = KeyText.from_random(for_id=b"other", for_secret=bytes(32)).reveal()
    wrong = good[:-1] + ("A" if good[-1] != "A" else "E")
    check = world.check()
    headers = [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [good],
        [f"Basic {good}"],
        [f"Bearer  {good}"],
        [f"Bearer {good} "],
        [f"Bearer {good}", f"Bearer {good}"],
        *map(bearer, (good[:12], unknown, wrong, expired, revoked)),
    ]
    assert {refusal(check, header) for header in headers} == {str(Unauthenticated())}
    assert check.authorise(GET, bearer(good)).key_id == good[:12]


def test_an_expired_key_is_refused_though_it_is_cached() -> None:
    """The clock needs no database."""
    world = Keys()
    text = world.make(expires_at_ms=NOW_MS + 1000)
    check = world.check()
    check.authorise(GET, bearer(text))
    world.advance(1)
    refusal(check, bearer(text))
    assert world.asked == [text[:12]]


def test_a_scope_is_needed_and_a_method_without_a_rule_is_nobodys() -> None:
    """Forbidden, with the same text for both."""
    world = Keys()
    reader, admin = world.make(Scope.READ), world.make(Scope.ADMIN)
    check = world.check()
    check.authorise(CREATE, bearer(admin))
    for method, text in ((CREATE, reader), ("tellerd.v1.WalletService/Steal", admin), ("", admin)):
        with pytest.raises(Forbidden, match=r"^this API key does not allow the call$"):
            check.authorise(method, bearer(text))


def test_a_revocation_counts_once_the_cache_is_old() -> None:
    """Not later than CACHE_S, and one question to the database in that time."""
    world = Keys()
    text = world.make()
    check = world.check()
    check.authorise(GET, bearer(text))
    keys.revoke_api_key(world.store, text[:12], now_ms=world.now_ms)
    world.advance(CACHE_S - 0.001)
    check.authorise(GET, bearer(text))
    assert len(world.asked) == 1
    world.advance(0.001)
    refusal(check, bearer(text))
    assert len(world.asked) == 2


def test_what_is_cached_does_not_grow_with_guesses_and_keys() -> None:
    """Unknown ids are not kept; of more keys than have room, those read last are."""
    world = Keys()
    texts = [world.make() for _ in range(MAX_CACHED + 1)]
    check = world.check()
    first, *rest, filling, last = texts
    check.authorise(GET, bearer(first))
    world.advance(CACHE_S / 2)
    for text in rest:
        check.authorise(GET, bearer(text))
    world.advance(CACHE_S / 2)
    for text in (first, filling, last):  # the first is read anew, the last takes the place of rest[0]
        check.authorise(GET, bearer(text))
    guess = KeyText.from_random(for_id=b"guess", for_secret=bytes(32)).reveal()
    for _ in range(2):
        refusal(check, bearer(guess))
    world.asked.clear()
    for text in (first, filling, last, *rest[1:], rest[0]):
        check.authorise(GET, bearer(text))
    assert world.asked == [rest[0][:12]]


def test_without_the_database_a_key_cannot_be_checked() -> None:
    """Unavailable, whether the key is good or not; what is malformed is refused all the same."""
    world = Keys()
    text = world.make()
    check = world.check()
    check.authorise(GET, bearer(text))
    world.away = True
    check.authorise(GET, bearer(text))  # read a moment ago
    world.advance(CACHE_S)
    for header in (bearer(text), bearer(text[:-4] + "AAAA")):
        with pytest.raises(Unavailable):
            check.authorise(GET, header)
    refusal(check, [])
    world.away = False
    check.authorise(GET, bearer(text))


def test_the_last_use_is_noted_once_a_minute() -> None:
    """Not for each call, and not for a call that was refused."""
    world = Keys()
    text = world.make()
    check = world.check()
    for _ in range(2 * TOUCH_MS // 1000):
        check.authorise(GET, bearer(text))
        world.advance(1)
    assert world.touched == [(text[:12], NOW_MS), (text[:12], NOW_MS + TOUCH_MS)]
    world.advance(TOUCH_MS / 1000)
    with pytest.raises(Forbidden):
        check.authorise(CREATE, bearer(text))
    refusal(check, bearer(text[:-4] + "AAAA"))
    assert len(world.touched) == 2


def test_a_use_that_cannot_be_noted_does_not_refuse_the_call() -> None:
    """And is not tried again for each call, but when the key is read anew."""
    world = Keys(touch_fails=True)
    text = world.make()
    check = world.check()
    for _ in range(3):
        check.authorise(GET, bearer(text))
    assert len(world.touched) == 1
    world.advance(CACHE_S)
    check.authorise(GET, bearer(text))
    assert len(world.touched) == 2


@pytest.mark.parametrize(
    ("changed", "field_name"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"scopes": ()}, "scopes"),
        ({"scopes": (Scope.READ, None)}, "scopes"),
        ({"expires_at_ms": NOW_MS}, "expires_at"),
        ({"expires_at_ms": -1}, "expires_at"),
        ({"expires_at_ms": 10**15}, "expires_at"),
    ],
)
def test_a_key_that_cannot_be_is_not_made(changed: dict[str, object], field_name: str) -> None:
    """The field is named, and nothing is written."""
    world = Keys()
    asked: dict[str, object] = {"name": "core", "scopes": (Scope.READ,), "expires_at_ms": None, "now_ms": NOW_MS}
    with pytest.raises(BadInput) as caught:
        keys.create_api_key(world.store, **asked | changed)  # type: ignore[arg-type]  # of many types
    assert caught.value.field == field_name
    assert world.store.page(after=None, limit=10) == ([], None)


def test_a_whole_key_given_for_its_id_is_not_shown() -> None:
    """Errors end in logs."""
    world = Keys()
    text = world.make()
    with pytest.raises(BadInput) as caught:
        keys.revoke_api_key(world.store, text, now_ms=NOW_MS)
    assert text[13:] not in str(caught.value)
    with pytest.raises(NotFound):
        keys.revoke_api_key(world.store, "tlr_aaaaaaaa", now_ms=NOW_MS)
    assert world.check().authorise(GET, bearer(text)).key_id == text[:12]


def test_making_and_revoking_is_logged_without_the_secret() -> None:
    """Who may do what is worth a line."""
    world = Keys()
    with capture_logs() as logged:
        text = world.make(Scope.WRITE, Scope.READ)
        keys.revoke_api_key(world.store, text[:12], now_ms=NOW_MS)
    assert [(line["event"], line["key_id"]) for line in logged] == [
        ("api_key.created", text[:12]),
        ("api_key.revoked", text[:12]),
    ]
    assert logged[0]["scopes"] == ["read", "write"]
    assert text[13:] not in repr(logged)
