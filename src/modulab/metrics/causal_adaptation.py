"""How far adapted causal models are from the distribution after a change, and how far they are expected to be."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from scipy.special import digamma
from torch import Tensor

from modulab.metrics.measure import Column, Measure
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.networks.conditionals import Conditionals
from modulab.tasks.base import Task
from modulab.tasks.causal import CausalTask, conditionals


def expected_divergence(observations: int, parents: int) -> float:
    """Return the expected KL of a linear Gaussian conditional that was fitted by maximum likelihood, in nats.

    With n observations of p jointly Gaussian parents, of an intercept and of the noise's variance,

        (psi((n - p - 1) / 2) + ln(2 / n) + n / (n - p - 3) * (1 + (n p + n - 2) / (n (n - p - 2))) - 1) / 2

    as n times the fitted variance is the true one times a chi-squared number of n - p - 1 degrees of freedom, whatever
    the coefficients' error, which adds 1/n + (1 + 1/n) p / (n - p - 2) of it (inverse Wishart). For large n that is
    (p + 2) / (2 n), half a nat for each parameter and observation. Infinite where n is p + 3 or less.
    """
    n, p = observations, parents
    if n <= p + 3:
        return math.inf
    excess = (n * p + n - 2) / (n * (n - p - 2))
    return float(digamma((n - p - 1) / 2) + math.log(2 / n) + n / (n - p - 3) * (1 + excess) - 1) / 2


class Adaptation(Measure):
    """The divergence of adapted conditionals, and its closed form."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (
            Column("adaptation/divergence", "Divergence after adaptation (nats)"),
            Column("adaptation/expected", "Expected divergence (nats)"),
            Column("adaptation/before", "Divergence before adaptation (nats)"),
        )

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return that a network does not model variables of a causal task, if so."""
        if not isinstance(task, CausalTask) or not isinstance(network, Conditionals):
            return "the network does not model causal mechanisms"
        return super().lacking(network, task)

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return divergences of the distribution after the change from the model, over all variables.

        - `adaptation/divergence`: KL of the trained model, exact.
        - `adaptation/expected`: its mean over data sets where training ends at the maximum of the likelihood: that of
          each conditional that is updated, and that of the others, which were not changed.
        - `adaptation/before`: KL of the model as it was.
        """
        assert isinstance(probe.task, CausalTask)
        task = probe.task
        stale = _stale_divergences(task).to(probe.mask.device)
        fitted = torch.tensor(
            [expected_divergence(task.observations, parents) for parents in range(task.modules)],
            dtype=torch.float64,
            device=stale.device,
        )
        is_updated = probe.seen_network.network.split(probe.mask)["change.log_variance"] > 0
        errors = task.loss_function.by_module(
            probe.clean.outputs.double(), probe.samples.targets.double(), task.partition
        )
        return {
            "adaptation/divergence": errors.sum(dim=1),
            "adaptation/expected": torch.where(is_updated, fitted, stale).sum(dim=1),
            "adaptation/before": stale.sum().expand(len(errors)),
        }


def _stale_divergences(task: CausalTask) -> Float64[Tensor, " variable"]:
    """Return the expected KL, after the change, of each conditional as it was before."""
    moments = task.shown(task.mechanisms(after=True).moments())
    before, log_before = conditionals(task.shown(task.mechanisms(after=False).moments()))
    _, log_after = conditionals(moments)
    residual = torch.eye(task.modules, task.modules + 1, dtype=torch.float64).roll(1, dims=1) - before
    squares = ((residual @ moments) * residual).sum(dim=1)
    return (log_before - log_after + squares / log_before.exp() - 1) / 2
