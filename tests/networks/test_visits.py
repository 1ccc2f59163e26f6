"""Sites whose units are active at several positions of a sample, and to which a pass comes several times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modulab.config.settings import Member
from modulab.metrics.measure import find_measures
from modulab.metrics.taking import measure_population
from modulab.networks.base import NetworkPopulation, by_visit
from modulab.noise import NoiseLaw, add_activity_noise, site_keys, visit_keys
from modulab.regularisers import JacobianRegulariser, Pass, PowerRegulariser
from modulab.streams import member_keys, normals
from tests.members import make_member
from tests.networks.repeated import Repeated
from tests.training.fitting import trained_parameters

BATCH = 6


def make(seed: int = 0, **overrides: Any) -> Member:
    settings: dict[str, Any] = {
        "architecture___target_": "tests.networks.repeated.RepeatedArchitecture", "architecture__width": 5,
        "training__steps": 4, "training__batch_size": 8, "probes__num_samples": 32, "probes__repeats": 2,
        "probes__adaptation_steps": 2,
    }  # fmt: skip
    return make_member({"noise": "poisson"}, seed=seed, **(settings | overrides))


def networks(members: int = 2) -> tuple[Repeated, Tensor, Tensor]:
    network = Repeated(4, 2, 5)
    keys = member_keys(range(members))
    _, parameters = network.initialise([None] * members, make().task.partition, keys)
    inputs = normals(keys, 4, BATCH).transpose(1, 2)
    return network, parameters, inputs


def test_recordings_hold_visits_one_after_another() -> None:
    network, parameters, inputs = networks()
    parts = network.split(parameters)
    first = torch.relu(parts["read"] @ network.inputs_read(inputs))
    second = torch.relu(parts["again"] @ first)
    recording = network.record(parameters, inputs)
    torch.testing.assert_close(recording.values["hidden"], torch.cat([first, second], dim=2))
    assert recording.values["hidden"].numel() == 2 * BATCH * network.sites[0].values
    assert not network.is_layered


def test_each_visit_has_noise_of_its_own() -> None:
    network, parameters, inputs = networks()
    ones = torch.ones(2)
    law = NoiseLaw(ones, ones, 0 * ones, 0 * ones)
    keys = site_keys(member_keys([3, 4]), 0)
    assert torch.equal(visit_keys(keys, 0), keys)

    def add(place: str, values: Tensor, visit: int) -> Tensor:
        return add_activity_noise(values, law, visit_keys(keys, visit))

    recording = network.record(parameters, inputs, by_visit(add))
    noise = recording.passed_on["hidden"] - recording.values["hidden"]
    first, second = noise.split(2 * BATCH, dim=2)
    torch.testing.assert_close(first, normals(keys, 5, 2 * BATCH))
    assert torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs() < 0.3


def test_jacobians_by_visit_and_position_are_those_of_autograd() -> None:
    network, parameters, inputs = networks()
    noise = 0.1 * normals(member_keys([7, 8]), 5, 4 * BATCH)

    def perturb(place: str, values: Tensor, visit: int) -> Tensor:
        return values + noise[:, :, visit * 2 * BATCH : (visit + 1) * 2 * BATCH]

    recording = network.record(parameters, inputs, by_visit(perturb))
    [(site, jacobian)] = network.output_jacobians(parameters, inputs, recording)
    # By hand: the second visit reads relu'(V h) V of the first, and the readout adds up both positions.
    parts = network.split(parameters)
    write, again = parts["write"], parts["again"]
    second = write[:, :, :, None].expand(-1, -1, -1, 2 * BATCH)
    gate = (recording.values["hidden"][:, :, 2 * BATCH :] > 0).float()
    first = torch.einsum("mou,mub,muv->movb", write, gate, again)
    assert site == "hidden"
    torch.testing.assert_close(jacobian, torch.cat([first, second], dim=3))


def test_penalties_count_every_position_and_visit() -> None:
    network, parameters, inputs = networks()
    recording = network.record(parameters, inputs)
    run = Pass(network, parameters, torch.ones_like(parameters), inputs, recording)
    ones = torch.ones(2)
    coefficients = {"strength": ones, "constant": ones, "linear": 0 * ones, "quadratic": 0 * ones}
    [(_, jacobian)] = network.output_jacobians(parameters, inputs, recording)
    expected = jacobian.square().sum(dim=(1, 2, 3)) / BATCH
    torch.testing.assert_close(JacobianRegulariser.penalty(run, coefficients, ""), expected)
    power = {"strength": ones, "weight_power": 2 * ones, "activity_power": ones, "first_layer": ones}
    parts = network.split(parameters)
    activity = recording.values["hidden"].abs().mean(dim=2)
    expected = (
        (parts["read"].square() * network.inputs_read(inputs).abs().mean(dim=2)[:, None]).sum(dim=(1, 2))
        + (parts["again"].square() * activity[:, None]).sum(dim=(1, 2))
        + (parts["write"].square() * activity[:, None]).sum(dim=(1, 2))
    )
    torch.testing.assert_close(PowerRegulariser.penalty(run, power, "whole"), expected)


def test_members_with_visits_train_in_company_as_alone_and_every_measure_applies() -> None:
    members = [make(seed, noise__scale=0.3 * seed) for seed in range(3)]
    packed = trained_parameters(members)
    for seed, member in enumerate(members):
        assert torch.equal(trained_parameters([member])[0], packed[seed])
    probes = members[0].probes
    network = members[0].architecture.network(members[0].task)
    found = measure_population(
        members[0].task, NetworkPopulation(network, packed), member_keys(range(3)), probes
    )
    assert all(values.isfinite().all() for name, values in found.items())
    assert any(name.startswith("error_under/poisson_counts@") for name in found)
    assert {"modularity/functional", "modularity/ablation"} <= set(found)
    assert "modularity/structural" not in found
    assert set(find_measures(probes)) >= {"structural"}
