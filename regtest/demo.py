"""`make demo`: real nodes, real payments between them, the books beside them, and kill -9 in the middle.

Every line that begins with "ok" was checked just before it was printed; the first that is not so ends the demo with
the reason, exit code 1, and the folder with all data and logs.

    python -m regtest.demo
"""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

import grpc
from pymongo.errors import PyMongoError

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, event_pb2, invoice_pb2, wallet_pb2
from regtest.binaries import ProgramUnavailable
from regtest.demo_books import MainBook
from regtest.demo_chain import show_deposit
from regtest.demo_dollars import show_dollar_invoice
from regtest.demo_holds import show_hold_invoice
from regtest.demo_payments import IN_FLIGHT, paying
from regtest.demo_story import NotAsClaimed, Story, dollars, msat, sat, short, table
from regtest.interrupts import interrupt_on_signals
from regtest.lnd_rest import LndError
from regtest.process import NodeError, take_port
from regtest.stack import Stack
from regtest.tellerd import CALL_S, RUN, Client, Tellerd

DATABASE: Final = "demo"
HELD_BEFORE_SAT: Final = 250_000
"""What the node holds before tellerd's first start: an opening balance to be seen."""

COFFEE_SAT: Final = 21_000
ROUNDS: Final = 3
KILLED_ROUNDS: Final = 2
ROUND_PAYMENTS: Final = 20
KILL_AFTER: Final = 6
"""Credits of a round after which tellerd is killed: payments have come, and more are under way."""

CREDITED_S: Final = 30.0
"""From a payment's arrival to its credit: milliseconds while tellerd runs."""

COMMAND_S: Final = 60.0
"""`init`, `check` and `verify` take two or three seconds."""

LIGHTNING: Final = "Assets:Reserve:Lightning"
INTERRUPTED: Final = 130
"""What a shell reports for a program that Ctrl-C ended."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the steps need."""

    story: Story
    stack: Stack
    tellerd: Tellerd
    book: MainBook


class ShownStack(Stack):
    """A stack that says how far it is."""

    def __init__(self, story: Story) -> None:
        super().__init__(push_sat=HELD_BEFORE_SAT)
        self._story = story

    def start(self) -> None:
        """As of the base class, with lines."""
        self._progress("programs found; starting mongod, bitcoind and two LNDs")
        super().start()
        self._progress("payable")

    def open_channel(self, *arguments: int) -> str:
        """As of the base class, with lines."""
        self._progress("all four answer; opening a channel from the payer to our LND")
        point = super().open_channel(*arguments)
        self._progress(f"channel {short(point)} is open")
        return point

    def _progress(self, what: str) -> None:
        self._story.show(f"{self._story.elapsed_s:5.1f} s  {what}")


def main() -> int:
    """0 when everything was as claimed; 1 with the reason on stderr; 130 after Ctrl-C."""
    interrupt_on_signals()
    try:
        _tell()
    except KeyboardInterrupt:
        print("\ndemo: stopped, nothing is left behind", file=sys.stderr)
        return INTERRUPTED
    except NotAsClaimed as broken:
        print(f"\ndemo: NOT AS CLAIMED: {broken}", file=sys.stderr)
        return 1
    except (NodeError, LndError, ProgramUnavailable, OSError, subprocess.SubprocessError, PyMongoError) as failure:
        print(f"\ndemo: {failure}", file=sys.stderr)
        return 1
    except grpc.RpcError as refusal:
        print(f"\ndemo: tellerd answered {_status_of(refusal)}", file=sys.stderr)
        return 1
    return 0


def _tell() -> None:
    story = Story()
    print("tellerd's demo: real nodes on this machine, real payments between them (regtest: coins without a value)")
    story.step("The nodes")
    with ShownStack(story) as stack:
        _show_nodes(story, stack)
        with _tellerd(story, stack) as demo:
            _prepare(demo)
            _start(demo)
            paid = [_one_payment(demo), _dollar_payment(demo), show_hold_invoice(story, demo.tellerd, stack.payer)]
            _check_books(demo, "Books and node")
            show_deposit(story, demo.tellerd, stack.bitcoind)
            paid += _many_payments(demo)
            _reckon(demo, paid)
            _check_books(demo, "Books and node, afterwards")
            _stop(demo)
    alive = [process.name for process in stack.processes if process.alive]
    story.claim("mongod, bitcoind and both LNDs have ended", found=alive, expected=[])
    _summary(story, payments=len(paid))


