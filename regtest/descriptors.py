"""File descriptors by the thousand: a long run of tests holds one for every port, and a mongod one for every file."""

import resource
import select
from typing import Final

ENOUGH: Final = 65_536
"""Far more than any node here needs: a mongod of the tests was seen with 1,324 files open. Many hosts allow more still,
which some programs walk through one by one."""


def raise_limit() -> None:
    """So many as the host allows, for this process and all that it starts: shells begin with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def is_readable(descriptor: int, *, within_s: float = 0.0) -> bool:
    """Whether there is something to read, or the other side has ended; not by select, which takes none above 1,023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * within_s))
