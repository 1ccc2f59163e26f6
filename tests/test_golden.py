"""Golden runs: what was recorded in tests/golden keeps every bit, whatever is rebuilt around it.

Bits are those of one kind of processor and one version of torch. Elsewhere, losses are compared to what rounding and a
few dozen steps make of it.
"""

from __future__ import annotations

import json

import pytest

from tests.golden.record import VALUES, golden_commands, machine, taken

RECORDED = json.loads(VALUES.read_text())


def test_every_golden_run_is_recorded() -> None:
    assert set(RECORDED["runs"]) == set(golden_commands())


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED["runs"])
def test_golden_run_keeps_every_bit(name: str) -> None:
    recorded, found = RECORDED["runs"][name], taken(name)
    if machine() == RECORDED["machine"]:
        assert found == recorded
        return
    assert found.keys() == recorded.keys()
    losses, before = (
        [float.fromhex(value) for value in run["curve training/loss"]] for run in (found, recorded)
    )
    assert losses == pytest.approx(before, rel=1e-2)
