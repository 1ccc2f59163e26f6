from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from modulab.analysis.analysis import Trained
from modulab.analysis.labels import find_labels
from modulab.analysis.route import expert_units, kept_units, routed_outputs
from modulab.analysis.routers import Visit, contributions, trained
from modulab.networks.base import NetworkPopulation
from modulab.networks.perceptron import Perceptron, flatten
from tests.analysis.blocks import block, clusters, members, shipped

ROUTERS = ("oracle", "trained", "mean_row", "input_norm")


def planted(copies: int = 3, noise: float = 0.0) -> Trained:
    """Return networks of 4 groups of equal units, relu of +x_1, -x_1, +x_2 and -x_2: at each point two are active."""
    some = members(2, architecture__width=4 * copies, probes__num_samples=128)
    generator = torch.Generator().manual_seed(0)
    directions = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).repeat(copies, 1)
    reads = directions.expand(2, -1, -1) + noise * torch.randn(2, 4 * copies, 2, generator=generator)
    bias = torch.zeros(2, 4 * copies)
    untrained = block(some, flatten([reads, torch.zeros(2, 2, 4 * copies)], [bias, torch.zeros(2, 2)])).probe
    # The readout of least squares, so that whatever is lost raises the error.
    design = torch.cat([untrained.clean.values["hidden.0"], torch.ones(2, 1, 128)], dim=1).transpose(1, 2)
    fitted = (torch.linalg.pinv(design) @ untrained.samples.targets).transpose(1, 2)
    return block(some, flatten([reads, fitted[:, :, :-1]], [bias, fitted[:, :, -1]]))


def test_half_of_planted_experts_suffice_and_random_ones_do_not() -> None:
    found = shipped("route", partitions=9, shares=[0.5, 1.0], labels=clusters(4, restarts=8)).take(planted())
    for router in ("oracle", "mean_row"):
        torch.testing.assert_close(
            found[f"rise_{router}@0.5"], torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0
        )
        assert (found[f"p_{router}@0.5"] == 0.1).all()
        assert (found[f"rise_random_{router}@0.5"] > 1e-3).all()
    # Linear scores of experts that matter little can exceed those of an idle one that matters more.
    assert (found["rise_trained@0.5"] < found["rise_random_trained@0.5"] / 3).all()
    # |W_e x| of the experts of +x and -x is the same: the length of what they read does not tell which is active.
    assert (found["rise_input_norm@0.5"] > 1e-3).all()
    for router in ROUTERS:
        assert found[f"rise_{router}@1"].tolist() == [0, 0]


def test_clusters_of_activity_are_those_of_weights_where_units_of_one_direction_are_active_together() -> None:
    probe = planted().probe
    one, other = (
        find_labels(clusters(4, rows, restarts=8))(probe)["hidden.0"]
        for rows in ("incoming_weights", "co_activity")
    )
    same = [own[:, :, None] == own[:, None, :] for own in (one, other)]
    assert torch.equal(*same)
    assert torch.equal(same[0][0], torch.arange(12)[:, None] % 4 == torch.arange(12)[None] % 4)


def by_hand(
    network: Perceptron, parameters: Tensor, labels: list[Tensor], point: Tensor, router: str, kept: int
) -> Tensor:
    """Return one network's outputs at a point, expert by expert."""
    weights, biases = network.unflatten(parameters[None])
    values = point
    for layer, own in enumerate(labels):
        sums = weights[layer][0] @ values + biases[layer][0]
        activity = sums.relu()
        scores: dict[int, float] = {}
        for expert in sorted(set(own.tolist())):
            units = own == expert
            scores[expert] = {
                "oracle": float((weights[layer + 1][0][:, units] @ activity[units]).norm()),
                "mean_row": float(sums[units].mean()),
                "input_norm": float(sums[units].norm()),
            }[router]
        best = sorted(scores, key=lambda expert: -scores[expert])[:kept]
        values = torch.where(torch.isin(own, torch.tensor(best)), activity, 0.0)
    return weights[-1][0] @ values + biases[-1][0]


