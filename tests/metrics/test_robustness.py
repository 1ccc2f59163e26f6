import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from populations import make_network, make_settings, make_shape, make_task, probe_of
from scipy import stats

from modulab.metrics.activity import measure_activity
from modulab.metrics.errors import mean_errors
from modulab.metrics.robustness import (
    ablate_units,
    ablation_order,
    measure_ablation,
    measure_gaussian,
    measure_input_noise,
    measure_multiplicative,
    measure_poisson,
    measure_poisson_counts,
    measure_poisson_energy,
    measure_weight_noise,
    poisson_count_rates,
    scale_weights,
    tolerance,
    weight_draws,
)
from modulab.streams import member_keys, normals
from modulab.tasks.base import mixing_matrix
from tests.perceptrons import Perceptrons, perceptrons, planted

LEVELS = [0.1, 0.2, 0.3, 0.5, 1.0]
ALL = [
    measure_gaussian,
    measure_poisson,
    measure_multiplicative,
    measure_poisson_counts,
    measure_poisson_energy,
    measure_weight_noise,
    measure_input_noise,
    measure_ablation,
]


def readout_variance(network: Perceptrons, variance: torch.Tensor) -> torch.Tensor:
    """Return the mean over points and outputs of sum_j W_oj^2 v_j: what noise adds to squared error."""
    return torch.einsum("moh,mhb->mob", network.weights[-1].square(), variance).mean(dim=(1, 2))


@pytest.mark.parametrize(
    ("measure", "name", "law"),
    [
        (measure_gaussian, "gaussian", (1, 0, 0)),
        (measure_poisson, "poisson", (0, 1, 0)),
        (measure_multiplicative, "multiplicative", (0, 0, 1)),
        (measure_poisson_counts, "poisson_counts", (0, 1, 0)),
    ],
)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_noise_on_one_hidden_layer_adds_the_variance_of_its_law(measure, name, law, activation) -> None:
    task = make_task()
    network = make_network(task, 20, members=2, activation=activation)
    probe = probe_of(task, network, num_samples=8_000)
    activity = probe.activities()[0]
    variance = law[0] + law[1] * activity.abs() + law[2] * activity.square()
    clean = mean_errors(probe.network, probe.samples, task)
    found = measure(probe)
    for level in LEVELS:
        expected = clean + level**2 * readout_variance(network, variance)
        torch.testing.assert_close(found[f"error_under/{name}@{level:g}"], expected, rtol=0.06, atol=0.005)


@pytest.mark.parametrize("measure", [measure_gaussian, measure_poisson, measure_poisson_counts])
def test_noise_reaches_every_hidden_layer(measure) -> None:
    task = make_task()
    network = make_network(task, 6, 5, members=2, activation="linear")
    dead_first = planted(
        (torch.zeros_like(network.weights[0]), *network.weights[1:]),
        (torch.zeros_like(network.biases[0]), *(bias + 0.5 for bias in network.biases[1:])),
        "linear",
    )
    found = measure(probe_of(task, dead_first))
    clean = mean_errors(dead_first, probe_of(task, dead_first).samples, task)
    assert (next(iter(found.values())) != clean).all()


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_poisson_count_rates_have_the_activity_as_mean_and_level_squared_times_it_as_variance(level) -> None:
    activity = torch.tensor([-2.0, -0.3, 0.0, 0.3, 1.0, 5.0])[None, :, None].expand(1, 6, 40_000)
    rates = poisson_count_rates(activity, level, normals(member_keys([4]), 6, 40_000))
    counts = rates.abs() / level**2
    torch.testing.assert_close(counts, counts.round(), rtol=1e-5, atol=1e-4)
    deviation = level * activity[0, :, 0].abs().sqrt()
    assert ((rates.mean(dim=2)[0] - activity[0, :, 0]).abs() <= 4.5 * deviation / math.sqrt(40_000)).all()
    torch.testing.assert_close(rates.var(dim=2)[0], deviation.square(), rtol=0.06, atol=0)


