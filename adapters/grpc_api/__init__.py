"""The control API `tellerd.v1` over gRPC: drives `daemon.serving`, knows no rules of its own."""
