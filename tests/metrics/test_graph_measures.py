"""Graphs of networks and scores of the task's partition: invariances, walks, planted structure and random networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from populations import make_network, make_task, probe_of
from torch import Tensor

from modulab.errors import ConfigError
from modulab.metrics.frame_null import module_rotations
from modulab.metrics.graphs.assignment import strongest_modules
from modulab.metrics.graphs.coactivation import coactivation_graph, rotated_coactivation_graphs
from modulab.metrics.graphs.division import SCORES
from modulab.metrics.graphs.graph import Part, undirected_graph
from modulab.metrics.graphs.kinds import KINDS, activity_graph, jacobian_graph, node_modules, weight_graph
from modulab.metrics.graphs.known import KnownModules
from modulab.metrics.graphs.shuffled_networks import shuffled_networks
from modulab.metrics.measure import find_measure
from modulab.networks.base import NetworkPopulation, Parameter
from modulab.networks.perceptron import Perceptron
from modulab.networks.recurrent import Recurrent
from modulab.partition import Partition, even_shares
from tests.networks.opaque import Opaque
from tests.perceptrons import Perceptrons, planted

ALL = list(SCORES)


def known(
    graph: str = "weight", nulls: list[str] | None = None, shuffles: int = 20, **changes: Any
) -> KnownModules:
    nulls = nulls or (["frame"] if graph == "coactivation" else ["strength"])
    fields = {"graph": graph, "scores": ALL, "nulls": nulls, "shuffles": shuffles, **changes}
    return KnownModules(**fields)


def rescaled(network: Perceptrons, seed: int = 0) -> Perceptrons:
    """Return networks of which each unit of the first hidden layer is scaled by a power of 2, with the same outputs."""
    weights, biases = [each.clone() for each in network.weights], [each.clone() for each in network.biases]
    powers = torch.randint(-3, 4, biases[0].shape, generator=torch.Generator().manual_seed(seed))
    factors = 2.0**powers
    weights[0] *= factors[:, :, None]
    biases[0] *= factors
    weights[1] /= factors[:, None, :]
    return planted(weights, biases, "relu")


def test_only_the_graph_of_derivatives_is_invariant_under_rescaling_of_units() -> None:
    network = make_network(make_task(), 6, 5)
    before, after = (probe_of(make_task(), each, num_samples=64) for each in (network, rescaled(network)))
    torch.testing.assert_close(jacobian_graph(after).adjacency(), jacobian_graph(before).adjacency())
    assert not torch.allclose(weight_graph(after).adjacency(), weight_graph(before).adjacency())
    outgoing = [activity_graph(probe).blocks[1].weights for probe in (before, after)]
    torch.testing.assert_close(*outgoing)


def test_graph_of_derivatives_of_linear_networks_is_that_of_weights_in_units_of_deviations() -> None:
    network = make_network(make_task(), 6, activation="linear")
    probe = probe_of(make_task(), network, num_samples=64)
    found = jacobian_graph(probe)
    values = [probe.samples.inputs.transpose(1, 2), *probe.activities(), probe.clean.outputs.transpose(1, 2)]
    deviations = [each.double().std(dim=2, correction=0) for each in values]
    for layer, block in enumerate(found.blocks):
        expected = network.weights[layer].double().abs() * deviations[layer][:, None, :]
        torch.testing.assert_close(block.weights, expected / deviations[layer + 1][:, :, None])


def test_coactivation_is_the_absolute_correlation_also_in_rotated_coordinates() -> None:
    task = make_task(modules=3)
    network = make_network(task, 5, members=2)
    probe = probe_of(task, network, num_samples=50)
    rotations = module_rotations(probe.keys, 3, 4)
    turned = rotated_coactivation_graphs(probe, range(1, 3), 4).adjacency()
    straight = coactivation_graph(probe).adjacency()
    for member in range(2):
        units = probe.activities()[0][member].double().numpy()
        inputs, outputs = (
            each[member].double().numpy().T for each in (probe.samples.inputs, probe.clean.outputs)
        )
        for found, rotation in (
            (straight[member], np.eye(3)),
            (turned[2 * member], rotations[member, 1].numpy()),
            (turned[2 * member + 1], rotations[member, 2].numpy()),
        ):
            expected = np.abs(np.corrcoef(np.concatenate([rotation @ inputs, units, rotation @ outputs])))
            np.fill_diagonal(expected, 0)
            expected = np.nan_to_num(expected)
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def walk_ends(weights: Tensor, known: list[int], modules: int) -> Tensor:
    """Return where many steps of a random walk on one graph, absorbed at known nodes, lead from each node."""
    steps = (weights / weights.sum(dim=1, keepdim=True)).nan_to_num()
    for node, module in enumerate(known):
        if module >= 0:
            steps[node] = torch.eye(len(known), dtype=torch.float64)[node]
    arrived = torch.linalg.matrix_power(steps, 4096)
    belongs = torch.tensor(known)[:, None] == torch.arange(modules)
    return (arrived @ belongs.double()).argmax(dim=1)


def test_units_belong_to_the_module_that_a_random_walk_comes_to_first() -> None:
    task = make_task(modules=3)
    network = make_network(task, 6, 5, members=4)
    graph = weight_graph(probe_of(task, network, num_samples=256))
    graph = graph.only(torch.ones(4, graph.num_nodes, dtype=torch.bool))
    modules = [0, 1, 2, *[-1] * 11, 0, 1, -1]
    found = strongest_modules(graph, modules, 3)
    both = graph.adjacency() + graph.adjacency().transpose(1, 2)
    connected = graph.connected()
    for member in range(4):
        own = walk_ends(both[member].clone(), modules, 3)
        assert torch.equal(found[member][connected[member]], own[connected[member]])
        assert (found[member][~connected[member]] == -1).all()


def test_nodes_that_no_walk_leads_from_to_a_module_belong_to_none() -> None:
    weights = torch.zeros(1, 5, 5, dtype=torch.float64)
    weights[0, 0, 1] = weights[0, 1, 0] = weights[0, 2, 3] = weights[0, 3, 2] = 1.0
    assert strongest_modules(undirected_graph(weights), [0, -1, -1, -1, 1], 2).tolist() == [
        [0, 0, -1, -1, -1]
    ]


@pytest.mark.parametrize("graph", list(KINDS))
def test_dead_and_isolated_units_are_counted_and_change_no_score(graph: Any) -> None:
    task = make_task()
    network = make_network(task, 8)
    weights, biases = list(network.weights), list(network.biases)
    reads, writes = torch.ones(3, 2, 2), torch.ones(3, 2, 2)
    reads[:, 1], writes[:, :, 1] = (
        0.0,
        0.0,
    )  # isolated; it is constant, too, unless its bias is all that it has
    dead = torch.full((3, 2), -100.0)
    wider = planted(
        (torch.cat([weights[0], reads], dim=1), torch.cat([weights[1], writes], dim=2)),
        (torch.cat([biases[0], dead], dim=1), biases[1]),
        "relu",
    )
    nulls = ["partition"] if graph == "coactivation" else ["nonzero"]
    measure = known(graph, nulls, 3)
    before, after = (measure.take(probe_of(task, each, num_samples=64)) for each in (network, wider))
    counted = after[f"graph/{graph}/dead_units"] - before[f"graph/{graph}/dead_units"]
    assert counted.tolist() == [2.0] * 3
    for name in ALL:
        column = f"graph/{graph}/{name}"
        if column in before:
            torch.testing.assert_close(after[column], before[column], rtol=1e-10, atol=1e-10)


def test_units_without_connections_that_vary_are_isolated() -> None:
    task = make_task()
    network = make_network(task, 8)
    weights = [each.clone() for each in network.weights]
    weights[0][:, 0] = 0.0
    weights[1][:, :, 0] = 0.0
    found = known().take(probe_of(task, planted(weights, network.biases, "tanh"), num_samples=64))
    assert (found["graph/weight/dead_units"] + found["graph/weight/isolated_units"]).tolist() == [1.0] * 3


def untrained(units: int, sparse: bool, members: int = 100) -> Perceptrons:
    """Return untrained networks; of sparse ones, each weight is 0 with a probability of a half."""
    network = make_network(make_task(), units, members=members)
    draws = torch.Generator().manual_seed(units)
    kept = [torch.rand(each.shape, generator=draws) < 0.5 for each in network.weights]
    weights = [each * own if sparse else each for each, own in zip(network.weights, kept, strict=True)]
    return planted(weights, network.biases, "relu")


@pytest.mark.parametrize(
    ("graph", "units", "sparse", "nulls"),
    [
        ("weight", 20, False, ["layer", "strength"]),
        ("weight", 20, True, ["layer", "degree", "nonzero", "strength"]),
        pytest.param("weight", 48, True, ["layer", "strength"], marks=pytest.mark.slow),
        pytest.param("weight", 100, False, ["layer"], marks=pytest.mark.slow),
        ("activity", 20, True, ["layer", "strength"]),
        pytest.param("jacobian", 20, False, ["strength"], marks=pytest.mark.slow),
        ("jacobian", 20, True, ["layer", "nonzero"]),
        ("coactivation", 20, False, ["layer", "frame"]),
        pytest.param("coactivation", 20, True, ["layer"], marks=pytest.mark.slow),
    ],
)
def test_untrained_networks_are_no_more_modular_than_their_nulls(
    graph: str, units: int, sparse: bool, nulls: list[str]
) -> None:
    scores = ["modularity", "normalised_cut", "codelength_saving", "description_length_saving"]
    scores += [] if graph == "coactivation" else ["layered_modularity"]
    probe = probe_of(make_task(), untrained(units, sparse), num_samples=32)
    found = known(graph, nulls, 50, scores=scores).take(probe)
    for score in scores:
        for null in nulls:
            z, p = (found[f"graph/{graph}/{score}/{null}_{what}"] for what in "zp")
            assert (z >= 2).sum() <= 5, (score, null)
            assert z.nanmean() < 0.5, (score, null)
            assert p.min() >= 1 / 51
            assert (p <= 0.1).sum() <= 20, (score, null)  # 10 are expected, with a standard deviation of 3


@pytest.mark.parametrize("shuffle", ["layer", "degree", "nonzero"])
def test_shuffled_networks_have_each_layer_s_weights_in_other_places_and_run_on_the_same_points(
    shuffle: Any,
) -> None:
    probe = probe_of(make_task(), untrained(7, sparse=True, members=3), num_samples=16)
    moved = shuffled_networks(probe, shuffle, range(2, 6))
    before, after = probe.network.split(), moved.network.split()
    for name in ("weight.0", "weight.1"):
        old = before[name].repeat_interleave(4, dim=0)
        assert torch.equal(old.flatten(1).sort().values, after[name].flatten(1).sort().values)
        assert not torch.equal(old, after[name])
        if shuffle == "nonzero":
            assert torch.equal(old != 0, after[name] != 0)
        if shuffle == "degree":
            for axis in (1, 2):
                assert torch.equal((old != 0).sum(axis), (after[name] != 0).sum(axis))
    for name in ("bias.0", "bias.1"):
        assert torch.equal(before[name].repeat_interleave(4, dim=0), after[name])
    outputs = moved.network.forward(probe.samples.inputs.repeat_interleave(4, dim=0))
    torch.testing.assert_close(moved.clean.outputs, outputs)
    again = shuffled_networks(probe, shuffle, range(3, 4)).network.parameters
    assert torch.equal(again, moved.network.parameters.unflatten(0, (3, 4))[:, 1])


def test_parts_that_are_not_trained_are_not_shuffled() -> None:
    shape = make_network(make_task(), 5).network

    @dataclass(frozen=True)
    class Frozen(Perceptron):
        @property
        def layout(self) -> tuple[Parameter, ...]:
            return tuple(replace(each, trained=each.name != "weight.0") for each in super().layout)

    frozen = Frozen(shape.in_features, shape.hidden_features, shape.out_features, shape.activation)
    probe = probe_of(make_task(), NetworkPopulation(frozen, make_network(make_task(), 5).parameters))
    moved = shuffled_networks(probe, "layer", range(1)).network.split()
    assert torch.equal(moved["weight.0"], probe.network.split()["weight.0"])
    assert not torch.equal(moved["weight.1"], probe.network.split()["weight.1"])


@pytest.mark.parametrize(
    ("graph", "null"),
    [
        ("weight", "strength"),
        ("weight", "layer"),
        ("jacobian", "strength"),
        ("jacobian", "layer"),
        ("activity", "layer"),
        ("coactivation", "layer"),
    ],
)
def test_networks_with_weak_connections_between_modules_are_more_modular_than_their_nulls(
    graph: str, null: str
) -> None:
    task = make_task()
    strong = make_network(task, 20, members=10, cross_connections=0.0)
    weak = make_network(task, 20, members=10)
    weights = [
        own + 0.1 * other * (own == 0) for own, other in zip(strong.weights, weak.weights, strict=True)
    ]
    found = known(graph, [null], 50).take(
        probe_of(task, planted(weights, weak.biases, "relu"), num_samples=256)
    )
    assert (found[f"graph/{graph}/modularity/{null}_z"] > 2).sum() >= (8 if "activ" in graph else 10)
    assert (found[f"graph/{graph}/relative_modularity"] > (0.3 if graph == "coactivation" else 0.7)).all()


@pytest.mark.parametrize("graph", list(KINDS))
def test_scores_and_comparisons_are_the_same_bits_in_any_company(graph: Any) -> None:
    task = make_task(modules=3)
    network = make_network(task, 6, 5, members=7, cross_connections=0.6)
    nulls = list(KINDS[graph].nulls)
    measure = known(graph, nulls, 4)
    whole = measure.take(probe_of(task, network, num_samples=40))
    few = measure.take(probe_of(task, network.select(slice(0, 2)), num_samples=40))
    assert set(whole) == set(few)
    assert len(whole) == 2 + sum(
        1 + 3 * len(nulls) for name in ALL if KINDS[graph].directed or not SCORES[name].directed
    )
    for name, values in few.items():
        assert torch.equal(values.nan_to_num(7.0), whole[name][:2].nan_to_num(7.0)), name


def test_every_value_has_words_and_none_is_without_its_null() -> None:
    task = make_task()
    probe = probe_of(task, make_network(task, 6), num_samples=16)
    for graph in KINDS:
        measure = known(graph, list(KINDS[graph].nulls), 3)
        names = list(measure.take(probe))
        assert sorted(names) == sorted(column.name for column in measure.columns)
        for score in (name for name in names if name.count("/") == 2 and not name.endswith("_units")):
            assert {f"{score}/{null}_{what}" for null in measure.nulls for what in ("mean", "z", "p")} <= set(
                names
            )


def test_networks_that_lack_what_a_graph_needs_are_skipped_with_the_reason() -> None:
    task = make_task()
    inside = make_network(task, 6)
    shape = inside.network
    opaque = NetworkPopulation(Opaque(shape.in_features, shape.out_features, shape), inside.parameters)
    assert known("weight").lacking(opaque.network, task) == "the network has no weighted connections"
    assert known("coactivation").lacking(opaque.network, task) is None
    both = [known("coactivation").take(probe_of(task, each, num_samples=32)) for each in (inside, opaque)]
    assert all(torch.equal(both[0][name].nan_to_num(), both[1][name].nan_to_num()) for name in both[0])
    one = make_task(modules=1)
    assert known().lacking(make_network(one, 4).network, one) == "the task has one module"


def test_inputs_that_are_read_step_by_step_have_the_module_of_their_sequence() -> None:
    # Two sequences of three steps with two features each: edges read four inputs, two of each sequence.
    fields: dict[str, Any] = {"units": 4, "activation": "tanh", "leak": 0.4, "steps": 3, "sequences": 2}
    network = Recurrent(in_features=12, out_features=2, **fields)
    parts = (Part("input", 4), Part("recurrent", 4), Part("output", 2))
    partition = Partition(2, even_shares(12, 2), (0, 1))
    assert node_modules(network, partition, parts) == (0, 0, 1, 1, -1, -1, -1, -1, 0, 1)
    across = Partition(
        2, (0, 1) * 6, (0, 1)
    )  # by features: an input that edges read is one of one module still
    assert node_modules(network, across, parts)[:4] == (0, 1, 0, 1)
    mixed = Partition(2, (0, 1, 1, 1, 0, 1) * 2, (0, 1))
    assert node_modules(network, mixed, parts)[:4] == (-1, 1, -1, 1)


def test_nulls_that_a_graph_does_not_have_are_refused() -> None:
    value = {
        "_target_": "modulab.metrics.graphs.known.KnownModules", "graph": "coactivation", "scores": ["modularity"],
        "nulls": ["strength"], "shuffles": 5,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="Choose from layer, degree, nonzero, frame, partition"):
        find_measure(value, "probes.measures.graph")
