"""A simulated LND: a real gRPC server with TLS over invoices in memory, with LND's traps and faults on demand.

node.py holds the invoices and LND's rules, server.py speaks gRPC, certificate.py makes the TLS pair.
`python -m tests.simulated_lnd` runs one in a process of its own, driven by lines on stdin.
"""
