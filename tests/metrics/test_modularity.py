import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from populations import make_network, make_task, probe_of
from torch import Tensor

from modulab.metrics import probe as probe_module
from modulab.metrics.frame_null import hidden_path_strength
from modulab.metrics.modularity import (
    ChunkSum,
    ablation_selectivity,
    block_sums,
    chance_corrected,
    diagonal_modularity,
    gates_of,
    mean_absolute_jacobian,
    measure_ablation,
    measure_functional,
    measure_functional_centred,
    measure_structural,
    measure_unit_specialisation,
    path_strength,
    selectivity,
    unit_specialisation,
    unit_strengths,
    without_module_means,
)
from modulab.metrics.without_units import ablation_loss_rises
from modulab.networks.base import NetworkPopulation
from modulab.networks.perceptron import ACTIVATIONS
from modulab.partition import SHARED, Partition
from modulab.tasks.base import mixing_matrix
from tests.networks.opaque import Opaque
from tests.perceptrons import Perceptrons, planted, trace

PAIR = Partition.of_equal_shares(2, 1, 1)
MEASURES = [measure_structural, measure_functional, measure_unit_specialisation, measure_ablation]
HIDDEN = [(), (5,), (4, 3), (3, 4, 3)]


def inputs_for(network: Perceptrons, points: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (network.num_members, points, network.weights[0].shape[2])
    return torch.rand(shape, generator=generator) * 2 - 1


def enumerated_paths(network: Perceptrons, inputs: Tensor) -> Tensor:
    """Add up |weight| times |activation'| along every path, one path and one point at a time."""
    derivative = ACTIVATIONS[network.activation].derivative
    pre_activations = trace(network, inputs).pre_activations
    gates = [derivative(values).abs().double() for values in pre_activations]
    sizes = [network.weights[0].shape[2], *(weight.shape[1] for weight in network.weights)]
    total = torch.zeros(network.num_members, sizes[-1], sizes[0], dtype=torch.float64)
    for member, point in itertools.product(range(network.num_members), range(inputs.shape[1])):
        for path in itertools.product(*(range(size) for size in sizes)):
            strength = 1.0
            for layer, (source, target) in enumerate(itertools.pairwise(path)):
                strength *= abs(network.weights[layer][member, target, source].item())
                if layer < len(gates):
                    strength *= gates[layer][member, target, point].item()
            total[member, path[-1], path[0]] += strength
    return total / inputs.shape[1]


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_path_strength_equals_the_sum_over_enumerated_paths(hidden: tuple[int, ...], activation: str) -> None:
    network = make_network(make_task(), *hidden, members=2, activation=activation)
    inputs = inputs_for(network, points=3)
    torch.testing.assert_close(path_strength(network, inputs).double(), enumerated_paths(network, inputs))


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_jacobian_equals_that_of_autograd(hidden: tuple[int, ...], activation: str) -> None:
    network = make_network(make_task(modules=3), *hidden, activation=activation)
    inputs = inputs_for(network)
    expected = torch.zeros(3, 3, 3)
    for member in range(3):
        one = network.select(slice(member, member + 1))
        for point in inputs[member]:
            jacobian = torch.autograd.functional.jacobian(
                lambda x, one=one: one.forward(x[None, None])[0, 0], point
            )
            expected[member] += jacobian.abs() / inputs.shape[1]
    torch.testing.assert_close(mean_absolute_jacobian(network, inputs), expected)


@pytest.mark.parametrize("hidden", HIDDEN[1:])
def test_chunks_of_points_change_sums_by_rounding_only(
    hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task()
    network = make_network(task, *hidden, activation="tanh")
    probe = probe_of(task, network, num_samples=101)
    whole = [measure(probe) for measure in MEASURES]
    monkeypatch.setattr("modulab.metrics.modularity.BATCH_ELEMENTS", 150)
    chunked = [measure(probe) for measure in MEASURES]
    assert probe_module.BATCH_ELEMENTS > 150
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [(5,), (6, 4), (5, 7, 4)])
def test_gates_at_hand_give_what_passes_of_each_chunk_give(
    hidden: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modulab.metrics.modularity.BATCH_ELEMENTS", 150)  # chunks of a few points
    task = make_task()
    probe = probe_of(task, make_network(task, *hidden, activation="tanh"), num_samples=31)
    network, inputs, gates = probe.network, probe.samples.inputs, gates_of(probe)
    for measured in (
        lambda given: path_strength(network, inputs, given),
        lambda given: mean_absolute_jacobian(network, inputs, gates=given),
        lambda given: unit_strengths(network, inputs, task.partition, given)[0],
        lambda given: hidden_path_strength(network, inputs, given),
    ):
        torch.testing.assert_close(measured(gates), measured(None))


def test_blocks_follow_the_labels_and_leave_out_what_is_shared() -> None:
    partition = Partition(2, (1, SHARED, 0, 1), (1, 0, SHARED))
    matrix = torch.arange(1.0, 13.0).view(1, 3, 4)
    assert block_sums(matrix, partition).tolist() == [[[7, 5 + 8], [3, 1 + 4]]]
    # Within modules lie 7 and 5, of 7 + 13 + 3 + 5.
    assert diagonal_modularity(matrix, partition).item() == pytest.approx(2 * 12 / 28 - 1)


def test_block_sums_add_each_block() -> None:
    matrix = torch.arange(24.0).view(1, 4, 6)
    expected = [[[matrix[0, 2 * o : 2 * o + 2, 3 * i : 3 * i + 3].sum() for i in range(2)] for o in range(2)]]
    assert block_sums(matrix, Partition.of_equal_shares(2, 3, 2)).tolist() == expected


@pytest.mark.parametrize("modules", range(2, 12))
def test_chance_correction_maps_one_to_one_and_chance_to_zero(modules: int) -> None:
    shares = torch.tensor([1.0, 1 / modules], dtype=torch.float64)
    corrected = chance_corrected(shares, modules)
    assert corrected[0] == 1
    assert abs(corrected[1]) < 1e-15


def test_chance_correction_is_undefined_for_one_module() -> None:
    assert chance_corrected(torch.ones(2, dtype=torch.float64), 1).isnan().all()


@pytest.mark.parametrize("modules", [2, 3, 5, 7])
def test_diagonal_modularity_of_a_uniform_matrix_is_zero(modules: int) -> None:
    uniform = torch.full((2, 2 * modules, 3 * modules), 0.37)
    torch.testing.assert_close(
        diagonal_modularity(uniform, Partition.of_equal_shares(modules, 3, 2)),
        torch.zeros(2, dtype=torch.float64),
    )


@pytest.mark.parametrize("modules", [2, 3, 5])
@pytest.mark.parametrize("hidden", [(), (11,), (11, 13), (10, 11, 12)])
@pytest.mark.parametrize("name", ["regression", "classification"])
def test_premodular_network_scores_exactly_one(modules: int, hidden: tuple[int, ...], name: str) -> None:
    task = make_task(name, modules=modules)
    network = make_network(task, *hidden, cross_connections=0.0)
    probe = probe_of(task, network, num_samples=64)
    for measure in MEASURES if hidden else MEASURES[:2]:
        for values in measure(probe).values():
            assert values.tolist() == [1.0] * 3


def test_network_that_treats_all_modules_alike_scores_zero() -> None:
    task = make_task(modules=2, functions=["sine"])
    dense = make_network(task, 8, activation="linear")
    alike = planted(
        (dense.weights[0][:, :, :1].expand(-1, -1, 2), dense.weights[1][:, :1].expand(-1, 2, -1)),
        dense.biases,
        "linear",
    )
    inputs = inputs_for(alike)
    zeros = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(diagonal_modularity(path_strength(alike, inputs), PAIR), zeros)
    torch.testing.assert_close(diagonal_modularity(mean_absolute_jacobian(alike, inputs), PAIR), zeros)
    torch.testing.assert_close(unit_specialisation(alike, inputs, PAIR), zeros)


def test_paths_that_cancel_count_in_structure_and_not_in_function() -> None:
    # Units 0 and 1 carry input 0 to output 1 with opposite signs; units 2 and 3 are the modules' own.
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[0.0, 0.0, 1.0, 0.0], [1.0, -1.0, 0.0, 1.0]])
    network = planted((first[None], second[None]), (torch.full((1, 4), 2.0), torch.zeros(1, 2)), "relu")
    inputs = inputs_for(network)
    assert diagonal_modularity(mean_absolute_jacobian(network, inputs), PAIR).item() == 1
    assert diagonal_modularity(path_strength(network, inputs), PAIR).item() == pytest.approx(0.0)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("hidden", [(9,), (9, 7)])
