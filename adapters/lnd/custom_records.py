"""What the payer of a spontaneous payment wrote beside the money: custom TLV records of its HTLCs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adapters.lnd._pb import lightning_pb2 as pb

_MOST_BYTES: Final = 64
"""Of a record that names a wallet; a UUID has 36. An onion holds 1,300 bytes, which anybody may fill."""


def wallet_named(htlcs: Iterable[pb.InvoiceHTLC], wallet_record: int | None) -> str | None:
    """The text of the record `wallet_record` (type of a TLV record); None if there is none, or it is None itself.

    LND puts the records into every part of a payment. Where money came again to the same hash, with another record,
    the first part counts; LND tells parts in no order (invoicesrpc/utils.go walks through a map). What is too long for
    a wallet's id is cut, and what is no UTF-8 replaced: both name no wallet.
    """
    settled = [htlc for htlc in htlcs if htlc.state == pb.SETTLED] if wallet_record is not None else []
    if wallet_record is None or not settled:
        return None
    first = min(settled, key=lambda htlc: (htlc.resolve_time, htlc.chan_id, htlc.htlc_index))
    if wallet_record not in first.custom_records:
        return None
    return first.custom_records[wallet_record][: _MOST_BYTES + 1].decode(errors="replace")
