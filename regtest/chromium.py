"""A headless Chromium for tests of the page for people: where it comes from, and the little of it that they need.

    python -m regtest.chromium        # gets it and prints how it is run
    python -m regtest.chromium http://127.0.0.1:9464/ page.png [WIDTH [HEIGHT]]     # a screenshot

It comes from $TELLERD_CHROMIUM, else from PATH, else Debian unstable's package is unpacked into the cache (230 MB),
with its libraries, its loader and a font, as bitcoind is. It is driven through two pipes with Chromium's own DevTools
protocol (https://chromedevtools.github.io/devtools-protocol/): no port, no driver, no package.
"""

import base64
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from regtest import debian
from regtest.binaries import Command, Program, ProgramUnavailable, at_least
from regtest.cache import entry
from regtest.descriptors import is_readable

ANSWER_S: Final = 120.0
"""A page is shown in 0.2 s; the first start of the browser on a busy machine takes seconds."""

END_S: Final = 30.0

LOADING_S: Final = 0.02
"""Between looks at a page that is being loaded."""

FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # it needs rights that a container has not, and here it shows our own page only
    "--disable-gpu",
    "--disable-dev-shm-usage",  # a container's may be small
    "--disable-background-networking",  # it shall ask nobody for anything
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

_PACKAGE: Final = "chromium-headless-shell"
_DATA: Final = ("chromium-common", "zlib1g", "fonts-dejavu-core", "fonts-dejavu-mono")

_WRAPPER: Final = """\
#!/bin/sh
# Chromium looks for its data beside the program that the kernel runs, which is the loader: so that lies there, too.
# It starts itself again for each page: through this script.
here=$(dirname "$(readlink -f "$0")")
export FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/usr/lib/chromium/ld.so" --library-path "$here/{libraries}:$here/{libraries}/pulseaudio" \\
  "$here/usr/lib/chromium/chromium-headless-shell" --no-zygote --browser-subprocess-path="$here/chromium" "$@"
"""

