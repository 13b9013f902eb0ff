"""Nouns and rules: pure, synchronous, without a clock and without I/O."""
