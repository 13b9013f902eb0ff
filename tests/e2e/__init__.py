"""End to end: a real mongod, bitcoind and two LNDs, and tellerd as a process of its own."""
