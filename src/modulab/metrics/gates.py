"""How a gate uses its experts, and how far a robust mixture is from the best that there is."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from modulab.metrics.capacity import channel_capacity, robust_value
from modulab.metrics.measure import Column, Measure, measure
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.networks.gated_mixture import DENSITY, GatedMixture
from modulab.tasks.base import Task
from modulab.tasks.domains import DomainsTask

_LEAST_INFORMATION = 1e-9
"""Mutual information in nats of symbols and domains below which it is rounding, and domains are equal."""


def mutual_information(
    joint: Float64[Tensor, "member row column"],
) -> Float64[Tensor, " member"]:
    """Return the mutual information of rows and columns in nats, from their joint probabilities."""
    product = joint.sum(dim=2, keepdim=True) * joint.sum(dim=1, keepdim=True)
    return (torch.xlogy(joint, joint) - torch.xlogy(joint, product)).sum(dim=(1, 2))


def alignment(joint: Float64[Tensor, "member expert module"]) -> Float64[Tensor, " member"]:
    """Return how well experts match modules one to one: 1 if perfectly, 0 if they are independent of them.

    The best assignment's share of the joint probability (H. Kuhn, 1955), scaled from 1/K to 1.
    """
    values: list[float] = []
    for table in joint.cpu().numpy():
        finite = bool(torch.from_numpy(table).isfinite().all())
        rows, columns = linear_sum_assignment(table, maximize=True) if finite else ([0], [0])
        values.append(float(table[rows, columns].sum()) if finite else math.nan)
    chance = 1 / joint.shape[2]
    return (torch.tensor(values, dtype=torch.float64, device=joint.device) - chance) / (1 - chance)


@measure(
    Column("gate/effective_experts", "Effective number of experts"),
    Column("gate/input_dependence", "Information of gate on input (nats)"),
    needs=("gate",),
)
def measure_gate_use(probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
    """Return how many experts a gate uses, and how much of it depends on the input.

    With H the entropy in nats and g(x) the shares, over samples x and their positions:

    - `gate/effective_experts`: exp H(E g(x)), 1 where the gate has collapsed and K where all experts count alike.
    - `gate/input_dependence`: H(E g(x)) - E H(g(x)), 0 where all samples have the same shares.
    """
    name = probe.network.network.gate_name
    assert name is not None
    shares = probe.clean.used(name).double()
    mean_entropy = torch.special.entr(shares).sum(dim=1).mean(dim=1)
    mean = shares.mean(dim=2)
    entropy = torch.special.entr(mean).sum(dim=1)
    return {
        "gate/effective_experts": entropy.exp(),
        "gate/input_dependence": (entropy - mean_entropy).clamp(min=0),
    }


class RobustMixture(Measure):
    """The worst divergence of a mixture, the capacity of its domains, and how well its experts match them."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return gate."""
        return ("gate",)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for its values."""
        return (
            Column("error/worst_domain", "Divergence of the worst domain (nats)"),
            Column("domains/capacity", "Capacity of the domains (nats)"),
            Column("domains/capacity_experts", "Effective number of experts at capacity"),
            Column("domains/value", "Smallest possible worst divergence with these experts (nats)"),
            Column("error/worst_domain_excess", "Worst divergence above the smallest possible (nats)"),
            Column("domains/specialisation", "Specialisation of experts", ends_at_one=True),
            Column("domains/alignment", "Alignment of experts and domains", ends_at_one=True),
        )

    def lacking(self, network: Network, task: Task) -> str | None:
        """Return that a network mixes no densities of domains, if so."""
        if not isinstance(task, DomainsTask) or not isinstance(network, GatedMixture):
            return "the network does not mix densities of domains"
        return super().lacking(network, task)

    def take(self, probe: Probe) -> dict[str, Float64[Tensor, " member"]]:
        """Return divergences, and how much is known of the domain of a symbol from the expert that it came from.

        Domains are equally frequent, and a symbol x comes from expert j with probability g_j(x) e_j(x) / q(x).

        - `error/worst_domain`: max_k KL(P_k || q), and `domains/capacity`, below which no q can bring it.
        - `domains/capacity_experts`: exp H(w), with w the weights of domains that attain the capacity.
        - `domains/value`: the least that a gate of this kind can bring it to with the task's experts or, where they are
          trained, the capacity. `error/worst_domain_excess`: by how much the network misses that.
        - `domains/specialisation`: the information between expert and domain, as a share of that between symbol and
          domain, of which it is at most all. NaN with equal domains.
        - `domains/alignment`: see `alignment`.
        """
        assert isinstance(probe.task, DomainsTask)
        task = probe.task
        divergences = task.loss_function.by_module(
            probe.clean.outputs.double(), probe.samples.targets.double(), task.partition
        )
        worst = divergences.amax(dim=1)
        domains = task.domains().double().to(worst.device)
        [capacity], weights = channel_capacity(domains[None])
        capacity = capacity.expand(len(worst))
        value = self._value(probe, capacity)
        joint = self._experts_and_domains(probe, domains)
        known = mutual_information((domains / len(domains))[None])
        share = torch.where(known > _LEAST_INFORMATION, mutual_information(joint) / known, torch.nan)
        return {
            "error/worst_domain": worst,
            "domains/capacity": capacity,
            "domains/capacity_experts": torch.special.entr(weights).sum(dim=1).exp().expand(len(worst)),
            "domains/value": value,
            "error/worst_domain_excess": worst - value,
            "domains/specialisation": share,
            "domains/alignment": alignment(joint),
        }

    @staticmethod
    def _value(probe: Probe, capacity: Float64[Tensor, " member"]) -> Float64[Tensor, " member"]:
        network, task = probe.network.network, probe.task
        assert isinstance(network, GatedMixture)
        assert isinstance(task, DomainsTask)
        if network.trains_densities:
            return capacity
        return torch.full_like(capacity, robust_value(task.domains(), task.experts(), network.sees_symbols))

    @staticmethod
    def _experts_and_domains(
        probe: Probe, domains: Float64[Tensor, "module symbol"]
    ) -> Float64[Tensor, "member expert module"]:
        name = probe.network.network.gate_name
        assert name is not None
        terms = probe.clean.used(name).double() * probe.clean.used(DENSITY).double()
        terms = terms.unflatten(2, (-1, domains.shape[1]))[:, :, 0]
        origins = terms / terms.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        return torch.einsum("mes,ks->mek", origins, domains) / len(domains)
