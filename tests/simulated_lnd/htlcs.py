"""The incoming HTLCs of the simulated node's one channel, and how they ended; under the node's lock."""

from __future__ import annotations

import time
from typing import Final

from adapters.lnd._pb import lightning_pb2 as pb

CHAN_ID: Final = 150 << 40  # a short channel id: block, tx, output


class SimulatedHtlcs:
    """`resolve_at_once` False leaves HTLCs in the channel until they are resolved. `keeps_outcomes` is LND's
    --store-final-htlc-resolutions."""

    def __init__(self) -> None:
        self.resolve_at_once = True
        self.keeps_outcomes = True
        self._outcomes: dict[int, bool | None] = {}
        self._pending: dict[int, pb.HTLC] = {}
        self.pending_msat = 0

    def settle(self, invoice: pb.Invoice, amount_msat: int, *, amp_set: str = "") -> None:
        """LND settles an invoice with an HTLC of this amount, or with those that it holds; the money has not come."""
        arrived = [htlc for htlc in invoice.htlcs if htlc.state == pb.SETTLED and not htlc.chan_id]
        if not arrived:
            htlc = invoice.htlcs.add(amt_msat=amount_msat, accept_time=int(time.time()), state=pb.SETTLED)
            if amp_set:
                htlc.amp.set_id = bytes.fromhex(amp_set)
            arrived = [htlc]
        for htlc in arrived:
            htlc.chan_id, htlc.htlc_index = CHAN_ID, len(self._outcomes)
            htlc.resolve_time = int(time.time())
            self._outcomes[htlc.htlc_index] = None
            self._pending[htlc.htlc_index] = pb.HTLC(
                incoming=True, amount=htlc.amt_msat // 1000, hash_lock=invoice.r_hash, htlc_index=htlc.htlc_index
            )
            self.pending_msat += htlc.amt_msat

    def resolve(self, *, settled: bool) -> int:
        """All that are in the channel end so; what they were, in msat."""
        for index in self._pending:
            self._outcomes[index] = settled
        self._pending.clear()
        resolved_msat, self.pending_msat = self.pending_msat, 0
        return resolved_msat

    def pending(self) -> list[pb.HTLC]:
        """As ListChannels gives them."""
        return list(self._pending.values())

    def outcome(self, request: pb.LookupHtlcResolutionRequest) -> pb.LookupHtlcResolutionResponse | None:
        """LookupHtlcResolution; None if it is not known."""
        settled = self._outcomes.get(request.htlc_index) if request.chan_id == CHAN_ID else None
        return None if settled is None else pb.LookupHtlcResolutionResponse(settled=settled, offchain=True)