@pytest.mark.parametrize("router", ["oracle", "mean_row", "input_norm"])
def test_routed_networks_are_those_that_are_run_expert_by_expert(router: str) -> None:
    trained_block = block(members(2, architecture__width=7, architecture__depth=2, probes__num_samples=12))
    probe, network = trained_block.probe, trained_block.probe.network.network
    assert isinstance(network, Perceptron)
    labels = find_labels(clusters(3))(probe)
    found = shipped("route", partitions=1, shares=[0.5], labels=clusters(3)).take(trained_block)
    for member in range(2):
        own = [labels[site.name][member] for site in network.sites]
        outputs = torch.stack(
            [
                by_hand(network, probe.network.parameters[member], own, point, router, kept=2)
                for point in probe.samples.inputs[member]
            ]
        )
        targets = probe.samples.targets[member]
        rise = (outputs - targets).square().mean() - (probe.clean.outputs[member] - targets).square().mean()
        assert found[f"rise_{router}@0.5"][member].item() == pytest.approx(rise.item(), abs=1e-6)


def visit_of(some: Trained, experts: int) -> Visit:
    probe = some.probe
    labels = find_labels(clusters(experts))(probe)
    units = expert_units(probe.network.network, labels)["hidden.0"]
    return Visit(
        probe.network, 0, probe.samples.inputs.transpose(1, 2), probe.clean.values["hidden.0"], units
    )


def test_trained_routers_are_the_least_squares_fit_of_the_oracle() -> None:
    visit = visit_of(block(members(2, architecture__width=8)), 4)
    scores, wanted = trained(visit)(visit), contributions(visit)
    for member in range(2):
        design = np.column_stack([visit.read[member].T.numpy().astype(float), np.ones(visit.read.shape[2])])
        solution, *_ = np.linalg.lstsq(design, wanted[member].T.numpy().astype(float), rcond=None)
        np.testing.assert_allclose(scores[member].T.numpy(), design @ solution, rtol=1e-4, atol=1e-5)


def test_no_router_changes_outputs_less_than_the_best_experts_of_each_point() -> None:
    some = block(members(2, architecture__width=8))
    probe, visit = some.probe, visit_of(some, 4)
    units = {"hidden.0": visit.experts}
    network = probe.network
    parts = torch.stack(
        [
            network.network.stage_sums(network.parameters, 1, own, biased=False)
            for own in visit.of_each(visit.activity)
        ]
    )
    changes = [parts[list(dropped)].sum(dim=0).square().sum(dim=1) for dropped in combinations(range(4), 2)]
    least = torch.stack(changes).amin(dim=0)
    for scores in (contributions, trained(visit)):
        routed = routed_outputs(probe, units, {"hidden.0": scores}, 0.5)
        change = (routed - probe.clean.outputs).square().sum(dim=2)
        assert (change >= least - 1e-6).all()
        assert (change > least + 1e-6).any()


def test_a_share_of_each_members_own_experts_is_kept_and_units_of_none_always() -> None:
    network = Perceptron(1, (5,), 1, "relu")
    labels = {"hidden.0": torch.tensor([[0, 0, 1, 2, -1], [0, 0, 1, 1, -1]])}
    experts = expert_units(network, labels)["hidden.0"]
    population = NetworkPopulation(network, torch.zeros(2, network.num_parameters))
    visit = Visit(population, 0, torch.zeros(2, 1, 1), torch.ones(2, 5, 1), experts)
    scores = torch.tensor([[3.0, 1.0, 2.0], [-3.0, -1.0, 7.0]])[:, :, None]
    for share, rows in (
        (1 / 3, [[1, 1, 0, 0, 1], [0, 0, 1, 1, 1]]),
        (0.5, [[1, 1, 0, 1, 1], [0, 0, 1, 1, 1]]),
        (math.nextafter(2 / 3, 1), [[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]]),
    ):
        assert kept_units(visit, scores, share)[:, :, 0].int().tolist() == rows


def test_units_without_connections_between_experts_do_not_need_the_experts_of_other_modules() -> None:
    # The modules of a premodular network as experts: all are needed at all points, and the error of none is small.
    some = block(members(2, "premodular", architecture__width=8))
    served = "modulab.analysis.labels.served_modules"
    found = shipped("route", partitions=3, shares=[0.5, 1.0], labels=served).take(some)
    assert found["rise_oracle@1"].tolist() == [0, 0]
    assert (found["rise_oracle@0.5"] != 0).all()
