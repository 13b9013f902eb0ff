"""Stage 3: the only writer of the books; what is decided and the cursor go into one commit."""
