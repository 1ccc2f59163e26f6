"""Cut all connections between modules, and measure the rise of test error.

Connections between units of different modules are set to 0, and biases stay. The same is done with random partitions of
equal sizes: the labels of the units at each site are permuted, and inputs and outputs keep theirs. Units that serve no
module keep all of their connections.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from pydantic import Field
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained
from modulab.analysis.labels import Labels, LabelSource, find_labels, labels_lacking, within
from modulab.config.settings import Member
from modulab.metrics.measure import Column
from modulab.metrics.probe import Probe
from modulab.networks.base import Network
from modulab.networks.parameter_places import NO_PLACES, weight_places
from modulab.streams import Stream, fold_in, uniforms

_SECONDS_PER_VALUE = 6e-9
"""Time of a forward pass for each value of a sample at a site."""


class Cut(Analysis):
    """The rise of test error when all connections between modules are cut, against random partitions."""

    labels: LabelSource = Field(description="dotted path of the function that assigns units to modules")
    partitions: int = Field(ge=1, description="number of random partitions of equal sizes for comparison")

    @property
    def needs(self) -> tuple[str, ...]:
        """Return edges and output_modules."""
        return ("edges", "output_modules")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the mean over modules, and for each module."""
        return (
            Column("rise", "Rise of error when modules are cut apart"),
            Column("rise_random", "Rise of error when random modules are cut apart"),
            Column("z", "Rise when cut apart, against random modules (z)"),
            Column("p", "Rise when cut apart, against random modules (p)", ends_at_one=True),
            Column("rise_module_{module}", "Rise of error of module {module} when cut off"),
            Column("rise_random_module_{module}", "Rise of error of module {module} in random partitions"),
            Column("z_module_{module}", "Rise of module {module}, against random modules (z)"),
            Column(
                "p_module_{module}", "Rise of module {module}, against random modules (p)", ends_at_one=True
            ),
        )

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why connections cannot be cut."""
        unplaced = NO_PLACES if weight_places(network) is None else None
        return (
            super().lacking(network, member) or unplaced or labels_lacking(self.labels, network, member.task)
        )

    def seconds(self, network: Network, member: Member) -> float:
        """Return about how long passes of all cut networks take."""
        values = network.step_units * member.probes.num_samples
        return _SECONDS_PER_VALUE * values * (self.partitions + 1)

    def take(self, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
        """Return rises of error, their mean over random partitions, and how the two compare.

        z = (rise - mean) / standard deviation over random partitions, and p = (1 + number of random partitions whose
        rise is as small or smaller) / (1 + number of random partitions): small if cutting along modules loses less
        than cutting across them (B. Phipson and G. Smyth, "Permutation p-values should never be zero", 2010).
        """
        probe = trained.probe
        labels = find_labels(self.labels)(probe)
        clean = _errors(probe, probe.network.parameters)
        rises = _errors(probe, cut_apart(probe, labels)) - clean
        drawn: list[Tensor] = []
        for draw in range(self.partitions):
            probe.tell(f"random partitions, {draw + 1} of {self.partitions}")
            drawn.append(_errors(probe, cut_apart(probe, permuted(probe, labels, draw))) - clean)
        found = compare("", rises.mean(dim=1), torch.stack([each.mean(dim=1) for each in drawn]))
        for module in range(probe.task.modules):
            own = torch.stack([each[:, module] for each in drawn])
            found |= compare(f"_module_{module + 1}", rises[:, module], own)
        return found


def compare(
    end: str, rise: Float64[Tensor, " member"], random: Float64[Tensor, "draw member"]
) -> dict[str, Float64[Tensor, " member"]]:
    """Return a rise, its mean in random partitions, z and p; z is NaN where all random partitions give the same."""
    # A sum over the innermost axis adds in an order that does not depend on how many members there are.
    drawn = random.T.contiguous()
    spread = drawn.std(dim=1) if len(random) > 1 else torch.full_like(rise, torch.nan)
    mean = drawn.mean(dim=1)
    smaller = (drawn <= rise[:, None]).sum(dim=1)
    return {
        f"rise{end}": rise,
        f"rise_random{end}": mean,
        f"z{end}": torch.where(spread > 0, (rise - mean) / spread, torch.nan),
        f"p{end}": torch.where(rise.isfinite(), (1 + smaller) / (1 + len(random)), torch.nan),
    }


def cut_apart(probe: Probe, labels: Labels) -> Float[Tensor, "member parameter"]:
    """Return the parameters with 0 for each weight between units of different modules."""
    network = probe.network.network
    places = weight_places(network)
    assert places is not None
    kept = torch.ones_like(probe.network.parameters)
    for (source, target), own in zip(network.connections, places, strict=True):
        kept[:, own.flatten().to(kept.device)] = within(labels[target], labels[source]).flatten(1).float()
    return probe.network.parameters * kept


def permuted(probe: Probe, labels: Labels, draw: int) -> dict[str, Int64[Tensor, "member _unit"]]:
    """Return labels that are permuted over the units of each site, by a permutation of each member's own."""
    keys = fold_in(fold_in(probe.keys, Stream.CUT), draw)
    changed = dict(labels)
    for number, site in enumerate(probe.network.network.sites):
        counters = torch.arange(site.units, dtype=torch.int32, device=keys.device).expand(len(keys), -1)
        order = torch.argsort(uniforms(fold_in(keys, number), counters), dim=1, stable=True)
        changed[site.name] = labels[site.name].gather(1, order)
    return changed


def _errors(probe: Probe, parameters: Float[Tensor, "member parameter"]) -> Float64[Tensor, "member module"]:
    task = probe.task
    outputs = probe.network.network.forward(parameters, probe.samples.inputs)
    return task.loss_function.errors(outputs, probe.samples.targets, task.partition).double()
