"""Stage 1: what happens outside becomes node events, in lists, in the inbox of posting.

lightning.py follows one Lightning node; it uses listing.py (a complete pass over its invoices), opening.py
(what the node held before tellerd), marks.py (from where its other movements count), htlc_proofs.py (whether the
money of settlements has stayed), handover.py (the way into the inbox) and node_calls.py (the node from Trio).
open_invoices.py looks up what the stream may not tell, journals.py finds what other programs wrote.
"""
