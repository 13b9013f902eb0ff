"""Addresses: derived from the configured key, and read from texts that other programs wrote."""

from adapters.addresses.configured import address_source
from adapters.addresses.scripts import script_of

__all__ = ["address_source", "script_of"]
