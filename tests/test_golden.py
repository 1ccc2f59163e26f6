"""Golden runs: what was recorded in tests/golden keeps every bit, whatever is rebuilt around it.

Bits are those of one kind of processor and one version of torch. Elsewhere, losses are compared to what rounding and a
few dozen steps make of it.
"""

from __future__ import annotations

import json

import pytest

from modulab.measure_names import current_measure
from tests.golden.record import VALUES, golden_commands, machine, taken

RECORDED = json.loads(VALUES.read_text())


def with_present_names(recorded: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return what was recorded under what its measures are called now; not a bit of it is another."""
    curves = "curve "
    return {
        (curves if name.startswith(curves) else "") + current_measure(name.removeprefix(curves)): values
        for name, values in recorded.items()
    }


def test_every_golden_run_is_recorded() -> None:
    assert set(RECORDED["runs"]) == set(golden_commands())


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED["runs"])
def test_golden_run_keeps_every_bit(name: str) -> None:
    recorded, found = with_present_names(RECORDED["runs"][name]), taken(name)
    if machine() == RECORDED["machine"]:
        assert found == recorded
        return
    assert found.keys() == recorded.keys()
    losses, before = (
        [float.fromhex(value) for value in run["curve training/loss"]] for run in (found, recorded)
    )
    assert losses == pytest.approx(before, rel=1e-2)
