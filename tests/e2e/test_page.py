"""The page for people in a real browser: on a phone and on a desk, with a real daemon and with hostile names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import pytest

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2
from daemon.domain.books import Gap
from daemon.domain.identifiers import NodePubkey
from daemon.domain.ports import AccountRow, TrialBalancePage
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.serving.http import HttpServer
from daemon.serving.page import REFRESH_S, render
from regtest.chromium import Browser, Page
from regtest.process import NodeError
from regtest.tellerd import CALL_S, Tellerd
from tests.e2e.bank import Bank, wait_for
from tests.e2e.chain_bank import ChainBank
from tests.unit.serving.page_samples import EVIL, books, compared, event, text, view
from tests.unit.serving.reconciliation_samples import CHAIN_SIDE, look


class Size(NamedTuple):
    """In CSS pixels."""

    width: int
    height: int


PHONE, DESK = Size(360, 740), Size(1280, 900)
SIZES = pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])

STORED = Path(__file__).parents[2] / "ops" / "page.png"
STORED_BYTES_MAX = 150_000
"""It is loaded by everybody who opens the README."""

LONG = "x" * 300
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """What cannot be had is a failure, never a skip."""
    with Browser() as running:
        yield running


def check_shown(page: Page, size: Size, url: str) -> None:
    """It fits, nothing is complained of, and nothing else was asked for."""
    assert page.evaluate("document.documentElement.scrollWidth") <= size.width
    assert page.evaluate("document.body.scrollWidth") <= size.width
    assert page.evaluate("innerWidth") == size.width
    assert page.complaints() == []
    assert set(page.requests()) == {url}


@SIZES
def test_the_page_of_a_daemon_with_payments_and_deposits(
    browser: Browser, chain: ChainBank, tmp_path: Path, size: Size
) -> None:
    """Everything that was booked is on it; what comes later appears by itself."""
    bank = chain.bank
    with bank.tellerd.client() as client:
        shop = client.create_wallet("shop")
        bank.pay(bank.invoices(client, shop, [21_000, 4_200]))
        bank.wait_balance(shop, 25_200)
        txid, vout = chain.send(chain.address(client, shop), 500_000)
        chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        waiting = chain.send(chain.address(client, shop, new=True), 70_000)
        chain.wait_state(*waiting, "detected")

        answer = client.admin.Reconcile(admin_pb2.ReconcileRequest(), timeout=CALL_S)
        lightning, coins = answer.reconciliation.sides
        assert (lightning.difference_msat, coins.difference_msat) == (0, 0)

        url = f"http://{bank.tellerd.http_address}/"
        page = browser.page(width=size.width, height=size.height)
        page.visit(url)
        shown = str(page.evaluate("document.body.innerText"))
        for part in (
            "all is well",
            "Lightning: lnd1",
            "Chain: bitcoind",
            "Books against nodes",
            f"{lightning.nodes_msat:,}",
            "deposit.settled",
            "21,000 sat",
            f"Liabilities:{shop}",
            "522,200 sat",
            "They add up to 0.",
            "1 with 70,000 sat not settled yet.",
            f"{waiting[0]}:{waiting[1]}",
        ):
            assert part in shown, part
        check_shown(page, size, url)
        screenshot = tmp_path / "page.png"
        page.screenshot(screenshot)
        assert screenshot.read_bytes().startswith(PNG)

        seen = len(page.events)
        bank.pay(bank.invoices(client, shop, [1_111]))
        bank.wait_balance(shop, 523_311)
        page.wait_loaded(seen)
        wait_for(lambda: _reloaded_with(page, "1,111 sat"), f"the page has renewed itself ({REFRESH_S} s)")
        check_shown(page, size, url)


def _reloaded_with(page: Page, part: str) -> bool:
    return part in str(page.evaluate("document.body.innerText"))


@SIZES
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_whatever_others_wrote_breaks_neither_width_nor_policy(browser: Browser, size: Size, dark: bool) -> None:
    """Tags, and words without an end, in every place that takes text; in both colour schemes."""
    worst = view(
        network=EVIL,
        refusal=LONG,
        nodes=[NodeStatus(name=LONG, pubkey=NodePubkey(LONG), state=EVIL, last_error=LONG + EVIL)],
        chain=ChainStatus(name=LONG, state=LONG, last_error=EVIL),
        reconciliation=replace(
            compared(problem=LONG),
            steady=replace(look(), sides=(replace(CHAIN_SIDE, account=LONG, books_msat=-(10**18)),)),
        ),
        books=books(
            gaps=[
                Gap(key=LONG, kind=LONG, detail=EVIL, amount_msat=-21 * 10**17, seen_at_ms=1, reference=LONG, node=EVIL)
            ],
            open_gaps=10**9,
            events=[replace(event(1), type=LONG, wallet_ids=(LONG, EVIL)), event(2, amount_sat=21 * 10**14)],
            accounts=TrialBalancePage(
                rows=[AccountRow(account=LONG, currency="BTC", balance=-21 * 10**14)],
                totals={"BTC": -21 * 10**14},
                sequence=1,
                next_token=None,
            ),
        ),
    )
    answer = render(worst).encode()
    server = HttpServer("127.0.0.1", 0, {"/": lambda: (HTTPStatus.OK, "text/html; charset=utf-8", answer)})
    try:
        url = f"http://127.0.0.1:{server.port}/"
        page = browser.page(width=size.width, height=size.height, dark=dark)
        page.visit(url)
        check_shown(page, size, url)
        assert "THE BOOKS DO NOT ADD UP" in str(page.evaluate("document.body.innerText"))
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(18, 22, 28)" if dark else "rgb(255, 255, 255)")
    finally:
        server.stop()


def test_the_browser_would_tell_what_the_page_must_not_do(browser: Browser) -> None:
    """Without this the other tests could not fail: a style of another hash, a picture from elsewhere, a script."""
    answer = (
        render(view()) + "<p style='color:red'>x</p><img src='http://127.0.0.1:9/x.png'><script>1</script>"
    ).encode()
    server = HttpServer("127.0.0.1", 0, {"/": lambda: (HTTPStatus.OK, "text/html; charset=utf-8", answer)})
    try:
        page = browser.page(width=PHONE.width, height=PHONE.height)
        page.visit(f"http://127.0.0.1:{server.port}/")
        assert len([line for line in page.complaints() if "Content Security Policy" in line]) == 3
    finally:
        server.stop()


def test_the_readmes_picture_is_small_enough() -> None:
    """And a picture; it is made anew with `python -m regtest.chromium http://127.0.0.1:PORT/ ops/page.png`."""
    assert STORED.read_bytes().startswith(PNG)
    assert STORED.stat().st_size < STORED_BYTES_MAX
    assert "all is well" in text(view())


def test_a_standbys_page_shows_the_books_and_follows_nothing(bank: Bank) -> None:
    """Whoever comes to the wrong daemon is told so, and by whom the nodes are followed."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("shop")
        bank.pay(bank.invoices(client, wallet, [21_000]))
        bank.wait_balance(wallet, 21_000)
    standby = bank.standby("second")
    standby.start()
    wait_for(lambda: "They add up to 0." in _page_of(standby), "the standby shows the books")
    shown = _page_of(standby)
    assert "This daemon does not serve: standby" in shown
    assert "not followed here: this daemon is standby" in shown
    assert f":{bank.tellerd.process.pid}:" in shown  # the holder of the lease
    assert "21,000 sat" in shown


def _page_of(daemon: Tellerd) -> str:
    try:
        return daemon.get("/").text
    except (OSError, NodeError):  # it does not listen yet
        return ""
