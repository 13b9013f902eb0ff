"""bitcoind over JSON-RPC, REST and ZMQ: the `ChainNode` port (node-interfaces.md part B).

Reading order: node.py (the port), rpc.py (single calls), rest.py (blocks as bytes), zmq.py (hints), connections.py
(keep-alive connections to one address), credentials.py (cookie or password), errors.py (what a failure means).
"""
