"""How fast ingest goes: every pause with its reason, in one value, so that a test can go faster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Pauses and periods, in seconds."""

    quiet_s: float = 0.25
    """Between the looks that tell a quiet moment: a payment's steps are some 50 ms apart, its event comes
    before its last step."""
    quiet_retry_s: float = 1.0
    """Before the next try for a quiet moment: each costs the node six calls."""
    progress_s: float = 10.0
    """Between progress lines while something long runs."""
    gap_look_s: float = 1.0
    """Between looks for gaps: a look is free."""
    gap_age_s: float = 2.0
    """A gap younger than this is most likely a reordering that closes by itself."""
    page_pause_s: float = 0.05
    """Between pages of a pass: a page keeps the node busy for 180 ms, payments come first."""
    sweep_s: float = 60.0
    """Between sweeps over the open invoices."""
    new_documents_s: float = 1.0
    """Between looks for new documents of other programs."""
    lookups_per_s: float = 20.0
    """Look-ups of one loop: under a fiftieth of what LND can answer."""
    proof_s: float = 10.0
    """Between looks for HTLCs that have ended: each costs the node one list of its channels, and the books one commit
    where the mark moved. It is also how much a new connection reads again."""
    first_proof_s: float = 2.0
    """Before the first one of a connection: LND may have been killed, and its losses should be known soon."""
    htlc_lookups_per_s: float = 100.0
    """Look-ups of single HTLCs, after a connection broke: under a tenth of what LND can answer."""
    htlc_retry_s: float = 60.0
    """Before an HTLC is asked for again that is in no channel and has no outcome."""
    htlc_unproven_s: float = 3600.0
    """How long that may last until it is told as a gap: LND keeps an outcome with the commitment that lacks the HTLC,
    only one that goes to the chain takes longer."""
    hold_look_s: float = 5.0
    """Between looks at what is held: a look is a GetInfo, and a read of the documents. Blocks take minutes, a price
    that comes back or a release that another process has written, is found so soon."""
    silent_watch_s: float = 60.0
    """How long an invoice is watched that the node does not know: the call that makes it has 10 s, and whoever makes
    it later says so, or the sweep finds it."""
    unknown_holds_s: float = 60.0
    """Between looks for held payments that nobody here expects: a look is one list of the node's channels, and a
    look-up for each such payment; nothing is decided by it."""
    journals_s: float = 1.0
    """Between sweeps for other programs' journals, unless a hint comes before."""
    journals_hinted_s: float = 0.1
    """The least pause between sweeps: hints come in bursts, and posting needs a moment to link what was found."""
    tip_s: float = 1.0
    """Between looks at bitcoind's tip, unless a hint comes before: a look is half a millisecond of its time."""
    mempool_s: float = 5.0
    """Between looks at the whole mempool where nothing is hinted: 100,000 txids are half a second of bitcoind's."""
    mempool_hinted_s: float = 60.0
    """The same where hints come: only for those that were lost without a trace."""
    initial_download_s: float = 10.0
    """Between looks at a bitcoind that loads the chain, which takes hours."""
    halted_s: float = 60.0
    """Before the chain is tried again after something that only a person can mend."""
    wallets_s: float = 3600.0
    """Between sweeps over all wallets for addresses of other programs: hints bring nearly all of them, and each sweep
    reads every wallet."""