_FONTS: Final = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">usr/share/fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
"""

_PIPES: Final = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
"""Chromium reads commands from descriptor 3 and answers on 4, whatever these are here."""


class BrowserError(Exception):
    """The browser refused a command, ended, or did not answer in time."""


def chromium() -> Command:
    """The command prefix of a Chromium; ProgramUnavailable if none can be had."""
    return CHROMIUM.find()


def _from_debian() -> Command:
    folder = entry(
        "chromium-150-or-newer",  # unstable moves on
        _unpack,
        lambda folder: at_least((150,), CHROMIUM, (str(folder / "chromium"),)),
    )
    return (str(folder / "chromium"),)


def _unpack(folder: Path) -> None:
    debian.unpack(_PACKAGE, folder, also=_DATA)
    loader = Path(debian.with_own_loader(folder, "usr/bin/chromium-headless-shell")[0])
    shutil.copy(loader, folder / "usr" / "lib" / "chromium" / "ld.so")
    (folder / "fonts.conf").write_text(_FONTS)
    script = folder / "chromium"
    script.write_text(_WRAPPER.format(libraries=loader.parent.relative_to(folder)))
    script.chmod(0o755)


CHROMIUM: Final = Program(
    name="chromium",
    variable="TELLERD_CHROMIUM",
    version=re.compile(r"(?:Chromium|Chrome) (\d+\.\d+(?:\.\d+)*)"),
    least=(112,),  # --headless means the same in all of them
    make=_from_debian,
)


class Browser:
    """One Chromium with a profile of its own, which ends with the `with`."""

    def __init__(self, command: Command | None = None) -> None:
        """`command` as `chromium()` gives it."""
        self._command = command or chromium()

    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(prefix="tellerd-chromium-", ignore_cleanup_errors=True)
        to_browser, self._commands = _high_pipe()
        self._answers, from_browser = _high_pipe()
        pipes = (sys.executable, "-I", "-S", "-c", _PIPES, str(to_browser), str(from_browser))
        folder = Path(self._profile.name)
        with (folder / "log").open("wb") as log:
            self._child = subprocess.Popen(
                (*pipes, *self._command, *FLAGS, f"--user-data-dir={folder / 'profile'}"),
                pass_fds=(to_browser, from_browser),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "XDG_CACHE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
                start_new_session=True,  # so that its own children end with it
            )
        os.close(to_browser)
        os.close(from_browser)
        self._unread = b""
        self._last_id = 0
        self._pages: dict[str, Page] = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._commands)  # it ends when nobody commands it any more
        try:
            self._child.wait(END_S)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self._child.pid, signal.SIGKILL)  # whatever of it is left
        except ProcessLookupError:
            pass
        self._child.wait(END_S)
        os.close(self._answers)
        self._profile.cleanup()

    def page(self, *, width: int, height: int, dark: bool = False) -> "Page":
        """An empty page of this size in CSS pixels; a narrow one is a phone's."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        is_phone = width < 600
        page.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        return page

    def call(self, method: str, params: dict[str, Any] | None = None, *, session: str | None = None) -> dict[str, Any]:
        """One command and its answer; what happens meanwhile goes to the pages. Raises BrowserError."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        give_up_at = time.monotonic() + ANSWER_S
        while (answer := self.read(give_up_at, what=method)).get("id") != self._last_id:
            pass
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def read(self, give_up_at: float, *, what: str) -> dict[str, Any]:
        """The next message, which a page has been told of if it is an event of one. Raises BrowserError."""
        while b"\0" not in self._unread:
            if not is_readable(self._answers, within_s=max(0.0, give_up_at - time.monotonic())):
                raise BrowserError(f"{what}: no answer in time\n{self._log_tail()}")
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise BrowserError(f"{what}: the browser has ended\n{self._log_tail()}")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message and (page := self._pages.get(message.get("sessionId", ""))):
            page.events.append(message)
        return message

    def _log_tail(self) -> str:
        return (Path(self._profile.name) / "log").read_text(errors="replace")[-2_000:]


class Page:
    """One page; `events` is all that the browser has said of it (method and params)."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """One command to this page."""
        return self._browser.call(method, params, session=self._session)

    def visit(self, url: str) -> None:
        """Returns when the page and all that it loads is there; BrowserError if it cannot be had."""
        seen = len(self.events)
        failure = self.call("Page.navigate", {"url": url}).get("errorText")
        if failure:
            raise BrowserError(f"{url}: {failure}")
        self.wait_loaded(seen)

    def wait_loaded(self, seen: int) -> None:
        """Returns when the page was loaded (again) after its first `seen` events."""
        give_up_at = time.monotonic() + ANSWER_S
        while not any(event["method"] == "Page.loadEventFired" for event in self.events[seen:]):
            self._browser.read(give_up_at, what="loading")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in JavaScript, of the page when it is whole: one that is renewed just now is
        waited for. BrowserError if it throws."""
        when_whole = f"document.readyState === 'complete' ? [{expression}] : null"
        give_up_at = time.monotonic() + ANSWER_S
        while time.monotonic() < give_up_at:
            try:
                answer = self.call("Runtime.evaluate", {"expression": when_whole, "returnByValue": True})
            except BrowserError as refusal:
                if not any(passing in str(refusal) for passing in ("context", "navigated")):
                    raise
                continue  # the page of before has just gone
            if "exceptionDetails" in answer:
                raise BrowserError(f"{expression}: {answer['exceptionDetails']['text']}")
            if found := answer["result"].get("value"):
                return found[0]
            time.sleep(LOADING_S)
        raise BrowserError(f"{expression}: the page is not whole in time")

    def complaints(self) -> list[str]:
        """What stands in the console: errors, warnings, violations of the page's policy, uncaught exceptions."""
        found = [event["params"]["entry"]["text"] for event in self._told("Log.entryAdded")]
        found += [str(event["params"]["args"]) for event in self._told("Runtime.consoleAPICalled")]
        return found + [event["params"]["exceptionDetails"]["text"] for event in self._told("Runtime.exceptionThrown")]

    def requests(self) -> list[str]:
        """Every address that was asked for, in order."""
        return [event["params"]["request"]["url"] for event in self._told("Network.requestWillBeSent")]

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        answer = self.call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        file.write_bytes(base64.b64decode(answer["data"]))

    def _told(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["method"] == method]


def _high_pipe() -> tuple[int, int]:
    """A pipe (read, write) whose descriptors are none of those that Chromium wants to have."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


def main() -> int:
    """Gets the browser, or makes a screenshot of an address; exit code 2 for a wrong command line."""
    if len(sys.argv) == 1:
        print(f"chromium: {shlex.join(chromium())}")
        return 0
    if not 3 <= len(sys.argv) <= 5:
        print(__doc__, file=sys.stderr)
        return 2
    width, height = int((sys.argv[3:] or ["1280"])[0]), int((sys.argv[4:] or ["900"])[0])
    with Browser() as browser:
        page = browser.page(width=width, height=height)
        page.visit(sys.argv[1])
        page.screenshot(Path(sys.argv[2]), whole=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrowserError, ProgramUnavailable) as problem:
        sys.exit(str(problem))
