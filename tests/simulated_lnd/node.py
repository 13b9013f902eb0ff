"""The simulated node: invoices, settle indexes, channels, and streams with LND's rules (node-interfaces.md A.0, A.1).

What a stream carries is serialized once, when it happens, so that the bench measures tellerd and not this.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.lnd._pb import lightning_pb2 as pb
from tests.simulated_lnd.htlcs import CHAN_ID, SimulatedHtlcs
from tests.simulated_lnd.money import SimulatedMoney

CAPACITY_SAT = 16_000_000
FEE_PER_KW_SAT = 2_500
COMMIT_FEE_SAT = 2_810  # 2,500 sat for 1,000 of 1,124 weight units
ANCHORS_SAT = 660


@dataclass(slots=True)
class Ending:
    """How a stream ends: None is status OK, as in LND's clean shutdown."""

    failure: str | None


@dataclass(slots=True)
class Stream:
    """One subscriber: lists of serialized invoices with their indexes (None: one that was added), then perhaps an
    ending."""

    after_settle_index: int
    waiting: queue.SimpleQueue[Sequence[tuple[int | None, bytes]] | Ending] = field(default_factory=queue.SimpleQueue)

    def messages(self) -> Iterator[bytes | Ending]:
        """What LND would send: as long as the index asked for has not been passed, nothing, without an error."""
        while True:
            batch = self.waiting.get()
            if isinstance(batch, Ending):
                yield batch
                return
            for index, message in batch:
                if index is None or index > self.after_settle_index:
                    yield message


def preimage_of(number: int, *, seed: str = "simulated") -> bytes:
    """The preimage of the node's own n-th invoice, so that a bench can write the documents itself."""
    return hashlib.sha256(f"{seed} {number}".encode()).digest()