def test_order_of_hidden_units_does_not_matter(measure, hidden: tuple[int, ...]) -> None:
    task = make_task()
    network = make_network(task, *hidden, activation="tanh")
    weights, biases = list(network.weights), list(network.biases)
    for layer, width in enumerate(hidden):
        order = torch.randperm(width, generator=torch.Generator().manual_seed(layer))
        weights[layer], biases[layer] = weights[layer][:, order], biases[layer][:, order]
        weights[layer + 1] = weights[layer + 1][:, :, order]
    shuffled = planted(tuple(weights), tuple(biases), network.activation)
    torch.testing.assert_close(
        measure(probe_of(task, shuffled)), measure(probe_of(task, network)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_dead_units_do_not_count(measure) -> None:
    task = make_task()
    network = make_network(task, 12, cross_connections=0.0)
    crossing = torch.ones(3, 4, 2)
    with_dead = planted(
        (
            torch.cat([network.weights[0], crossing], dim=1),
            torch.cat([network.weights[1], crossing.transpose(1, 2)], 2),
        ),
        (torch.cat([network.biases[0], torch.full((3, 4), -50.0)], dim=1), network.biases[1]),
        "relu",
    )
    assert next(iter(measure(probe_of(task, with_dead)).values())).tolist() == [1.0] * 3


@pytest.mark.parametrize("measure", MEASURES)
@settings(max_examples=5)
@given(exponents=st.lists(st.integers(-6, 6), min_size=8, max_size=8))
def test_rescaling_relu_units_changes_no_bit(measure, exponents: list[int]) -> None:
    # a -> c a, W -> W / c leaves the function as it is; powers of two leave the rounding too.
    task = make_task()
    network = make_network(task, 8)
    factors = torch.tensor([2.0**exponent for exponent in exponents])
    rescaled = planted(
        (network.weights[0] * factors[:, None], network.weights[1] / factors),
        (network.biases[0] * factors, network.biases[1]),
        "relu",
    )
    for name, values in measure(probe_of(task, network, num_samples=64)).items():
        assert torch.equal(measure(probe_of(task, rescaled, num_samples=64))[name], values)


@pytest.mark.parametrize("measure", MEASURES)
def test_mixed_network_is_measured_in_module_coordinates(measure) -> None:
    task = make_task("classification", modules=3)
    mixed_task = make_task("classification", modules=3, code="mixed")
    network = make_network(task, 12, 9, cross_connections=0.0)
    rotation = mixing_matrix(mixed_task)
    # What a premodular network looks like to one who trains it behind Q: W_1 Q^T acts on Qx.
    seen = planted(
        (network.weights[0] @ rotation.T, *network.weights[1:]), network.biases, network.activation
    )
    probe = probe_of(mixed_task, seen)
    torch.testing.assert_close(probe.clean.outputs, trace(seen, probe.samples.inputs @ rotation.T).outputs)
    values = next(iter(measure(probe).values()))
    torch.testing.assert_close(values, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5)
    if measure in (measure_structural, measure_functional):
        assert (next(iter(measure(probe_of(task, seen)).values())) < 0.9).all()


def test_selectivity_weighs_units_and_corrects_for_chance() -> None:
    strengths = torch.tensor([[[3.0, 1.0], [0.0, 2.0], [0.0, 0.0]]])
    weights = torch.tensor([[1.0, 2.0, 1.0]])
    share = (1 * 0.75 + 2 * 1.0 + 1 * 0.5) / 4
    assert selectivity(strengths, weights).item() == pytest.approx(2 * share - 1)


def test_unit_specialisation_with_one_layer_equals_the_formula_unit_by_unit() -> None:
    network = make_network(make_task(), 7)
    inputs = inputs_for(network, points=50)
    gates = (trace(network, inputs).pre_activations[0] > 0).double().mean(dim=2)
    for member, found in enumerate(unit_specialisation(network, inputs, PAIR).tolist()):
        reads, writes = network.weights[0][member].abs().double(), network.weights[1][member].abs().double()
        weighted, total = 0.0, 0.0
        for unit in range(7):
            own = [(reads[unit, module] * writes[module, unit]).item() for module in range(2)]
            weight = (reads[unit].sum() * writes[:, unit].sum() * gates[member, unit]).item()
            weighted += weight * max(own) / sum(own)
            total += weight
        assert found == pytest.approx(2 * weighted / total - 1)


@pytest.mark.parametrize("name", ["regression", "classification"])
@pytest.mark.parametrize("hidden", [(5,), (5, 4), (3, 4, 3)])
def test_ablation_equals_a_forward_pass_with_the_unit_silenced(name: str, hidden: tuple[int, ...]) -> None:
    task = make_task(name)
    probe = probe_of(task, make_network(task, *hidden, activation="tanh"), num_samples=40)
    rises = ablation_loss_rises(probe)
    clean = task.loss_function.by_module(probe.clean.outputs, probe.samples.targets, task.partition)
    places = [(layer, unit) for layer, width in enumerate(hidden) for unit in range(width)]
    for place, (layer, unit) in enumerate(places):

        def silence(at: str, activity: Tensor, layer: int = layer, unit: int = unit) -> Tensor:
            places = torch.arange(activity.shape[1])[:, None]
            return torch.where((places == unit) & torch.tensor(at == f"hidden.{layer}"), 0.0, activity)

        outputs = probe.network.forward(probe.samples.inputs, silence)
        expected = task.loss_function.by_module(outputs, probe.samples.targets, task.partition) - clean
        torch.testing.assert_close(rises[:, place], expected, rtol=1e-4, atol=1e-5)
    assert rises.shape[1] == len(places)


@pytest.mark.parametrize("hidden", [(), (4,), (4, 4)])
def test_modularity_of_one_module_is_undefined(hidden: tuple[int, ...]) -> None:
    task = make_task(modules=1)
    probe = probe_of(task, make_network(task, *hidden))
    for measure in MEASURES:
        for values in measure(probe).values():
            assert values.isnan().all()


def test_unit_measures_without_hidden_units_are_undefined() -> None:
    task = make_task()
    probe = probe_of(task, make_network(task))
    assert unit_specialisation(probe.network, probe.samples.inputs, PAIR).isnan().all()
    assert ablation_selectivity(probe).isnan().all()


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 255, 256, 257, 1024, 4113])
def test_sum_of_chunks_is_the_exact_sum_to_rounding(count: int) -> None:
    chunks = torch.randn(count, 2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    total = ChunkSum()
    for chunk in chunks:
        total.add(chunk)
    exact = [math.fsum(column) for column in chunks.flatten(1).T.tolist()]
    torch.testing.assert_close(
        total.value().flatten(), torch.tensor(exact, dtype=torch.float64), rtol=0, atol=1e-15 * count
    )


def test_sum_over_many_chunks_of_points_is_the_same_bits_in_any_company() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [(5, 50, 6), (5, 50, 50), (5, 6, 50)]
    network = planted(
        tuple(torch.randn(size, generator=generator) for size in sizes),
        tuple(torch.randn(size[:2], generator=generator) for size in sizes),
        "tanh",
    )
    inputs = torch.randn(5, 2000, 6, generator=generator)
    measures = (
        path_strength,
        mean_absolute_jacobian,
        lambda *given: unit_strengths(*given, Partition.of_equal_shares(2, 3, 3))[0],
    )
    together = [measure(network, inputs) for measure in measures]
    for first in (0, 2, 3):
        rows = slice(first, first + 2)
        some = planted(
            tuple(weight[rows] for weight in network.weights),
            tuple(bias[rows] for bias in network.biases),
            "tanh",
        )
        for measure, values in zip(measures, together, strict=True):
            assert torch.equal(measure(some, inputs[rows]), values[rows])


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("general", [False, True])
def test_centred_jacobian_equals_that_of_autograd_after_centring(
    hidden: tuple[int, ...], general: bool
) -> None:
    task = make_task("classification", modules=3)
    network = make_network(task, *hidden, members=2, activation="tanh")
    inputs = inputs_for(network, points=4)
    classes = task.outputs_per_module

    def centred(member: int, point: Tensor) -> Tensor:
        one = network.select(slice(member, member + 1))
        logits = one.forward(point[None, None])[0, 0].view(3, classes)
        return (logits - logits.mean(dim=1, keepdim=True)).flatten()

    expected = torch.zeros(2, 3 * classes, task.in_features)
    for member in range(2):
        for point in inputs[member]:
            jacobian = torch.autograd.functional.jacobian(lambda x, member=member: centred(member, x), point)
            expected[member] += jacobian.abs() / 4
    inside = network.network
    opaque = NetworkPopulation(Opaque(inside.in_features, inside.out_features, inside), network.parameters)
    found = mean_absolute_jacobian(opaque if general else network, inputs, centred=task.partition)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_what_is_added_to_all_logits_of_a_module_does_not_count_when_centred(hidden: tuple[int, ...]) -> None:
    # What is added depends on inputs of both modules, by way of hidden units; the softmaxes stay as they are.
    task = make_task("classification")
    network = make_network(task, *hidden, activation="tanh", cross_connections=0.0)
    classes, weights = task.outputs_per_module, list(network.weights)
    shift = torch.randn(3, 2, 1, hidden[-1], generator=torch.Generator().manual_seed(0))
    weights[-1] = weights[-1] + shift.expand(-1, -1, classes, -1).flatten(1, 2)
    before, after = probe_of(task, network), probe_of(task, planted(weights, network.biases, "tanh"))
    losses = [
        task.loss_function.by_module(each.clean.outputs, each.samples.targets, task.partition)
        for each in (before, after)
    ]
    torch.testing.assert_close(*losses)
    name = "modularity/functional_centred"
    assert measure_functional_centred(before)[name].tolist() == [1.0] * 3
    torch.testing.assert_close(
        measure_functional_centred(after)[name], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5
    )
    assert (measure_functional(after)["modularity/functional"] < 0.9).all()


def test_shared_outputs_are_not_centred() -> None:
    values = torch.arange(10.0).view(1, 5, 2)
    found = without_module_means(values, Partition(2, (0, 1), (0, 1, SHARED, 1, 0)))
    assert found.tolist() == [[[-4.0, -4.0], [-2.0, -2.0], [4.0, 5.0], [2.0, 2.0], [4.0, 4.0]]]


def test_values_that_are_no_logits_are_not_centred() -> None:
    network = make_network(make_task(), 4).network
    reason = "the task's outputs are values, not logits"
    assert measure_functional_centred.lacking(network, make_task()) == reason
    assert measure_functional_centred.lacking(network, make_task("classification")) is None
