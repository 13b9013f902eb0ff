"""Wakes a reader in the Trio loop, whichever thread has something for it."""

from __future__ import annotations

from collections.abc import Callable

import trio


class Waking:
    """One reader, in the loop that this is made in; `wake` is for any thread."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._woken = trio.Event()

    def wake(self) -> None:
        """Has the reader look again."""
        try:
            here = trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            here = False
        if here:
            self._set()
        else:
            self._token.run_sync_soon(self._set)

    async def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Returns when it is, looked at whenever somebody wakes; a checkpoint in any case."""
        await trio.lowlevel.checkpoint()
        while not is_ready():
            self._woken = trio.Event()
            # Between the look above and this line another thread may have told something.
            if not is_ready():
                await self._woken.wait()

    def _set(self) -> None:
        self._woken.set()
