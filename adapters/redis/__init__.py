"""Redis, as Blink's processes use it: locks that node-redlock v5 takes with one server, and pub/sub.

A lock is a key with its literal name, a value that only its holder knows, and a time after which the server deletes
it; whoever gives it back compares the value first (node-redlock's scripts do the same, so both respect each other).
"""

from adapters.redis.beside import RedisBeside

__all__ = ["RedisBeside"]
