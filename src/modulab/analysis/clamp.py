"""Scale or clamp the units of one module, and measure which outputs change.

The activity a of a module's units is passed on as f a (`scale`), or as f times each unit's mean activity whatever the
input is (`clamp`), with factors f from 0 to 2. The change of an output is the root mean square of its difference from
the undisturbed output, in standard deviations of that. Outputs of the module itself, and those of all others, are
averaged apart, and those of each module as well: a matrix of modules whose units are disturbed by modules whose outputs
change.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float64
from pydantic import Field, field_validator
from torch import Tensor

from modulab.analysis.analysis import Analysis, Trained
from modulab.analysis.labels import Labels, LabelSource, find_labels, labels_lacking
from modulab.config.settings import Member
from modulab.metrics.measure import Column
from modulab.metrics.probe import Probe
from modulab.networks.base import OUTPUT, Network
from modulab.partition import SHARED

_SECONDS_PER_VALUE = 6e-9
"""Time of a forward pass for each value of a sample at a site."""


class Clamp(Analysis):
    """Which outputs change when one module's units are scaled, or clamped to a multiple of their mean."""

    labels: LabelSource = Field(description="dotted path of the function that assigns units to modules")
    operation: Literal["scale", "clamp"] = Field(
        description="scale multiplies activity by the factor; clamp fixes it at the factor times its mean"
    )
    factors: list[float] = Field(min_length=1, description="factors from 0 to 2, in rising order")
    sites: Literal["last", "all"] = Field(
        description="the sites at which units are disturbed: only the last one, whose units the outputs "
        "read, or all"
    )

    @field_validator("factors")
    @classmethod
    def _rising(cls, factors: list[float]) -> list[float]:
        if sorted(set(factors)) != factors or not all(0 <= factor <= 2 for factor in factors):
            raise ValueError(f"{factors}: factors must be from 0 to 2, in rising order without repetition.")
        return factors

    @property
    def needs(self) -> tuple[str, ...]:
        """Return sites and output_modules."""
        return ("sites", "output_modules")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the words for the change at each factor, and for all factors together."""
        return (
            Column("own@{factor}", "Change of own outputs at factor {factor}", "Change of own outputs"),
            Column(
                "others@{factor}", "Change of other modules' outputs at factor {factor}", "Change of others"
            ),
            Column("selectivity", "Selectivity of a module's units", ends_at_one=True),
            Column(
                "selectivity_module_{module}", "Selectivity of the units of module {module}", ends_at_one=True
            ),
            Column(
                "module_{module}_on_{other}",
                "Change of the outputs of module {other} by the units of module {module}",
            ),
        )

    def lacking(self, network: Network, member: Member) -> str | None:
        """Return why there is nothing to clamp."""
        none = None if network.sites else "the network has no hidden units"
        return super().lacking(network, member) or none or labels_lacking(self.labels, network, member.task)

    def seconds(self, network: Network, member: Member) -> float:
        """Return about how long passes with each module and factor take."""
        values = network.step_units * member.probes.num_samples
        return 2 * _SECONDS_PER_VALUE * values * len(self.factors) * member.task.modules

    def take(self, trained: Trained) -> dict[str, Float64[Tensor, " member"]]:
        """Return the changes of own and other outputs, averaged over modules, and selectivity (own - others) / sum.

        Selectivity is taken of changes summed over factors: 1 if outputs of the module alone change, 0 if all change
        alike. `module_I_on_J` is the change of the outputs of module J by the units of module I, counted from 1,
        averaged over factors. A member has no value where no unit is labelled with a module that has outputs.
        """
        probe = trained.probe
        labels = find_labels(self.labels)(probe)
        modules = 1 + max(int(each.max()) for each in labels.values())
        outputs = labels[OUTPUT]
        found: dict[str, Tensor] = {}
        total, matrix = 0.0, 0.0
        for factor in self.factors:
            changes = [self._changes(probe, labels, module, factor) for module in range(modules)]
            own_and_others = torch.stack(
                [
                    torch.stack([_mean_over(each, of) for of in (own, ~own & (outputs != SHARED))])
                    for module, each in enumerate(changes)
                    for own in (outputs == module,)
                ],
                dim=2,
            )
            found[f"own@{factor:g}"], found[f"others@{factor:g}"] = own_and_others.nanmean(dim=2)
            total = total + own_and_others
            matrix = matrix + torch.stack(
                [
                    torch.stack([_mean_over(each, outputs == other) for other in range(modules)])
                    for each in changes
                ]
            )
        assert isinstance(total, Tensor)
        assert isinstance(matrix, Tensor)
        own, others = total
        selectivity = (own - others) / (own + others)
        found["selectivity"] = selectivity.nanmean(dim=1)
        found |= {f"selectivity_module_{module + 1}": selectivity[:, module] for module in range(modules)}
        return found | {
            f"module_{module + 1}_on_{other + 1}": matrix[module, other] / len(self.factors)
            for module in range(modules)
            for other in range(modules)
        }

    def _changes(
        self, probe: Probe, labels: Labels, module: int, factor: float
    ) -> Float64[Tensor, "member output"]:
        """Return the change of each output by the units of a module; NaN where it has none."""
        sites = probe.network.network.sites
        chosen = {site.name for site in (sites if self.sites == "all" else sites[-1:])}

        def disturb(place: str, values: Tensor) -> Tensor:
            if place not in chosen:
                return values
            disturbed = values * factor
            if self.operation == "clamp":
                mean = probe.clean.values[place].mean(dim=2, keepdim=True)
                disturbed = (mean * factor).expand_as(values)
            return torch.where((labels[place] == module)[:, :, None], disturbed, values)

        outputs = probe.network.forward(probe.samples.inputs, disturb).double()
        clean = probe.clean.outputs.double()
        change = (outputs - clean).square().mean(dim=1).sqrt()
        # An output that is constant and stays so has not changed.
        change = torch.where(change > 0, change / clean.std(dim=1, correction=0), 0.0)
        has_units = torch.stack([(labels[name] == module).any(dim=1) for name in chosen]).any(dim=0)
        return torch.where(has_units[:, None], change, torch.nan)


def _mean_over(
    values: Float64[Tensor, "member output"], chosen: Bool[Tensor, "member output"]
) -> Float64[Tensor, " member"]:
    """Return means over chosen outputs; NaN where none is."""
    return torch.where(chosen, values, 0.0).sum(dim=1) / chosen.sum(dim=1)
