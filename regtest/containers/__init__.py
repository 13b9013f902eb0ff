"""What runs inside docker-compose.regtest.yml, in containers of tellerd's image: one module a service.

In the order in which they run: logins.py (passwords and a certificate, before the nodes), setup.py (what must be there
before tellerd), traffic.py (something to look at), miner.py (a block now and then). All but the miner end by
themselves, say with their exit code whether all went well, and do nothing twice: a second `up` finds what the first one
made. folders.py says where their files are, bitcoind_rpc.py and waiting.py are their tools.
"""
