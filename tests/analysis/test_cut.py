from __future__ import annotations

import pytest
import torch
import yaml
from torch import Tensor

from modulab.analysis.cut import compare, cut_apart, permuted
from modulab.analysis.labels import FoundLabels, served_modules
from modulab.metrics.communities.agreement import adjusted_rand
from modulab.metrics.modularity import unit_strengths
from modulab.networks.base import INPUT, OUTPUT
from modulab.networks.parameter_places import bias_places, weight_places
from modulab.networks.perceptron import Perceptron
from modulab.partition import SHARED
from modulab.training.program import network_of
from tests.analysis.blocks import block, members, shipped
from tests.networks.opaque import Opaque

SEARCH = """
_target_: modulab.metrics.communities.measures.Louvain
name: louvain
graph: modulab.metrics.communities.unit_graphs.weight_graph
restarts: 2
randomised: 0
resolution: 0.5 # so that a module is not divided further
"""


@pytest.mark.parametrize("architecture", ["premodular", "recurrent_premodular", "convolution_premodular"])
def test_a_premodular_network_loses_nothing_and_a_random_cut_of_it_something(architecture: str) -> None:
    width = {"architecture__channels" if "conv" in architecture else "architecture__width": 8}
    task = {"task": "digits"} if "conv" in architecture else {}
    trained = block(members(2, architecture, **width, **task, probes__num_samples=24))
    found = shipped("cut", partitions=9).take(trained)
    for module in range(trained.probe.task.modules):
        assert found[f"rise_module_{module + 1}"].tolist() == [0, 0]
    assert found["rise"].tolist() == [0, 0]
    if architecture == "premodular":
        assert (found["rise_random"] != 0).all()


def test_modules_that_a_search_finds_are_cut_apart_as_those_of_the_task_where_they_are_the_same() -> None:
    trained = block(members(2, "premodular", architecture__width=12))
    source = {"_target_": "modulab.analysis.labels.FoundLabels", "search": yaml.safe_load(SEARCH)}
    found = shipped("cut_found", partitions=3, labels=source).take(trained)
    known = shipped("cut", partitions=3).take(trained)
    assert found["rise"].tolist() == known["rise"].tolist() == [0, 0]
    assert (found["rise_random"] != 0).all()
    labels = FoundLabels(search=yaml.safe_load(SEARCH))(trained.probe)
    for member in range(2):
        own = torch.cat([labels[INPUT][member], labels["hidden.0"][member], labels[OUTPUT][member]])
        served = served_modules(trained.probe)
        task = torch.cat([served[place][member] for place in (INPUT, "hidden.0", OUTPUT)])
        both = (own != SHARED) & (task != SHARED)
        assert adjusted_rand(own[both].numpy(), task[both].numpy()) == 1


def test_places_that_a_searched_graph_lacks_have_no_module() -> None:
    trained = block(members(2, architecture__width=12))
    search = {
        **yaml.safe_load(SEARCH),
        "graph": "modulab.metrics.communities.unit_graphs.co_activation_graph",
    }
    labels = FoundLabels(search=search)(trained.probe)
    assert (labels[INPUT] == SHARED).all()
    assert (labels[OUTPUT] == SHARED).all()
    assert (labels["hidden.0"] >= 0).any()
    with pytest.raises(ValueError, match="it finds no modules"):
        FoundLabels(search={"_target_": "modulab.metrics.communities.similarity.LayerSimilarity"})


def by_hand(weights: list[Tensor], biases: list[Tensor], labels: list[list[int]], inputs: Tensor) -> Tensor:
    """Return one relu network's outputs without the weights between units of different labels, one by one."""
    values = inputs.clone()
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        kept = weight.clone()
        for row, target in enumerate(labels[layer + 1]):
            for column, source in enumerate(labels[layer]):
                if target != source and SHARED not in (target, source):
                    kept[row, column] = 0
        values = values @ kept.T + bias
        if layer + 1 < len(weights):
            values = values.relu()
    return values


def test_cut_networks_are_those_without_the_weights_between_modules() -> None:
    trained = block(members(2, architecture__width=5, architecture__depth=2))
    probe, network = trained.probe, trained.probe.network.network
    assert isinstance(network, Perceptron)
    labels = served_modules(probe)
    strengths, _ = unit_strengths(probe.network, probe.samples.inputs, probe.task.partition)
    rises = shipped("cut", partitions=1).take(trained)["rise"]
    for member in range(2):
        units = [SHARED if float(row.max()) == 0 else int(row.argmax()) for row in strengths[member]]
        own = [list(probe.task.partition.inputs), units[:5], units[5:], list(probe.task.partition.outputs)]
        named = [INPUT, *(site.name for site in network.sites), OUTPUT]
        assert [labels[place][member].tolist() for place in named] == own
        weights, biases = network.unflatten(probe.network.parameters)
        outputs = by_hand(
            [w[member] for w in weights], [b[member] for b in biases], own, probe.samples.inputs[member]
        )
        targets = probe.samples.targets[member]
        error = (outputs - targets).square().mean() - (probe.clean.outputs[member] - targets).square().mean()
        assert rises[member].item() == pytest.approx(error.item(), abs=1e-6)


