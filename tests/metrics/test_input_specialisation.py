"""How far units read one module's inputs, against sums over paths and over all partitions of the inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from modulab.metrics.input_specialisation import InputSpecialisation, reading_strengths, specialisation
from modulab.partition import SHARED, Partition
from tests.metrics.populations import make_network, make_task, probe_of
from tests.perceptrons import Perceptrons

NAME = "modularity/input_specialisation"


def specialisation_of_paths(network: Perceptrons, inputs: Tensor, member: int, labels: list[int]) -> float:
    """Return the specialisation of one relu layer's units, path by path."""
    first, second = (weight[member].double() for weight in network.weights)
    weighted = total = 0.0
    for unit in range(len(first)):
        active = (inputs[member].double() @ first[unit] + network.biases[0][member, unit] > 0).double().mean()
        paths = dict.fromkeys(set(labels), 0.0)
        for feature, module in enumerate(labels):
            for output in range(len(second)):
                paths[module] += abs(float(first[unit, feature] * second[output, unit] * active))
        strength = sum(paths.values())
        weighted += strength * max(paths.values()) / strength if strength else 0.0
        total += strength
    return 2 * weighted / total - 1


def test_one_layer_equals_the_sum_over_paths() -> None:
    task = make_task("retina")
    network = make_network(task, 7)
    probe = probe_of(task, network, num_samples=50)
    found = InputSpecialisation(partitions=1).take(probe)[NAME]
    for member in range(3):
        expected = specialisation_of_paths(network, probe.samples.inputs, member, [0] * 4 + [1] * 4)
        assert float(found[member]) == pytest.approx(expected, rel=1e-5)


def test_the_null_is_the_mean_over_all_halves_of_the_inputs() -> None:
    task = make_task("retina")
    network = make_network(task, 7)
    probe = probe_of(task, network, num_samples=50)
    found = InputSpecialisation(partitions=1000).take(probe)
    halves = [[int(place not in half) for place in range(8)] for half in itertools.combinations(range(8), 4)]
    for member in range(3):
        every = [specialisation_of_paths(network, probe.samples.inputs, member, half) for half in halves]
        error = float(np.std(every)) / 1000**0.5
        assert float(found[f"{NAME}_null"][member]) == pytest.approx(np.mean(every), abs=5 * error)
        assert float(found[f"{NAME}_excess"][member]) == pytest.approx(
            float(found[NAME][member] - found[f"{NAME}_null"][member])
        )


def test_networks_before_training_have_no_excess_and_premodular_first_layers_have_all_of_it() -> None:
    task = make_task("retina")
    excess = InputSpecialisation(partitions=64).take(
        probe_of(task, make_network(task, 24, members=60), num_samples=64)
    )[f"{NAME}_excess"]
    assert abs(float(excess.mean())) < 4 * float(excess.std()) / 60**0.5
    split = make_network(task, 24)
    split.weights[0][:, :12, 4:] = 0
    split.weights[0][:, 12:, :4] = 0
    found = InputSpecialisation(partitions=8).take(probe_of(task, split, num_samples=64))
    assert found[NAME].tolist() == pytest.approx([1, 1, 1])


def test_order_of_units_and_scale_of_relu_units_change_nothing() -> None:
    task = make_task("retina")
    network = make_network(task, 9, 8)
    moved = Perceptrons(network.network, network.parameters.clone())
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    scale = torch.linspace(0.5, 4, 9)
    moved.weights[0].copy_(network.weights[0][:, order] * scale[:, None])
    moved.biases[0].copy_(network.biases[0][:, order] * scale)
    moved.weights[1].copy_(network.weights[1][:, :, order] / scale)
    measure = InputSpecialisation(partitions=4)
    before, after = (measure.take(probe_of(task, each, num_samples=64)) for each in (network, moved))
    for name, values in before.items():
        torch.testing.assert_close(after[name], values, rtol=1e-5, atol=1e-6)


def test_shared_inputs_do_not_count() -> None:
    task = make_task("retina")
    network = make_network(task, 5)
    inputs = probe_of(task, network, num_samples=32).samples.inputs
    reads, outgoing = reading_strengths(network, inputs)
    shared = Partition(2, (SHARED, 0, 0, 0, SHARED, 1, 1, 1), (SHARED, SHARED))
    without = reads.clone()
    without[:, :, [0, 4]] = 0
    halves = Partition(2, (0, 0, 0, 0, 1, 1, 1, 1), (SHARED, SHARED))
    assert torch.equal(specialisation(reads, outgoing, shared), specialisation(without, outgoing, halves))


def test_one_module_or_no_hidden_layer_is_skipped_with_a_reason() -> None:
    measure = InputSpecialisation(partitions=1)
    task = make_task()
    alone = make_task(modules=1)
    assert measure.lacking(make_network(task, 4).network, task) is None
    assert (
        measure.lacking(make_network(alone, 4, cross_connections=1.0).network, alone)
        == "the task has one module"
    )
    assert measure.lacking(make_network(task).network, task) == "the network has no hidden units"
