"""Payments that go on by themselves while the demo does something else to tellerd."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from regtest.lnd_rest import LndRest, Payment

IN_FLIGHT: Final = 4

REST_S: Final = 0.1
"""After each payment. Without it one round is over in a fifth of a second, and no kill comes in its middle."""


class Round:
    """Payments under way. `ended` grows as they come to their end, one way or the other."""

    def __init__(self) -> None:
        self.ended: list[Payment] = []
        self.begun: list[Future[None]] = []

    def results(self) -> list[Payment]:
        """All of them, when the last has ended; raises what LND said to the first that it refused to try."""
        for payment in self.begun:
            payment.result()
        return self.ended


@contextmanager
def paying(payer: LndRest, payment_requests: Sequence[str]) -> Iterator[Round]:
    """Pays in the background, `IN_FLIGHT` at a time; those that have not begun at the end are left out."""

    under_way = Round()

    def pay(payment_request: str) -> None:
        under_way.ended.append(payer.pay(payment_request))
        time.sleep(REST_S)

    pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="demo-payer")
    try:
        under_way.begun += [pool.submit(pay, payment_request) for payment_request in payment_requests]
        yield under_way
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
