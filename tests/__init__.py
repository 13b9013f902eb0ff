"""Tests: fast ones first; helpers never start with `test_`."""
