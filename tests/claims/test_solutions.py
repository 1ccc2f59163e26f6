"""With what probability training finds a modular solution: counted, given its exact interval, and predicted."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from modulab.claims.evidence import Evidence
from modulab.claims.presets import REPLICATION, experiment_overrides
from modulab.claims.solutions import (
    CLAIM,
    LEARNED,
    MODULAR,
    MODULES,
    NOISES,
    PREDICTED,
    UNITS,
    Exponent,
    LogRatio,
    Point,
    clopper_pearson,
    proportion,
)
from modulab.claims.volume import ModularVolume, aligned_modularity


def test_a_count_takes_networks_that_are_modular_and_have_learned_out_of_all_that_were_trained() -> None:
    rows = [  # status, error, scaled excess, counted as learned, as modular
        ("completed", 0.5 * LEARNED, 0.6),
        ("completed", 0.5 * LEARNED, 0.4),
        ("completed", 2.0 * LEARNED, 0.9),
        ("completed", 0.5 * LEARNED, math.nan),
        ("diverged", math.nan, math.nan),
        ("missing", 0.5 * LEARNED, 0.9),
    ]
    results = pd.DataFrame(rows, columns=["status", "error/test", "modularity/structural_excess_scaled"])
    results["config.task.modules"] = 2
    results["config.architecture.width"] = 8
    results["config.noise.scale"] = 0.4
    other = results.assign(**{"config.noise.scale": 0.0})
    evidence = {"solutions": Evidence(pd.concat([results, other], ignore_index=True))}
    assert Point(2, 4, 0.4).counts(evidence) == (5, 3, 1)


def test_a_page_shows_upper_ends_where_no_network_is_modular_and_the_counts_of_each_point() -> None:
    rows = [
        (
            "completed" if units == 2 and modules < 4 else "failed", 0.5 * LEARNED,
            0.9 if modules == 2 and seed == 0 else 0.1, modules, units * modules, noise,
        )
        for noise in NOISES for units in UNITS for modules in MODULES for seed in range(2)
    ]  # fmt: skip
    columns = ["status", "error/test", "modularity/structural_excess_scaled"]
    keys = ["config.task.modules", "config.architecture.width", "config.noise.scale"]
    evidence = {"solutions": Evidence(pd.DataFrame(rows, columns=[*columns, *keys]))}
    [figure] = CLAIM.draw(evidence)
    assert figure.chart is not None
    for panel in figure.chart.panels:
        shown = panel.rows.set_index("shown")
        low, high = clopper_pearson(1, 2, 0.95)
        assert shown.loc["mean", ["y", "value", "y_low", "y_high"]].tolist() == [0.5, 0.5, low, high]
        high = clopper_pearson(0, 2, 0.95)[1]
        assert shown.loc["limit", ["y", "value", "y_low", "y_high"]].tolist() == [high, 0, 0, high]
        assert "2 trained, 2 learned the task, 0 modular" in str(shown.loc["limit", "words"])
    quiet, noisy = (panel.rows.set_index("shown") for panel in figure.chart.panels)
    assert f"predicted for isotropic directions: {PREDICTED[2, 2]:.2g}" in str(quiet.loc["mean", "words"])
    assert "guide" in quiet.index
    assert "guide" not in noisy.index


@pytest.mark.parametrize("trained", [5, 40])
@pytest.mark.parametrize("level", [0.9, 0.975])
def test_the_interval_of_a_probability_covers_at_every_probability(trained: int, level: float) -> None:
    intervals = np.array([clopper_pearson(found, trained, level) for found in range(trained + 1)])
    for probability in np.linspace(0.001, 0.999, 97):
        covered = (intervals[:, 0] <= probability) & (probability <= intervals[:, 1])
        assert binom.pmf(np.arange(trained + 1), trained, probability)[covered].sum() >= level


def test_where_no_network_is_modular_the_interval_ends_where_that_has_half_the_error_rate() -> None:
    low, high = clopper_pearson(0, 10_000, 0.95)
    assert low == 0
    assert (1 - high) ** 10_000 == pytest.approx(0.025)


def test_the_interval_of_a_ratio_covers_the_ratio_of_the_probabilities() -> None:
    random = np.random.default_rng(0)
    first, second = 0.02, 0.3
    counts = random.binomial(100, [first, second], size=(400, 2)).tolist()
    ends = [LogRatio.of(proportion(one, 100), proportion(other, 100)).interval(0.95) for one, other in counts]
    covered = [low <= math.log(first / second) <= high for low, high in ends]
    assert np.mean(covered) >= 0.95


def test_a_ratio_of_none_found_to_many_has_no_lower_end() -> None:
    low, high = LogRatio.of(proportion(0, 200), proportion(160, 200)).interval(0.95)
    assert low == -math.inf
    assert high < math.log(1 / 16)


def test_the_interval_of_an_exponent_covers_it() -> None:
    random = np.random.default_rng(0)
    counts = random.binomial(100, [0.3**2, 0.3], size=(400, 2)).tolist()
    ends = [Exponent.of(proportion(one, 100), proportion(other, 100)).interval(0.95) for one, other in counts]
    assert np.mean([low <= 2 <= high for low, high in ends]) >= 0.95
    assert Exponent.of(proportion(900, 10_000), proportion(3_000, 10_000)).value == pytest.approx(2, rel=1e-3)


def test_where_no_network_is_modular_the_exponent_has_a_lower_end_only() -> None:
    low, high = Exponent.of(proportion(0, 10_000), proportion(1_000, 10_000)).interval(0.95)
    assert 3 < low < high == math.inf


@pytest.mark.parametrize("modules", [2, 3, 4, 6])
def test_directions_are_drawn_uniformly_from_the_sphere(modules: int) -> None:
    norms, weights = ModularVolume(modules, MODULAR).sphere
    assert weights.sum() == pytest.approx(1, abs=0.01)
    assert weights @ norms == pytest.approx(1 + (modules - 1) * 2 / math.pi, rel=0.01)


@pytest.mark.parametrize(("modules", "units"), [(2, 4), (2, 6), (3, 3)])
def test_the_predicted_probability_is_that_of_simulated_networks_of_aligned_units(
    modules: int, units: int
) -> None:
    directions = np.random.default_rng(0).normal(size=(200_000, units, modules))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    strength = np.einsum("njk,njm->nkm", np.abs(directions), np.abs(directions))
    share = np.trace(strength, axis1=1, axis2=2) / strength.sum(axis=(1, 2))
    structural = (share - 1 / modules) / (1 - 1 / modules)
    null = aligned_modularity(modules)
    found = float(((structural - null) / (1 - null) > MODULAR).mean())
    assert ModularVolume(modules, MODULAR).probability(units) == pytest.approx(found, rel=0.35)


def test_the_predictions_of_the_claim_follow_from_the_volume() -> None:
    for (units, modules), predicted in PREDICTED.items():
        found = ModularVolume(modules, MODULAR).probability(units * modules)
        assert found == pytest.approx(predicted, rel=0.02)


def test_full_size_is_10_000_seeds_of_the_experiment_as_it_stands() -> None:
    assert experiment_overrides("solutions", "full") == [
        "experiment=claims/solutions",
        "population.seeds=10000",
        f"seed={REPLICATION}",
    ]