@contextmanager
def _tellerd(story: Story, stack: Stack) -> Iterator[Demo]:
    """A tellerd on the stack, not started yet; ended at the end, whatever happened."""
    api, http = take_port(), take_port()
    config = stack.tellerd_config(stack.folder / "tellerd", database=DATABASE, api_port=api, http_port=http, chain=True)
    tellerd = Tellerd(config, api=f"127.0.0.1:{api}", http_address=f"127.0.0.1:{http}")
    with closing(MainBook(stack.mongod.url, DATABASE)) as book:
        try:
            yield Demo(story=story, stack=stack, tellerd=tellerd, book=book)
        finally:
            tellerd.process.stop()


def _show_nodes(story: Story, stack: Stack) -> None:
    story.show(
        f"mongod    {stack.mongod.address}, replica set of one",
        f"bitcoind  {stack.bitcoind.rpc_address}, regtest, block {stack.bitcoind.height()}",
        *(
            f"{node.name:<9} {node.rpc_address}, LND {str(node.get_info()['version']).split()[0]}, {short(node.pubkey)}"
            for node in (stack.lnd, stack.payer)
        ),
    )
    story.claim(
        f"our LND holds {msat(stack.lnd.held_msat())} before tellerd has ever run",
        found=stack.lnd.held_msat(),
        expected=HELD_BEFORE_SAT * 1000,
    )


def _prepare(demo: Demo) -> None:
    demo.story.step("tellerd init, tellerd check")
    made = _command(demo, "init")
    kinds = Counter(line.removeprefix("made ").rpartition(" ")[0] for line in made[:-1])
    demo.story.show("made " + ", ".join(f"{times} x {kind}" for kind, times in kinds.items()), made[-1], "")
    checked = _command(demo, "check")
    demo.story.show(*checked[:-1])
    demo.story.claim("tellerd check: database, node, macaroon and price", found=checked[-1], expected="all well")


def _start(demo: Demo) -> None:
    demo.story.step("tellerd run")
    began = time.monotonic()
    demo.tellerd.start()
    demo.tellerd.wait_ready()
    demo.story.show(
        f"ready after {time.monotonic() - began:.1f} s: gRPC {demo.tellerd.api}, HTTP {demo.tellerd.http_address}"
    )
    with demo.tellerd.client() as client:
        opened = next(iter(_events(client, count=1)))
        demo.story.claim(
            f"what the node held before is booked: {msat(opened.books_opened.amount_msat)}, "
            f"event {opened.sequence} {opened.type}",
            found=(opened.type, opened.books_opened.amount_msat),
            expected=("books.opened", HELD_BEFORE_SAT * 1000),
        )


def _one_payment(demo: Demo) -> invoice_pb2.Invoice:
    story = demo.story
    story.step("One payment")
    with demo.tellerd.client() as client:
        wallet_id = client.create_wallet("demo-shop")
        story.show(f"CreateWallet   -> wallet {wallet_id}")
        invoice = client.create_invoice(wallet_id, COFFEE_SAT, memo="a coffee", external_id="demo-order-1")
        story.show(f"CreateInvoice  -> {sat(invoice.amount_sat)}, {invoice.payment_request[:28]}…")
        payment = demo.stack.payer.pay(invoice.payment_request)
        story.claim(
            f"the other LND has paid it: payment hash {short(invoice.payment_hash)}",
            found=(payment.status, payment.payment_hash),
            expected=("SUCCEEDED", invoice.payment_hash),
        )
        _wait_credited(demo, [invoice.payment_hash], 1)
        legs = demo.book.legs_of(invoice.payment_hash)
        story.show("the journal as it stands in MongoDB:", "", *demo.book.shown(legs), "")
        story.claim(
            "two legs of one journal: the node has more, the bank owes the wallet as much more",
            found=(
                [(leg["accounts"], leg["debit"], leg["credit"]) for leg in legs],
                len({leg["_journal"] for leg in legs}),
            ),
            expected=([(LIGHTNING, COFFEE_SAT, 0), (f"Liabilities:{wallet_id}", 0, COFFEE_SAT)], 1),
        )
        balance_sat = client.balance_sat(wallet_id)
        story.claim(f"GetBalance     -> {sat(balance_sat)}", found=balance_sat, expected=COFFEE_SAT)
    return invoice


