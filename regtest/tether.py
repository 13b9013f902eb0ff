"""Turns into a command that the kernel kills when its launcher ends, however the launcher ends.

Run as a script: `tether.py <launcher pid> <command> …`. It asks the kernel for SIGKILL on the parent's death
(PR_SET_PDEATHSIG) and then executes the command under the same pid. A separate program rather than Popen's
`preexec_fn`: that runs Python between fork and exec, which can deadlock in a launcher that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main(launcher_pid: int, command: list[str]) -> None:
    """Never returns: either this process has become the command, or it has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != launcher_pid:  # the launcher died before the kernel was asked: no signal will come
        sys.exit("the launcher is gone")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
