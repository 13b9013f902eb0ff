"""LND over its own gRPC API: the `LightningNode` port (node-interfaces.md part A).

Reading order: node.py (the port), connection.py (TLS, macaroon, keepalive), stream.py (the settle stream),
invoices.py (LND's messages as ours), funds.py (what is in the channels), errors.py (what a failure means).
"""
