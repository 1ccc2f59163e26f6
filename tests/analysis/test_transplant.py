from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modulab.analysis.analysis import Trained
from modulab.analysis.curriculum import changed as changed_member
from modulab.analysis.further import train_further
from modulab.analysis.labels import served_modules
from modulab.analysis.transplant import Transplant, module_parameters, named_parameters, shuffle, transplants
from modulab.errors import ConfigError
from modulab.metrics.errors import mean_errors
from modulab.metrics.probe import evaluation_samples
from modulab.networks.base import NetworkPopulation
from modulab.streams import member_keys
from tests.analysis.blocks import block, members, shipped


def errors_of(trained: Trained) -> Tensor:
    probe, task = trained.probe, trained.probe.task
    return task.loss_function.errors(probe.clean.outputs, probe.samples.targets, task.partition).double()


@pytest.mark.parametrize("code", ["coordinate", "mixed"])
@pytest.mark.parametrize("architecture", ["dense", "recurrent", "experts"])
def test_transplanting_everything_reproduces_the_donor_to_the_bit(architecture: str, code: str) -> None:
    trained = block(members(2, architecture, architecture__width=6, task__code=code))
    everything = named_parameters(trained.probe.network.network, ["*"])
    parameters, _ = transplants(trained, everything.expand_as(trained.probe.mask))
    assert torch.equal(parameters[0], trained.probe.seen_network.parameters)
    assert not torch.equal(parameters[1], parameters[0])
    found = shipped("transplant", parts=["*"], steps=0).take(trained)
    assert torch.equal(found["error"], errors_of(trained).mean(dim=1))
    assert (found["error_random"] != found["error"]).all()


def test_a_module_of_a_premodular_network_gives_the_donors_error_in_any_fresh_one() -> None:
    trained = block(members(3, "premodular", architecture__width=8, architecture__depth=2))
    found = shipped("transplant", steps=0).take(trained)
    for module in range(2):
        assert torch.equal(found[f"error_module_{module + 1}"], errors_of(trained)[:, module])
    assert (found["error_random"] != found["error"]).all()
    assert (found["error_shuffled"] != found["error"]).all()


def test_what_is_not_transplanted_is_the_same_fresh_network_in_all_three() -> None:
    trained = block(members(2, architecture__width=6))
    chosen = module_parameters(trained.probe, served_modules(trained.probe), 0)
    parameters, _ = transplants(trained, chosen)
    donor = trained.probe.seen_network.parameters
    assert torch.equal(parameters[0][chosen], donor[chosen])
    for arm in parameters:
        assert torch.equal(arm[~chosen], parameters[0][~chosen])
    assert not torch.equal(parameters[0][~chosen], donor[~chosen])


def test_parameters_of_modules_are_disjoint_and_all_of_a_premodular_network() -> None:
    trained = block(members(2, "premodular", architecture__width=8, architecture__activation="tanh"))
    labels = served_modules(trained.probe)
    one, other = (module_parameters(trained.probe, labels, module) for module in range(2))
    assert not (one & other).any()
    assert torch.equal(one | other, trained.probe.mask > 0)


def test_shuffled_values_are_those_of_the_same_named_parameter_and_no_others_move() -> None:
    trained = block(members(3, architecture__width=6))
    network, parameters = trained.probe.network.network, trained.probe.network.parameters
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(parameters.shape, generator=generator) < 0.6
    found = shuffle(network, parameters, chosen, member_keys(range(3)))
    assert torch.equal(found[~chosen], parameters[~chosen])
    sizes = [part.size for part in network.layout]
    parts = zip(found.split(sizes, 1), parameters.split(sizes, 1), chosen.split(sizes, 1), strict=True)
    for after, before, own in parts:
        for member in range(3):
            one, other = after[member][own[member]], before[member][own[member]]
            assert torch.equal(one.sort().values, other.sort().values)
    assert (found[chosen] != parameters[chosen]).float().mean() > 0.5


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_frozen_transplant_stays_and_the_rest_is_trained_within_its_mask(decay: float) -> None:
    some = members(
        2, "premodular", architecture__width=6, training__weight_decay=decay, training__optimiser="adamw"
    )
    trained = block(some)
    chosen = module_parameters(trained.probe, served_modules(trained.probe), 0)
    parameters, masks = transplants(trained, chosen)
    for frozen in (True, False):
        transplant = shipped("transplant", steps=5, frozen=frozen)
        assert isinstance(transplant, Transplant)
        after = transplant.trained_further(some, parameters, masks, chosen)
        assert torch.equal(after[:, chosen], parameters[:, chosen]) is frozen
        assert not torch.equal(after[:, ~chosen], parameters[:, ~chosen])
        assert (after[masks == 0] == 0).all()


