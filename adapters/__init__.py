"""The outside world, one package per system; each implements the ports of `daemon.domain.ports`."""
