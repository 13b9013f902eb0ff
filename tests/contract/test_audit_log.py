"""The port `AuditLog`: entries are only added, each once, and listed newest first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.domain.audit_log import AuditEntry, entry_id
from daemon.domain.errors import BadInput
from tests.contract.conftest import Database

AT_MS = 1_790_000_000_123


def entry(number: int, *, at_ms: int = AT_MS) -> AuditEntry:
    return AuditEntry(
        entry_id=entry_id(at_ms, number.to_bytes(6, "big")),
        at_ms=at_ms,
        method="tellerd.v1.WalletService/CreateWallet",
        key_id="tlr_aaaaaaaa",
        key_name="core API",
        peer="ipv4:127.0.0.1:50000",
        code="OK",
        subjects={"external_id": f"shop-{number}", "wallet_id": "80895f9c-2559-44ea-9454-4d592974e074"},
    )


def test_entries_are_read_back_as_they_were_written(store: Database) -> None:
    """Nothing is nothing."""
    store.audit_log.append([])
    assert store.audit_log.page(after=None, limit=5) == ([], None)
    anonymous = replace(entry(2), key_id="", key_name="", subjects={})
    store.audit_log.append([entry(1), anonymous])
    assert store.audit_log.page(after=None, limit=5) == ([anonymous, entry(1)], None)


def test_a_repeat_writes_nothing_twice_and_changes_nothing(store: Database) -> None:
    """After an outage the same entries come again, with others: the others are written."""
    store.audit_log.append([entry(1), entry(2)])
    store.audit_log.append([replace(entry(1), code="INTERNAL"), entry(2), entry(3)])
    assert store.audit_log.page(after=None, limit=5)[0] == [entry(3), entry(2), entry(1)]


def test_entries_are_listed_newest_first_in_pages(store: Database) -> None:
    """By time, in whatever order they were written; every entry stands on one page."""
    entries = [entry(number, at_ms=AT_MS + number // 2) for number in range(7)]
    store.audit_log.append(entries[::-2])
    store.audit_log.append(entries[1::2])
    seen: list[AuditEntry] = []
    token: str | None = None
    sizes = []
    while True:
        page, token = store.audit_log.page(after=token, limit=3)
        seen += page
        sizes.append(len(page))
        if token is None:
            break
    assert seen == entries[::-1]
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize("token", ["yesterday", "1790000000123", "1790000000123-xyz"])
def test_a_token_of_another_list_is_refused(store: Database, token: str) -> None:
    """It cannot be mistaken for a place."""
    with pytest.raises(BadInput, match="page_token"):
        store.audit_log.page(after=token, limit=2)