def test_training_goes_on_as_training_does() -> None:
    """Everything transplanted and not frozen: the first step is that of an optimiser at the donor's parameters."""
    some = members(2, architecture__width=6, training__optimiser="sgd", training__momentum=0.0,
                   training__learning_rate=0.1, training__schedule="constant", regulariser__strength=0.0)  # fmt: skip
    trained = block(some)
    everything = torch.ones_like(trained.probe.mask, dtype=torch.bool)
    parameters, masks = transplants(trained, everything)
    transplant = shipped("transplant", steps=1, frozen=False)
    assert isinstance(transplant, Transplant)
    after = transplant.trained_further(some, parameters, masks, everything)
    from modulab.streams import Stream, fold_in, integers
    from modulab.training.data import training_points

    keys = member_keys([member.seed for member in some])
    points = training_points(some[0].task, keys, 0, 32)
    counters = torch.arange(8, dtype=torch.int32)[None]
    rows = integers(fold_in(fold_in(keys, Stream.MINIBATCH), 0), counters, torch.tensor([32, 32]).int())
    samples = torch.stack([points[member, rows[member].long()] for member in range(2)])
    leaf = parameters[0].clone().requires_grad_()
    outputs = trained.probe.network.network.forward(leaf, samples[:, :, :2])
    (outputs - samples[:, :, 2:]).square().mean(dim=(1, 2)).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(after[0], parameters[0] - 0.1 * leaf.grad, rtol=1e-5, atol=1e-6)


def test_named_parts_that_are_not_there_are_refused_and_what_cannot_be_transplanted_is_skipped() -> None:
    trained = block(members(1))
    with pytest.raises(ConfigError, match=r"parts=weigth\.0: .*Did you mean 'weight\.0'"):
        shipped("transplant", parts=["weigth.0"]).take(trained)
    network = trained.probe.network.network
    [mixed] = members(1, task__code="mixed")
    assert "mixes inputs" in str(shipped("transplant").lacking(network, mixed))
    assert shipped("transplant", parts=["*"]).lacking(network, mixed) is None
    recurrent = block(members(1, "recurrent")).probe.network.network
    assert "the network is not a sequence of layers" in str(shipped("transplant").lacking(recurrent, mixed))


def test_a_transplant_without_training_has_the_donors_error_on_another_task_and_shuffling_is_not_it() -> None:
    trained = block(members(2, "attention", task="procedural", task__length=4, task__rule="stack"))
    found = shipped("transplant", parts=["*"], steps=0, changes={"task.rule": "sort"}).take(trained)
    probe = trained.probe
    everything = named_parameters(probe.network.network, ["*"]).expand_as(probe.mask)
    assert torch.equal(transplants(trained, everything)[0][0], probe.seen_network.parameters)
    other = members(1, "attention", task="procedural", task__length=4, task__rule="sort")[0].task
    samples = evaluation_samples(other, probe.keys, probe.settings.num_samples, "full")
    expected = mean_errors(probe.network, samples, other).double()
    torch.testing.assert_close(found["error"], expected)
    assert not torch.equal(found["error"], errors_of(trained).mean(dim=1))
    assert (found["error_shuffled"] != expected).all()


def test_fresh_networks_are_trained_on_the_data_of_the_task_that_they_are_given() -> None:
    some = members(2, architecture__width=6, task__functions=["sine", "parabola"])
    trained = block(some)
    changes = {"task.functions": ["identity", "cosine"], "data.num_samples": 16}
    found = shipped("transplant", parts=["bias.*"], steps=3, frozen=False, changes=changes).take(trained)
    changed = [changed_member(member, changes) for member in some]
    chosen = named_parameters(trained.probe.network.network, ["bias.*"]).expand_as(trained.probe.mask)
    parameters, masks = transplants(trained, chosen)
    after = list(train_further(changed * 3, parameters.flatten(0, 1), masks.flatten(0, 1), 3, 3))[-1]
    samples = evaluation_samples(changed[0].task, trained.probe.keys, 48, "full")
    for arm, name in enumerate(("error", "error_random", "error_shuffled")):
        population = NetworkPopulation(trained.probe.network.network, after[2 * arm : 2 * arm + 2])
        torch.testing.assert_close(found[name], mean_errors(population, samples, changed[0].task).double())


def test_changes_that_would_change_the_structure_or_that_are_unknown_are_reasons_to_skip() -> None:
    [member] = members(1)
    network = block([member]).probe.network.network
    for changes, words in (
        ({"architecture.width": 9}, "another structure"),
        ({"task.colour": 1}, "it has no setting task.colour"),
    ):
        assert words in str(shipped("transplant", parts=["*"], changes=changes).lacking(network, member))
    assert shipped("transplant", changes={"task.functions": ["sine"]}).lacking(network, member) is None
