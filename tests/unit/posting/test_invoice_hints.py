"""Hints from API threads: heard once each, bounded, and needless where nobody listens."""

from __future__ import annotations

import threading

import trio
import trio.testing

from daemon.domain.identifiers import NodePubkey
from daemon.posting import invoice_hints
from daemon.posting.invoice_hints import HintInbox, InvoiceHints
from tests.samples import NODE, OTHER_NODE, hash_of


async def test_a_hint_from_another_thread_wakes_who_listens() -> None:
    """Each invoice once, however often it was hinted; those of other nodes are not for it."""
    hints = InvoiceHints()
    heard: list[str] = []
    with hints.listen(NODE) as inbox, trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                heard.extend(await inbox.take())

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            hints.look(OTHER_NODE, hash_of("b"))
            thread = threading.Thread(target=hints.look, args=(NODE, hash_of("a")))
            thread.start()
        thread.join()
        assert heard == [hash_of("a")]
        for _ in range(3):
            hints.look(NODE, hash_of("c"))
        assert await inbox.take() == [hash_of("c")]


async def test_nobody_listens() -> None:
    """Then a hint is dropped: the listing of the next start finds what it was about."""
    hints = InvoiceHints()
    hints.look(NODE, hash_of("a"))
    hints.canceling(NODE, hash_of("a"), reason="by_call")
    with hints.listen(NODE) as inbox, trio.move_on_after(0.05) as scope:
        assert inbox.take_reason(hash_of("a")) is None
        await inbox.take()
    assert scope.cancelled_caught


def test_a_hint_after_the_end_of_all_is_no_error() -> None:
    """A call that is still being answered when the process ends."""
    hints = InvoiceHints()

    async def listen() -> HintInbox:  # noqa: ASYNC124 (the inbox needs Trio)
        with hints.listen(NODE) as inbox:
            return inbox

    trio.run(listen).put(hash_of("a"))


async def test_hints_are_bounded() -> None:
    """What is beyond is left to the sweep."""
    hints = InvoiceHints()
    with hints.listen(NODE) as inbox:
        for number in range(invoice_hints.MAX_HINTS + 5):
            hints.look(NODE, hash_of(f"invoice {number}"))
        assert len(await inbox.take()) == invoice_hints.MAX_HINTS


async def test_a_reason_is_taken_once() -> None:  # noqa: ASYNC124 (the wake-up needs Trio)
    """It belongs to one cancellation."""
    hints = InvoiceHints()
    with hints.listen(NodePubkey(NODE)) as inbox:
        hints.canceling(NODE, hash_of("a"), reason="by_call")
        assert inbox.take_reason(hash_of("a")) == "by_call"
        assert inbox.take_reason(hash_of("a")) is None


def test_ordinary_invoices_are_remembered() -> None:
    """Those that this process has made."""
    hints = InvoiceHints()
    hints.ordinary(hash_of("a"))
    assert hints.is_ordinary(hash_of("a"))
    assert not hints.is_ordinary(hash_of("b"))