def test_weight_noise_is_relative_and_leaves_masked_weights_and_biases() -> None:
    network = make_network(make_task(), 40, 40, members=2, cross_connections=0.0)
    noisy = perceptrons(scale_weights(network, 0.3, weight_draws(network.network, member_keys([1, 2]))))
    factors = [new / old for new, old in zip(noisy.weights, network.weights, strict=True)]
    draws = torch.cat([((factor - 1) / 0.3).flatten() for factor in factors])
    draws = draws[torch.isfinite(draws)]
    assert stats.kstest(draws.numpy(), "norm").pvalue > 1e-3
    for new, old in zip(noisy.weights, network.weights, strict=True):
        assert torch.equal(new == 0, old == 0)
    assert all(torch.equal(new, old) for new, old in zip(noisy.biases, network.biases, strict=True))


def test_weight_noise_acts_on_weights_as_trained_where_the_task_mixes() -> None:
    # One linear map: noise adds level^2 sum_i W_oi^2 (Qx)_i^2, with W and Qx as the network sees them.
    task = make_task(code="mixed", modules=3)
    network = make_network(task, members=2)
    probe = probe_of(task, network, num_samples=6_000, repeats=6_000, levels=[0.5])
    seen = probe.samples.inputs @ mixing_matrix(task).T
    added = torch.einsum("moi,mbi->mbo", network.weights[0].square(), seen.square()).mean(dim=(1, 2)) * 0.25
    expected = mean_errors(probe.network, probe.samples, task) + added
    found = measure_weight_noise(probe)["error_under/weight_noise@0.5"]
    torch.testing.assert_close(found, expected, rtol=0.06, atol=0)


def test_input_noise_through_a_linear_map_adds_its_squared_weights() -> None:
    task = make_task()
    network = make_network(task)
    probe = probe_of(task, network, num_samples=40_000)
    clean = mean_errors(network, probe.samples, task)
    added = network.weights[0].square().sum(dim=2).mean(dim=1)
    found = measure_input_noise(probe)
    for level in LEVELS:
        torch.testing.assert_close(
            found[f"error_under/input_noise@{level:g}"], clean + level**2 * added, rtol=0.03, atol=0.003
        )


def test_ablation_silences_the_stated_share_and_keeps_those_lost_lost() -> None:
    order = ablation_order(make_network(make_task(), 20, 20, members=50).network, member_keys(range(50)))
    activity = torch.ones(50, 20, 3)
    before = activity
    for fraction, lost in [(0.01, 1), (0.05, 1), (0.1, 2), (0.5, 10), (0.95, 19)]:
        kept = ablate_units(fraction, order)("hidden.0", activity)
        assert (kept[:, :, 0] == 0).sum(dim=1).tolist() == [lost] * 50
        assert (kept <= before).all()
        before = kept
    half = ablate_units(0.5, order)
    assert not torch.equal(half("hidden.0", activity), half("hidden.1", activity))
    often_lost = (half("hidden.0", activity)[:, :, 0] == 0).float().mean(dim=0)
    assert ((often_lost > 0.2) & (often_lost < 0.8)).all()


@pytest.mark.parametrize("repeats", [1, 3, 16, 200])
def test_shares_of_points_cover_every_point_once(repeats: int) -> None:
    # Without biases and with all hidden units alike, it does not matter which unit is lost.
    task = make_task()
    ones = torch.ones(2, 4, 2), torch.ones(2, 2, 4)
    network = planted(ones, (torch.zeros(2, 4), torch.zeros(2, 2)), "tanh")
    probe = probe_of(task, network, num_samples=100, repeats=repeats, ablated_fractions=[0.25, 0.5])
    found = measure_ablation(probe)
    for fraction in (0.25, 0.5):
        fewer = planted((ones[0], ones[1] * (1 - fraction)), network.biases, "tanh")
        torch.testing.assert_close(
            found[f"error_under/ablation@{fraction:g}"], mean_errors(fewer, probe.samples, task)
        )