class SimulatedNode:
    """Thread-safe. `fault` is a text with which every call fails (code UNKNOWN), as a locked LND does."""

    def __init__(self, *, pubkey: str = "02" * 33, network: str = "regtest", seed: str = "simulated") -> None:
        self.pubkey = pubkey
        self.network = network
        self.fault: str | None = None
        self.deliver_live = True
        self.height = 150
        self.incoming_hashes: list[bytes] = []
        self.htlcs = SimulatedHtlcs()
        self.money = SimulatedMoney()
        self._seed = seed
        self._lock = threading.RLock()
        self._invoices: dict[bytes, pb.Invoice] = {}
        self._in_order: list[bytes] = []
        self._made = 0
        self._next_settle_index = 1
        self._local_msat = 1_000_000_000
        self._updates = 0
        self._streams: list[Stream] = []
        self._settled: dict[int, bytes] = {}

    # --- what the server asks -----------------------------------------------------------------------

    def info(self) -> pb.GetInfoResponse:
        """GetInfo."""
        return pb.GetInfoResponse(
            identity_pubkey=self.pubkey,
            version="0.21.3-beta simulated",
            block_height=self.height,
            synced_to_chain=True,
            store_final_htlc_resolutions=self.htlcs.keeps_outcomes,
            chains=[pb.Chain(network=self.network)],
        )

    def add(self, asked: pb.Invoice) -> pb.Invoice | None:
        """AddInvoice; None if the preimage was used before."""
        return self._put(hashlib.sha256(asked.r_preimage).digest(), asked)

    def add_hold(self, asked: pb.Invoice) -> pb.Invoice | None:
        """AddHoldInvoice, for the r_hash that is asked for; None if it was used before."""
        return self._put(asked.r_hash, asked)

    def find(self, r_hash: bytes) -> pb.Invoice | None:
        """LookupInvoice."""
        with self._lock:
            return self._invoices.get(r_hash)

    def page(self, request: pb.ListInvoiceRequest) -> pb.ListInvoiceResponse:
        """ListInvoices, forward only."""
        with self._lock:
            hashes = self._in_order[request.index_offset :]
            if request.pending_only:
                pending = (pb.Invoice.OPEN, pb.Invoice.ACCEPTED)
                hashes = [r_hash for r_hash in hashes if self._invoices[r_hash].state in pending]
            hashes = hashes[: request.num_max_invoices or 100]
            page = pb.ListInvoiceResponse(invoices=[self._invoices[r_hash] for r_hash in hashes])
            if hashes:
                page.first_index_offset = page.invoices[0].add_index
                page.last_index_offset = page.invoices[-1].add_index
            return page

    def subscribe(self, settle_index: int) -> Stream:
        """SubscribeInvoices: 0 is no backlog; the subscriber is registered before its backlog is read."""
        with self._lock:
            stream = Stream(settle_index)
            self._streams.append(stream)
            if settle_index:
                stream.waiting.put([(i, self._settled[i]) for i in sorted(self._settled) if i > settle_index])
            return stream

    def unsubscribe(self, stream: Stream) -> None:
        """The client went away."""
        with self._lock:
            if stream in self._streams:
                self._streams.remove(stream)
            stream.waiting.put(Ending(None))

    def channel_balance(self) -> pb.ChannelBalanceResponse:
        """ChannelBalance."""
        with self._lock:
            local = pb.Amount(sat=self._local_msat // 1000, msat=self._local_msat)
            incoming_msat = self.htlcs.pending_msat + self._held_msat()
            return pb.ChannelBalanceResponse(
                local_balance=local,
                # What comes in, whatever its name makes one think (rpcserver.go: ChannelBalance).
                unsettled_local_balance=pb.Amount(sat=incoming_msat // 1000, msat=incoming_msat),
            )

    def channels(self) -> pb.ListChannelsResponse:
        """ListChannels: one channel, opened by us."""
        with self._lock:
            remote_msat = (CAPACITY_SAT - COMMIT_FEE_SAT - ANCHORS_SAT) * 1000 - self._local_msat
            incoming_msat = self.htlcs.pending_msat + self._held_msat()
            remote_msat -= incoming_msat
            channel = pb.Channel(
                active=True,
                chan_id=CHAN_ID,
                unsettled_balance=incoming_msat // 1000,
                channel_point="11" * 32 + ":0",
                capacity=CAPACITY_SAT,
                local_balance=self._local_msat // 1000,
                remote_balance=remote_msat // 1000,
                # As LND: what the outputs leave over, and so a sat more where the balances have fractions.
                commit_fee=CAPACITY_SAT - self._local_msat // 1000 - remote_msat // 1000 - ANCHORS_SAT,
                fee_per_kw=FEE_PER_KW_SAT,
                commitment_type=pb.ANCHORS,
                num_updates=self._updates,
                initiator=True,
                pending_htlcs=[
                    *(pb.HTLC(incoming=True, hash_lock=one, htlc_index=1 << 60) for one in self.incoming_hashes),
                    *self.htlcs.pending(),
                    *(
                        pb.HTLC(
                            incoming=True,
                            amount=one.amt_paid_sat,
                            hash_lock=one.r_hash,
                            htlc_index=1 << 61 | one.add_index,
                        )
                        for one in self._held()
                    ),
                ],
            )
            return pb.ListChannelsResponse(channels=[channel])

    def _held(self) -> list[pb.Invoice]:
        return [invoice for invoice in self._invoices.values() if invoice.state == pb.Invoice.ACCEPTED]

    def _held_msat(self) -> int:
        return sum(invoice.amt_paid_msat for invoice in self._held())

    # --- the outside world --------------------------------------------------------------------------

    @property
    def funds_msat(self) -> int:
        """What the node holds: its balance, and fee and anchors of the channel that it opened."""
        with self._lock:
            return self._local_msat + (COMMIT_FEE_SAT + ANCHORS_SAT) * 1000

    @property
    def newest_settle_index(self) -> int:
        """The index last given out or burnt."""
        with self._lock:
            return self._next_settle_index - 1

    @property
    def streams(self) -> int:
        """How many subscribers there are."""
        with self._lock:
            return len(self._streams)

    def make_invoices(self, count: int, *, value_msat: int = 1_000_000, memo: str = "simulated") -> list[bytes]:
        """The node's own next invoices; their payment hashes."""
        hashes = []
        for _ in range(count):
            self._made += 1
            preimage = preimage_of(self._made, seed=self._seed)
            added = self.add(pb.Invoice(r_preimage=preimage, value_msat=value_msat, memo=memo))
            assert added is not None
            hashes.append(added.r_hash)
        return hashes

    def make_holds(self, count: int, *, value_msat: int = 1_000_000) -> list[bytes]:
        """The next hold invoices, for the preimages that its own next ones would have; their payment hashes."""
        hashes = []
        for _ in range(count):
            self._made += 1
            r_hash = hashlib.sha256(preimage_of(self._made, seed=self._seed)).digest()
            added = self.add_hold(pb.Invoice(r_hash=r_hash, value_msat=value_msat, memo="simulated"))
            assert added is not None
            hashes.append(r_hash)
        return hashes

    def open_hashes(self, count: int) -> list[bytes]:
        """The oldest open invoices, at most `count`."""
        with self._lock:
            found = (r_hash for r_hash in self._in_order if self._invoices[r_hash].state == pb.Invoice.OPEN)
            return [r_hash for r_hash, _ in zip(found, range(count), strict=False)]

    def settle(self, r_hashes: Iterable[bytes], *, received_msat: int | None = None) -> list[int]:
        """Payments come in; their settle indexes. All are sent as one burst."""
        with self._lock:
            indexes = [self._settle(self._invoices[r_hash], received_msat) for r_hash in r_hashes]
            if self.deliver_live:
                self.send(indexes)
            return indexes

    def accept(self, r_hash: bytes, received_msat: int | None = None, *, expiry_height: int = 0) -> pb.Invoice:
        """An HTLC for a hold invoice is held; it expires 80 blocks from now unless told otherwise."""
        with self._lock:
            invoice = self._invoices[r_hash]
            assert (invoice.state, invoice.r_preimage) == (pb.Invoice.OPEN, b""), "no open hold invoice"
            invoice.state = pb.Invoice.ACCEPTED
            invoice.amt_paid_msat = invoice.value_msat if received_msat is None else received_msat
            invoice.amt_paid_sat = invoice.amt_paid_msat // 1000
            htlc = pb.InvoiceHTLC(
                amt_msat=invoice.amt_paid_msat,
                accept_height=self.height,
                accept_time=int(time.time()),
                expiry_height=expiry_height or self.height + 80,
                state=pb.ACCEPTED,
            )
            invoice.htlcs.append(htlc)
            return invoice

    def settle_held(self, r_hash: bytes, preimage: bytes) -> int:
        """What is held is taken; its settle index."""
        with self._lock:
            invoice = self._invoices[r_hash]
            invoice.r_preimage = preimage
            invoice.state = pb.Invoice.OPEN
            for htlc in invoice.htlcs:
                htlc.state = pb.SETTLED
            (index,) = self.settle([r_hash], received_msat=invoice.amt_paid_msat)
            return index

    def settle_amp_set(self, r_hash: bytes, set_id: str, *, received_msat: int) -> int:
        """One set of an AMP invoice settles: the invoice stays open, the event says SETTLED (A.1 AMP)."""
        with self._lock:
            invoice = self._invoices[r_hash]
            invoice.is_amp = True
            index = self._take_index()
            state = pb.AMPInvoiceState(
                state=pb.SETTLED, settle_index=index, settle_time=int(time.time()), amt_paid_msat=received_msat
            )
            invoice.amp_invoice_state[set_id].CopyFrom(state)
            invoice.amt_paid_msat += received_msat
            self._arrive(invoice, received_msat, amp_set=set_id)
            event = pb.Invoice()
            event.CopyFrom(invoice)
            event.state = pb.Invoice.SETTLED
            event.ClearField("amp_invoice_state")
            event.amp_invoice_state[set_id].CopyFrom(state)
            self._settled[index] = event.SerializeToString()
            if self.deliver_live:
                self.send([index])
            return index

    def keysend(self, amount_msat: int, records: Mapping[int, bytes]) -> bytes:
        """Money arrives without an invoice, with custom records; its payment hash."""
        with self._lock:
            self._made += 1
            invoice = self.add(pb.Invoice(r_preimage=preimage_of(self._made, seed=self._seed), value_msat=amount_msat))
            assert invoice is not None
            invoice.is_keysend, invoice.payment_request, invoice.expiry = True, "", 0
            self._bring(invoice, amount_msat, records)
            self.settle([invoice.r_hash])
            return invoice.r_hash

    def _bring(self, invoice: pb.Invoice, amount_msat: int, records: Mapping[int, bytes]) -> None:
        """An HTLC that will settle the invoice; it carries these records."""
        htlc = invoice.htlcs.add(amt_msat=amount_msat, accept_time=int(time.time()), state=pb.SETTLED)
        for kind, value in records.items():
            htlc.custom_records[kind] = value

    def pay_again(self, r_hash: bytes, amount_msat: int, *, renumber: bool) -> None:
        """Money comes to a settled invoice: no stream tells it. bbolt gives it a new index (`renumber`), at whose old
        places it stands in the backlog from then on; native SQL changes nothing but the amount (A.0)."""
        with self._lock:
            invoice = self._invoices[r_hash]
            before = invoice.settle_index
            invoice.amt_paid_msat += amount_msat
            invoice.amt_paid_sat = invoice.amt_paid_msat // 1000
            self._arrive(invoice, amount_msat)
            if renumber:
                invoice.settle_index = self._take_index()
            self._settled[before] = self._settled[invoice.settle_index] = invoice.SerializeToString()

    def resolve_htlcs(self) -> None:
        """The HTLCs in the channel end as LND says they do: their money comes."""
        with self._lock:
            self._move(self.htlcs.resolve(settled=True))

    def fail_htlcs_back(self) -> None:
        """What an LND that was killed does to them when it is back; their invoices stay settled (A.0)."""
        with self._lock:
            self.htlcs.resolve(settled=False)
            self._updates += 1

    def cancel(self, r_hash: bytes) -> None:
        """An invoice expires; no stream tells it."""
        with self._lock:
            self._invoices[r_hash].state = pb.Invoice.CANCELED
            for htlc in self._invoices[r_hash].htlcs:
                htlc.state = pb.CANCELED

    def send(self, indexes: Iterable[int]) -> None:
        """Sends settlements to every stream, in this order, whatever was sent before."""
        with self._lock:
            batch = [(index, self._settled[index]) for index in indexes]
            for stream in self._streams:
                stream.waiting.put(batch)

    def burn_settle_index(self) -> None:
        """An index that no settlement will ever have."""
        with self._lock:
            self._take_index()

    def pay_out(self, amount_msat: int) -> None:
        """The node pays somebody."""
        with self._lock:
            self._move(-amount_msat)

    def end_streams(self, failure: str | None = None) -> None:
        """Ends every stream: with OK as a clean shutdown does, or with code UNKNOWN and a text."""
        with self._lock:
            for stream in self._streams:
                stream.waiting.put(Ending(failure))
            self._streams.clear()

    def lose_all(self, pubkey: str | None = None) -> None:
        """Replaced by an empty node, or restored from its seed: no invoices, indexes from 1."""
        with self._lock:
            self.end_streams("server is shutting down")
            self.pubkey = pubkey or self.pubkey
            self._invoices.clear()
            self._in_order.clear()
            self._settled.clear()
            self._next_settle_index = 1
            self._made += 1_000_000  # its new invoices have other preimages

    # --- inside -------------------------------------------------------------------------------------

    def _put(self, r_hash: bytes, asked: pb.Invoice) -> pb.Invoice | None:
        with self._lock:
            if r_hash in self._invoices:
                return None
            invoice = pb.Invoice()
            invoice.CopyFrom(asked)
            invoice.r_hash = r_hash
            invoice.value_msat = asked.value_msat or asked.value * 1000
            invoice.value = invoice.value_msat // 1000
            invoice.add_index = len(self._in_order) + 1
            invoice.creation_date = int(time.time())
            invoice.expiry = asked.expiry or 86_400
            invoice.cltv_expiry = 80
            invoice.payment_addr = hashlib.sha256(r_hash).digest()
            invoice.payment_request = f"lnbcrt1simulated{r_hash.hex()}" + "q" * 200  # of a real one's length
            self._invoices[r_hash] = invoice
            self._in_order.append(r_hash)
            if self._streams:
                added: list[tuple[int | None, bytes]] = [(None, invoice.SerializeToString())]
                for stream in self._streams:
                    stream.waiting.put(added)
            return invoice

    def _settle(self, invoice: pb.Invoice, received_msat: int | None) -> int:
        assert invoice.state == pb.Invoice.OPEN, "settled twice"
        invoice.state = pb.Invoice.SETTLED
        invoice.settle_index = self._take_index()
        invoice.settle_date = int(time.time())
        invoice.amt_paid_msat = invoice.value_msat if received_msat is None else received_msat
        invoice.amt_paid_sat = invoice.amt_paid_msat // 1000
        self._arrive(invoice, invoice.amt_paid_msat)
        self._settled[invoice.settle_index] = invoice.SerializeToString()
        return invoice.settle_index

    def _arrive(self, invoice: pb.Invoice, amount_msat: int, *, amp_set: str = "") -> None:
        self.htlcs.settle(invoice, amount_msat, amp_set=amp_set)
        if self.htlcs.resolve_at_once:
            self._move(self.htlcs.resolve(settled=True))

    def _take_index(self) -> int:
        self._next_settle_index += 1
        return self._next_settle_index - 1

    def _move(self, delta_msat: int) -> None:
        self._local_msat += delta_msat
        self._updates += 1
