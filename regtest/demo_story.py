"""How the demo speaks: numbered steps, lines that show, and claims that are checked before they are printed."""

import time
from collections.abc import Sequence
from typing import Final

INDENT: Final = "   "


class NotAsClaimed(Exception):
    """What the demo was about to say is not so; the message names the claim, what it needs and what was found."""


class Story:
    """Prints to stdout, every line at once: somebody is waiting."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._steps = 0
        self.claims = 0

    @property
    def elapsed_s(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._started

    def step(self, title: str) -> None:
        """The next numbered step."""
        self._steps += 1
        print(f"\n{self._steps}. {title}", flush=True)

    def show(self, *lines: str) -> None:
        """Lines that show something, and claim nothing."""
        for line in lines:
            print(f"{INDENT}{line}".rstrip(), flush=True)

    def claim(self, says: str, *, found: object, expected: object) -> None:
        """Prints `says` as proved; NotAsClaimed if what was found is not what was expected."""
        if found != expected:
            raise NotAsClaimed(f"{says}\n{INDENT}expected: {expected!r}\n{INDENT}found:    {found!r}")
        self.claims += 1
        print(f"{INDENT}ok  {says}", flush=True)


def sat(amount_sat: int) -> str:
    """An amount for people."""
    return f"{amount_sat:,} sat"


def dollars(amount_cents: int) -> str:
    """The same of US cents."""
    return f"${amount_cents // 100:,}.{amount_cents % 100:02}"


def msat(amount_msat: int) -> str:
    """The same in thousandths."""
    return f"{amount_msat:,} msat"


def short(identifier: str) -> str:
    """The beginning of a hash or a key: enough to tell them apart here."""
    return f"{identifier[:12]}…"


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they need to be: names to the left, from the second column on to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
