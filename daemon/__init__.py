"""tellerd: the teller of a Bitcoin bank. Start reading at `daemon.app`."""

__version__ = "0.1.0"