def _dollar_payment(demo: Demo) -> invoice_pb2.Invoice:
    return show_dollar_invoice(
        demo.story, demo.tellerd, demo.stack.payer, demo.book, lambda paid: _wait_credited(demo, [paid], 1)
    )


def _check_books(demo: Demo, title: str) -> None:
    """Trial balance zero, and what the books say of the node is what the node says, to the msat."""
    demo.story.step(title)
    with demo.tellerd.client() as client:
        rows, totals = client.trial_balance()
        remainder_msat = _status(client).lnd[0].remainder_msat
    held = [("TrialBalance", "currency", "balance")]
    held += [(row.account, _unit(row.currency), f"{row.balance:,}") for row in rows if row.balance]
    demo.story.show(*table(held))
    demo.story.claim(
        "they add up to 0, in sats and in cents", found=totals, expected={"CURRENCY_BTC": 0, "CURRENCY_USD": 0}
    )
    books_msat = remainder_msat - 1000 * sum(row.balance for row in rows if row.account == LIGHTNING)
    # A payer's success comes before the last commitment: the node's own balance lags by a moment.
    give_up_at = time.monotonic() + CREDITED_S
    while (node_msat := demo.stack.lnd.held_msat()) != books_msat and time.monotonic() < give_up_at:
        time.sleep(0.1)
    demo.story.claim(
        f"books {msat(books_msat)} = LND's channel balance {msat(node_msat)}", found=books_msat, expected=node_msat
    )


def _many_payments(demo: Demo) -> list[invoice_pb2.Invoice]:
    """Rounds of payments; in all but the last one tellerd is killed in the middle. What was paid."""
    story, count = demo.story, ROUNDS * ROUND_PAYMENTS
    story.step(f"{count} payments, {IN_FLIGHT} at a time, and kill -9 in the middle, {KILLED_ROUNDS} times")
    with demo.tellerd.client() as client:
        wallet_id = client.create_wallet("demo-crowd")
        invoices = [client.create_invoice(wallet_id, 1_000 + number) for number in range(count)]
    for number in range(ROUNDS):
        invoices_now = invoices[number * ROUND_PAYMENTS :][:ROUND_PAYMENTS]
        hashes_now = [invoice.payment_hash for invoice in invoices_now]
        with paying(demo.stack.payer, [invoice.payment_request for invoice in invoices_now]) as payments:
            if number < KILLED_ROUNDS:
                _wait_credited(demo, hashes_now, KILL_AFTER)
                demo.tellerd.process.kill()
                arrived = len(payments.ended)
                story.claim(
                    f"round {number + 1}: SIGKILL with {arrived} of {ROUND_PAYMENTS} payments made",
                    found=(demo.tellerd.process.exit_code, 0 < arrived < ROUND_PAYMENTS),
                    expected=(-signal.SIGKILL, True),
                )
                began = time.monotonic()
                demo.tellerd.start()
                demo.tellerd.wait_ready()
                story.show(
                    f"    {len(payments.ended) - arrived} more were made while tellerd was away, "
                    f"{time.monotonic() - began:.1f} s: a start waits for the killed one's lease to end"
                )
            statuses = Counter(payment.status for payment in payments.results())
        _wait_credited(demo, hashes_now, ROUND_PAYMENTS)
        story.claim(
            f"round {number + 1}: {statuses['SUCCEEDED']} paid, {statuses['SUCCEEDED']} credited",
            found=(statuses, demo.book.credits(hashes_now).total()),
            expected=(Counter(SUCCEEDED=ROUND_PAYMENTS), ROUND_PAYMENTS),
        )
    return invoices


