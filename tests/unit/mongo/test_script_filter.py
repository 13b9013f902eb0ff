"""The table of bits forgets nothing, lets few others pass, and stays as large as it is."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from adapters.mongo.script_filter import ScriptFilter

ADDED = 400_000
OTHERS = 200_000


def scripts(count: int, label: bytes) -> list[bytes]:
    """Different ones, of the length that most have."""
    return [label + number.to_bytes(20, "little") for number in range(count)]


@given(st.lists(st.sets(st.binary(max_size=42)), max_size=8))
def test_what_was_added_is_a_candidate(parts: list[set[bytes]]) -> None:
    """Whatever the bytes, in however many parts; in the order asked."""
    table, added = ScriptFilter(), set[bytes]()
    for part in parts:
        table.add(part - added)
        added |= part
        assert table.count == len(added)
        asked = sorted(added)
        assert table.candidates(asked) == asked


def test_nothing_passes_an_empty_table() -> None:
    """Not even a script of no bytes, whose hash is 0."""
    assert ScriptFilter().candidates([b"", b"\x51", *scripts(1_000, b"\x00\x14")]) == []


def test_few_others_pass() -> None:
    """0.14 of 200,000 is to be expected with 400,000 added; with one probe less it would be 16."""
    table = ScriptFilter()
    table.add(scripts(ADDED, b"\x00\x14"))
    assert table.candidates(scripts(ADDED, b"\x00\x14")) == scripts(ADDED, b"\x00\x14")
    assert len(table.candidates(scripts(OTHERS, b"\xa9\x14"))) <= 4


def test_its_size_does_not_depend_on_the_number() -> None:
    """Nothing that was added is held."""
    table = ScriptFilter()
    before = sys.getsizeof(table._bits)
    script = os.urandom(42)
    held = sys.getrefcount(script)
    table.add([script])
    assert sys.getrefcount(script) == held
    assert sys.getsizeof(table._bits) == before == sys.getsizeof(bytearray(1 << 24))


def test_who_pays_cannot_choose_what_passes() -> None:
    """Another process has other bits for the same script: false candidates cannot be made outside."""
    program = (
        "from adapters.mongo.script_filter import ScriptFilter; table = ScriptFilter(); "
        "table.add([b'script']); print([n for n, byte in enumerate(table._bits) if byte])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    runs = {
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 2
