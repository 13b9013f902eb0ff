"""The gate: open only as leader, closed for good once draining."""

from __future__ import annotations

import pytest

from daemon.serving.gate import Closed, Gate, Role


def test_it_is_open_while_leading_only() -> None:
    """Starting, standby and leader in turn; each refusal says why."""
    gate = Gate()
    assert (gate.role, gate.is_open) == (Role.STARTING, False)
    with pytest.raises(Closed, match=r"^starting: "):
        gate.check()
    gate.stand_by()
    with pytest.raises(Closed, match=r"^standby: "):
        gate.check()
    gate.lead()
    gate.check()
    assert gate.is_open
    gate.stand_by()
    assert not gate.is_open


def test_draining_is_for_good() -> None:
    """Winning the lease afterwards changes nothing."""
    gate = Gate()
    gate.drain()
    gate.lead()
    assert not gate.is_open
    with pytest.raises(Closed, match=r"^shutting down: "):
        gate.check()


def test_listeners_hear_the_present_and_every_change() -> None:
    """Health follows the gate by this."""
    gate = Gate()
    heard: list[bool] = []
    gate.on_change(heard.append)
    gate.lead()
    gate.drain()
    assert heard == [False, True, False]


def test_a_pause_ends_when_the_gate_closes() -> None:
    """A closed gate does not pause at all."""
    Gate().pause(3600)
