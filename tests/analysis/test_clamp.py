from __future__ import annotations

import pytest
import torch

from tests.analysis.blocks import block, members, shipped


def test_units_of_a_premodular_network_change_outputs_of_their_own_module_only() -> None:
    trained = block(members(3, "premodular", architecture__width=8, architecture__depth=2))
    for sites in ("last", "all"):
        found = shipped("clamp", sites=sites).take(trained)
        for factor in ("0", "0.5", "1.5", "2"):
            assert found[f"others@{factor}"].tolist() == [0, 0, 0]
            assert (found[f"own@{factor}"] > 0).all()
        assert found["selectivity"].tolist() == [1, 1, 1]


def test_modules_that_a_search_finds_in_premodular_networks_change_outputs_of_their_own_alone() -> None:
    trained = block(members(2, "premodular", architecture__width=16, architecture__depth=2))
    found, known = shipped("clamp_found").take(trained), shipped("clamp").take(trained)
    assert found["selectivity"].tolist() == [1, 1]
    torch.testing.assert_close(found["own@2"], known["own@2"])
    dense = shipped("clamp_found").take(block(members(2, architecture__width=16)))
    assert dense["selectivity"].isnan().all()  # one module, which has no others to change


def test_matrix_of_modules_by_outputs_holds_what_own_and_others_average() -> None:
    found = shipped("clamp").take(block(members(3, architecture__width=8)))
    factors = [0.0, 0.5, 1.5, 2.0]
    for sides, kind in ((((1, 1), (2, 2)), "own"), (((1, 2), (2, 1)), "others")):
        matrix = torch.stack([found[f"module_{one}_on_{other}"] for one, other in sides]).mean(dim=0)
        torch.testing.assert_close(matrix, sum(found[f"{kind}@{factor:g}"] for factor in factors) / 4)
    premodular = shipped("clamp").take(block(members(2, "premodular", architecture__width=8)))
    assert premodular["module_1_on_2"].tolist() == premodular["module_2_on_1"].tolist() == [0, 0]
    assert (premodular["module_1_on_1"] > 0).all()


def test_scaling_what_a_linear_readout_reads_changes_its_outputs_by_their_distance_from_the_bias() -> None:
    trained = block(members(2, "premodular", architecture__width=8))
    probe = trained.probe
    found = shipped("clamp", factors=[0.0, 0.5, 1.0, 1.5, 2.0]).take(trained)
    outputs = probe.clean.outputs.double()
    bias = probe.network.split()["bias.1"].double()[:, None]
    expected = ((outputs - bias).square().mean(dim=1).sqrt() / outputs.std(dim=1, correction=0)).mean(dim=1)
    assert found["own@1"].tolist() == [0, 0]
    for factor in (0.0, 0.5, 1.5, 2.0):
        torch.testing.assert_close(found[f"own@{factor:g}"], abs(factor - 1) * expected, rtol=1e-4, atol=1e-6)


def test_units_clamped_to_their_mean_leave_of_a_linear_readout_its_mean() -> None:
    trained = block(members(2, "premodular", architecture__width=8))
    found = shipped("clamp", operation="clamp", factors=[1.0]).take(trained)
    torch.testing.assert_close(found["own@1"], torch.ones(2, dtype=torch.float64), rtol=1e-4, atol=1e-4)


def test_units_of_a_dense_network_change_others_as_well() -> None:
    found = shipped("clamp").take(block(members(3, architecture__width=8)))
    assert (found["others@0"] > 0).all()
    assert (found["selectivity"] < 1).all()


@pytest.mark.parametrize("factors", [[2.0, 1.0], [0.0, 0.0], [-0.5], [2.5]])
def test_factors_rise_from_0_to_2(factors: list[float]) -> None:
    with pytest.raises(ValueError, match=r"clamp\.factors: .*factors must be from 0 to 2"):
        shipped("clamp", factors=factors)
