"""Linear CKA between networks: with themselves, with their start, and with a given network of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import modulab
from modulab.errors import ConfigError
from modulab.metrics.communities.similarity import linear_cka
from modulab.training.program import initialise, network_of
from tests.analysis.blocks import block, members, shipped
from tests.command_line import SMALL


def test_untrained_networks_are_like_their_start_and_others_as_a_formula_of_their_activity_says() -> None:
    some = members(3, architecture__width=6, architecture__depth=2)
    network = network_of(some[0])
    start = initialise(some, network)[1]
    same = shipped("likeness").take(block(some, start))
    for name in ("cka", "cka_site_1", "cka_site_2"):
        torch.testing.assert_close(same[name], torch.ones(3).double())
    trained = block(some, start + 0.5 * torch.cos(torch.arange(start.shape[1])))
    found = shipped("likeness").take(trained)
    before = block(some, start).probe.activities()
    expected = torch.stack(
        [linear_cka(*pair) for pair in zip(trained.probe.activities(), before, strict=True)]
    )
    torch.testing.assert_close(found["cka"], expected.mean(dim=0))
    assert (found["cka"] < 0.99).all()


def test_a_given_network_is_like_itself_and_less_like_others(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    modulab.train([*SMALL, "population.seeds=3", "trainer.progress=off"], folder)
    found = modulab.analyse(folder, "likeness", [f"likeness.folder={folder}", "likeness.row=1"])
    values = found["likeness/cka"].tolist()
    assert values[1] == pytest.approx(1, abs=1e-9)
    assert max(values[0], values[2]) < 0.999


def test_a_reference_that_is_half_named_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Give both, or neither"):
        shipped("likeness", folder="somewhere")
    trained = block(members(2, architecture__width=6))
    elsewhere = shipped("likeness", folder=str(tmp_path), row=0)
    with pytest.raises(ConfigError):
        elsewhere.lacking(trained.probe.network.network, trained.members[0])
