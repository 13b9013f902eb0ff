"""`make bench`: the whole path beside its ceiling, in one run on one mongod.

The path: a simulated LND in a process of its own, real gRPC and TLS, the daemon as an operator starts it, the
books in a real MongoDB. The ceiling: the same documents in the same transactions, written by bare PyMongo in
batches of the size that the path had, and nothing else. Rounds of the two alternate, so that whatever else the
machine does falls on both.

samples.py makes what is paid, path.py drives the daemon, ceiling.py writes without it, stages.py takes the
daemon's own steps apart. chain.py is the other half: catching up with blocks that chain_blocks.py makes, beside a
client that only fetches them.
"""