def test_random_partitions_have_modules_of_the_same_sizes_in_each_layer_and_differ_by_draw_and_member() -> (
    None
):
    trained = block(members(2, architecture__width=8, architecture__depth=2))
    labels = served_modules(trained.probe)
    drawn = [permuted(trained.probe, labels, draw) for draw in range(6)]
    for each in drawn:
        for place, own in labels.items():
            assert torch.equal(each[place].sort(dim=1).values, own.sort(dim=1).values)
            if place in (INPUT, OUTPUT):
                assert torch.equal(each[place], own)
    unlike = {tuple(each["hidden.0"].flatten().tolist()) for each in drawn}
    assert len(unlike) > 3


def test_z_and_p_compare_a_rise_with_those_of_random_partitions() -> None:
    random = torch.tensor([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]], dtype=torch.float64)
    found = compare("", torch.tensor([1.0, 2.5], dtype=torch.float64), random)
    assert found["rise_random"].tolist() == [3, 2]
    assert found["z"][0].item() == (1 - 3) / 2
    assert found["z"][1].isnan()
    assert found["p"].tolist() == [(1 + 1) / (1 + 3), 1]


def test_a_plausible_planted_partition_loses_less_than_all_random_ones() -> None:
    some = members(2, "premodular", architecture__width=12)
    premodular = block(some)
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(premodular.probe.network.parameters.shape, generator=generator)
    found = shipped("cut", partitions=19).take(block(some, premodular.probe.network.parameters + noise))
    assert (found["rise"].abs() < found["rise_random"].abs()).all()
    assert (found["z_module_1"].isfinite()).all()


def test_places_are_the_parameters_that_edges_and_biases_are() -> None:
    for architecture in ("dense", "recurrent", "experts", "convolution"):
        [member] = members(1, architecture, task="digits" if architecture == "convolution" else "regression")
        network = network_of(member)
        places = weight_places(network)
        assert places is not None
        parameters = torch.rand(2, network.num_parameters)
        for edges, own in zip(network.edges(parameters), places, strict=True):
            assert torch.equal(edges.weights, parameters[:, own])
    perceptron = network_of(members(1, architecture__width=4, architecture__depth=2)[0])
    assert isinstance(perceptron, Perceptron)
    biases = bias_places(perceptron)
    assert biases is not None
    parameters = torch.rand(1, perceptron.num_parameters)
    for expected, own in zip(perceptron.unflatten(parameters)[1], biases, strict=True):
        assert torch.equal(expected, parameters[:, own])


class Product(Perceptron):
    """A perceptron that states products of weights as its connections, which cannot be cut."""

    def edge_weights(self, parameters: Tensor) -> list[Tensor]:
        first, *others = super().edge_weights(parameters)
        return [first * first, *others]


def test_networks_without_connections_that_can_be_cut_are_skipped_with_the_reason() -> None:
    [member] = members(1)
    network = network_of(member)
    assert isinstance(network, Perceptron)
    cut = shipped("cut")
    assert cut.lacking(network, member) is None
    opaque = Opaque(network.in_features, network.out_features, network)
    assert cut.lacking(opaque, member) == "the network has no weighted connections"
    product = Product(network.in_features, network.hidden_features, network.out_features, "relu")
    assert cut.lacking(product, member) == "the weights of its connections are not parameters of their own"


def test_labels_of_networks_that_are_not_layered_are_those_of_layered_ones_in_premodular_networks() -> None:
    some = members(2, "premodular", architecture__width=6)
    layered = block(some)
    inside = layered.probe.network.network
    assert isinstance(inside, Perceptron)
    opaque = block(
        some, layered.probe.network.parameters, Opaque(inside.in_features, inside.out_features, inside)
    )
    one, other = served_modules(layered.probe)["hidden.0"], served_modules(opaque.probe)["hidden.0"]
    both = (one != SHARED) & (other != SHARED)
    assert both.any()
    assert torch.equal(one[both], other[both])
    # The mask shares units out over modules in order.
    assert torch.equal(one[both], torch.tensor([0, 0, 0, 1, 1, 1]).expand(2, -1)[both])


def test_a_weight_that_leads_from_or_to_a_shared_unit_is_kept() -> None:
    trained = block(members(2, architecture__width=4))
    labels = {name: torch.full_like(own, SHARED) for name, own in served_modules(trained.probe).items()}
    assert torch.equal(cut_apart(trained.probe, labels), trained.probe.network.parameters)
