"""The cost of a neural code equals its formula, term by term."""

from __future__ import annotations

import pytest
import torch

from modulab.energy import EnergyRegulariser
from tests.perceptrons import Perceptrons, passed, trace
from tests.test_regularisers import MEMBERS, example, values


@pytest.mark.parametrize(
    ("energy", "nonnegativity", "weights"),
    [(2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 2.0), (0.1, 0.7, 0.3)],
)
def test_cost_is_the_sum_of_its_definition(energy: float, nonnegativity: float, weights: float) -> None:
    _, network, mask, inputs = example(2, "linear")
    assert isinstance(network, Perceptrons)
    coefficients = values(strength=1, energy=energy, nonnegativity=nonnegativity, weights=weights)
    found = EnergyRegulariser.penalty(passed(network, mask.parameters, inputs), coefficients, "")
    activities = trace(network, inputs).activities
    for member in range(MEMBERS):
        total = 0.0
        for activity in activities:
            for unit in activity[member]:
                total += energy / 2 * float((unit**2).mean())
                total += nonnegativity * sum(max(0.0, -float(value)) for value in unit) / len(unit)
        for weight in network.weights:
            total += weights / 2 * float((weight[member] ** 2).sum())
        assert float(found[member]) == pytest.approx(total, rel=1e-5)


def test_gradient_is_finite_where_activity_is_zero() -> None:
    _, network, mask, inputs = example(1, "linear")
    silent = Perceptrons(network.network, torch.zeros_like(network.parameters).requires_grad_())
    coefficients = values(strength=1, energy=1, nonnegativity=1, weights=1)
    EnergyRegulariser.penalty(passed(silent, mask.parameters, inputs), coefficients, "").sum().backward()
    assert silent.parameters.grad is not None
    assert silent.parameters.grad.isfinite().all()
