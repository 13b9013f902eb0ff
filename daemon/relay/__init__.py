"""Stage 4: the outbox on its way to subscribers."""