def _reckon(demo: Demo, paid: Sequence[invoice_pb2.Invoice]) -> None:
    story = demo.story
    story.step("The reckoning")
    # The payer's own records, not what this program remembers of its calls.
    succeeded = _paid_by_payer(demo)
    credited = demo.book.credits(succeeded)
    missing = sum(payment_hash not in credited for payment_hash in succeeded)
    doubled = sum(times > 1 for times in credited.values())
    story.claim(
        f"{len(succeeded)} paid by the payer, {len(credited)} credited, {missing} missing, {doubled} doubled",
        found=(len(succeeded), missing, doubled, succeeded ^ {invoice.payment_hash for invoice in paid}),
        expected=(len(paid), 0, 0, set()),
    )
    with demo.tellerd.client() as client:
        for wallet_id in dict.fromkeys(invoice.wallet_id for invoice in paid):
            _reckon_wallet(story, client, wallet_id, [invoice for invoice in paid if invoice.wallet_id == wallet_id])
        last = _status(client).sequence
        events = list(_events(client, count=last))
    settled = Counter(event.invoice_settled.payment_hash for event in events if event.type == "invoice.settled")
    story.claim(
        f"the feed has events 1 to {last} without a gap, {settled.total()} of them invoice.settled, each payment once",
        found=([event.sequence for event in events], settled - Counter(succeeded), Counter(succeeded) - settled),
        expected=(list(range(1, last + 1)), Counter(), Counter()),
    )
    counted, verdict = _command(demo, "verify")
    story.claim(
        f"tellerd verify: {counted.partition(', chain')[0]}: {verdict}", found=verdict, expected="the books are whole"
    )


def _reckon_wallet(story: Story, client: Client, wallet_id: str, paid: Sequence[invoice_pb2.Invoice]) -> None:
    if paid[0].currency == wallet_pb2.CURRENCY_USD:
        found, due = client.balance_cents(wallet_id), sum(invoice.amount_cents for invoice in paid)
        shown = dollars(found)
    else:
        found, due = client.balance_sat(wallet_id), sum(invoice.amount_sat for invoice in paid)
        shown = sat(found)
    story.claim(f"wallet {short(wallet_id)}: {shown} = the sum of its invoices", found=found, expected=due)


def _stop(demo: Demo) -> None:
    demo.story.step("SIGTERM")
    began = time.monotonic()
    demo.tellerd.process.stop()
    demo.story.claim(
        f"tellerd has drained and ended after {time.monotonic() - began:.1f} s, exit code 0",
        found=demo.tellerd.process.exit_code,
        expected=0,
    )


def _summary(story: Story, *, payments: int) -> None:
    figures = (f"{payments} payments", f"{KILLED_ROUNDS} kills", f"{story.claims} claims checked")
    print(
        f"\n{', '.join(figures)}, {story.elapsed_s:.0f} s in all.\n\n"
        "What to try next:\n"
        "  make regtest    the same nodes, kept up; prints their addresses, and a configuration for\n"
        "                  tellerd init, tellerd check and tellerd run\n"
        "  README.md       the API with an example of a call, and what to do when something is wrong"
    )


def _wait_credited(demo: Demo, hashes: Sequence[str], count: int) -> None:
    """Returns when this many of the payments are in MongoDB; NodeError with tellerd's log if not in time."""
    demo.tellerd.process.wait_until(
        lambda: len(demo.book.credits(hashes)) >= count, f"crediting {count} of {len(hashes)} payments", CREDITED_S
    )


def _paid_by_payer(demo: Demo) -> set[str]:
    """The payment hashes that the payer's LND calls paid."""
    payments = demo.stack.payer.call("GET", "/v1/payments?max_payments=1000")["payments"]
    return {str(payment["payment_hash"]) for payment in payments if payment["status"] == "SUCCEEDED"}


def _events(client: Client, *, count: int) -> Iterator[event_pb2.Event]:
    """The first `count` events of the feed, over the API."""
    stream = client.events.Subscribe(event_pb2.SubscribeRequest(after_sequence=0), timeout=CALL_S)
    for _, answer in zip(range(count), stream, strict=False):
        yield answer.event
    stream.cancel()


def _unit(currency: wallet_pb2.Currency.ValueType) -> str:
    return wallet_pb2.Currency.Name(currency).removeprefix("CURRENCY_")


def _status(client: Client) -> admin_pb2.GetStatusResponse:
    return client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S)


def _status_of(refusal: object) -> str:
    """Status and text of a failed call; grpcio's errors are calls, too, though its types do not say so."""
    return f"{refusal.code().name}: {refusal.details()}" if isinstance(refusal, grpc.Call) else str(refusal)


def _command(demo: Demo, name: str) -> list[str]:
    """Runs `tellerd <name>`; the lines it printed. NotAsClaimed unless it ends with 0."""
    command = [*RUN, name, "--config", str(demo.tellerd.config_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode != 0:
        raise NotAsClaimed(f"tellerd {name} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
