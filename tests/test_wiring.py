"""The cost of wiring is its double sum, and exchanges of places gain what whole costs differ by."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modulab.config.settings import Member
from modulab.errors import ConfigError
from modulab.networks.base import INPUT, OUTPUT, Edges, Network
from modulab.networks.parameter_places import bias_places, weight_places
from modulab.networks.perceptron import Perceptron
from modulab.networks.placed import PlacedPerceptron, evenly_spaced, unit_places
from modulab.regularisers import Pass
from modulab.streams import fold_in, member_keys, normals
from modulab.training.data import PopulationData, training_points
from modulab.training.learner import PopulationLearner
from modulab.training.program import initialise, network_of, own_coefficients, program_of, stack_coefficients
from modulab.wiring import WiringCost, swap_gains, wiring_length
from tests.members import make_member
from tests.networks.kinds import check_measures, check_packing, check_taps
from tests.training.fitting import CPU, prepared_learner, trained_parameters

PLACED: dict[str, Any] = {
    "architecture__width": 7, "regulariser__strength": 0.01, "regulariser__swap_every": 10, "training__steps": 40,
    "training__curve_every": 10, "training__batch_size": 16, "data__num_samples": 64,
}  # fmt: skip


def make_placed(**changes: Any) -> Member:
    return make_member({"architecture": "placed", "regulariser": "wiring"}, **{**PLACED, **changes})


def some_parameters(members: list[Member]) -> Tensor:
    """Return initial parameters with biases, and with places exchanged at random."""
    network = network_of(members[0])
    _, parameters = initialise(members, network)
    keys = fold_in(member_keys(range(len(members))), 1)
    draws = normals(keys, 1, parameters.shape[1])[:, 0]
    trained = torch.cat([torch.full((part.size,), part.trained) for part in network.layout])
    parameters = torch.where(trained, parameters + 0.3 * draws, parameters)
    for name, place in unit_places(network, parameters).items():
        order = normals(fold_in(keys, len(name)), 1, place.shape[1])[:, 0].argsort(dim=1)
        place.copy_(place.gather(1, order))
    return parameters


def coefficients_of(members: list[Member]) -> dict[str, Tensor]:
    names = program_of(members[0]).coefficient_names
    return own_coefficients(dict(zip(names, stack_coefficients(members), strict=True)), "regulariser")


def cost(members: list[Member], parameters: Tensor, step: int, network: Network | None = None) -> Tensor:
    """Return the cost of each member, of its own network or of another that its parameters fit."""
    network = network or network_of(members[0])
    inputs = torch.zeros(len(members), 3, network.in_features)
    run = Pass(
        network, parameters, torch.ones_like(parameters), inputs, network.record(parameters, inputs),
        torch.tensor(step, dtype=torch.int32),
    )  # fmt: skip
    return WiringCost.penalty(run, coefficients_of(members), "")


@pytest.mark.parametrize("own_places", [True, False])
@pytest.mark.parametrize(("step", "factor", "biases"), [(0, 1, 0), (3, 4, 0), (5, 4, 1), (8, 1, 1)])
def test_cost_is_the_double_sum_of_its_definition_at_each_step(
    own_places: bool, step: int, factor: float, biases: float
) -> None:
    members = [
        make_placed(
            seed=seed, architecture__depth=2, regulariser__distance_cost=0.5 + seed, regulariser__base_cost=0.2,
            regulariser__raised_by=4.0, regulariser__raised_from=3, regulariser__raised_until=8,
            regulariser__biases_from=5,
        )
        for seed in range(3)
    ]  # fmt: skip
    network, parameters = network_of(members[0]), some_parameters(members)
    places = unit_places(network, parameters)
    if own_places:
        found = cost(members, parameters, step)
    else:  # the same weights, of units that stand evenly, in order
        places = {name: evenly_spaced(each.shape[1]).expand_as(each) for name, each in places.items()}
        dense = Perceptron(network.in_features, (7, 7), network.out_features, "relu")
        found = cost(members, parameters[:, : dense.num_parameters], step, dense)
    parts = network.split(parameters)
    order = [INPUT, "hidden.0", "hidden.1", OUTPUT]
    for member in range(3):
        total = 0.0
        for layer, (source, target) in enumerate(itertools.pairwise(order)):
            weight, bias = parts[f"weight.{layer}"][member], parts[f"bias.{layer}"][member]
            for i, j in itertools.product(range(weight.shape[0]), range(weight.shape[1])):
                length = abs(float(places[target][member, i]) - float(places[source][member, j]))
                total += abs(float(weight[i, j])) * ((0.5 + member) * length + 0.2)
            total += biases * 0.2 * float(bias.abs().sum())
        assert float(found[member]) == pytest.approx(factor * total, rel=1e-5)


@settings(deadline=None, max_examples=10)
@given(sizes=st.tuples(*[st.integers(1, 6)] * 3), recurrent=st.booleans(), seed=st.integers(0, 100))
def test_gain_of_each_exchange_is_the_difference_of_whole_lengths(
    sizes: tuple[int, int, int], recurrent: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    units = dict(zip(("a", "b", "c"), sizes, strict=True))
    places = {name: torch.rand(2, count, generator=generator).double() for name, count in units.items()}
    ends = [("a", "b"), ("b", "c"), *([("b", "b")] if recurrent else [])]
    edges = [
        Edges(source, target, torch.randn(2, units[target], units[source], generator=generator).double())
        for source, target in ends
    ]
    before = wiring_length(edges, places)
    for name, count in units.items():
        gains = swap_gains(edges, places, name)
        for j, k in itertools.product(range(count), repeat=2):
            order = list(range(count))
            order[j], order[k] = order[k], order[j]
            after = wiring_length(edges, {**places, name: places[name][:, order]})
            torch.testing.assert_close(gains[:, j, k], before - after, rtol=1e-9, atol=1e-9)


def test_connections_between_equal_places_have_no_length() -> None:
    straight = [Edges(INPUT, "hidden.0", torch.eye(5)[None]), Edges("hidden.0", OUTPUT, -torch.eye(5)[None])]
    assert float(wiring_length(straight, {})) == 0
    crossed = [Edges(INPUT, "hidden.0", torch.eye(5).flip(0)[None])]
    assert float(wiring_length(crossed, {})) == pytest.approx(2 * (0.8 + 0.4))


def test_a_round_shortens_wires_and_is_a_permutation_of_units_that_changes_no_output() -> None:
    """Exchanging places is exchanging all weights and biases of two units that stay where they are."""
    members = [make_placed(seed=seed, architecture__depth=2) for seed in range(4)]
    network, parameters = network_of(members[0]), some_parameters(members)
    assert isinstance(network, PlacedPerceptron)
    exchanged = WiringCost.rearranged(network, parameters, coefficients_of(members), 20)
    assert exchanged is not None
    assert exchanged.moments_of is None
    moved = exchanged.parameters
    inputs = torch.rand(4, 9, network.in_features)
    assert torch.equal(network.forward(moved, inputs), network.forward(parameters, inputs))
    assert (cost(members, moved, 0) < cost(members, parameters, 0) - 1e-3).all()

    # The same with places as they were, and whole units in another order.
    of_weights, of_biases = weight_places(network), bias_places(network)
    assert of_weights is not None
    assert of_biases is not None
    old, new = unit_places(network, parameters), unit_places(network, moved)
    permuted = parameters.clone()
    for member in range(4):
        names = list(old)
        # The unit that stands at each old place now.
        order = {
            name: (new[name][member][None] == old[name][member][:, None]).long().argmax(dim=1)
            for name in names
        }
        for layer, (source, target) in enumerate(itertools.pairwise(names)):
            rows, columns = order[target][:, None], order[source][None]
            permuted[member, of_weights[layer]] = parameters[member, of_weights[layer][rows, columns]]
            permuted[member, of_biases[layer]] = parameters[member, of_biases[layer][order[target]]]
        seen = network.forward(permuted[member][None], inputs[member][None][:, :, order[INPUT]])[0]
        expected = network.forward(parameters[member][None], inputs[member][None])[0][:, order[OUTPUT]]
        torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(cost(members, permuted, 0), cost(members, moved, 0))


def whole_cost(
    weights: list[Tensor], biases: list[Tensor], places: list[Tensor], with_biases: bool
) -> Tensor:
    """Return the cost of one network by its definition, with A = 1 and l0 = 0.1."""
    total = torch.zeros(())
    for weight, bias, (source, target) in zip(weights, biases, itertools.pairwise(places), strict=True):
        total = total + (weight.abs() * ((target[:, None] - source[None]).abs() + 0.1)).sum()
        total = total + 0.1 * bias.abs().sum() * with_biases
    return total


def brute_round(
    weights: list[Tensor], biases: list[Tensor], places: list[Tensor], candidates: int, turns: str
) -> None:
    """Take the strongest units of each layer, or who stands there, to the best place of all, by whole costs."""
    for layer, place in enumerate(places):
        strengths = torch.zeros(len(place))
        if layer > 0:
            strengths = strengths + weights[layer - 1].abs().sum(dim=1)
        if layer < len(weights):
            strengths = strengths + weights[layer].abs().sum(dim=0)
        strongest = strengths.argsort(descending=True)[:candidates].tolist()
        for strong, stood in zip(strongest, place[strongest].tolist(), strict=True):
            unit = place.tolist().index(stood) if turns == "places" else strong
            costs: list[float] = []
            for other in range(len(place)):
                place[[unit, other]] = place[[other, unit]]
                costs.append(float(whole_cost(weights, biases, places, True)))
                place[[unit, other]] = place[[other, unit]]
            best = min(range(len(place)), key=costs.__getitem__)
            if costs[best] < costs[unit] - 1e-5:
                place[[unit, best]] = place[[best, unit]]


@pytest.mark.parametrize("turns", ["units", "places"])
def test_training_is_a_plain_loop_with_exchanges_by_whole_costs(turns: str) -> None:
    member = make_member(
        {"task": "formulas", "architecture": "placed", "regulariser": "wiring"}, task__full_batch=20,
        architecture__width=6, data__num_samples=None, training__batch_size=20, training__steps=60,
        training__curve_every=10, training__learning_rate=5e-3, training__schedule="constant",
        regulariser__strength=0.02, regulariser__raised_by=3.0, regulariser__raised_from=15,
        regulariser__raised_until=45, regulariser__biases_from=30, regulariser__swap_every=20,
        regulariser__swap_candidates=5, regulariser__swap_turns=turns,
    )  # fmt: skip
    network = network_of(member)
    points = training_points(member.task, member_keys([member.seed]), 0, 20)[0]
    inputs, targets = points[:, :4], points[:, 4:]
    parts = [part[0].clone() for part in network.split(initialise([member], network)[1]).values()]
    weights, biases, places = parts[0:6:2], parts[1:6:2], parts[6:]
    trained = [each.requires_grad_() for each in (*weights, *biases)]
    optimiser = torch.optim.Adam(trained, lr=5e-3)
    for step in range(60):
        hidden = inputs
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = nn.functional.linear(hidden, weight, bias)
            hidden = nn.functional.silu(hidden) if layer < 2 else hidden
        strength = 0.02 * (3.0 if 15 <= step < 45 else 1.0)
        loss = (hidden - targets).square().mean() + strength * whole_cost(weights, biases, places, step >= 30)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 20 == 0:
            with torch.no_grad():
                brute_round(weights, biases, places, 5, turns)
    found = network.split(trained_parameters([member]))
    order = [INPUT, "hidden.0", "hidden.1", OUTPUT]
    assert any(not torch.equal(place, place.sort().values) for place in places)
    for name, place in zip(order, places, strict=True):
        assert torch.equal(found[f"place.{name}"][0], place)
    for layer in range(3):
        torch.testing.assert_close(found[f"weight.{layer}"][0], weights[layer].detach(), rtol=0, atol=1e-4)
        torch.testing.assert_close(found[f"bias.{layer}"][0], biases[layer].detach(), rtol=0, atol=1e-4)


def test_each_member_has_rounds_when_it_is_due() -> None:
    members = [
        make_placed(seed=seed, regulariser__swap_every=every) for seed, every in enumerate((0, 20, 30))
    ]
    parameters = some_parameters(members)
    for step, moved in ((10, []), (20, [1]), (30, [2]), (60, [1, 2])):
        after = WiringCost.rearranged(network_of(members[0]), parameters, coefficients_of(members), step)
        changed = (parameters if after is None else after.parameters) != parameters
        assert changed.any(dim=1).nonzero().flatten().tolist() == moved


def test_exchanges_without_a_cost_of_length_change_no_weight() -> None:
    with_rounds, without = (
        trained_parameters([make_placed(regulariser__distance_cost=0.0, regulariser__swap_every=every)])
        for every in (10, 0)
    )
    network = network_of(make_placed())
    trained = torch.cat([torch.full((part.size,), part.trained) for part in network.layout])
    assert torch.equal(with_rounds[:, trained], without[:, trained])
    assert not torch.equal(with_rounds[:, ~trained], without[:, ~trained])


def test_members_end_in_the_same_bits_alone_and_packed() -> None:
    check_packing(
        [
            make_placed(
                seed=seed, regulariser__swap_every=(0, 10, 10)[seed], regulariser__swap_candidates=2 + seed,
                regulariser__swap_moments=("units", "places", "places")[seed],
                regulariser__swap_turns=("units", "units", "places")[seed],
                regulariser__distance_cost=0.5 * seed, training__steps=20,
            )
            for seed in range(3)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("every", [10, 20])
def test_training_that_goes_on_after_or_before_an_exchange_ends_in_the_same_bits(every: int) -> None:
    members = [
        make_placed(seed=seed, regulariser__swap_every=every, regulariser__swap_moments=moments)
        for seed, moments in enumerate(("units", "places"))
    ]
    learner, data = prepared_learner(members)
    learner.training_step(data.chunk(0))
    resumed = PopulationLearner(members, "eager", CPU)
    resumed.load_state_dict(learner.state_dict())
    left = PopulationData(resumed.row_members, int(resumed.next_step), CPU)
    resumed.read_data(left.offsets, left.counts)
    resumed.on_fit_start()
    for index in range(left.num_chunks):
        resumed.training_step(left.chunk(index))
    assert torch.equal(resumed.member_parameters(), trained_parameters(members))


def test_uniform_initial_weights_and_biases_are_those_of_a_linear_layer_of_torch() -> None:
    member = make_placed(
        architecture__width=400, architecture__depth=2, architecture__initial_weights="uniform"
    )
    network = network_of(member)
    parts = network.split(initialise([member], network)[1])
    for layer, (rows, columns) in enumerate(network.layer_sizes):
        bound = columns**-0.5
        for part in (parts[f"weight.{layer}"][0], parts[f"bias.{layer}"][0]):
            assert float(part.abs().max()) < bound
        weights = parts[f"weight.{layer}"].flatten()
        if rows * columns > 1000:
            assert float(weights.var()) == pytest.approx(bound**2 / 3, rel=0.05)
            assert abs(float(weights.mean())) < 0.02 * bound * 3
    assert torch.equal(parts["place.input"][0], evenly_spaced(network.in_features))


def test_a_network_with_places_is_measured_and_tapped_as_a_perceptron() -> None:
    member = make_placed()
    check_taps(member)
    _, skipped = check_measures(member)
    assert skipped == check_measures(make_member({"architecture": "dense"}, architecture__width=7))[1]


def test_a_weight_is_worth_as_much_in_a_recurrent_network_the_farther_it_reaches() -> None:
    member = make_member(
        {"architecture": "recurrent", "regulariser": "wiring"}, architecture__width=6, regulariser__strength=0.01,
    )  # fmt: skip
    network = network_of(member)
    costs: list[float] = []
    for reach in range(6):
        parameters = torch.zeros(1, network.num_parameters)
        network.split(parameters)["recurrent.weight"][0, 0, reach] = 1.0
        costs.append(float(cost([member], parameters, 0)))
    assert costs == pytest.approx([0.1 + reach / 6 for reach in range(6)])


@pytest.mark.parametrize(
    ("choices", "changes", "words"),
    [
        ({"architecture": "dense"}, {}, "architecture=placed"),
        (
            {},
            {"training__curve_every": 15},
            "regulariser.swap_every=10 is not a multiple of training.curve_every=15",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    choices: dict[str, str], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make_member({"architecture": "placed", "regulariser": "wiring"} | choices, **(PLACED | changes))
