"""Real nodes without Docker: mongod, bitcoind and two LNDs, started and stopped by this package.

Reading order: stack.py (what is up together), then mongod.py, bitcoind.py, lnd.py (one node each), process.py (one
child process), binaries.py (where the programs come from). `python -m regtest` keeps a stack up.
"""