@pytest.mark.parametrize("measure", ALL)
def test_levels_that_are_left_out_do_not_change_the_others(measure) -> None:
    task = make_task()
    network = make_network(task, 10, 8)
    full = measure(probe_of(task, network, levels=LEVELS, ablated_fractions=[0.1, 0.3]))
    fewer = measure(probe_of(task, network, levels=[0.3], ablated_fractions=[0.3]))
    for name in fewer:
        assert "tolerance" in name or torch.equal(fewer[name], full[name])


@pytest.mark.parametrize("floor", [1e-3, 0.05])
def test_tolerance_of_error_quadratic_in_level_is_exact(floor: float) -> None:
    clean = torch.tensor([0.01, 0.02, 0.0], dtype=torch.float64)
    slope = torch.tensor([0.3, 1.7, 9.0], dtype=torch.float64)
    errors = clean[:, None] + slope[:, None] * torch.tensor(LEVELS, dtype=torch.float64).square()
    closed_form = ((2 * clean.clamp(min=floor) - clean) / slope).sqrt()
    torch.testing.assert_close(tolerance(LEVELS, errors, clean, floor), closed_form)


def test_tolerance_of_error_linear_in_fraction_is_exact() -> None:
    clean = torch.tensor([0.02, 0.03], dtype=torch.float64)
    errors = clean[:, None] + 0.1 * torch.tensor([[0.05, 0.1, 0.4], [0.05, 0.1, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(
        tolerance([0.05, 0.1, 0.4], errors, clean, 0.01, squared=False), clean / 0.1, rtol=1e-9, atol=0
    )


def test_tolerance_is_the_first_crossing_the_last_level_or_nan() -> None:
    nan, inf = torch.nan, torch.inf
    errors = torch.tensor(
        [
            [0.5, 0.0, 0.5, 0.5, 0.5],  # first crossing, though it comes back
            [0.1, 0.1, 0.1, 0.1, 0.1],  # never
            [0.1, 0.1, inf, inf, inf],  # overflow counts as a crossing, at the level before
            [nan, nan, nan, nan, nan],
            [inf, inf, inf, inf, inf],
        ]
    )
    found = tolerance(LEVELS, errors, torch.tensor([0.1, 0.1, 0.1, nan, inf]), 0.01)
    assert found[0].item() == pytest.approx(0.1 * math.sqrt(0.25))
    assert found[1].item() == 1.0
    assert found[2].item() == pytest.approx(0.2)
    assert found[3:].isnan().all()


def test_perturbations_of_hidden_units_leave_a_network_without_any_as_it_is() -> None:
    task = make_task()
    probe = probe_of(task, make_network(task))
    clean = mean_errors(probe.network, probe.samples, task)
    for measure in (*ALL[:5], measure_ablation):
        for name, values in measure(probe).items():
            if "@" in name:
                torch.testing.assert_close(values, clean)


def test_names_follow_the_levels() -> None:
    task = make_task()
    probe = probe_of(task, make_network(task, 6), levels=[0.3, 1.0], ablated_fractions=[])
    assert list(measure_poisson(probe)) == [
        "error_under/poisson@0.3",
        "error_under/poisson@1",
        "robustness/poisson/tolerance",
    ]
    assert measure_ablation(probe) == {}
    assert make_settings().levels == LEVELS
    assert make_shape(task, 6).num_parameters == sum(
        weight[0].numel() + bias[0].numel()
        for weight, bias in zip(probe.network.weights, probe.network.biases, strict=True)
    )
    assert probe.network.forward(probe.samples.inputs).shape == (3, 1024, 2)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_poisson_noise_at_equal_energy_adds_the_variance_of_its_law(activation: str) -> None:
    task = make_task()
    network = make_network(task, 20, members=2, activation=activation)
    probe = probe_of(task, network, num_samples=8_000, levels=[1.0])
    activity = probe.activities()[0]
    variance = activity.abs() * activity.abs().mean(dim=(1, 2), keepdim=True)
    expected = readout_variance(network, variance)
    rise = measure_poisson_energy(probe)["error_under/poisson_energy@1"] - mean_errors(
        network, probe.samples, task
    )
    torch.testing.assert_close(rise, expected, rtol=0.1, atol=0.0)


def rescaled(network: Perceptrons, factors: list[torch.Tensor]) -> Perceptrons:
    """Return relu networks of the same function, the activity of each layer's units times a factor."""
    weights, biases = list(network.weights), list(network.biases)
    for layer, factor in enumerate(factors):
        weights[layer] = weights[layer] * factor[:, None]
        weights[layer + 1] = weights[layer + 1] / factor
        biases[layer] = biases[layer] * factor
    return planted(weights, biases, "relu")


@settings(max_examples=8)
@example(exponents=[3, -2])
@given(exponents=st.lists(st.integers(-5, 5), min_size=2, max_size=2))
def test_noise_at_equal_energy_does_not_see_the_scale_of_a_relu_layer(exponents: list[int]) -> None:
    # Powers of 4: their roots are exact, so that rounding is the same.
    task = make_task()
    network = make_network(task, 7, 6)
    factors = [torch.full((width,), 4.0**power) for width, power in zip((7, 6), exponents, strict=True)]
    probes = [probe_of(task, each, num_samples=64) for each in (network, rescaled(network, factors))]
    expected, found = map(measure_poisson_energy, probes)
    for name, values in expected.items():
        assert torch.equal(found[name], values), name
    before, plain = (measure_poisson(probe)["error_under/poisson@0.3"] for probe in probes)
    assert torch.equal(before, plain) == (exponents == [0, 0])


@pytest.mark.parametrize("exponent", [66, 120])
def test_noise_at_equal_energy_is_finite_where_sums_or_squares_of_activity_are_not(exponent: int) -> None:
    task = make_task()
    plain = make_network(task, 12, members=2)
    scale = torch.tensor([2.0**exponent, 1.0])[:, None]
    (first, last), (bias, shift) = plain.weights, plain.biases
    large = planted([first * scale[..., None], last / scale[..., None]], [bias * scale, shift], "relu")
    for measure, names in (
        (measure_poisson_energy, None),
        (measure_multiplicative, None),
        (measure_activity, ["activity/active_units"]),
    ):
        found, expected = (measure(probe_of(task, each)) for each in (large, plain))
        for name in names or expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=0)
            assert found[name][1] == expected[name][1]
    means = [measure_activity(probe_of(task, each))["activity/mean"] for each in (large, plain)]
    torch.testing.assert_close(means[0], means[1] * scale[:, 0], rtol=1e-5, atol=0)


def test_noise_at_equal_energy_sees_the_scale_of_one_unit_among_others() -> None:
    task = make_task()
    network = make_network(task, 7)
    other = rescaled(network, [torch.tensor([16.0, *[1.0] * 6])])
    name = "error_under/poisson_energy@0.3"
    found, before = (measure_poisson_energy(probe_of(task, each))[name] for each in (other, network))
    assert ((found / before - 1).abs() > 0.01).all()


def test_poisson_noise_and_that_at_equal_energy_differ_by_mean_activity_alone() -> None:
    task = make_task()
    network = make_network(task, 9, members=1)
    level = 0.5 * math.sqrt(float(probe_of(task, network).activities()[0].mean()))
    plain = measure_poisson(probe_of(task, network, levels=[level]))[f"error_under/poisson@{level:g}"]
    energy = measure_poisson_energy(probe_of(task, network, levels=[0.5]))["error_under/poisson_energy@0.5"]
    torch.testing.assert_close(energy, plain)
